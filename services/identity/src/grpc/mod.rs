//! The RPCs: decode, call, encode. One file a family.

mod admin;
mod api_key;
mod audit;
mod import;
mod organisation;
mod provisioning_log;
mod report;
mod search;
mod session;
mod sign_in;
mod user;

use muster_runtime::clock;
use muster_runtime::feed::Actor;
use muster_runtime::id::OrganisationId;
use time::OffsetDateTime;

use crate::Error;

/// How many items a page has that names no size, and at most.
const DEFAULT_PAGE: i32 = 100;
const LARGEST_PAGE: i32 = 1_000;

fn page_size(asked: i32) -> i64 {
    let size = if asked <= 0 { DEFAULT_PAGE } else { asked.min(LARGEST_PAGE) };
    size.into()
}

/// A time of a request's, where it has one.
fn time(
    field: &'static str,
    timestamp: Option<prost_types::Timestamp>,
) -> Result<Option<OffsetDateTime>, Error> {
    let time = |timestamp| {
        let description = "is out of range".into();
        clock::time_of(timestamp).ok_or(Error::Invalid { field, description })
    };
    timestamp.map(time).transpose()
}

fn organisation_id(text: &str) -> Result<OrganisationId, Error> {
    text.parse().map_err(|_| Error::Invalid {
        field: "organisation_id",
        description: "is not a UUID; expected an organisation's id".into(),
    })
}

fn actor(actor: Option<muster_proto::feed::v1::Actor>) -> Result<Actor, Error> {
    Actor::from_proto(actor)
        .map_err(|_| Error::Invalid { field: "actor", description: "names no UUID".into() })
}

fn required<T>(field: &'static str, value: Option<T>) -> Result<T, Error> {
    value.ok_or(Error::Invalid { field, description: "is missing".into() })
}
