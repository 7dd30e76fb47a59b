//! The fields of requests, decoded.

use muster_runtime::feed::Actor;
use muster_runtime::grpc::cut_page;
use muster_runtime::id::{GroupId, OrganisationId, UserId};

use crate::Error;

pub(super) fn invalid_page_token() -> Error {
    Error::Invalid { field: "page_token", description: "is not one of an earlier answer".into() }
}

/// The user after whom a page begins.
pub(super) fn after_user(page_token: &str) -> Result<Option<UserId>, Error> {
    match page_token {
        "" => Ok(None),
        token => token.parse().map(Some).map_err(|_| invalid_page_token()),
    }
}

/// Cuts a page, read with one more than its size, and returns the token of the next.
pub(super) fn cut(users: &mut Vec<UserId>, size: i64) -> String {
    cut_page(users, size).map(ToString::to_string).unwrap_or_default()
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
    fn a_page_has_its_default_size_and_never_more_than_the_largest() {
        assert_eq!(
            [0, -1, 7, 5_000].map(|asked| page_size(asked, 100, 1_000)),
            [100, 100, 7, 1_000]
        );
    }
}
