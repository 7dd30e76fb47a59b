//! What is known of users, and what becomes of their memberships when one is deleted.

use std::collections::{BTreeMap, BTreeSet};

use muster_runtime::clock;
use muster_runtime::feed;
use muster_runtime::id::{GroupId, OrganisationId, Revision, UserId};
use sqlx::PgConnection;

use super::group;
use crate::group::{Person, Presence};

/// Why a user's state was not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApplyError {
    /// Someone added the user to another group meanwhile: tried again, it sees that one too.
    #[error("a membership appeared during the deletion")]
    Raced,
    /// The database failed.
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

impl From<ApplyError> for sqlx::Error {
    fn from(error: ApplyError) -> Self {
        match error {
            ApplyError::Raced => Self::Protocol(error.to_string()),
            ApplyError::Database(error) => error,
        }
    }
}

/// Takes a user's newest state; whether any group changed by it. An older state, or the same again,
/// changes nothing.
///
/// A deleted user leaves their groups. The groups are locked before the user, as every other
/// writer does, so that no two wait for each other; after that nobody can add the user any more.
pub(crate) async fn apply(
    connection: &mut PgConnection,
    person: Person,
) -> Result<bool, ApplyError> {
    let organisation = person.organisation;
    let locked = if person.deleted {
        let groups = groups_of(connection, organisation, person.id).await?;
        group::lock_many(connection, organisation, groups).await?
    } else {
        Vec::new()
    };
    let news = sqlx::query_scalar!(
        "INSERT INTO groups.person AS p (organisation_id, user_id, revision, deleted)
         VALUES ($1, $2, $3, $4)
         ON CONFLICT (organisation_id, user_id) DO UPDATE
            SET revision = EXCLUDED.revision, deleted = EXCLUDED.deleted
          WHERE p.revision < EXCLUDED.revision
         RETURNING true",
        organisation as OrganisationId,
        person.id as UserId,
        person.revision as Revision,
        person.deleted,
    )
    .fetch_optional(&mut *connection)
    .await?;
    if news.is_none() || !person.deleted {
        return Ok(false);
    }
    let left: Vec<GroupId> = sqlx::query_scalar!(
        r#"DELETE FROM groups.membership WHERE organisation_id = $1 AND user_id = $2
           RETURNING group_id AS "group_id: GroupId""#,
        organisation as OrganisationId,
        person.id as UserId,
    )
    .fetch_all(&mut *connection)
    .await?;
    if left.is_empty() {
        return Ok(false);
    }
    let known: BTreeSet<GroupId> = locked.iter().map(|group| group.group_id).collect();
    if !left.iter().all(|group| known.contains(group)) {
        return Err(ApplyError::Raced);
    }
    let left: BTreeSet<GroupId> = left.into_iter().collect();
    let changed = locked.into_iter().filter(|group| left.contains(&group.group_id));
    let now = clock::now();
    let changes = group::touch(connection, organisation, changed.collect(), person.id, now).await?;
    feed::append(connection, organisation, &person.actor, now, &changes).await?;
    Ok(true)
}

async fn groups_of(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    user: UserId,
) -> Result<Vec<GroupId>, sqlx::Error> {
    sqlx::query_scalar!(
        r#"SELECT group_id AS "group_id: GroupId" FROM groups.membership
            WHERE organisation_id = $1 AND user_id = $2"#,
        organisation as OrganisationId,
        user as UserId,
    )
    .fetch_all(connection)
    .await
}

/// Notes users whom identity knows. One whose deletion has come in meanwhile stays deleted.
pub(crate) async fn seen(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    users: Vec<(UserId, Revision)>,
) -> Result<(), sqlx::Error> {
    let (ids, revisions): (Vec<UserId>, Vec<Revision>) = users.into_iter().unzip();
    sqlx::query!(
        "INSERT INTO groups.person (organisation_id, user_id, revision, deleted)
         SELECT $1, user_id, revision, false
           FROM unnest($2::uuid[], $3::bigint[]) AS known (user_id, revision)
          ORDER BY user_id
         ON CONFLICT (organisation_id, user_id) DO NOTHING",
        organisation as OrganisationId,
        ids as Vec<UserId>,
        revisions as Vec<Revision>,
    )
    .execute(connection)
    .await
    .map(drop)
}

/// What is known of these users; each is locked, so that none can be deleted before the
/// transaction ends.
pub(crate) async fn lock(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    users: Vec<UserId>,
) -> Result<BTreeMap<UserId, Presence>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"SELECT user_id AS "user_id: UserId", deleted FROM groups.person
            WHERE organisation_id = $1 AND user_id = ANY ($2)
            ORDER BY user_id FOR SHARE"#,
        organisation as OrganisationId,
        users as Vec<UserId>,
    )
    .fetch_all(connection)
    .await?;
    let presence = |deleted| if deleted { Presence::Deleted } else { Presence::Exists };
    Ok(rows.into_iter().map(|row| (row.user_id, presence(row.deleted))).collect())
}
