//! Memberships: only the rows that a request names.

use std::collections::{BTreeMap, BTreeSet};

use muster_proto::filter::v1::Filter;
use muster_proto::group::v1::{InactiveMembers, Membership};
use muster_runtime::id::{GroupId, OrganisationId, UserId};
use sqlx::{PgConnection, QueryBuilder};

use super::filter::condition;
use crate::Error;

/// Adds users to a group; those who were not in it.
pub(crate) async fn add(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    group: GroupId,
    users: Vec<UserId>,
) -> Result<Vec<UserId>, sqlx::Error> {
    if users.is_empty() {
        return Ok(Vec::new());
    }
    sqlx::query_scalar!(
        r#"INSERT INTO groups.membership (organisation_id, group_id, user_id)
           SELECT $1, $2, user_id FROM unnest($3::uuid[]) AS added (user_id)
           ON CONFLICT (organisation_id, group_id, user_id) DO NOTHING
           RETURNING user_id AS "user_id: UserId""#,
        organisation as OrganisationId,
        group as GroupId,
        users as Vec<UserId>,
    )
    .fetch_all(connection)
    .await
}

/// Removes users from a group; those who were in it.
pub(crate) async fn remove(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    group: GroupId,
    users: Vec<UserId>,
) -> Result<Vec<UserId>, sqlx::Error> {
    if users.is_empty() {
        return Ok(Vec::new());
    }
    sqlx::query_scalar!(
        r#"DELETE FROM groups.membership
            WHERE organisation_id = $1 AND group_id = $2 AND user_id = ANY ($3)
           RETURNING user_id AS "user_id: UserId""#,
        organisation as OrganisationId,
        group as GroupId,
        users as Vec<UserId>,
    )
    .fetch_all(connection)
    .await
}

/// Adds users to groups; those who were not in theirs.
pub(crate) async fn add_pairs(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    pairs: Vec<(GroupId, UserId)>,
) -> Result<BTreeSet<(GroupId, UserId)>, sqlx::Error> {
    if pairs.is_empty() {
        return Ok(BTreeSet::new());
    }
    let (groups, users): (Vec<GroupId>, Vec<UserId>) = pairs.into_iter().unzip();
    let rows = sqlx::query!(
        r#"INSERT INTO groups.membership (organisation_id, group_id, user_id)
           SELECT $1, * FROM unnest($2::uuid[], $3::uuid[])
           ON CONFLICT (organisation_id, group_id, user_id) DO NOTHING
           RETURNING group_id AS "group_id: GroupId", user_id AS "user_id: UserId""#,
        organisation as OrganisationId,
        groups as Vec<GroupId>,
        users as Vec<UserId>,
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(|row| (row.group_id, row.user_id)).collect())
}

/// Removes users from groups; those who were in theirs.
pub(crate) async fn remove_pairs(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    pairs: Vec<(GroupId, UserId)>,
) -> Result<BTreeSet<(GroupId, UserId)>, sqlx::Error> {
    if pairs.is_empty() {
        return Ok(BTreeSet::new());
    }
    let (groups, users): (Vec<GroupId>, Vec<UserId>) = pairs.into_iter().unzip();
    let rows = sqlx::query!(
        r#"DELETE FROM groups.membership AS m USING unnest($2::uuid[], $3::uuid[])
                AS gone (group_id, user_id)
            WHERE m.organisation_id = $1 AND m.group_id = gone.group_id
              AND m.user_id = gone.user_id
           RETURNING m.group_id AS "group_id: GroupId", m.user_id AS "user_id: UserId""#,
        organisation as OrganisationId,
        groups as Vec<GroupId>,
        users as Vec<UserId>,
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(|row| (row.group_id, row.user_id)).collect())
}

/// A group's members other than these.
///
/// `EXCEPT` hashes or sorts, whatever the planner believes of the table's size. `NOT EXISTS` became
/// a nested loop over a group that had just been filled, and met the statement timeout.
pub(crate) async fn others(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    group: GroupId,
    users: Vec<UserId>,
) -> Result<Vec<UserId>, sqlx::Error> {
    sqlx::query_scalar!(
        r#"SELECT user_id AS "user_id!: UserId" FROM groups.membership
            WHERE organisation_id = $1 AND group_id = $2
           EXCEPT
           SELECT unnest($3::uuid[])"#,
        organisation as OrganisationId,
        group as GroupId,
        users as Vec<UserId>,
    )
    .fetch_all(connection)
    .await
}

/// Of these users, those who are not in a group. `EXCEPT` as in [`others`].
pub(crate) async fn missing(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    group: GroupId,
    users: Vec<UserId>,
) -> Result<Vec<UserId>, sqlx::Error> {
    sqlx::query_scalar!(
        r#"SELECT unnest($3::uuid[]) AS "user_id!: UserId"
           EXCEPT
           SELECT user_id FROM groups.membership WHERE organisation_id = $1 AND group_id = $2"#,
        organisation as OrganisationId,
        group as GroupId,
        users as Vec<UserId>,
    )
    .fetch_all(connection)
    .await
}

/// A group's members after `after`, by id.
pub(crate) async fn list(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    group: GroupId,
    after: Option<UserId>,
    limit: i64,
) -> Result<Vec<UserId>, sqlx::Error> {
    // One row, since a row for each of many takes several times as long to read.
    sqlx::query_scalar!(
        r#"SELECT coalesce(array_agg(user_id ORDER BY user_id), '{}') AS "users!: Vec<UserId>"
             FROM (SELECT user_id FROM groups.membership
                    WHERE organisation_id = $1 AND group_id = $2
                      AND ($3::uuid IS NULL OR user_id > $3)
                    ORDER BY user_id LIMIT $4) AS m"#,
        organisation as OrganisationId,
        group as GroupId,
        after as Option<UserId>,
        limit,
    )
    .fetch_one(connection)
    .await
}

/// The members of several groups, by user, but for the groups without any.
pub(crate) async fn of_groups(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    groups: Vec<GroupId>,
) -> Result<BTreeMap<GroupId, Vec<UserId>>, sqlx::Error> {
    // Group by group: `group_id = ANY` may be planned as one look at all that there are, in order.
    let rows = sqlx::query!(
        r#"SELECT g.group_id AS "group_id!: GroupId", m.users AS "users!: Vec<UserId>"
             FROM unnest($2::uuid[]) AS g (group_id)
            CROSS JOIN LATERAL
                  (SELECT array_agg(user_id ORDER BY user_id) AS users FROM groups.membership
                    WHERE organisation_id = $1 AND group_id = g.group_id) AS m
            WHERE m.users IS NOT NULL"#,
        organisation as OrganisationId,
        groups as Vec<GroupId>,
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(|row| (row.group_id, row.users)).collect())
}

/// The users after `after` who are in a group that the filter matches, by id.
pub(crate) async fn users_in(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    filter: Option<&Filter>,
    after: Option<UserId>,
    limit: i64,
) -> Result<Vec<UserId>, Error> {
    let mut query = QueryBuilder::new(
        "SELECT DISTINCT m.user_id
           FROM groups.membership AS m
           JOIN groups.groups AS g
             ON g.organisation_id = m.organisation_id AND g.group_id = m.group_id
          WHERE ",
    );
    condition(&mut query, organisation, filter)?;
    query.push(" AND m.organisation_id = ").push_bind(organisation);
    if let Some(after) = after {
        query.push(" AND m.user_id > ").push_bind(after);
    }
    query.push(" ORDER BY m.user_id LIMIT ").push_bind(limit);
    Ok(query.build_query_scalar().fetch_all(connection).await?)
}

/// How many members of these groups are not active, by group. Counted from those who are not.
pub(crate) async fn inactive(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    groups: Vec<GroupId>,
) -> Result<Vec<InactiveMembers>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"SELECT m.group_id AS "group_id: GroupId", count(*) AS "inactive_count!"
             FROM groups.person AS p
             JOIN groups.membership AS m
               ON m.organisation_id = p.organisation_id AND m.user_id = p.user_id
            WHERE p.organisation_id = $1 AND NOT p.active AND NOT p.deleted
              AND m.organisation_id = $1 AND m.group_id = ANY ($2)
            GROUP BY m.group_id ORDER BY m.group_id"#,
        organisation as OrganisationId,
        groups as Vec<GroupId>,
    )
    .fetch_all(connection)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| InactiveMembers {
            group_id: row.group_id.to_string(),
            inactive_count: row.inactive_count,
        })
        .collect())
}

/// The groups that users are in, by user and group.
///
/// Each table is read once and what is read is joined: hundreds of memberships of a page of users
/// are of few groups, each of which a join of the tables would look up for each of them.
pub(crate) async fn of_users(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    users: Vec<UserId>,
) -> Result<Vec<Membership>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"WITH member AS MATERIALIZED (
               SELECT user_id, group_id FROM groups.membership
                WHERE organisation_id = $1 AND user_id = ANY ($2)
           ), named AS MATERIALIZED (
               SELECT group_id, display_name FROM groups.groups
                WHERE organisation_id = $1
                  AND group_id = ANY (ARRAY(SELECT DISTINCT group_id FROM member))
           )
           SELECT m.user_id AS "user_id: UserId", m.group_id AS "group_id: GroupId",
                  g.display_name
             FROM member AS m
             JOIN named AS g ON g.group_id = m.group_id
            ORDER BY m.user_id, m.group_id"#,
        organisation as OrganisationId,
        users as Vec<UserId>,
    )
    .fetch_all(connection)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Membership {
            user_id: row.user_id.to_string(),
            group_id: row.group_id.to_string(),
            group_display_name: row.display_name,
        })
        .collect())
}
