//! Rules of declared approvers.

use std::collections::BTreeSet;

use muster_follower::FollowedUser;
use muster_proto::approver::v1::{Approver, ApproverState};
use muster_runtime::id::{Revision, UserId};
use muster_scim::caseless;
use serde::{Deserialize, Serialize};

/// What approvers depend on of a user.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Person {
    pub id: UserId,
    pub revision: Revision,
    pub active: bool,
    pub deleted: bool,
    /// Whether nobody who was linked to the person means them any more.
    pub gone: bool,
    /// The primary e-mail address; empty where there is none.
    pub email: String,
    /// What it is found by.
    pub email_key: Option<String>,
    pub declared: Vec<Declared>,
}

/// An address that was declared, and the key that it is compared by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Declared {
    pub email: String,
    pub key: String,
}

impl From<FollowedUser> for Person {
    fn from(user: FollowedUser) -> Self {
        let key = caseless::key(&user.primary_email);
        Self {
            id: user.id,
            revision: user.revision,
            active: user.active,
            deleted: user.deleted(),
            gone: user.deleted() || user.released,
            email: user.primary_email,
            email_key: (!key.is_empty()).then_some(key),
            declared: distinct(&user.declared_approvers),
        }
    }
}

/// Declared addresses in order, without duplicates; the first of equals stays.
pub(crate) fn distinct(emails: &[String]) -> Vec<Declared> {
    let mut seen = BTreeSet::new();
    let with_keys =
        emails.iter().map(|email| Declared { email: email.clone(), key: caseless::key(email) });
    with_keys.filter(|declared| seen.insert(declared.key.clone())).collect()
}

/// A declared approver with all that their state depends on.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Facts {
    /// For whom.
    pub user: UserId,
    /// The address as it was declared.
    pub email: String,
    /// The person that the declaration has been linked to.
    pub linked: Option<Somebody>,
    /// The person whose address it is now, where it is not linked.
    pub owner: Option<Somebody>,
}

/// A person as approvers see them.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Somebody {
    pub id: UserId,
    pub email: String,
    pub active: bool,
}

impl Facts {
    /// What has come of the declaration.
    pub(crate) fn state(&self) -> ApproverState {
        match (&self.linked, &self.owner) {
            (Some(person), _) if person.active => ApproverState::InForce,
            (Some(_), _) => ApproverState::Suspended,
            (None, Some(owner)) if owner.id == self.user => ApproverState::OwnAddress,
            // Not active, or it would be linked.
            (None, Some(_)) => ApproverState::Suspended,
            (None, None) => ApproverState::Pending,
        }
    }

    /// The declaration as answers hold it.
    pub(crate) fn to_proto(&self) -> Approver {
        let person = self.linked.as_ref().or(self.owner.as_ref());
        Approver {
            declared_email: self.email.clone(),
            state: self.state().into(),
            approver_id: person.map(|person| person.id.to_string()).unwrap_or_default(),
            email: person.map(|person| person.email.clone()).unwrap_or_default(),
        }
    }
}

/// A declared approver as a change keeps it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Snapshot {
    declared_email: String,
    state: String,
    approver_id: String,
    email: String,
}

impl From<&Approver> for Snapshot {
    fn from(approver: &Approver) -> Self {
        Self {
            declared_email: approver.declared_email.clone(),
            state: approver.state().as_str_name().to_owned(),
            approver_id: approver.approver_id.clone(),
            email: approver.email.clone(),
        }
    }
}

impl From<Snapshot> for Approver {
    fn from(snapshot: Snapshot) -> Self {
        let state = ApproverState::from_str_name(&snapshot.state).unwrap_or_default();
        Self {
            declared_email: snapshot.declared_email,
            state: state.into(),
            approver_id: snapshot.approver_id,
            email: snapshot.email,
        }
    }
}

#[cfg(test)]
mod tests {
    use muster_runtime::feed::Actor;
    use muster_runtime::id::OrganisationId;

    use super::*;

    fn somebody(active: bool) -> Somebody {
        Somebody { id: UserId::new(), email: "bo@x.example".into(), active }
    }

    fn facts(linked: Option<Somebody>, owner: Option<Somebody>) -> Facts {
        Facts { user: UserId::new(), email: "Bo@x.example".into(), linked, owner }
    }

    #[test]
    fn an_address_of_an_active_user_is_in_force() {
        let approver = facts(Some(somebody(true)), None).to_proto();
        assert_eq!(approver.state(), ApproverState::InForce);
        assert_eq!(approver.email, "bo@x.example");
        assert_eq!(approver.declared_email, "Bo@x.example");
    }

    #[test]
    fn an_address_that_belongs_to_nobody_is_pending() {
        let approver = facts(None, None).to_proto();
        assert_eq!(approver.state(), ApproverState::Pending);
        assert_eq!(approver.email, "");
    }

    #[test]
    fn a_deactivated_approver_is_suspended() {
        assert_eq!(facts(Some(somebody(false)), None).state(), ApproverState::Suspended);
        assert_eq!(facts(None, Some(somebody(false))).state(), ApproverState::Suspended);
    }

    #[test]
    fn nobody_approves_for_themselves() {
        let mut facts = facts(None, Some(somebody(true)));
        facts.user = facts.owner.as_ref().unwrap().id;
        assert_eq!(facts.state(), ApproverState::OwnAddress);
    }

    #[test]
    fn a_change_keeps_what_answers_hold() {
        let approver = facts(Some(somebody(true)), None).to_proto();
        assert_eq!(Approver::from(Snapshot::from(&approver)), approver);
    }

    #[test]
    fn a_deleted_user_has_no_address_and_declares_nobody() {
        let user = FollowedUser::gone(
            OrganisationId::new(),
            UserId::new(),
            Revision(3),
            Actor::Caller(String::new()),
        );
        let person = Person::from(user);
        assert!(!person.active && person.email_key.is_none() && person.declared.is_empty());
    }
}
