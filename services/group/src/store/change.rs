//! The changes of groups: what the feed keeps of them, and what its readers get.

use std::borrow::Cow;

use muster_proto::group::v1::{Group, GroupChange, WatchChangesResponse};
use muster_runtime::clock::timestamp;
use muster_runtime::feed::{self, Change, Payload, Watched};
use muster_runtime::id::{GroupId, UserId};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::group::Row;

/// A group as a change keeps it; after a change also who came and who went.
#[derive(Debug, Serialize, Deserialize)]
struct Snapshot<'a> {
    revision: i64,
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    updated_at: OffsetDateTime,
    origin: i16,
    display_name: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    external_id: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "<[UserId]>::is_empty")]
    added: Cow<'a, [UserId]>,
    #[serde(default, skip_serializing_if = "<[UserId]>::is_empty")]
    removed: Cow<'a, [UserId]>,
}

/// The change as readers of the feed get it.
pub(crate) fn change_message(change: &Change) -> GroupChange {
    let group_id = GroupId::from(change.subject_id);
    let group = |snapshot: &Snapshot<'_>| Group {
        id: group_id.to_string(),
        organisation_id: change.organisation_id.to_string(),
        revision: snapshot.revision,
        create_time: Some(timestamp(snapshot.created_at)),
        update_time: Some(timestamp(snapshot.updated_at)),
        origin: snapshot.origin.into(),
        display_name: snapshot.display_name.clone().into_owned(),
        external_id: snapshot.external_id.clone().map(Cow::into_owned),
        member_ids: Vec::new(),
        member_count: 0,
    };
    let (before, after): (Option<Snapshot<'_>>, Option<Snapshot<'_>>) =
        (change.before(), change.after());
    let ids = |users: &[UserId]| users.iter().map(ToString::to_string).collect();
    GroupChange {
        metadata: Some(change.metadata()),
        kind: change.kind.to_proto().into(),
        group_id: group_id.to_string(),
        revision: change.revision.0,
        before: before.as_ref().map(group),
        after: after.as_ref().map(group),
        added_member_ids: after.as_ref().map(|a| ids(&a.added)).unwrap_or_default(),
        removed_member_ids: after.as_ref().map(|a| ids(&a.removed)).unwrap_or_default(),
    }
}

/// What a watch tells.
pub(crate) fn watched_message(watched: &Watched) -> WatchChangesResponse {
    WatchChangesResponse {
        resume_token: watched.resume_token.clone(),
        change: watched.change.as_deref().map(change_message),
        head_sequence: watched.head_sequence,
        out_of_range_organisation_id: watched.out_of_range_id(),
    }
}

/// A group as a change keeps it, with those who came and who went.
pub(crate) fn snapshot(row: &Row, added: &[UserId], removed: &[UserId]) -> Payload {
    feed::payload(&Snapshot {
        revision: row.revision.0,
        created_at: row.created_at,
        updated_at: row.updated_at,
        origin: row.origin,
        display_name: Cow::Borrowed(&row.display_name),
        external_id: row.external_id.as_deref().map(Cow::Borrowed),
        added: Cow::Borrowed(added),
        removed: Cow::Borrowed(removed),
    })
}
