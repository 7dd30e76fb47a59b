//! What group and approver know of identity's users, and whether it is so.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use muster_proto::approver::v1::{self as approver, ApproverState, BatchGetApproversRequest};
use muster_proto::group::v1::{self as group, CreateGroupRequest, Group, ListMembersRequest};
use muster_proto::identity::v1::User;

use super::system::System;

/// Which users of an organisation the group and the approver service know otherwise than identity.
pub(crate) async fn differing(system: &System, organisation: &str) -> (Vec<String>, Vec<String>) {
    let organisation_id = organisation.to_owned();
    let request =
        group::ReconcileRequest { organisation_id: organisation_id.clone(), dry_run: true };
    let groups = system.groups().reconcile(request).await.unwrap().into_inner();
    let request = approver::ReconcileRequest { organisation_id, dry_run: true };
    let approvers = system.approvers().reconcile(request).await.unwrap().into_inner();
    for (count, ids) in [
        (groups.difference_count, &groups.user_ids),
        (approvers.difference_count, &approvers.user_ids),
    ] {
        assert_eq!(usize::try_from(count).unwrap(), ids.len());
    }
    (groups.user_ids, approvers.user_ids)
}

/// Waits until both services know of the users what identity says.
pub(crate) async fn agreement(system: &System, organisation: &str) {
    let deadline = Instant::now() + Duration::from_mins(1);
    loop {
        let differing = differing(system, organisation).await;
        if differing == (Vec::new(), Vec::new()) {
            return;
        }
        assert!(Instant::now() < deadline, "still {differing:?}\n{}", system.logs());
    }
}

pub(crate) async fn create_group(system: &System, organisation: &str, members: &[User]) -> String {
    let group = Group {
        organisation_id: organisation.into(),
        display_name: "Everybody".into(),
        member_ids: members.iter().map(|user| user.id.clone()).collect(),
        ..Group::default()
    };
    let request = CreateGroupRequest { group: Some(group), ..CreateGroupRequest::default() };
    let created = system.groups().create_group(request).await.unwrap().into_inner();
    assert!(created.unknown_member_ids.is_empty(), "{created:?}");
    created.group.unwrap().id
}

pub(crate) async fn members(
    system: &System,
    organisation: &str,
    group_id: &str,
) -> BTreeSet<String> {
    let request = ListMembersRequest {
        organisation_id: organisation.into(),
        group_id: group_id.into(),
        page_size: 10_000,
        ..ListMembersRequest::default()
    };
    let listed = system.groups().list_members(request).await.unwrap().into_inner();
    listed.user_ids.into_iter().collect()
}

/// What the approver service says of each user's declared approvers.
pub(crate) async fn approvers(
    system: &System,
    organisation: &str,
    users: &[User],
) -> BTreeMap<String, Vec<(String, ApproverState)>> {
    let request = BatchGetApproversRequest {
        organisation_id: organisation.into(),
        user_ids: users.iter().map(|user| user.id.clone()).collect(),
    };
    let answer = system.approvers().batch_get_approvers(request).await.unwrap().into_inner();
    let states = answer.users.into_iter().map(|user| {
        let states = user.approvers.iter().map(|a| (a.declared_email.clone(), a.state()));
        (user.user_id.clone(), states.collect())
    });
    states.collect()
}

/// What it ought to say, where nobody's address has ever become another's.
pub(crate) fn expected_approvers(users: &[User]) -> BTreeMap<String, Vec<(String, ApproverState)>> {
    let owners: BTreeMap<&str, &User> =
        users.iter().map(|user| (user.primary_email.as_str(), user)).collect();
    let state = |user: &User, email: &str| match owners.get(email) {
        Some(owner) if owner.id == user.id => ApproverState::OwnAddress,
        Some(owner) if owner.active() => ApproverState::InForce,
        Some(_) => ApproverState::Suspended,
        None => ApproverState::Pending,
    };
    let declaring = users.iter().filter(|user| !user.declared_approvers.is_empty());
    let states = declaring.map(|user| {
        let declared = user.declared_approvers.iter();
        (user.id.clone(), declared.map(|email| (email.clone(), state(user, email))).collect())
    });
    states.collect()
}
