//! Who approves for whom: the rules of declared approvers.

use super::key::{key, same};
use super::{Model, User};

/// A declared approver, and whom it stands for.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Declared {
    pub(crate) email: String,
    /// The user whom the address belonged to when it came into force.
    pub(crate) link: Option<String>,
}

/// What has come of a declared approver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    InForce,
    Pending,
    Suspended,
    Own,
}

impl Model {
    /// After a user was written: their declarations are what they declare now, and those of others
    /// that waited for them come into force.
    pub(super) fn relink(&mut self, id: &str) {
        let Some(at) = self.users.iter().position(|user| user.id == id) else { return };
        let before = std::mem::take(&mut self.users[at].declared);
        let declared = self.users[at].doc.approvers.clone().into_iter().map(|email| {
            match before.iter().find(|old| same(&old.email, &email)) {
                Some(old) => Declared { email, link: old.link.clone() },
                None => Declared { link: self.active_owner(&email, id), email },
            }
        });
        self.users[at].declared = declared.collect();

        let doc = &self.users[at].doc;
        let Some(address) = doc.primary_email().filter(|_| doc.is_active()).map(key) else {
            return;
        };
        for other in self.users.iter_mut().filter(|user| user.id != id) {
            for declared in other.declared.iter_mut().filter(|d| d.link.is_none()) {
                if key(&declared.email) == address {
                    declared.link = Some(id.to_owned());
                }
            }
        }
    }

    /// After a user was deleted: who was linked to them waits again, or has whoever owns the
    /// address now.
    pub(super) fn unlink(&mut self, id: &str) {
        for at in 0..self.users.len() {
            for n in 0..self.users[at].declared.len() {
                let declared = &self.users[at].declared[n];
                if declared.link.as_deref() == Some(id) {
                    let owner = self.active_owner(&declared.email, &self.users[at].id);
                    self.users[at].declared[n].link = owner;
                }
            }
        }
    }

    /// The active user other than `not` to whom an address belongs.
    fn active_owner(&self, email: &str, not: &str) -> Option<String> {
        let owner = self.owner(email).filter(|user| user.doc.is_active() && user.id != not);
        owner.map(|user| user.id.clone())
    }

    fn owner(&self, email: &str) -> Option<&User> {
        let owns = |user: &&User| user.doc.primary_email().is_some_and(|own| same(own, email));
        self.users.iter().find(owns)
    }

    /// What has come of a declared approver of `user`, and the user it stands for.
    pub(crate) fn state(&self, user: &User, declared: &Declared) -> (State, Option<&User>) {
        if let Some(linked) = declared.link.as_deref().and_then(|id| self.user(id)) {
            let state = if linked.doc.is_active() { State::InForce } else { State::Suspended };
            return (state, Some(linked));
        }
        match self.owner(&declared.email) {
            Some(owner) if owner.id == user.id => (State::Own, Some(owner)),
            Some(owner) => (State::Suspended, Some(owner)),
            None => (State::Pending, None),
        }
    }

    /// The approvers in force as SCIM answers them: by their present addresses, each once.
    pub(super) fn approvers_in_force(&self, user: &User) -> Vec<String> {
        let mut emails: Vec<String> = Vec::new();
        for declared in &user.declared {
            let (state, approver) = self.state(user, declared);
            let email = approver.and_then(|approver| approver.doc.primary_email());
            if let (State::InForce, Some(email)) = (state, email)
                && !emails.iter().any(|known| known == email)
            {
                emails.push(email.to_owned());
            }
        }
        emails
    }

    /// The declared approvers as a client who patches them names them: those that stand for
    /// somebody by that person's present address.
    pub(crate) fn shown_approvers(&self, user: &User) -> Vec<(String, String)> {
        let shown = |declared: &Declared| {
            let (_, approver) = self.state(user, declared);
            let email = approver.and_then(|approver| approver.doc.primary_email());
            email.map_or_else(|| declared.email.clone(), str::to_owned)
        };
        user.declared.iter().map(|d| (shown(d), d.email.clone())).collect()
    }
}
