//! Admins.

use muster_proto::identity::v1::Admin;
use muster_runtime::clock::timestamp;
use muster_runtime::id::{AdminId, OrganisationId};
use sqlx::PgConnection;
use time::OffsetDateTime;

use super::sign_in::Account;
use crate::Error;

struct Row {
    organisation_id: OrganisationId,
    admin_id: AdminId,
    email: String,
    display_name: String,
    created_at: OffsetDateTime,
    has_password: bool,
    last_signed_in_at: Option<OffsetDateTime>,
}

impl From<Row> for Admin {
    fn from(row: Row) -> Self {
        Self {
            id: row.admin_id.to_string(),
            organisation_id: row.organisation_id.to_string(),
            email: row.email,
            display_name: row.display_name,
            create_time: Some(timestamp(row.created_at)),
            has_password: row.has_password,
            last_sign_in_time: row.last_signed_in_at.map(timestamp),
        }
    }
}

/// Creates an admin, who can then be found by their e-mail address.
pub(crate) async fn create(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    admin: Admin,
    now: OffsetDateTime,
) -> Result<(Account, Admin), Error> {
    let id = AdminId::new();
    let email_key = muster_scim::caseless::key(&admin.email);
    let created = sqlx::query_as!(
        Row,
        r#"INSERT INTO identity.admin
                  (organisation_id, admin_id, email, email_key, display_name, created_at)
           SELECT organisation_id, $2, $3, $4, $5, $6
             FROM identity.organisation WHERE organisation_id = $1
           ON CONFLICT (organisation_id, email_key) DO NOTHING
           RETURNING organisation_id AS "organisation_id: OrganisationId",
                     admin_id AS "admin_id: AdminId", email, display_name, created_at,
                     password_hash IS NOT NULL AS "has_password!", last_signed_in_at"#,
        organisation as OrganisationId,
        id as AdminId,
        admin.email,
        email_key,
        admin.display_name,
        now,
    )
    .fetch_optional(&mut *connection)
    .await?;
    let Some(created) = created else {
        super::organisation::get(connection, organisation).await?;
        return Err(Error::Taken { attribute: "email", value: admin.email });
    };
    sqlx::query!(
        "INSERT INTO identity.admin_login (organisation_id, email_key, admin_id)
         VALUES ($1, $2, $3)",
        organisation as OrganisationId,
        email_key,
        id as AdminId,
    )
    .execute(connection)
    .await?;
    Ok((Account { organisation, admin: id }, created.into()))
}

pub(crate) async fn get(connection: &mut PgConnection, account: Account) -> Result<Admin, Error> {
    sqlx::query_as!(
        Row,
        r#"SELECT organisation_id AS "organisation_id: OrganisationId",
                  admin_id AS "admin_id: AdminId", email, display_name, created_at,
                  password_hash IS NOT NULL AS "has_password!", last_signed_in_at
             FROM identity.admin WHERE organisation_id = $1 AND admin_id = $2"#,
        account.organisation as OrganisationId,
        account.admin as AdminId,
    )
    .fetch_optional(connection)
    .await?
    .map(Into::into)
    .ok_or(Error::NotFound("admin"))
}

/// Whose an e-mail address is.
pub(crate) async fn find(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    email_key: &str,
) -> Result<AdminId, Error> {
    sqlx::query_scalar!(
        r#"SELECT admin_id AS "admin_id: AdminId"
             FROM identity.admin WHERE organisation_id = $1 AND email_key = $2"#,
        organisation as OrganisationId,
        email_key,
    )
    .fetch_optional(connection)
    .await?
    .ok_or(Error::NotFound("admin"))
}

pub(crate) async fn list(
    connection: &mut PgConnection,
    organisation: OrganisationId,
) -> Result<Vec<Admin>, Error> {
    let rows = sqlx::query_as!(
        Row,
        r#"SELECT organisation_id AS "organisation_id: OrganisationId",
                  admin_id AS "admin_id: AdminId", email, display_name, created_at,
                  password_hash IS NOT NULL AS "has_password!", last_signed_in_at
             FROM identity.admin WHERE organisation_id = $1 ORDER BY admin_id LIMIT 1000"#,
        organisation as OrganisationId,
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(Into::into).collect())
}

/// Removes an admin, with their sessions and links; their e-mail address.
pub(crate) async fn delete(
    connection: &mut PgConnection,
    account: Account,
) -> Result<String, Error> {
    sqlx::query_scalar!(
        "DELETE FROM identity.admin WHERE organisation_id = $1 AND admin_id = $2
         RETURNING email",
        account.organisation as OrganisationId,
        account.admin as AdminId,
    )
    .fetch_optional(connection)
    .await?
    .ok_or(Error::NotFound("admin"))
}

/// Keeps another password.
pub(crate) async fn set_password(
    connection: &mut PgConnection,
    account: Account,
    password_hash: String,
) -> Result<(), Error> {
    sqlx::query!(
        "UPDATE identity.admin SET password_hash = $3
          WHERE organisation_id = $1 AND admin_id = $2",
        account.organisation as OrganisationId,
        account.admin as AdminId,
        password_hash,
    )
    .execute(connection)
    .await?;
    Ok(())
}
