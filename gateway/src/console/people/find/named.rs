//! Whom the other services name: the members of a group, and who waits for an approver.

use std::collections::BTreeSet;

use muster_proto::approver::v1::{ApproverState, ListUsersWithPendingApproversRequest};
use muster_proto::filter::v1::comparison::Operand;
use muster_proto::filter::v1::filter::Kind;
use muster_proto::filter::v1::{Comparison, Filter, Operator};
use muster_proto::group::v1::{ListGroupsRequest, ListMembersRequest};

use super::super::super::frame::Problem;
use crate::Gateway;

/// How many users a service is asked about at once.
const BATCH: i32 = 1_000;

/// Users whom another service names, by id.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Named {
    pub ids: Vec<String>,
    /// After whom to go on; empty where there are no more.
    pub next: String,
}

impl Named {
    /// Those whom both name, as far as both have come.
    fn both(self, other: Self) -> Self {
        let ends = [self.next, other.next].into_iter().filter(|next| !next.is_empty());
        let next = ends.min().unwrap_or_default();
        let others: BTreeSet<String> = other.ids.into_iter().collect();
        let reached = |id: &String| next.is_empty() || *id <= next;
        let both = self.ids.into_iter().filter(|id| others.contains(id) && reached(id));
        Self { ids: both.collect(), next }
    }
}

/// The id of the group of that name, without regard to case; empty where there is none.
pub(super) async fn group_named(
    gateway: &Gateway,
    organisation: &str,
    name: &str,
) -> Result<String, Problem> {
    let name = Comparison {
        attribute: "display_name".to_owned(),
        operator: Operator::Equal.into(),
        operand: Some(Operand::Text(name.to_owned())),
    };
    let request = ListGroupsRequest {
        organisation_id: organisation.to_owned(),
        filter: Some(Filter { kind: Some(Kind::Comparison(name)) }),
        page_size: 1,
        ..ListGroupsRequest::default()
    };
    let groups = gateway.parts.groups.clone().list_groups(request).await?.into_inner().groups;
    Ok(groups.into_iter().next().map(|group| group.id).unwrap_or_default())
}

/// Those in a group.
pub(super) async fn members(
    gateway: &Gateway,
    organisation: &str,
    group_id: &str,
    after: String,
    page_size: i32,
) -> Result<Named, Problem> {
    let request = ListMembersRequest {
        organisation_id: organisation.to_owned(),
        group_id: group_id.to_owned(),
        page_size,
        page_token: after,
    };
    let answer = gateway.parts.groups.clone().list_members(request).await?.into_inner();
    Ok(Named { ids: answer.user_ids, next: answer.next_page_token })
}

/// Those who wait for an approver.
pub(super) async fn waiting(
    gateway: &Gateway,
    organisation: &str,
    after: String,
    page_size: i32,
) -> Result<Named, Problem> {
    let request = ListUsersWithPendingApproversRequest {
        organisation_id: organisation.to_owned(),
        page_size,
        page_token: after,
    };
    let mut approvers = gateway.parts.approvers.clone();
    let answer = approvers.list_users_with_pending_approvers(request).await?.into_inner();
    Ok(Named { ids: answer.user_ids, next: answer.next_page_token })
}

/// Those in a group who wait for an approver: whoever are the fewer are asked about.
pub(super) async fn waiting_members(
    gateway: &Gateway,
    organisation: &str,
    group_id: &str,
    after: String,
) -> Result<Named, Problem> {
    let (members, waiting) = tokio::try_join!(
        members(gateway, organisation, group_id, after.clone(), BATCH),
        waiting(gateway, organisation, after, BATCH)
    )?;
    match (members.next.as_str(), waiting.next.as_str()) {
        ("", "") => Ok(members.both(waiting)),
        (_, "") => {
            let ids = in_group(gateway, organisation, group_id, waiting.ids).await?;
            Ok(Named { ids, next: String::new() })
        }
        ("", _) => {
            let those = those_waiting(gateway, organisation, members.ids.clone()).await?;
            let ids = members.ids.into_iter().filter(|id| those.contains(id)).collect();
            Ok(Named { ids, next: String::new() })
        }
        _ => Ok(members.both(waiting)),
    }
}

/// Those of these users who are in the group and wait for an approver, as far as that is asked.
pub(super) async fn still_named(
    gateway: &Gateway,
    organisation: &str,
    mut user_ids: Vec<String>,
    group_id: Option<&str>,
    is_pending: bool,
) -> Result<BTreeSet<String>, Problem> {
    if let Some(group_id) = group_id {
        user_ids = in_group(gateway, organisation, group_id, user_ids).await?;
    }
    if is_pending {
        return those_waiting(gateway, organisation, user_ids).await;
    }
    Ok(user_ids.into_iter().collect())
}

/// Those of these users who are in a group.
async fn in_group(
    gateway: &Gateway,
    organisation: &str,
    group_id: &str,
    user_ids: Vec<String>,
) -> Result<Vec<String>, Problem> {
    let groups = gateway.parts.memberships_of.get_all(organisation.to_owned(), user_ids).await?;
    let those = groups
        .into_iter()
        .filter(|(_, groups)| groups.iter().any(|membership| membership.group_id == group_id));
    Ok(those.map(|(user_id, _)| user_id).collect())
}

/// Those of these users who wait for an approver.
async fn those_waiting(
    gateway: &Gateway,
    organisation: &str,
    user_ids: Vec<String>,
) -> Result<BTreeSet<String>, Problem> {
    let approvers = gateway.parts.approvers_of.get_all(organisation.to_owned(), user_ids).await?;
    let waits = approvers.into_iter().filter(|(_, approvers)| {
        approvers.iter().any(|approver| approver.state() == ApproverState::Pending)
    });
    Ok(waits.map(|(user_id, _)| user_id).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whom_both_name_is_known_as_far_as_both_have_come() {
        let named = |ids: &[&str], next: &str| Named {
            ids: ids.iter().map(|id| (*id).to_owned()).collect(),
            next: next.to_owned(),
        };
        let both = named(&["a", "b", "d", "f"], "f").both(named(&["b", "c", "d"], "d"));
        assert_eq!(both, named(&["b", "d"], "d"));
        assert_eq!(named(&["b"], "").both(named(&["a", "b"], "b")), named(&["b"], "b"));
        assert_eq!(named(&["b"], "").both(named(&["a"], "")), named(&[], ""));
    }
}
