//! Admins and their invitations.

use muster_proto::identity::v1::Admin;
use muster_runtime::feed::timestamp;
use muster_runtime::id::{AdminId, OrganisationId};
use sqlx::PgConnection;
use time::OffsetDateTime;

use crate::Error;
use crate::secret::Hash;

/// Creates an admin and an invitation that lasts until `expires_at`.
pub(crate) async fn create(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    admin: Admin,
    invitation: Hash,
    now: OffsetDateTime,
    expires_at: OffsetDateTime,
) -> Result<Admin, Error> {
    let id = AdminId::new();
    let created = sqlx::query!(
        "INSERT INTO identity.admin
                (organisation_id, admin_id, email, email_key, display_name, created_at)
         SELECT organisation_id, $2, $3, $4, $5, $6
           FROM identity.organisation WHERE organisation_id = $1
         ON CONFLICT (organisation_id, email_key) DO NOTHING",
        organisation as OrganisationId,
        id as AdminId,
        admin.email,
        muster_scim::caseless::key(&admin.email),
        admin.display_name,
        now,
    )
    .execute(&mut *connection)
    .await?;
    if created.rows_affected() == 0 {
        super::organisation::get(connection, organisation).await?;
        return Err(Error::Taken { attribute: "email", value: admin.email });
    }
    sqlx::query!(
        "INSERT INTO identity.invitation (organisation_id, secret_hash, admin_id, expires_at)
         VALUES ($1, $2, $3, $4)",
        organisation as OrganisationId,
        &invitation[..],
        id as AdminId,
        expires_at,
    )
    .execute(connection)
    .await?;
    Ok(Admin { id: id.to_string(), create_time: Some(timestamp(now)), ..admin })
}

pub(crate) async fn list(
    connection: &mut PgConnection,
    organisation: OrganisationId,
) -> Result<Vec<Admin>, Error> {
    let rows = sqlx::query!(
        r#"SELECT admin_id AS "admin_id: AdminId", email, display_name, created_at
             FROM identity.admin WHERE organisation_id = $1 ORDER BY admin_id LIMIT 1000"#,
        organisation as OrganisationId,
    )
    .fetch_all(connection)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Admin {
            id: row.admin_id.to_string(),
            organisation_id: organisation.to_string(),
            email: row.email,
            display_name: row.display_name,
            create_time: Some(timestamp(row.created_at)),
        })
        .collect())
}
