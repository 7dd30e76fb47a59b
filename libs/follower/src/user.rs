//! What identity tells of a user.

use muster_proto::feed::v1::ChangeKind;
use muster_proto::identity::v1::{User, UserChange};
use muster_runtime::feed::Actor;
use muster_runtime::id::{InvalidId, OrganisationId, Revision, UserId};

/// Whether there is a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existence {
    /// There is.
    Exists,
    /// The user was deleted.
    Deleted,
    /// The user was deleted, and what is still kept of them is to be erased.
    Erased,
}

/// A user as followers know them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FollowedUser {
    /// The organisation.
    pub organisation: OrganisationId,
    /// The user.
    pub id: UserId,
    /// The revision that this is.
    pub revision: Revision,
    /// Whether there is such a user; if not, what follows is empty.
    pub existence: Existence,
    /// Whether the user is active.
    pub active: bool,
    /// Whether the user's name and addresses were released: nobody means this user by them any more.
    pub released: bool,
    /// The address to match by; empty where there is none.
    pub primary_email: String,
    /// The addresses of the user's approvers as they were declared, in order.
    pub declared_approvers: Vec<String>,
    /// Who made the change that tells of it.
    pub actor: Actor,
}

impl FollowedUser {
    /// A user who was deleted.
    #[must_use]
    pub fn gone(
        organisation: OrganisationId,
        id: UserId,
        revision: Revision,
        actor: Actor,
    ) -> Self {
        Self {
            organisation,
            id,
            revision,
            existence: Existence::Deleted,
            active: false,
            released: false,
            primary_email: String::new(),
            declared_approvers: Vec::new(),
            actor,
        }
    }

    /// Whether the user was deleted.
    #[must_use]
    pub fn deleted(&self) -> bool {
        self.existence != Existence::Exists
    }

    /// What identity's feed says of a user.
    pub(crate) fn of_change(change: &UserChange) -> Result<Self, InvalidId> {
        let metadata = change.metadata.as_ref().ok_or(InvalidId)?;
        let actor = Actor::from_proto(metadata.actor.clone())?;
        let organisation = metadata.organisation_id.parse()?;
        let (id, revision) = (change.user_id.parse()?, Revision(change.revision));
        match &change.after {
            Some(after) if change.kind() != ChangeKind::Deleted => {
                Self::of_user(organisation, after, actor)
            }
            // Also what said more before it was erased: that user is deleted further on.
            _ => {
                let existence = match change.kind() {
                    ChangeKind::Erased => Existence::Erased,
                    _ => Existence::Deleted,
                };
                Ok(Self { existence, ..Self::gone(organisation, id, revision, actor) })
            }
        }
    }

    /// What identity's list says of a user.
    pub(crate) fn of_user(
        organisation: OrganisationId,
        user: &User,
        actor: Actor,
    ) -> Result<Self, InvalidId> {
        Ok(Self {
            organisation,
            id: user.id.parse()?,
            revision: Revision(user.revision),
            existence: Existence::Exists,
            active: user.active(),
            released: user.released,
            primary_email: user.primary_email.clone(),
            declared_approvers: user.declared_approvers.clone(),
            actor,
        })
    }
}
