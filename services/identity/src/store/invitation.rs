//! One-time links. Only the SHA-256 of a secret is kept.

use muster_runtime::id::{AdminId, OrganisationId};
use sqlx::PgConnection;
use time::OffsetDateTime;

use super::sign_in::Account;
use crate::Error;
use crate::secret::Hash;

/// Makes a link that lasts until `expires_at`.
pub(crate) async fn create(
    connection: &mut PgConnection,
    account: Account,
    hash: Hash,
    expires_at: OffsetDateTime,
) -> Result<(), Error> {
    sqlx::query!(
        "INSERT INTO identity.invitation (organisation_id, secret_hash, admin_id, expires_at)
         VALUES ($1, $2, $3, $4)",
        account.organisation as OrganisationId,
        &hash[..],
        account.admin as AdminId,
        expires_at,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Whom a link is for that works at `now`.
pub(crate) async fn get(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    hash: Hash,
    now: OffsetDateTime,
) -> Result<AdminId, Error> {
    sqlx::query_scalar!(
        r#"SELECT i.admin_id AS "admin_id: AdminId"
             FROM identity.invitation AS i
             JOIN identity.organisation AS o ON o.organisation_id = i.organisation_id
            WHERE i.organisation_id = $1 AND i.secret_hash = $2 AND i.expires_at > $3
              AND NOT o.suspended"#,
        organisation as OrganisationId,
        &hash[..],
        now,
    )
    .fetch_optional(connection)
    .await?
    .ok_or(Error::NotFound("link"))
}

/// Uses a link up, with all others of the same admin. Of two who use it at once, one is too late.
pub(crate) async fn take(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    hash: Hash,
    now: OffsetDateTime,
) -> Result<Account, Error> {
    let admin = sqlx::query_scalar!(
        r#"DELETE FROM identity.invitation
            WHERE organisation_id = $1 AND secret_hash = $2 AND expires_at > $3
           RETURNING admin_id AS "admin_id: AdminId""#,
        organisation as OrganisationId,
        &hash[..],
        now,
    )
    .fetch_optional(&mut *connection)
    .await?
    .ok_or(Error::NotFound("link"))?;
    let account = Account { organisation, admin };
    delete_all(connection, account).await?;
    Ok(account)
}

/// Makes an admin's links work no more.
pub(crate) async fn delete_all(
    connection: &mut PgConnection,
    account: Account,
) -> Result<(), Error> {
    sqlx::query!(
        "DELETE FROM identity.invitation WHERE organisation_id = $1 AND admin_id = $2",
        account.organisation as OrganisationId,
        account.admin as AdminId,
    )
    .execute(connection)
    .await?;
    Ok(())
}
