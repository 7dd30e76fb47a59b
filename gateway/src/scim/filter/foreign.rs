//! Leaves about a user that identity does not own: groups and approvers.

use muster_proto::approver::v1::ListUsersByApproverRequest;
use muster_proto::filter::v1::Filter as Message;
use muster_proto::filter::v1::filter::Kind;
use muster_proto::group::v1::ListUsersInGroupsRequest;
use muster_scim::filter::Filter;
use muster_scim::schema::GROUP_TYPE;
use muster_scim::{Error, ScimType};
use serde_json::json;

use super::{always, by_address, cannot, combine, comparison, constant, message, path_of};
use crate::Gateway;
use crate::failure::Failure;

/// The most ids that a leaf of another service may stand for.
const MOST_IDS: i32 = 10_000;

/// Those of a filter's leaves that another service answers.
pub(super) fn leaves(filter: &Filter) -> Vec<&Filter> {
    match filter {
        Filter::And(filters) | Filter::Or(filters) => filters.iter().flat_map(leaves).collect(),
        Filter::Not(filter) => leaves(filter),
        leaf => {
            let name = path_of(leaf).map_or("", |path| path.attribute.name);
            if matches!(name, "groups" | "approvers") { vec![leaf] } else { Vec::new() }
        }
    }
}

/// The ids of the users for whom a leaf holds.
pub(super) async fn resolve(
    gateway: &Gateway,
    organisation: &str,
    leaf: &Filter,
) -> Result<Vec<String>, Failure> {
    let organisation_id = organisation.to_owned();
    let about_groups = path_of(leaf).is_some_and(|path| path.attribute.name == "groups");
    let (ids, next) = if about_groups {
        let groups = format!("{}{}/", gateway.scim_url, GROUP_TYPE.endpoint);
        let request = ListUsersInGroupsRequest {
            organisation_id,
            filter: Some(group(leaf, &groups)?),
            page_size: MOST_IDS,
            ..ListUsersInGroupsRequest::default()
        };
        let answer = gateway.parts.groups.clone().list_users_in_groups(request).await?;
        let answer = answer.into_inner();
        (answer.user_ids, answer.next_page_token)
    } else {
        let request = ListUsersByApproverRequest {
            organisation_id,
            filter: Some(approver(leaf)?),
            page_size: MOST_IDS,
            ..ListUsersByApproverRequest::default()
        };
        let answer = gateway.parts.approvers.clone().list_users_by_approver(request).await?;
        let answer = answer.into_inner();
        (answer.user_ids, answer.next_page_token)
    };
    if next.is_empty() { Ok(ids) } else { Err(too_many(leaf).into()) }
}

/// A condition on a user's `groups`, as one on groups.
fn group(leaf: &Filter, groups: &str) -> Result<Message, Error> {
    let path = path_of(leaf).ok_or_else(|| cannot(leaf))?;
    match (path.target().name, leaf) {
        (_, Filter::Values { filter, .. }) => combine(filter, &|leaf| group(leaf, groups)),
        (_, Filter::Present(_)) => Ok(always()),
        ("$ref", _) => by_address(leaf, "id", groups),
        ("type", _) => {
            Ok(constant(leaf, &json!({"type": "direct", "groups": [{"type": "direct"}]})))
        }
        (part, Filter::Compare { operator, operand, .. }) => {
            let field = if part == "display" { "display_name" } else { "id" };
            Ok(message(Kind::Comparison(comparison(field.to_owned(), *operator, operand))))
        }
        _ => Err(cannot(leaf)),
    }
}

/// A condition on a user's `approvers`, as one on the approvers in force.
fn approver(leaf: &Filter) -> Result<Message, Error> {
    match leaf {
        Filter::Values { filter, .. } => combine(filter, &approver),
        Filter::Present(_) => Ok(message(Kind::Present("email".to_owned()))),
        Filter::Compare { operator, operand, .. } => {
            Ok(message(Kind::Comparison(comparison("email".to_owned(), *operator, operand))))
        }
        _ => Err(cannot(leaf)),
    }
}

fn too_many(leaf: &Filter) -> Error {
    let leaf: String = leaf.to_string().chars().take(100).collect();
    Error::of(
        ScimType::TooMany,
        format!("{leaf} stands for more than {MOST_IDS} users; ask for fewer"),
    )
}
