//! Settling in the order of identity's feed whom each declared address stands for.
//!
//! A hand-over comes before the feed, and two of them may come in the wrong order: somebody who has
//! passed an address on may still seem to have it. So a hand-over decides only for the time being.
//! Each change of the feed is applied once and in order; what follows from it alone, whatever was
//! handed over meanwhile, is kept beside it and is what is shown in the end.

use muster_runtime::id::{OrganisationId, Revision, UserId};
use sqlx::PgConnection;

use crate::declaration::{Before, Person};

/// Takes a change of the feed: `before` it and after it. Its addresses are locked. Whether anybody's
/// approvers are shown differently by it.
pub(super) async fn settle(
    connection: &mut PgConnection,
    before: &Before,
    person: &Person,
) -> Result<bool, sqlx::Error> {
    let gone: Vec<String> =
        before.keys().filter(|key| !person.declares(key)).map(str::to_owned).collect();
    let new: Vec<String> =
        person.keys().filter(|key| !before.declares(key)).map(str::to_owned).collect();
    if !gone.is_empty() {
        withdraw(connection, person, &gone).await?;
    }
    if !new.is_empty() {
        declare(connection, person, &new).await?;
    }
    if let (true, Some(key)) = (person.active, &person.email_key) {
        link(connection, person.organisation, person.id, key).await?;
    }
    if person.deleted {
        unlink(connection, person.organisation, person.id).await?;
    }
    show(connection, before, person).await
}

/// Notes what the feed tells of a user.
pub(super) async fn note(
    connection: &mut PgConnection,
    person: &Person,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE approver.person
            SET settled_revision = $3, settled_active = $4, settled_key = $5
          WHERE organisation_id = $1 AND user_id = $2",
        person.organisation as OrganisationId,
        person.id as UserId,
        person.revision as Revision,
        person.active,
        person.email_key,
    )
    .execute(connection)
    .await
    .map(drop)
}

async fn withdraw(
    connection: &mut PgConnection,
    person: &Person,
    keys: &[String],
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE approver.declaration SET settled = false, settled_approver_id = NULL
          WHERE organisation_id = $1 AND user_id = $2 AND email_key = ANY ($3)",
        person.organisation as OrganisationId,
        person.id as UserId,
        keys,
    )
    .execute(connection)
    .await
    .map(drop)
}

async fn declare(
    connection: &mut PgConnection,
    person: &Person,
    keys: &[String],
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE approver.declaration AS d
            SET settled = true,
                settled_approver_id = (SELECT p.user_id FROM approver.person AS p
                                        WHERE p.organisation_id = $1
                                          AND p.settled_key = d.email_key AND p.settled_active
                                          AND p.user_id <> $2 LIMIT 1)
          WHERE d.organisation_id = $1 AND d.user_id = $2 AND d.email_key = ANY ($3)",
        person.organisation as OrganisationId,
        person.id as UserId,
        keys,
    )
    .execute(connection)
    .await
    .map(drop)
}

async fn link(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    user: UserId,
    key: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE approver.declaration SET settled_approver_id = $2
          WHERE organisation_id = $1 AND email_key = $3 AND settled
            AND settled_approver_id IS NULL AND user_id <> $2",
        organisation as OrganisationId,
        user as UserId,
        key,
    )
    .execute(connection)
    .await
    .map(drop)
}

async fn unlink(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    user: UserId,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE approver.declaration AS d
            SET settled_approver_id = (SELECT p.user_id FROM approver.person AS p
                                        WHERE p.organisation_id = $1
                                          AND p.settled_key = d.email_key AND p.settled_active
                                          AND p.user_id <> d.user_id LIMIT 1)
          WHERE d.organisation_id = $1 AND d.settled_approver_id = $2",
        organisation as OrganisationId,
        user as UserId,
    )
    .execute(connection)
    .await
    .map(drop)
}

/// Shows what is settled, but where a hand-over has told more of somebody concerned than the feed
/// has yet: there the feed comes by again.
async fn show(
    connection: &mut PgConnection,
    before: &Before,
    person: &Person,
) -> Result<bool, sqlx::Error> {
    let keys: Vec<String> = before.email_key.iter().chain(&person.email_key).cloned().collect();
    let shown = sqlx::query!(
        "UPDATE approver.declaration AS d SET approver_id = d.settled_approver_id
          WHERE d.organisation_id = $1
            AND (d.user_id = $2 OR d.approver_id = $2 OR d.settled_approver_id = $2
                 OR d.email_key = ANY ($3))
            AND d.settled AND d.approver_id IS DISTINCT FROM d.settled_approver_id
            AND NOT EXISTS (SELECT FROM approver.person AS p
                             WHERE p.organisation_id = $1
                               AND p.user_id IN (d.user_id, d.approver_id, d.settled_approver_id)
                               AND p.revision > p.settled_revision)",
        person.organisation as OrganisationId,
        person.id as UserId,
        &keys,
    )
    .execute(connection)
    .await?;
    Ok(shown.rows_affected() > 0)
}
