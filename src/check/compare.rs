//! What must hold between the services (I3 of the design), as pure comparison.

use std::collections::{BTreeMap, BTreeSet};

use muster_proto::approver::v1::{Approver, ApproverState, UserApprovers};
use muster_proto::group::v1::Group;
use muster_proto::identity::v1::User;
use muster_scim::caseless;

use super::Listed;

/// What the services say of one organisation.
pub(super) struct Known {
    pub users: Listed<User>,
    pub groups: Listed<Group>,
    pub approvers: Vec<UserApprovers>,
}

/// Everything that does not fit, a sentence each.
pub(super) fn differences(known: &Known) -> BTreeSet<String> {
    let users: BTreeMap<&str, &User> =
        known.users.list.iter().map(|user| (user.id.as_str(), user)).collect();
    let mut found = BTreeSet::new();
    totals("users", known.users.list.len(), known.users.total, &mut found);
    totals("groups", known.groups.list.len(), known.groups.total, &mut found);
    for group in &known.groups.list {
        if i64::try_from(group.member_ids.len()) != Ok(group.member_count) {
            found.insert(format!(
                "the group {} has {} members, but says {}",
                group.id,
                group.member_ids.len(),
                group.member_count
            ));
        }
        for member in group.member_ids.iter().filter(|id| !users.contains_key(id.as_str())) {
            found.insert(format!("the group {} has the member {member}, who is no user", group.id));
        }
    }
    let owners: BTreeMap<String, &User> = known
        .users
        .list
        .iter()
        .filter(|user| !user.primary_email.is_empty())
        .map(|user| (caseless::key(&user.primary_email), user))
        .collect();
    let told: BTreeMap<&str, &[Approver]> =
        known.approvers.iter().map(|of| (of.user_id.as_str(), of.approvers.as_slice())).collect();
    for user in &known.users.list {
        let told = told.get(user.id.as_str()).copied().unwrap_or_default();
        let declared = user.declared_approvers.iter();
        if !declared.eq(told.iter().map(|approver| &approver.declared_email)) {
            found.insert(format!(
                "the user {} has declared approvers that the approver service does not know so",
                user.id
            ));
            continue;
        }
        for approver in told {
            let owner = owners.get(&caseless::key(&approver.declared_email)).copied();
            if let Some(what) = wrong(user, approver, owner, &users) {
                // Not the address itself: it is personal.
                let place = told.iter().position(|other| std::ptr::eq(other, approver));
                let place = place.unwrap_or_default() + 1;
                found.insert(format!("approver {place} of the user {} {what}", user.id));
            }
        }
    }
    found
}

fn totals(what: &str, counted: usize, total: i32, found: &mut BTreeSet<String>) {
    if i32::try_from(counted) != Ok(total) {
        found.insert(format!("{counted} {what} can be listed, but lists say {total}"));
    }
}

/// What is wrong with a declared approver, whose address is `owner`'s now.
fn wrong(
    user: &User,
    approver: &Approver,
    owner: Option<&User>,
    users: &BTreeMap<&str, &User>,
) -> Option<String> {
    let state = approver.state();
    if state == ApproverState::OwnAddress {
        let own = owner.is_some_and(|owner| owner.id == user.id);
        return (!own).then(|| "is said to be their own address, and is not".to_owned());
    }
    if state == ApproverState::Pending {
        // The address of one who is not active may be pending or suspended.
        return owner
            .filter(|owner| owner.active() || owner.id == user.id)
            .map(|owner| format!("is pending, but is the address of the user {}", owner.id));
    }
    let Some(person) = users.get(approver.approver_id.as_str()) else {
        return Some(format!("is the user {:?}, who does not exist", approver.approver_id));
    };
    if person.id == user.id {
        return Some("is the user themselves".to_owned());
    }
    if (state == ApproverState::InForce) != person.active() {
        return Some(format!("is {}, but active is {}", state.as_str_name(), person.active()));
    }
    if approver.email != person.primary_email {
        return Some(format!("is told with another address than that of the user {}", person.id));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(id: &str, active: bool, declared: &[&str]) -> User {
        User {
            id: id.into(),
            active: Some(active),
            primary_email: format!("{id}@a.example"),
            declared_approvers: declared.iter().map(|email| (*email).to_owned()).collect(),
            ..User::default()
        }
    }

    fn approver(declared: &str, state: ApproverState, id: &str) -> Approver {
        Approver {
            declared_email: declared.into(),
            state: state.into(),
            approver_id: id.into(),
            email: if id.is_empty() { String::new() } else { format!("{id}@a.example") },
        }
    }

    /// Ann declares one approver; Bo is active, Cy is not.
    fn known(declared: &str, approver: Approver) -> Known {
        let list =
            vec![user("ann", true, &[declared]), user("bo", true, &[]), user("cy", false, &[])];
        Known {
            users: Listed { list, total: 3 },
            groups: Listed::default(),
            approvers: vec![UserApprovers { user_id: "ann".into(), approvers: vec![approver] }],
        }
    }

    #[test]
    fn states_that_the_users_make_are_right() {
        use ApproverState::{InForce, OwnAddress, Pending, Suspended};
        for (declared, state, id) in [
            ("Bo@a.example", InForce, "bo"),
            ("cy@a.example", Suspended, "cy"),
            ("nobody@a.example", Pending, ""),
            ("ann@a.example", OwnAddress, ""),
            // The link follows the person.
            ("old@a.example", InForce, "bo"),
        ] {
            let known = known(declared, approver(declared, state, id));
            assert_eq!(differences(&known), BTreeSet::new(), "{declared}");
        }
    }

    #[test]
    fn states_that_the_users_do_not_make_are_found() {
        use ApproverState::{InForce, OwnAddress, Pending, Suspended};
        for (declared, state, id) in [
            ("bo@a.example", Pending, ""),
            ("bo@a.example", Suspended, "bo"),
            ("cy@a.example", InForce, "cy"),
            ("bo@a.example", OwnAddress, ""),
            ("bo@a.example", InForce, "gone"),
            ("ann@a.example", InForce, "ann"),
        ] {
            let known = known(declared, approver(declared, state, id));
            assert_eq!(differences(&known).len(), 1, "{declared} {state:?}");
        }
        let other = known("bo@a.example", approver("cy@a.example", Suspended, "cy"));
        assert_eq!(differences(&other).len(), 1);
    }

    #[test]
    fn members_who_do_not_exist_and_totals_that_do_not_count_are_found() {
        let mut known =
            known("bo@a.example", approver("bo@a.example", ApproverState::InForce, "bo"));
        known.users.total = 4;
        let group = Group { member_ids: vec!["ann".into(), "gone".into()], ..Group::default() };
        known.groups = Listed { list: vec![Group { member_count: 2, ..group }], total: 1 };
        assert_eq!(differences(&known).len(), 2);
        known.groups.list[0].member_count = 3;
        assert_eq!(differences(&known).len(), 3);
    }
}
