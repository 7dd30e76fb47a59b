//! Rules of declared approvers.

use std::collections::BTreeSet;

use muster_proto::approver::v1::{Approver, ApproverState};
use muster_proto::feed::v1::ChangeKind;
use muster_proto::identity::v1::{UserChange, UserState};
use muster_runtime::feed::Actor;
use muster_runtime::id::{InvalidId, OrganisationId, Revision, UserId};
use muster_scim::caseless;
use serde::{Deserialize, Serialize};

/// What approvers depend on of a user.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Person {
    pub organisation: OrganisationId,
    pub id: UserId,
    pub revision: Revision,
    pub active: bool,
    pub deleted: bool,
    /// The primary e-mail address; empty where there is none.
    pub email: String,
    /// What it is found by.
    pub email_key: Option<String>,
    pub declared: Vec<Declared>,
    /// Who made the change that tells of it.
    pub actor: Actor,
}

/// An address that was declared, and the key that it is compared by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Declared {
    pub email: String,
    pub key: String,
}

/// What approvers depend on of a user before a change; of nobody where the user was created.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Before {
    /// What the user was found by.
    pub email_key: Option<String>,
    pub declared: Vec<Declared>,
}

/// A change of identity's feed.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Step {
    pub before: Before,
    pub after: Person,
}

impl Before {
    /// What the declared addresses are compared by.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &str> {
        self.declared.iter().map(|declared| declared.key.as_str())
    }

    pub(crate) fn declares(&self, key: &str) -> bool {
        self.keys().any(|own| own == key)
    }

    pub(crate) fn declares_anyone(&self) -> bool {
        !self.declared.is_empty()
    }
}

impl Step {
    /// What a change of identity's feed says of a user.
    pub(crate) fn of_change(change: &UserChange) -> Result<Self, InvalidId> {
        let before = change.before.clone().unwrap_or_default();
        let email_key = caseless::key(&before.primary_email);
        Ok(Self {
            before: Before {
                email_key: (!email_key.is_empty()).then_some(email_key),
                declared: declared(&before.declared_approvers),
            },
            after: Person::of_change(change)?,
        })
    }
}

impl Person {
    /// What the declared addresses are compared by.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &str> {
        self.declared.iter().map(|declared| declared.key.as_str())
    }

    pub(crate) fn declares(&self, key: &str) -> bool {
        self.keys().any(|own| own == key)
    }

    fn of_change(change: &UserChange) -> Result<Self, InvalidId> {
        let metadata = change.metadata.as_ref().ok_or(InvalidId)?;
        let after = change.after.clone().unwrap_or_default();
        let state = UserState {
            organisation_id: metadata.organisation_id.clone(),
            user_id: change.user_id.clone(),
            revision: change.revision,
            deleted: change.kind() == ChangeKind::Deleted,
            active: after.active(),
            primary_email: after.primary_email,
            declared_approvers: after.declared_approvers,
        };
        Self::of_state(&state, Actor::from_proto(metadata.actor.clone())?)
    }

    /// What a caller hands over of a user.
    pub(crate) fn of_state(state: &UserState, actor: Actor) -> Result<Self, InvalidId> {
        let exists = !state.deleted;
        let email_key = caseless::key(&state.primary_email);
        Ok(Self {
            organisation: state.organisation_id.parse()?,
            id: state.user_id.parse()?,
            revision: Revision(state.revision),
            active: state.active && exists,
            deleted: state.deleted,
            email: if exists { state.primary_email.clone() } else { String::new() },
            email_key: (exists && !email_key.is_empty()).then_some(email_key),
            declared: if exists { declared(&state.declared_approvers) } else { Vec::new() },
            actor,
        })
    }
}

/// Declared addresses in order, without duplicates; the first of equals stays.
fn declared(emails: &[String]) -> Vec<Declared> {
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
        let state = UserState {
            organisation_id: OrganisationId::new().to_string(),
            user_id: UserId::new().to_string(),
            revision: 3,
            deleted: true,
            active: true,
            primary_email: "ann@x.example".into(),
            declared_approvers: vec!["bo@x.example".into()],
        };
        let person = Person::of_state(&state, Actor::Caller(String::new())).unwrap();
        assert!(!person.active && person.email_key.is_none() && person.declared.is_empty());
    }
}
