//! The changes of groups: what the feed keeps of them, and what its readers get.

use muster_proto::group::v1::{Group, GroupChange, WatchChangesResponse};
use muster_runtime::feed::{Change, Watched, timestamp};
use muster_runtime::id::{GroupId, UserId};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::group::Row;

/// A group as a change keeps it; after a change also who came and who went.
#[derive(Debug, Serialize, Deserialize)]
struct Snapshot {
    revision: i64,
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    updated_at: OffsetDateTime,
    origin: i16,
    display_name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    external_id: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    added: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    removed: Vec<String>,
}

/// The change as readers of the feed get it.
pub(crate) fn change_message(change: &Change) -> GroupChange {
    let group_id = GroupId::from(change.subject_id);
    let group = |snapshot: &Snapshot| Group {
        id: group_id.to_string(),
        organisation_id: change.organisation_id.to_string(),
        revision: snapshot.revision,
        create_time: Some(timestamp(snapshot.created_at)),
        update_time: Some(timestamp(snapshot.updated_at)),
        origin: snapshot.origin.into(),
        display_name: snapshot.display_name.clone(),
        external_id: snapshot.external_id.clone(),
        member_ids: Vec::new(),
        member_count: 0,
    };
    let (before, after): (Option<Snapshot>, Option<Snapshot>) = (change.before(), change.after());
    GroupChange {
        metadata: Some(change.metadata()),
        kind: change.kind.to_proto().into(),
        group_id: group_id.to_string(),
        revision: change.revision.0,
        before: before.as_ref().map(group),
        after: after.as_ref().map(group),
        added_member_ids: after.as_ref().map(|a| a.added.clone()).unwrap_or_default(),
        removed_member_ids: after.map(|a| a.removed).unwrap_or_default(),
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
pub(crate) fn snapshot(row: &Row, added: &[UserId], removed: &[UserId]) -> serde_json::Value {
    let ids = |users: &[UserId]| users.iter().map(ToString::to_string).collect();
    let snapshot = Snapshot {
        revision: row.revision.0,
        created_at: row.created_at,
        updated_at: row.updated_at,
        origin: row.origin,
        display_name: row.display_name.clone(),
        external_id: row.external_id.clone(),
        added: ids(added),
        removed: ids(removed),
    };
    serde_json::to_value(snapshot).expect("a group has string keys only")
}
