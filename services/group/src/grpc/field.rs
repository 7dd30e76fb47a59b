//! The fields of requests, decoded.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use muster_runtime::feed::Actor;
use muster_runtime::id::{GroupId, OrganisationId};

use crate::Error;

/// Where a page begins, and where to watch from after the last.
pub(super) struct PageToken {
    pub(super) after: GroupId,
    pub(super) resume_token: String,
}

impl PageToken {
    pub(super) fn encode(&self) -> String {
        URL_SAFE_NO_PAD.encode(format!("{}.{}", self.after, self.resume_token))
    }

    pub(super) fn decode(token: &str) -> Result<Self, Error> {
        let decode = || {
            let text = String::from_utf8(URL_SAFE_NO_PAD.decode(token).ok()?).ok()?;
            let (after, resume_token) = text.split_once('.')?;
            Some(Self { after: after.parse().ok()?, resume_token: resume_token.to_owned() })
        };
        decode().ok_or_else(invalid_page_token)
    }
}

pub(super) fn invalid_page_token() -> Error {
    Error::Invalid { field: "page_token", description: "is not one of an earlier answer".into() }
}

pub(super) fn page_size(asked: i32, default: i32, largest: i32) -> i64 {
    (if asked <= 0 { default } else { asked.min(largest) }).into()
}

pub(super) fn at_most(field: &'static str, count: usize, most: usize) -> Result<(), Error> {
    if count > most {
        let description = format!("has {count} ids; at most {most}");
        return Err(Error::Invalid { field, description });
    }
    Ok(())
}

pub(super) fn organisation_id(text: &str) -> Result<OrganisationId, Error> {
    text.parse().map_err(|_| Error::Invalid {
        field: "organisation_id",
        description: "is not a UUID; expected an organisation's id".into(),
    })
}

pub(super) fn group_id(text: &str) -> Result<GroupId, Error> {
    text.parse().map_err(|_| Error::NotFound)
}

pub(super) fn actor(actor: Option<muster_proto::feed::v1::Actor>) -> Result<Actor, Error> {
    Actor::from_proto(actor)
        .map_err(|_| Error::Invalid { field: "actor", description: "names no UUID".into() })
}

pub(super) fn required<T>(field: &'static str, value: Option<T>) -> Result<T, Error> {
    value.ok_or(Error::Invalid { field, description: "is missing".into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_token_reads_back_what_was_written_and_anything_else_is_refused() {
        let after = GroupId::new();
        let token = PageToken { after, resume_token: "AbC_-".into() }.encode();
        let read = PageToken::decode(&token).unwrap();
        assert_eq!((read.after, read.resume_token.as_str()), (after, "AbC_-"));
        for token in ["x", "", "bm8uZG90"] {
            assert!(PageToken::decode(token).is_err(), "{token}");
        }
    }

    #[test]
    fn a_page_has_its_default_size_and_never_more_than_the_largest() {
        assert_eq!(
            [0, -1, 7, 5_000].map(|asked| page_size(asked, 100, 1_000)),
            [100, 100, 7, 1_000]
        );
    }
}
