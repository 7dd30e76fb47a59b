//! What is known of users, and what becomes of their memberships when one is deleted.

use std::collections::{BTreeMap, BTreeSet};

use muster_follower::{FollowedUser, Keeper, Take};
use muster_runtime::BoxFuture;
use muster_runtime::clock;
use muster_runtime::feed;
use muster_runtime::id::{GroupId, OrganisationId, Revision, UserId};
use sqlx::PgConnection;

use super::group;
use crate::group::Presence;

/// What the group service keeps of identity's users.
#[derive(Debug)]
pub(crate) struct People;

impl Keeper for People {
    const NAME: &'static str = "group";

    fn apply(
        connection: &mut PgConnection,
        users: Vec<FollowedUser>,
        take: Take,
    ) -> BoxFuture<'_, Result<bool, sqlx::Error>> {
        Box::pin(apply(connection, users, take))
    }

    fn differing(
        connection: &mut PgConnection,
        organisation: OrganisationId,
        users: Vec<FollowedUser>,
    ) -> BoxFuture<'_, Result<Vec<UserId>, sqlx::Error>> {
        Box::pin(differing(connection, organisation, users))
    }

    fn known(
        connection: &mut PgConnection,
        organisation: OrganisationId,
        after: Option<UserId>,
        through: Option<UserId>,
    ) -> BoxFuture<'_, Result<Vec<(UserId, Revision)>, sqlx::Error>> {
        Box::pin(known(connection, organisation, after, through))
    }
}

/// Takes states of users, of one organisation and told of by one actor; whether any group changed
/// by it. Of several states of one user the last counts.
///
/// A deleted user leaves their groups. The groups are locked before the users, as every other
/// writer does, so that no two wait for each other; after that nobody can add the users any more.
async fn apply(
    connection: &mut PgConnection,
    users: Vec<FollowedUser>,
    take: Take,
) -> Result<bool, sqlx::Error> {
    let Some(FollowedUser { organisation, actor, .. }) = users.last().cloned() else {
        return Ok(false);
    };
    let newest = users.into_iter().map(|user| (user.id, user));
    let newest: BTreeMap<UserId, FollowedUser> = newest.collect();
    let gone: Vec<UserId> =
        newest.values().filter(|user| user.deleted()).map(|user| user.id).collect();
    let locked = if gone.is_empty() {
        Vec::new()
    } else {
        let groups = groups_of(connection, organisation, gone).await?;
        group::lock_many(connection, organisation, groups).await?
    };
    let taken = put(connection, organisation, newest.into_values(), take).await?;
    let gone: Vec<UserId> =
        taken.into_iter().filter(|(_, deleted)| *deleted).map(|(user, _)| user).collect();
    if gone.is_empty() {
        return Ok(false);
    }
    let mut left = leave(connection, organisation, gone).await?;
    if left.is_empty() {
        return Ok(false);
    }
    let known: BTreeSet<GroupId> = locked.iter().map(|group| group.group_id).collect();
    if !left.keys().all(|group| known.contains(group)) {
        // Tried again, it sees that group too.
        return Err(sqlx::Error::Protocol("a membership appeared during the deletion".into()));
    }
    let changed = locked
        .into_iter()
        .filter_map(|group| left.remove(&group.group_id).map(|users| (group, users)));
    let now = clock::now();
    let changes = group::touch(connection, organisation, changed.collect(), now).await?;
    feed::append(connection, organisation, &actor, now, &changes).await?;
    Ok(true)
}

/// Notes states of users; those that were taken, and whether they are deleted.
async fn put(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    users: impl Iterator<Item = FollowedUser>,
    take: Take,
) -> Result<Vec<(UserId, bool)>, sqlx::Error> {
    let (mut ids, mut revisions) = (Vec::new(), Vec::new());
    let (mut deleted, mut active) = (Vec::new(), Vec::new());
    for user in users {
        ids.push(user.id);
        revisions.push(user.revision);
        deleted.push(user.deleted());
        active.push(user.active);
    }
    let rows = sqlx::query!(
        r#"INSERT INTO groups.person AS p (organisation_id, user_id, revision, deleted, active)
           SELECT $1, user_id, revision, deleted, active
             FROM unnest($2::uuid[], $3::bigint[], $4::boolean[], $6::boolean[])
                  AS n (user_id, revision, deleted, active)
            ORDER BY user_id
           ON CONFLICT (organisation_id, user_id) DO UPDATE
              SET revision = EXCLUDED.revision, deleted = EXCLUDED.deleted,
                  active = EXCLUDED.active
            WHERE $5 OR p.revision < EXCLUDED.revision
           RETURNING user_id AS "user_id: UserId", deleted"#,
        organisation as OrganisationId,
        ids as Vec<UserId>,
        revisions as Vec<Revision>,
        &deleted,
        take == Take::Any,
        &active,
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(|row| (row.user_id, row.deleted)).collect())
}

async fn groups_of(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    users: Vec<UserId>,
) -> Result<Vec<GroupId>, sqlx::Error> {
    sqlx::query_scalar!(
        r#"SELECT DISTINCT group_id AS "group_id: GroupId" FROM groups.membership
            WHERE organisation_id = $1 AND user_id = ANY ($2)"#,
        organisation as OrganisationId,
        users as Vec<UserId>,
    )
    .fetch_all(connection)
    .await
}

/// Takes users out of all their groups; who has left which.
async fn leave(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    users: Vec<UserId>,
) -> Result<BTreeMap<GroupId, Vec<UserId>>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"DELETE FROM groups.membership WHERE organisation_id = $1 AND user_id = ANY ($2)
           RETURNING group_id AS "group_id: GroupId", user_id AS "user_id: UserId""#,
        organisation as OrganisationId,
        users as Vec<UserId>,
    )
    .fetch_all(connection)
    .await?;
    let mut left: BTreeMap<GroupId, Vec<UserId>> = BTreeMap::new();
    for row in rows {
        left.entry(row.group_id).or_default().push(row.user_id);
    }
    Ok(left)
}

/// The users of whom something else is known than this: nothing, another revision, or not whether
/// they are deleted.
async fn differing(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    users: Vec<FollowedUser>,
) -> Result<Vec<UserId>, sqlx::Error> {
    let ids: Vec<UserId> = users.iter().map(|user| user.id).collect();
    let rows = sqlx::query!(
        r#"SELECT user_id AS "user_id: UserId", revision AS "revision: Revision", deleted
             FROM groups.person WHERE organisation_id = $1 AND user_id = ANY ($2)"#,
        organisation as OrganisationId,
        ids as Vec<UserId>,
    )
    .fetch_all(connection)
    .await?;
    let known: BTreeMap<UserId, (Revision, bool)> =
        rows.into_iter().map(|row| (row.user_id, (row.revision, row.deleted))).collect();
    let differs = |user: &FollowedUser| match known.get(&user.id) {
        Some((_, deleted)) if user.deleted() => !deleted,
        Some(known) => *known != (user.revision, false),
        None => !user.deleted(),
    };
    Ok(users.iter().filter(|user| differs(user)).map(|user| user.id).collect())
}

/// The users who are known and not deleted, after one id and up to another.
async fn known(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    after: Option<UserId>,
    through: Option<UserId>,
) -> Result<Vec<(UserId, Revision)>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"SELECT user_id AS "user_id: UserId", revision AS "revision: Revision"
             FROM groups.person
            WHERE organisation_id = $1 AND NOT deleted
              AND ($2::uuid IS NULL OR user_id > $2) AND ($3::uuid IS NULL OR user_id <= $3)
            ORDER BY user_id"#,
        organisation as OrganisationId,
        after as Option<UserId>,
        through as Option<UserId>,
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(|row| (row.user_id, row.revision)).collect())
}

/// Whether a revision of a user has come.
pub(crate) async fn at_revision(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    user: UserId,
    revision: Revision,
) -> Result<Option<()>, sqlx::Error> {
    let there = sqlx::query_scalar!(
        r#"SELECT revision >= $3 AS "there!" FROM groups.person
            WHERE organisation_id = $1 AND user_id = $2"#,
        organisation as OrganisationId,
        user as UserId,
        revision as Revision,
    )
    .fetch_optional(connection)
    .await?;
    Ok((there == Some(true)).then_some(()))
}

/// Notes users whom identity knows, and whether they are active. One whose deletion has come in
/// meanwhile stays deleted.
pub(crate) async fn seen(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    users: Vec<(UserId, Revision, bool)>,
) -> Result<(), sqlx::Error> {
    let ids: Vec<UserId> = users.iter().map(|(id, ..)| *id).collect();
    let revisions: Vec<Revision> = users.iter().map(|(_, revision, _)| *revision).collect();
    let active: Vec<bool> = users.into_iter().map(|(.., active)| active).collect();
    sqlx::query!(
        "INSERT INTO groups.person (organisation_id, user_id, revision, deleted, active)
         SELECT $1, user_id, revision, false, active
           FROM unnest($2::uuid[], $3::bigint[], $4::boolean[])
                AS known (user_id, revision, active)
          ORDER BY user_id
         ON CONFLICT (organisation_id, user_id) DO NOTHING",
        organisation as OrganisationId,
        ids as Vec<UserId>,
        revisions as Vec<Revision>,
        &active,
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
    Ok(rows.into_iter().map(|row| (row.user_id, presence(row.deleted))).collect())
}

/// The same without those whom somebody else is changing: who waits holds nobody up.
pub(crate) async fn lock_free(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    users: Vec<UserId>,
) -> Result<BTreeMap<UserId, Presence>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"SELECT user_id AS "user_id: UserId", deleted FROM groups.person
            WHERE organisation_id = $1 AND user_id = ANY ($2)
              FOR SHARE SKIP LOCKED"#,
        organisation as OrganisationId,
        users as Vec<UserId>,
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(|row| (row.user_id, presence(row.deleted))).collect())
}

fn presence(deleted: bool) -> Presence {
    if deleted { Presence::Deleted } else { Presence::Exists }
}
