//! Groups, and the changes that tell of them.

use std::collections::BTreeSet;

use muster_proto::group::v1::Group;
use muster_proto::identity::v1::Origin;
use muster_runtime::clock::timestamp;
use muster_runtime::feed::{self, Actor, Kind, NewChange};
use muster_runtime::id::{GroupId, OrganisationId, Revision, UserId};
use sqlx::PgConnection;
use time::OffsetDateTime;

use super::change::snapshot;
use super::{membership, person};
use crate::Error;
use crate::group::{ExternalId, MemberIds, Members, Name, Presence, unknown_members};

/// Selects stored groups of the organisation `$1` of which a condition is true.
macro_rules! rows {
    ($condition:literal, $($argument:tt)*) => {
        sqlx::query_as!(
            Row,
            r#"SELECT group_id AS "group_id: GroupId", revision AS "revision: Revision", created_at,
                      updated_at, origin, display_name, external_id, member_count
                 FROM groups.groups
                WHERE organisation_id = $1 AND "# + $condition,
            $($argument)*
        )
    };
}

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
    pub member_count: i64,
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
            member_count: self.member_count,
        }
    }

    /// Where the group comes from after a write: the first by SCIM adopts one that the console made.
    pub(super) fn origin_after(&self, actor: &Actor) -> i16 {
        match actor {
            Actor::ApiKey(_) => origin_column(Origin::Scim),
            Actor::Admin(_) | Actor::Caller(_) => self.origin,
        }
    }

    /// The group after a write that makes it `row`, with those who came and who went, and what tells
    /// of it; none where it stays the same.
    pub(super) fn written(
        &self,
        row: Self,
        added: &[UserId],
        removed: &[UserId],
        now: OffsetDateTime,
    ) -> Option<(Self, NewChange)> {
        let same = added.is_empty()
            && removed.is_empty()
            && (row.origin, &row.display_name, &row.external_id)
                == (self.origin, &self.display_name, &self.external_id);
        if same {
            return None;
        }
        let row = Self {
            revision: self.revision.next(),
            updated_at: now.max(self.updated_at),
            member_count: self.member_count + count(added) - count(removed),
            ..row
        };
        let change = NewChange {
            kind: Kind::Updated,
            subject: row.group_id.uuid(),
            revision: row.revision,
            before: Some(snapshot(self, &[], &[])),
            after: Some(snapshot(&row, added, removed)),
            total: 0,
            active: 0,
        };
        Some((row, change))
    }
}

/// Why a write of a group did not happen.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Nothing is known of these users: identity must be asked about them first.
    Unseen(Vec<UserId>),
    /// It is refused.
    Refused(Error),
}

impl<E: Into<Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Refused(error.into())
    }
}

/// A group as it was written, and the members asked for who are no users.
pub(crate) type Written = (Group, BTreeSet<String>);

/// A group to create.
#[derive(Debug, Clone)]
pub(crate) struct Create {
    pub organisation: OrganisationId,
    pub name: Name,
    pub external_id: Option<String>,
    pub members: MemberIds,
    pub refuse_unknown: bool,
    pub actor: Actor,
    pub now: OffsetDateTime,
}

/// Creates a group.
///
/// `asked` says whether identity has been asked about the members: until then one of whom nothing
/// is known fails it, after that they are no users.
pub(crate) async fn create(
    connection: &mut PgConnection,
    create: Create,
    asked: bool,
) -> Result<Written, Failure> {
    let organisation = create.organisation;
    let origin = match create.actor {
        Actor::Admin(_) => Origin::Console,
        Actor::ApiKey(_) | Actor::Caller(_) => Origin::Scim,
    };
    let mut row = Row {
        group_id: GroupId::new(),
        revision: Revision::FIRST,
        created_at: create.now,
        updated_at: create.now,
        origin: origin_column(origin),
        display_name: create.name.text.clone(),
        external_id: create.external_id,
        member_count: 0,
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
        return Err(Error::Taken(create.name.text).into());
    }
    let (users, unknown) = existing(connection, organisation, create.members, asked).await?;
    refuse(&unknown, create.refuse_unknown)?;
    let added = membership::add(connection, organisation, row.group_id, users).await?;
    row.member_count = count(&added);
    if row.member_count > 0 {
        set_member_count(connection, organisation, row.group_id, row.member_count).await?;
    }
    let change = NewChange {
        kind: Kind::Created,
        subject: row.group_id.uuid(),
        revision: row.revision,
        before: None,
        after: Some(snapshot(&row, &added, &[])),
        total: 1,
        active: 0,
    };
    feed::append(connection, organisation, &create.actor, create.now, &[change]).await?;
    Ok((row.into_group(organisation), unknown))
}

/// What to do to a group.
#[derive(Debug, Clone)]
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

/// Applies a delta to a group; one that stays the same is not written. `asked` is as in [`create`].
pub(crate) async fn update(
    connection: &mut PgConnection,
    update: Update,
    asked: bool,
) -> Result<Written, Failure> {
    let Update { organisation, id, mut members, actor, now, .. } = update;
    // Whoever deletes a user locks that user first, too.
    let known = match &mut members {
        Members::Delta { add, .. } => {
            Some(existing(connection, organisation, std::mem::take(add), asked).await?)
        }
        _ => None,
    };
    let old = lock(connection, organisation, id).await?;
    expect(&old, update.expected)?;
    let (add, remove) = difference(connection, organisation, id, members).await?;
    let (users, unknown) = match known {
        Some(known) => known,
        None => existing(connection, organisation, add, asked).await?,
    };
    refuse(&unknown, update.refuse_unknown)?;
    let added = membership::add(connection, organisation, id, users).await?;
    let removed = membership::remove(connection, organisation, id, remove).await?;
    let name = update.name.as_ref().map(|name| name.text.clone());
    let row = Row {
        origin: old.origin_after(&actor),
        display_name: name.unwrap_or_else(|| old.display_name.clone()),
        external_id: match update.external_id {
            ExternalId::Keep => old.external_id.clone(),
            ExternalId::Become(id) => id,
        },
        ..old.clone()
    };
    let Some((row, change)) = old.written(row, &added, &removed, now) else {
        return Ok((old.into_group(organisation), unknown));
    };
    let key = update.name.map_or_else(|| muster_scim::caseless::key(&row.display_name), |n| n.key);
    let updated = sqlx::query!(
        "UPDATE groups.groups
            SET revision = $3, updated_at = $4, origin = $5, display_name = $6,
                display_name_key = $7, external_id = $8, member_count = $9
          WHERE organisation_id = $1 AND group_id = $2",
        organisation as OrganisationId,
        id as GroupId,
        row.revision as Revision,
        row.updated_at,
        row.origin,
        row.display_name,
        key,
        row.external_id,
        row.member_count,
    )
    .execute(&mut *connection)
    .await;
    if let Err(error) = updated {
        let clash =
            error.as_database_error().is_some_and(sqlx::error::DatabaseError::is_unique_violation);
        let error = if clash { Error::Taken(row.display_name) } else { error.into() };
        return Err(error.into());
    }
    feed::append(connection, organisation, &actor, now, &[change]).await?;
    Ok((row.into_group(organisation), unknown))
}

/// Whom to add to a locked group and whom to remove: for a set, only where it differs, so that its
/// size is no matter of locks and writes.
async fn difference(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    id: GroupId,
    members: Members,
) -> Result<(MemberIds, Vec<UserId>), sqlx::Error> {
    match members {
        Members::Keep => Ok((MemberIds::default(), Vec::new())),
        Members::Delta { add, remove } => Ok((add, remove.to_vec())),
        Members::Set { all, retained } => {
            let users = all.to_vec();
            let kept = users.iter().chain(&retained.users).copied().collect();
            let others = membership::others(connection, organisation, id, kept).await?;
            let missing = membership::missing(connection, organisation, id, users).await?;
            Ok((MemberIds { users: missing.into_iter().collect(), ..all }, others))
        }
    }
}

/// Those who exist, locked, and the others.
async fn existing(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    members: MemberIds,
    asked: bool,
) -> Result<(Vec<UserId>, BTreeSet<String>), Failure> {
    if members.users.is_empty() {
        return Ok((Vec::new(), members.unknown));
    }
    let seen = person::lock(connection, organisation, members.to_vec()).await?;
    let unseen: Vec<UserId> =
        members.users.iter().filter(|user| !seen.contains_key(user)).copied().collect();
    if !asked && !unseen.is_empty() {
        return Err(Failure::Unseen(unseen));
    }
    let (existing, missing): (Vec<UserId>, Vec<UserId>) =
        members.users.into_iter().partition(|user| seen.get(user) == Some(&Presence::Exists));
    let mut unknown = members.unknown;
    unknown.extend(missing.iter().map(ToString::to_string));
    Ok((existing, unknown))
}

pub(super) fn refuse(unknown: &BTreeSet<String>, refuse_unknown: bool) -> Result<(), Error> {
    if refuse_unknown && !unknown.is_empty() {
        return Err(unknown_members(unknown));
    }
    Ok(())
}

/// Deletes a group; its memberships go with it.
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
        "WITH members AS (
             DELETE FROM groups.membership WHERE organisation_id = $1 AND group_id = $2
         )
         DELETE FROM groups.groups WHERE organisation_id = $1 AND group_id = $2",
        organisation as OrganisationId,
        id as GroupId,
    )
    .execute(&mut *connection)
    .await?;
    let change = NewChange {
        kind: Kind::Deleted,
        subject: id.uuid(),
        revision: old.revision.next(),
        before: Some(snapshot(&old, &[], &[])),
        after: None,
        total: -1,
        active: 0,
    };
    feed::append(connection, organisation, actor, now, &[change]).await?;
    Ok(())
}

/// Counts the groups and their members anew; whether the totals were others.
pub(crate) async fn recount(
    connection: &mut PgConnection,
    organisation: OrganisationId,
) -> Result<bool, Error> {
    let count = async |connection: &mut PgConnection| {
        let total = sqlx::query_scalar!(
            r#"SELECT count(*) AS "total!" FROM groups.groups WHERE organisation_id = $1"#,
            organisation as OrganisationId,
        )
        .fetch_one(connection)
        .await?;
        // Groups are not active or inactive.
        Ok((total, 0))
    };
    // Those are locked first, so that nobody comes or goes while they are counted.
    let wrong = sqlx::query_scalar!(
        r#"SELECT group_id AS "group_id: GroupId"
             FROM groups.groups AS g
            WHERE organisation_id = $1
              AND member_count <> (SELECT count(*) FROM groups.membership AS m
                                    WHERE m.organisation_id = $1 AND m.group_id = g.group_id)
            ORDER BY group_id
              FOR UPDATE"#,
        organisation as OrganisationId,
    )
    .fetch_all(&mut *connection)
    .await?;
    let mended = sqlx::query!(
        "UPDATE groups.groups AS g
            SET member_count = (SELECT count(*) FROM groups.membership AS m
                                 WHERE m.organisation_id = $1 AND m.group_id = g.group_id)
          WHERE organisation_id = $1 AND group_id = ANY ($2)",
        organisation as OrganisationId,
        wrong as Vec<GroupId>,
    )
    .execute(&mut *connection)
    .await?
    .rows_affected();
    Ok(feed::recount(connection, organisation, count).await? || mended > 0)
}

/// Those that exist, by id.
pub(crate) async fn batch_get(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    ids: Vec<GroupId>,
) -> Result<Vec<Row>, Error> {
    Ok(rows!(
        "group_id = ANY ($2) ORDER BY group_id",
        organisation as OrganisationId,
        ids as Vec<GroupId>,
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
    rows!(
        "group_id = ANY ($2) ORDER BY group_id FOR NO KEY UPDATE",
        organisation as OrganisationId,
        ids as Vec<GroupId>,
    )
    .fetch_all(connection)
    .await
}

/// Locks groups, but for those that somebody else has locked: who waits holds nobody up.
pub(super) async fn lock_free(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    ids: Vec<GroupId>,
) -> Result<Vec<Row>, sqlx::Error> {
    rows!(
        "group_id = ANY ($2) FOR NO KEY UPDATE SKIP LOCKED",
        organisation as OrganisationId,
        ids as Vec<GroupId>,
    )
    .fetch_all(connection)
    .await
}

/// Gives each of these locked groups, which users have left, its next revision; the changes to
/// append.
pub(crate) async fn touch(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    groups: Vec<(Row, Vec<UserId>)>,
    now: OffsetDateTime,
) -> Result<Vec<NewChange>, sqlx::Error> {
    let written = groups.iter().filter_map(|(old, left)| old.written(old.clone(), &[], left, now));
    let (rows, changes): (Vec<Row>, Vec<NewChange>) = written.unzip();
    put(connection, organisation, &rows).await?;
    Ok(changes)
}

/// Writes locked groups whose members have changed.
pub(super) async fn put(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    rows: &[Row],
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE groups.groups AS g
            SET revision = n.revision, updated_at = n.updated_at, origin = n.origin,
                member_count = n.member_count
           FROM unnest($2::uuid[], $3::bigint[], $4::timestamptz[], $5::smallint[], $6::bigint[])
                AS n (group_id, revision, updated_at, origin, member_count)
          WHERE g.organisation_id = $1 AND g.group_id = n.group_id",
        organisation as OrganisationId,
        rows.iter().map(|row| row.group_id).collect::<Vec<_>>() as Vec<GroupId>,
        rows.iter().map(|row| row.revision).collect::<Vec<_>>() as Vec<Revision>,
        &rows.iter().map(|row| row.updated_at).collect::<Vec<_>>(),
        &rows.iter().map(|row| row.origin).collect::<Vec<_>>(),
        &rows.iter().map(|row| row.member_count).collect::<Vec<_>>(),
    )
    .execute(connection)
    .await
    .map(drop)
}

async fn set_member_count(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    id: GroupId,
    member_count: i64,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE groups.groups SET member_count = $3 WHERE organisation_id = $1 AND group_id = $2",
        organisation as OrganisationId,
        id as GroupId,
        member_count,
    )
    .execute(connection)
    .await
    .map(drop)
}

fn count(users: &[UserId]) -> i64 {
    i64::try_from(users.len()).unwrap_or(i64::MAX)
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
