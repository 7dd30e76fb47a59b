//! What is known of users.

use std::collections::BTreeMap;

use muster_follower::{FollowedUser, Keeper, Take};
use muster_runtime::BoxFuture;
use muster_runtime::id::{OrganisationId, Revision, UserId};
use sqlx::PgConnection;

use super::apply;
use crate::declaration::{Declared, Person};

/// What the approver service keeps of identity's users.
#[derive(Debug)]
pub(crate) struct People;

impl Keeper for People {
    const NAME: &'static str = "approver";

    fn apply(
        connection: &mut PgConnection,
        users: Vec<FollowedUser>,
        take: Take,
    ) -> BoxFuture<'_, Result<bool, sqlx::Error>> {
        Box::pin(apply::apply(connection, users, take))
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

/// What is stored of a person.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) revision: Revision,
    pub(super) active: bool,
    deleted: bool,
    pub(super) email: String,
    pub(super) email_key: Option<String>,
    pub(super) declared: Vec<Declared>,
}

impl Stored {
    /// What is stored of a person once their state is taken.
    pub(super) fn of(person: &Person) -> Self {
        Self {
            revision: person.revision,
            active: person.active,
            deleted: person.deleted,
            email: person.email.clone(),
            email_key: person.email_key.clone(),
            declared: person.declared.clone(),
        }
    }
}

/// Persons, column by column.
#[derive(Default)]
struct Columns {
    ids: Vec<UserId>,
    revisions: Vec<Revision>,
    active: Vec<bool>,
    deleted: Vec<bool>,
    emails: Vec<String>,
    email_keys: Vec<Option<String>>,
}

impl<'a> FromIterator<&'a Person> for Columns {
    fn from_iter<I: IntoIterator<Item = &'a Person>>(persons: I) -> Self {
        let mut columns = Self::default();
        for person in persons {
            columns.ids.push(person.id);
            columns.revisions.push(person.revision);
            columns.active.push(person.active);
            columns.deleted.push(person.deleted);
            columns.emails.push(person.email.clone());
            columns.email_keys.push(person.email_key.clone());
        }
        columns
    }
}

/// What is stored of these users.
pub(super) async fn get(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    users: Vec<UserId>,
) -> Result<BTreeMap<UserId, Stored>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"SELECT p.user_id AS "user_id: UserId", p.revision AS "revision: Revision", p.active,
                  p.deleted, p.email, p.email_key, d.emails AS "emails!", d.keys AS "keys!"
             FROM approver.person AS p
            CROSS JOIN LATERAL
                  (SELECT coalesce(array_agg(email ORDER BY position), '{}') AS emails,
                          coalesce(array_agg(email_key ORDER BY position), '{}') AS keys
                     FROM approver.declaration
                    WHERE organisation_id = $1 AND user_id = p.user_id) AS d
            WHERE p.organisation_id = $1 AND p.user_id = ANY ($2)"#,
        organisation as OrganisationId,
        users as Vec<UserId>,
    )
    .fetch_all(connection)
    .await?;
    let stored = rows.into_iter().map(|row| {
        let declared = row.emails.into_iter().zip(row.keys);
        let declared = declared.map(|(email, key)| Declared { email, key }).collect();
        let stored = Stored {
            revision: row.revision,
            active: row.active,
            deleted: row.deleted,
            email: row.email,
            email_key: row.email_key,
            declared,
        };
        (row.user_id, stored)
    });
    Ok(stored.collect())
}

/// Notes users of whom nothing was known.
pub(super) async fn insert(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    persons: Vec<&Person>,
) -> Result<(), sqlx::Error> {
    let n: Columns = persons.into_iter().collect();
    sqlx::query!(
        "INSERT INTO approver.person
                (organisation_id, user_id, revision, active, deleted, email, email_key)
         SELECT $1, n.user_id, n.revision, n.active, n.deleted, n.email, n.email_key
           FROM unnest($2::uuid[], $3::bigint[], $4::boolean[], $5::boolean[], $6::text[],
                       $7::text[]) AS n (user_id, revision, active, deleted, email, email_key)",
        organisation as OrganisationId,
        n.ids as Vec<UserId>,
        n.revisions as Vec<Revision>,
        &n.active,
        &n.deleted,
        &n.emails,
        n.email_keys as Vec<Option<String>>,
    )
    .execute(connection)
    .await
    .map(drop)
}

pub(super) async fn update(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    persons: Vec<&Person>,
) -> Result<(), sqlx::Error> {
    if persons.is_empty() {
        return Ok(());
    }
    let n: Columns = persons.into_iter().collect();
    sqlx::query!(
        "UPDATE approver.person AS p
            SET revision = n.revision, active = n.active, deleted = n.deleted, email = n.email,
                email_key = n.email_key
           FROM unnest($2::uuid[], $3::bigint[], $4::boolean[], $5::boolean[], $6::text[],
                       $7::text[]) AS n (user_id, revision, active, deleted, email, email_key)
          WHERE p.organisation_id = $1 AND p.user_id = n.user_id",
        organisation as OrganisationId,
        n.ids as Vec<UserId>,
        n.revisions as Vec<Revision>,
        &n.active,
        &n.deleted,
        &n.emails,
        n.email_keys as Vec<Option<String>>,
    )
    .execute(connection)
    .await
    .map(drop)
}

/// The users of whom something else is known than this.
async fn differing(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    users: Vec<FollowedUser>,
) -> Result<Vec<UserId>, sqlx::Error> {
    let ids = users.iter().map(|user| user.id).collect();
    let stored = get(connection, organisation, ids).await?;
    let differs = |person: Person| match stored.get(&person.id) {
        Some(stored) if person.deleted => !stored.deleted,
        Some(stored) => {
            (stored.revision, stored.active, stored.deleted, &stored.email)
                != (person.revision, person.active, false, &person.email)
                || stored.declared != person.declared
        }
        None => !person.deleted,
    };
    Ok(users.into_iter().filter_map(|u| Some(u.id).filter(|_| differs(u.into()))).collect())
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
             FROM approver.person
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
