//! Who was declared to approve for whom.

use muster_runtime::id::{OrganisationId, UserId};
use sqlx::PgConnection;

use crate::declaration::{Declared, Person};

/// The users who are linked to one of these, or declared one of these addresses.
pub(super) async fn concerned(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    users: Vec<UserId>,
    keys: &[String],
) -> Result<Vec<UserId>, sqlx::Error> {
    sqlx::query_scalar!(
        r#"SELECT user_id AS "user_id!: UserId" FROM approver.declaration
            WHERE organisation_id = $1 AND approver_id = ANY ($2)
           UNION
           SELECT user_id FROM approver.declaration
            WHERE organisation_id = $1 AND email_key = ANY ($3)"#,
        organisation as OrganisationId,
        users as Vec<UserId>,
        keys,
    )
    .fetch_all(connection)
    .await
}

/// Those of these addresses that anybody declared, by their keys.
pub(crate) async fn declared(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    keys: Vec<String>,
) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar!(
        r#"SELECT key AS "key!" FROM unnest($2::text[]) AS asked (key)
            WHERE (SELECT true FROM approver.declaration
                    WHERE organisation_id = $1 AND email_key = asked.key LIMIT 1)"#,
        organisation as OrganisationId,
        &keys,
    )
    .fetch_all(connection)
    .await
}

/// Makes these users' declarations what was declared. Those that were there keep their link; a new
/// one is linked where the address belongs to an active user. Only the `known` can have had any.
pub(super) async fn declare(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    persons: &[&Person],
    known: Vec<UserId>,
) -> Result<(), sqlx::Error> {
    let declared: Vec<(UserId, i32, &Declared)> = persons
        .iter()
        .flat_map(|person| (1..).zip(&person.declared).map(|(n, d)| (person.id, n, d)))
        .collect();
    let users: Vec<UserId> = declared.iter().map(|(user, ..)| *user).collect();
    let keys: Vec<String> = declared.iter().map(|(.., d)| d.key.clone()).collect();
    if !known.is_empty() {
        sqlx::query!(
            "DELETE FROM approver.declaration AS d
          WHERE d.organisation_id = $1 AND d.user_id = ANY ($2)
            AND NOT EXISTS (SELECT FROM unnest($3::uuid[], $4::text[]) AS n (user_id, key)
                             WHERE n.user_id = d.user_id AND n.key = d.email_key)",
            organisation as OrganisationId,
            known as Vec<UserId>,
            users.clone() as Vec<UserId>,
            &keys,
        )
        .execute(&mut *connection)
        .await?;
    }
    if keys.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "INSERT INTO approver.declaration
                (organisation_id, user_id, email_key, position, email, approver_id)
         SELECT $1, n.user_id, n.key, n.position, n.email,
                (SELECT p.user_id FROM approver.person AS p
                  WHERE p.organisation_id = $1 AND p.email_key = n.key AND p.active
                    AND p.user_id <> n.user_id
                  ORDER BY p.user_id LIMIT 1)
           FROM unnest($2::uuid[], $3::text[], $4::integer[], $5::text[])
                AS n (user_id, key, position, email)
         ON CONFLICT (organisation_id, user_id, email_key) DO UPDATE
            SET position = EXCLUDED.position, email = EXCLUDED.email",
        organisation as OrganisationId,
        users as Vec<UserId>,
        &keys,
        &declared.iter().map(|(_, position, _)| *position).collect::<Vec<_>>(),
        &declared.iter().map(|(.., d)| d.email.clone()).collect::<Vec<_>>(),
    )
    .execute(connection)
    .await
    .map(drop)
}

/// Links everybody's declarations of an address to the active user who has it.
pub(super) async fn link(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    owners: Vec<(UserId, String)>,
) -> Result<(), sqlx::Error> {
    if owners.is_empty() {
        return Ok(());
    }
    let (users, keys): (Vec<UserId>, Vec<String>) = owners.into_iter().unzip();
    sqlx::query!(
        "UPDATE approver.declaration AS d SET approver_id = o.user_id
           FROM unnest($2::uuid[], $3::text[]) AS o (user_id, key)
          WHERE d.organisation_id = $1 AND d.email_key = o.key AND d.approver_id IS NULL
            AND d.user_id <> o.user_id",
        organisation as OrganisationId,
        users as Vec<UserId>,
        &keys,
    )
    .execute(connection)
    .await
    .map(drop)
}

/// Unlinks everybody's declarations from deleted users, and links each to the active user who has
/// the address now, if there is one.
pub(super) async fn unlink(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    gone: Vec<UserId>,
) -> Result<(), sqlx::Error> {
    if gone.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "UPDATE approver.declaration AS d
            SET approver_id = (SELECT p.user_id FROM approver.person AS p
                                WHERE p.organisation_id = $1 AND p.email_key = d.email_key
                                  AND p.active AND p.user_id <> d.user_id
                                ORDER BY p.user_id LIMIT 1)
          WHERE d.organisation_id = $1 AND d.approver_id = ANY ($2)",
        organisation as OrganisationId,
        gone as Vec<UserId>,
    )
    .execute(connection)
    .await
    .map(drop)
}
