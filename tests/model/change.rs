//! Users and groups as the change feed tells of them.

use muster_proto::approver::v1 as approver;
use muster_proto::feed::v1::ChangeKind;
use muster_proto::identity::v1 as identity;

use super::edit::index_of;
use super::{Doc, Email, Model, State, User};

impl Model {
    /// Takes a change of identity's feed, which must follow from the state before it.
    pub(crate) fn follow(&mut self, change: &identity::UserChange) -> Result<(), String> {
        let id = &change.user_id;
        let before = self.user(id).map(|user| (user.revision, user.doc.clone()));
        let told = change.before.as_ref().map(|user| (user.revision, Doc::of_message(user)));
        if before != told {
            return Err(format!("the user before it was {before:?}, not {told:?}"));
        }
        let revision = before.as_ref().map_or(0, |(revision, _)| *revision) + 1;
        if change.revision != revision {
            return Err(format!("the revision is {}, not {revision}", change.revision));
        }
        match (change.kind(), &change.after) {
            (ChangeKind::Created, Some(after)) if before.is_none() => {
                let doc = Doc::of_message(after);
                let user = User { id: id.clone(), revision, doc, declared: Vec::new() };
                self.users.push(user);
                self.relink(id);
            }
            (ChangeKind::Updated, Some(after)) if before.is_some() => {
                let at = self.users.iter().position(|user| user.id == *id).unwrap_or_default();
                self.users[at].doc = Doc::of_message(after);
                self.users[at].revision = revision;
                self.relink(id);
            }
            (ChangeKind::Deleted, None) if before.is_some() => self.remove_user(id),
            (kind, _) => return Err(format!("{kind:?} is not what can happen to {before:?}")),
        }
        match self.doubles() {
            Some(double) => Err(format!("{double:?} belongs to two users after it")),
            None => Ok(()),
        }
    }

    /// A `userName` or primary address that two users have.
    fn doubles(&self) -> Option<String> {
        let mut seen: Vec<(bool, String)> = Vec::new();
        for user in &self.users {
            let name = user.doc.user_name.as_deref().map(|name| (false, super::key::key(name)));
            let email = user.doc.primary_email().map(|email| (true, super::key::key(email)));
            for key in name.into_iter().chain(email) {
                if seen.contains(&key) {
                    return Some(key.1);
                }
                seen.push(key);
            }
        }
        None
    }
}

impl Doc {
    /// What a change of identity's feed says of a user.
    pub(crate) fn of_message(user: &identity::User) -> Self {
        let mut doc = Self {
            user_name: user.user_name.clone(),
            active: user.active,
            country: user.country_code.clone(),
            approvers: user.declared_approvers.clone(),
            ..Self::default()
        };
        let name = user.name.clone().unwrap_or_default();
        let enterprise = user.enterprise.clone().unwrap_or_default();
        for (attribute, value) in [
            ("externalId", &user.external_id),
            ("displayName", &user.display_name),
            ("title", &user.title),
            ("locale", &user.locale),
            ("givenName", &name.given_name),
            ("familyName", &name.family_name),
            ("department", &enterprise.department),
            ("customField1", &user.custom_field_1),
        ] {
            doc.texts[index_of(attribute)].clone_from(value);
        }
        let email = |email: &identity::MultiValue| Email {
            value: email.value.clone(),
            kind: email.r#type.clone(),
            primary: email.primary,
        };
        doc.emails = user.emails.iter().map(email).collect();
        doc
    }
}

/// Whether identity's users are the model's.
pub(crate) fn same_users(model: &Model, users: &[identity::User]) -> Result<(), String> {
    let mut wanted: Vec<_> =
        model.users.iter().map(|user| (user.id.clone(), user.revision, user.doc.clone())).collect();
    wanted.sort_by(|a, b| a.0.cmp(&b.0));
    let mut there: Vec<_> =
        users.iter().map(|u| (u.id.clone(), u.revision, Doc::of_message(u))).collect();
    there.sort_by(|a, b| a.0.cmp(&b.0));
    match wanted.iter().zip(&there).find(|(wanted, there)| wanted != there) {
        Some((wanted, there)) => Err(format!("{there:?} is there, not {wanted:?}")),
        None if wanted.len() == there.len() => Ok(()),
        None => Err(format!("there are {} users, not {}", there.len(), wanted.len())),
    }
}

/// What has come of every declared approver, a line each.
pub(crate) fn approver_lines(model: &Model) -> Vec<String> {
    let mut users: Vec<_> = model.users.iter().collect();
    users.sort_by(|a, b| a.id.cmp(&b.id));
    let mut lines = Vec::new();
    for user in users {
        for declared in &user.declared {
            let (state, approver) = model.state(user, declared);
            let id = approver.map(|approver| approver.id.as_str()).unwrap_or_default();
            let email = approver.and_then(|a| a.doc.primary_email()).unwrap_or_default();
            lines.push(format!("{} {:?} {state:?} {id} {email:?}", user.id, declared.email));
        }
    }
    lines
}

/// The same as the approver service tells it.
pub(crate) fn told_lines(users: &[approver::UserApprovers]) -> Vec<String> {
    let mut lines = Vec::new();
    for user in users {
        for told in &user.approvers {
            let state = match told.state() {
                approver::ApproverState::InForce => State::InForce,
                approver::ApproverState::Suspended => State::Suspended,
                approver::ApproverState::OwnAddress => State::Own,
                _ => State::Pending,
            };
            let (declared, id, email) = (&told.declared_email, &told.approver_id, &told.email);
            lines.push(format!("{} {declared:?} {state:?} {id} {email:?}", user.user_id));
        }
    }
    lines
}
