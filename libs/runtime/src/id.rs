//! Ids, made once at the edge: nothing below it takes a bare string or UUID.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::Uuid;

/// Text that is no id. It is deliberately not kept: an id that does not parse is answered like one
/// that does not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a UUID")]
pub struct InvalidId;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[derive(Serialize, Deserialize, sqlx::Type)]
        #[serde(transparent)]
        #[sqlx(transparent)]
        pub struct $name(Uuid);

        impl $name {
            #[allow(clippy::new_without_default, reason = "a default that is random would surprise")]
            /// A new id; ids made later sort later (UUID version 7).
            #[must_use]
            pub fn new() -> Self {
                Self(Uuid::now_v7())
            }

            /// The UUID.
            #[must_use]
            pub fn uuid(self) -> Uuid {
                self.0
            }
        }


        impl From<Uuid> for $name {
            fn from(uuid: Uuid) -> Self {
                Self(uuid)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.hyphenated().fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            /// Accepts the hyphenated form only: one id has one spelling.
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                if text.len() != 36 {
                    return Err(InvalidId);
                }
                Uuid::try_parse(text).map(Self).map_err(|_| InvalidId)
            }
        }
    };
}

id!(
    /// An organisation: the tenant that every row, key, query and trace belongs to.
    OrganisationId
);
id!(
    /// A user.
    UserId
);
id!(
    /// A group.
    GroupId
);
id!(
    /// An API key.
    ApiKeyId
);
id!(
    /// An admin.
    AdminId
);

id!(
    /// An entry of the provisioning log.
    LogEntryId
);

impl LogEntryId {
    /// The first id of those that are made at `time` or later, to the millisecond.
    #[must_use]
    pub fn first_at(time: OffsetDateTime) -> Self {
        let milliseconds = time.unix_timestamp_nanos() / 1_000_000;
        let milliseconds = u128::try_from(milliseconds.clamp(0, 0xffff_ffff_ffff)).unwrap_or(0);
        // Version 7: 48 bits of time, the version, and bits that are all 0 here.
        Self(Uuid::from_u128((milliseconds << 80) | (0x7 << 76) | (0b10 << 62)))
    }
}

/// How often a resource has changed; only grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, sqlx::Type)]
#[sqlx(transparent)]
pub struct Revision(pub i64);

impl Revision {
    /// The revision of a new resource.
    pub const FIRST: Self = Self(1);

    /// The revision after one more change.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// What a caller expects a revision to be: nothing where they say 0.
    #[must_use]
    pub fn expected(value: i64) -> Option<Self> {
        (value != 0).then_some(Self(value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_back_what_it_prints() {
        let id = UserId::new();
        assert_eq!(id.to_string().parse(), Ok(id));
    }

    #[test]
    fn other_spellings_of_a_uuid_are_no_ids() {
        let id = UserId::new();
        for text in [
            id.uuid().simple().to_string(),
            format!("{{{id}}}"),
            format!("urn:uuid:{id}"),
            format!("{id} "),
            String::new(),
            "../etc/passwd".into(),
        ] {
            assert_eq!(text.parse::<UserId>(), Err(InvalidId), "{text}");
        }
    }

    #[test]
    fn ids_sort_in_the_order_in_which_they_were_made() {
        let ids: Vec<_> = (0..1000).map(|_| UserId::new()).collect();
        assert!(ids.is_sorted());
    }

    #[test]
    fn what_is_made_after_a_moment_sorts_after_its_first_id() {
        let before = LogEntryId::new();
        let now = OffsetDateTime::now_utc() + time::Duration::milliseconds(1);
        assert!(before < LogEntryId::first_at(now));
        assert!(LogEntryId::first_at(now - time::Duration::milliseconds(2)) < LogEntryId::new());
        assert!(LogEntryId::first_at(OffsetDateTime::UNIX_EPOCH) < before);
    }
}
