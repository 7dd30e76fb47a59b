//! Groups, and the changes that tell of them.

use std::collections::BTreeSet;

use muster_proto::group::v1::{Group, GroupChange};
use muster_proto::identity::v1::Origin;
use muster_runtime::feed::{self, Actor, Change, Kind, NewChange, timestamp};
use muster_runtime::id::{GroupId, OrganisationId, Revision, UserId};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use time::OffsetDateTime;

use super::{membership, person};
use crate::Error;
use crate::group::{ExternalId, MemberIds, Members, Name, unknown_members};

/// A stored group.
#[derive(Debug, Clone, sqlx::FromRow)]
pub(crate) struct Row {
    pub group_id: GroupId,
    pub revision: Revision,
    pub created_at: OffsetDateTime,
    pub updated_at: OffsetDateTime,
    pub origin: i16,
    pub display_name: String,
    pub external_id: Option<String>,
}

impl Row {
    pub(crate) fn into_group(self, organisation: OrganisationId) -> Group {
        Group {
            id: self.group_id.to_string(),
            organisation_id: organisation.to_string(),
            revision: self.revision.0,
            create_time: Some(timestamp(self.created_at)),
            update_time: Some(timestamp(self.updated_at)),
            origin: self.origin.into(),
            display_name: self.display_name,
            external_id: self.external_id,
            member_ids: Vec::new(),
        }
    }

    fn snapshot(&self, added: &[UserId], removed: &[UserId]) -> serde_json::Value {
        let ids = |users: &[UserId]| users.iter().map(ToString::to_string).collect();
        let snapshot = Snapshot {
            revision: self.revision.0,
            created_at: self.created_at,
            updated_at: self.updated_at,
            origin: self.origin,
            display_name: self.display_name.clone(),
            external_id: self.external_id.clone(),
            added: ids(added),
            removed: ids(removed),
        };
        serde_json::to_value(snapshot).expect("a group has string keys only")
    }
}

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
    let restore = |payload: &Option<serde_json::Value>| -> Option<Snapshot> {
        serde_json::from_value(payload.clone()?).ok()
    };
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
    };
    let (before, after) = (restore(&change.before), restore(&change.after));
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

/// A group to create.
pub(crate) struct Create {
    pub organisation: OrganisationId,
    pub name: Name,
    pub external_id: Option<String>,
    pub members: MemberIds,
    pub refuse_unknown: bool,
    pub actor: Actor,
    pub now: OffsetDateTime,
}

/// Creates a group; with it the members asked for who are no users.
pub(crate) async fn create(
    connection: &mut PgConnection,
    create: Create,
) -> Result<(Group, BTreeSet<String>), Error> {
    let organisation = create.organisation;
    let origin = match create.actor {
        Actor::Admin(_) => Origin::Console,
        Actor::ApiKey(_) | Actor::Caller(_) => Origin::Scim,
    };
    let row = Row {
        group_id: GroupId::new(),
        revision: Revision::FIRST,
        created_at: create.now,
        updated_at: create.now,
        origin: origin_column(origin),
        display_name: create.name.text.clone(),
        external_id: create.external_id,
    };
    let created = sqlx::query!(
        "INSERT INTO groups.groups
                (organisation_id, group_id, revision, created_at, updated_at, origin, display_name,
                 display_name_key, external_id)
         VALUES ($1, $2, $3, $4, $4, $5, $6, $7, $8)
         ON CONFLICT (organisation_id, display_name_key) DO NOTHING",
        organisation as OrganisationId,
        row.group_id as GroupId,
        row.revision as Revision,
        row.created_at,
        row.origin,
        row.display_name,
        create.name.key,
        row.external_id,
    )
    .execute(&mut *connection)
    .await?;
    if created.rows_affected() == 0 {
        return Err(Error::Taken(create.name.text));
    }
    let (users, unknown) =
        existing(connection, organisation, create.members, create.refuse_unknown).await?;
    let added = membership::add(connection, organisation, row.group_id, users).await?;
    let change = NewChange {
        kind: Kind::Created,
        subject: row.group_id.uuid(),
        revision: row.revision,
        before: None,
        after: Some(row.snapshot(&added, &[])),
        total: 1,
        active: 0,
    };
    feed::append(connection, organisation, &create.actor, create.now, &[change]).await?;
    Ok((row.into_group(organisation), unknown))
}

/// What to do to a group.
pub(crate) struct Update {
    pub organisation: OrganisationId,
    pub id: GroupId,
    pub expected: Option<Revision>,
    pub name: Option<Name>,
    pub external_id: ExternalId,
    pub members: Members,
    pub refuse_unknown: bool,
    pub actor: Actor,
    pub now: OffsetDateTime,
}

/// Applies a delta to a group; with it the members asked for who are no users. A group that stays
/// the same is not written.
pub(crate) async fn update(
    connection: &mut PgConnection,
    update: Update,
) -> Result<(Group, BTreeSet<String>), Error> {
    let Update { organisation, id, actor, now, .. } = update;
    let old = lock(connection, organisation, id).await?;
    expect(&old, update.expected)?;
    let added = update.members.added();
    let (users, unknown) = existing(connection, organisation, added, update.refuse_unknown).await?;
    let (added, removed) = match update.members {
        Members::Keep => (Vec::new(), Vec::new()),
        Members::Delta { remove, .. } => (
            membership::add(connection, organisation, id, users).await?,
            membership::remove(connection, organisation, id, remove.to_vec()).await?,
        ),
        Members::Set(_) => {
            let removed =
                membership::remove_others(connection, organisation, id, users.clone()).await?;
            (membership::add(connection, organisation, id, users).await?, removed)
        }
    };
    let origin = match actor {
        // The first SCIM write adopts a group that the console made.
        Actor::ApiKey(_) => origin_column(Origin::Scim),
        _ => old.origin,
    };
    let display_name =
        update.name.as_ref().map_or_else(|| old.display_name.clone(), |name| name.text.clone());
    let external_id = match update.external_id {
        ExternalId::Keep => old.external_id.clone(),
        ExternalId::Become(id) => id,
    };
    let same = added.is_empty()
        && removed.is_empty()
        && (origin, &display_name, &external_id)
            == (old.origin, &old.display_name, &old.external_id);
    if same {
        return Ok((old.into_group(organisation), unknown));
    }
    let row = Row {
        revision: old.revision.next(),
        updated_at: now.max(old.updated_at),
        origin,
        display_name,
        external_id,
        ..old.clone()
    };
    let key = update.name.map_or_else(|| muster_scim::caseless::key(&row.display_name), |n| n.key);
    let updated = sqlx::query!(
        "UPDATE groups.groups
            SET revision = $3, updated_at = $4, origin = $5, display_name = $6,
                display_name_key = $7, external_id = $8
          WHERE organisation_id = $1 AND group_id = $2",
        organisation as OrganisationId,
        id as GroupId,
        row.revision as Revision,
        row.updated_at,
        row.origin,
        row.display_name,
        key,
        row.external_id,
    )
    .execute(&mut *connection)
    .await;
    if let Err(error) = updated {
        let clash =
            error.as_database_error().is_some_and(sqlx::error::DatabaseError::is_unique_violation);
        return Err(if clash { Error::Taken(row.display_name) } else { error.into() });
    }
    let change = NewChange {
        kind: Kind::Updated,
        subject: id.uuid(),
        revision: row.revision,
        before: Some(old.snapshot(&[], &[])),
        after: Some(row.snapshot(&added, &removed)),
        total: 0,
        active: 0,
    };
    feed::append(connection, organisation, &actor, now, &[change]).await?;
    Ok((row.into_group(organisation), unknown))
}

/// Those of the asked who exist, locked, and the others.
async fn existing(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    asked: MemberIds,
    refuse_unknown: bool,
) -> Result<(Vec<UserId>, BTreeSet<String>), Error> {
    let existing = if asked.users.is_empty() {
        BTreeSet::new()
    } else {
        person::lock_existing(connection, organisation, asked.to_vec()).await?
    };
    let mut unknown = asked.unknown;
    unknown.extend(asked.users.difference(&existing).map(ToString::to_string));
    if refuse_unknown && !unknown.is_empty() {
        return Err(unknown_members(&unknown));
    }
    Ok((existing.into_iter().collect(), unknown))
}

pub(crate) async fn delete(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    id: GroupId,
    expected: Option<Revision>,
    actor: &Actor,
    now: OffsetDateTime,
) -> Result<(), Error> {
    let old = lock(connection, organisation, id).await?;
    expect(&old, expected)?;
    sqlx::query!(
        "DELETE FROM groups.groups WHERE organisation_id = $1 AND group_id = $2",
        organisation as OrganisationId,
        id as GroupId,
    )
    .execute(&mut *connection)
    .await?;
    let change = NewChange {
        kind: Kind::Deleted,
        subject: id.uuid(),
        revision: old.revision.next(),
        before: Some(old.snapshot(&[], &[])),
        after: None,
        total: -1,
        active: 0,
    };
    feed::append(connection, organisation, actor, now, &[change]).await?;
    Ok(())
}

/// Those that exist, by id.
pub(crate) async fn batch_get(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    ids: Vec<GroupId>,
) -> Result<Vec<Row>, Error> {
    Ok(sqlx::query_as!(
        Row,
        r#"SELECT group_id AS "group_id: GroupId", revision AS "revision: Revision", created_at,
                  updated_at, origin, display_name, external_id
             FROM groups.groups
            WHERE organisation_id = $1 AND group_id = ANY ($2) ORDER BY group_id"#,
        organisation as OrganisationId,
        ids as Vec<GroupId>,
    )
    .fetch_all(connection)
    .await?)
}

/// The changes of one group before `before`, the newest first.
pub(crate) async fn changes(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    id: GroupId,
    before: i64,
    limit: i64,
) -> Result<Vec<Change>, Error> {
    Ok(sqlx::query_as!(
        Change,
        r#"SELECT organisation_id AS "organisation_id: OrganisationId", sequence, change_id,
                  written_at, kind AS "kind: Kind", subject_id, revision AS "revision: Revision",
                  before, after, actor, traceparent
             FROM groups.change
            WHERE organisation_id = $1 AND subject_id = $2 AND sequence < $3
            ORDER BY sequence DESC LIMIT $4"#,
        organisation as OrganisationId,
        id as GroupId,
        before,
        limit,
    )
    .fetch_all(connection)
    .await?)
}

async fn lock(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    id: GroupId,
) -> Result<Row, Error> {
    lock_many(connection, organisation, vec![id]).await?.pop().ok_or(Error::NotFound)
}

/// Locks groups, in the order of their ids.
pub(crate) async fn lock_many(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    ids: Vec<GroupId>,
) -> Result<Vec<Row>, sqlx::Error> {
    sqlx::query_as!(
        Row,
        r#"SELECT group_id AS "group_id: GroupId", revision AS "revision: Revision", created_at,
                  updated_at, origin, display_name, external_id
             FROM groups.groups
            WHERE organisation_id = $1 AND group_id = ANY ($2)
            ORDER BY group_id FOR NO KEY UPDATE"#,
        organisation as OrganisationId,
        ids as Vec<GroupId>,
    )
    .fetch_all(connection)
    .await
}

/// Gives each of these locked groups, which a user has left, its next revision; the changes to
/// append.
pub(crate) async fn touch(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    groups: Vec<Row>,
    left: UserId,
    now: OffsetDateTime,
) -> Result<Vec<NewChange>, sqlx::Error> {
    sqlx::query!(
        "UPDATE groups.groups SET revision = revision + 1, updated_at = greatest(updated_at, $3)
          WHERE organisation_id = $1 AND group_id = ANY ($2)",
        organisation as OrganisationId,
        groups.iter().map(|group| group.group_id).collect::<Vec<_>>() as Vec<GroupId>,
        now,
    )
    .execute(connection)
    .await?;
    let changes = groups.into_iter().map(|old| {
        let new = Row {
            revision: old.revision.next(),
            updated_at: now.max(old.updated_at),
            ..old.clone()
        };
        NewChange {
            kind: Kind::Updated,
            subject: old.group_id.uuid(),
            revision: new.revision,
            before: Some(old.snapshot(&[], &[])),
            after: Some(new.snapshot(&[], &[left])),
            total: 0,
            active: 0,
        }
    });
    Ok(changes.collect())
}

fn expect(row: &Row, expected: Option<Revision>) -> Result<(), Error> {
    match expected {
        Some(expected) if expected != row.revision => {
            Err(Error::RevisionMismatch { current: row.revision.0 })
        }
        _ => Ok(()),
    }
}

fn origin_column(origin: Origin) -> i16 {
    // The contract's numbers are the column's.
    i16::try_from(origin as i32).unwrap_or_default()
}
