//! Rules of groups.

use std::collections::BTreeSet;

use muster_runtime::id::{InvalidId, UserId};

use crate::Error;

/// The longest name, in bytes of its key: what an index takes.
const LONGEST_KEY: usize = 512;

/// A group's name and the key that it is unique by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Name {
    pub text: String,
    pub key: String,
}

impl Name {
    pub(crate) fn new(text: String) -> Result<Self, Error> {
        let key = muster_scim::caseless::key(&text);
        let description = if key.is_empty() {
            "is empty; expected a group's name"
        } else if key.len() > LONGEST_KEY {
            "is longer than 512 bytes"
        } else {
            return Ok(Self { text, key });
        };
        Err(Error::Invalid { field: "display_name", description: description.into() })
    }
}

/// Checks an external id: what an index takes.
pub(crate) fn external_id(id: String) -> Result<String, Error> {
    if id.len() > LONGEST_KEY {
        let description = "is longer than 512 bytes".into();
        return Err(Error::Invalid { field: "external_id", description });
    }
    Ok(id)
}

/// Ids of members as they were sent: those that can be users', and those that cannot be anybody's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct MemberIds {
    pub users: BTreeSet<UserId>,
    pub unknown: BTreeSet<String>,
}

impl MemberIds {
    pub(crate) fn new(ids: impl IntoIterator<Item = String>) -> Self {
        let mut members = Self::default();
        for id in ids {
            match id.parse() {
                Ok(user) => {
                    members.users.insert(user);
                }
                Err(InvalidId) => {
                    members.unknown.insert(id);
                }
            }
        }
        members
    }

    /// The ids, for a statement.
    pub(crate) fn to_vec(&self) -> Vec<UserId> {
        self.users.iter().copied().collect()
    }
}

/// What becomes of a group's external id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ExternalId {
    /// It stays.
    Keep,
    /// It becomes this, or none.
    Become(Option<String>),
}

/// What becomes of a group's members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Members {
    /// They stay.
    Keep,
    /// Some come, some go.
    Delta { add: MemberIds, remove: MemberIds },
    /// They become these, and those of the retained who are there already.
    Set { all: MemberIds, retained: MemberIds },
}

/// Whether a user who was seen once is still there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Presence {
    /// They exist.
    Exists,
    /// They were deleted.
    Deleted,
}

/// The refusal of members who are no users of the organisation.
pub(crate) fn unknown_members(unknown: &BTreeSet<String>) -> Error {
    let shown: Vec<&str> = unknown.iter().take(20).map(String::as_str).collect();
    let more = unknown.len() - shown.len();
    let and_more = if more == 0 { String::new() } else { format!(" and {more} more") };
    Error::Invalid {
        field: "members",
        description: format!(
            "has {} who are no users of this organisation: {}{and_more}; nothing was applied",
            unknown.len(),
            shown.join(", "),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_told_apart_without_regard_to_case() {
        let key = |text: &str| Name::new(text.into()).unwrap().key;
        assert_eq!(key("Sales"), key(" SALES "));
        assert_ne!(key("Sales"), key("Sale"));
        assert!(Name::new(" ".into()).is_err());
        assert!(Name::new("x".repeat(513)).is_err());
    }

    #[test]
    fn what_is_no_id_is_an_unknown_member() {
        let user = UserId::new();
        let ids = MemberIds::new([user.to_string(), "ann".into(), user.to_string()]);
        assert_eq!(ids.users, [user].into());
        assert_eq!(ids.unknown, ["ann".to_owned()].into());
    }

    #[test]
    fn a_refusal_names_twenty_and_counts_the_rest() {
        let unknown: BTreeSet<String> = (0..25).map(|n| format!("u{n:02}")).collect();
        let message = unknown_members(&unknown).to_string();
        assert!(message.contains("25 who") && message.contains("u19 and 5 more"), "{message}");
    }
}
