//! Sessions in the console. Only the SHA-256 of a secret is kept.

use muster_proto::identity::v1::{Admin, Organisation};
use muster_runtime::clock::timestamp;
use muster_runtime::id::{AdminId, OrganisationId};
use sqlx::PgConnection;
use time::OffsetDateTime;

use super::organisation;
use super::sign_in::Account;
use crate::Error;
use crate::secret::Hash;
use crate::session::{IDLE, LONGEST};

/// Whose session it is at `now`, and where; and whether its last use was noted long enough ago to
/// be noted again.
pub(crate) async fn authenticate(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    hash: Hash,
    now: OffsetDateTime,
) -> Result<(Admin, Organisation, bool), Error> {
    let row = sqlx::query!(
        r#"SELECT s.used_at, a.admin_id AS "admin_id: AdminId", a.email,
                  a.display_name AS admin_name, a.created_at AS admin_created_at,
                  a.password_hash IS NOT NULL AS "has_password!", a.last_signed_in_at,
                  o.organisation_id AS "organisation_id: OrganisationId", o.slug, o.display_name,
                  o.default_locale, o.unknown_members, o.custom_field_1_name,
                  o.custom_field_2_name, o.custom_field_3_name, o.suspended, o.created_at
             FROM identity.session AS s
             JOIN identity.admin AS a
               ON a.organisation_id = s.organisation_id AND a.admin_id = s.admin_id
             JOIN identity.organisation AS o ON o.organisation_id = s.organisation_id
            WHERE s.organisation_id = $1 AND s.secret_hash = $2
              AND s.used_at > $3 AND s.created_at > $4 AND NOT o.suspended"#,
        organisation as OrganisationId,
        &hash[..],
        now - IDLE,
        now - LONGEST,
    )
    .fetch_optional(connection)
    .await?
    .ok_or(Error::Unauthenticated)?;
    let stale = now - row.used_at > time::Duration::minutes(1);
    let admin = Admin {
        id: row.admin_id.to_string(),
        organisation_id: row.organisation_id.to_string(),
        email: row.email,
        display_name: row.admin_name,
        create_time: Some(timestamp(row.admin_created_at)),
        has_password: row.has_password,
        last_sign_in_time: row.last_signed_in_at.map(timestamp),
    };
    let organisation = organisation::Row {
        organisation_id: row.organisation_id,
        slug: row.slug,
        display_name: row.display_name,
        default_locale: row.default_locale,
        unknown_members: row.unknown_members,
        custom_field_1_name: row.custom_field_1_name,
        custom_field_2_name: row.custom_field_2_name,
        custom_field_3_name: row.custom_field_3_name,
        suspended: row.suspended,
        created_at: row.created_at,
    };
    Ok((admin, organisation.into(), stale))
}

/// Notes a session's use.
pub(crate) async fn used(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    hash: Hash,
    now: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE identity.session SET used_at = greatest(used_at, $3)
          WHERE organisation_id = $1 AND secret_hash = $2",
        organisation as OrganisationId,
        &hash[..],
        now,
    )
    .execute(connection)
    .await
    .map(drop)
}

/// Begins a session, and forgets the admin's that have ended.
pub(crate) async fn begin(
    connection: &mut PgConnection,
    account: Account,
    hash: Hash,
    now: OffsetDateTime,
) -> Result<(), Error> {
    sqlx::query!(
        "DELETE FROM identity.session
          WHERE organisation_id = $1 AND admin_id = $2 AND (used_at <= $3 OR created_at <= $4)",
        account.organisation as OrganisationId,
        account.admin as AdminId,
        now - IDLE,
        now - LONGEST,
    )
    .execute(&mut *connection)
    .await?;
    sqlx::query!(
        "INSERT INTO identity.session
                (organisation_id, secret_hash, admin_id, created_at, used_at)
         VALUES ($1, $2, $3, $4, $4)",
        account.organisation as OrganisationId,
        &hash[..],
        account.admin as AdminId,
        now,
    )
    .execute(&mut *connection)
    .await?;
    sqlx::query!(
        "UPDATE identity.admin SET last_signed_in_at = $3
          WHERE organisation_id = $1 AND admin_id = $2",
        account.organisation as OrganisationId,
        account.admin as AdminId,
        now,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Ends a session; whose it was, where there was one.
pub(crate) async fn end(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    hash: Hash,
) -> Result<Option<AdminId>, Error> {
    let admin = sqlx::query_scalar!(
        r#"DELETE FROM identity.session WHERE organisation_id = $1 AND secret_hash = $2
           RETURNING admin_id AS "admin_id: AdminId""#,
        organisation as OrganisationId,
        &hash[..],
    )
    .fetch_optional(connection)
    .await?;
    Ok(admin)
}

/// Ends every session of an admin.
pub(crate) async fn end_all(connection: &mut PgConnection, account: Account) -> Result<(), Error> {
    sqlx::query!(
        "DELETE FROM identity.session WHERE organisation_id = $1 AND admin_id = $2",
        account.organisation as OrganisationId,
        account.admin as AdminId,
    )
    .execute(connection)
    .await?;
    Ok(())
}
