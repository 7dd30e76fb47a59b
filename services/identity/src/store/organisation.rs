//! Organisations: known by id and slug before anything else is.

use muster_proto::identity::v1::Organisation;
use muster_runtime::clock::timestamp;
use muster_runtime::id::OrganisationId;
use sqlx::PgConnection;
use time::OffsetDateTime;

use crate::Error;

/// How `organisation_id` and the other columns are read.
pub(crate) struct Row {
    pub organisation_id: OrganisationId,
    pub slug: String,
    pub display_name: String,
    pub default_locale: String,
    pub unknown_members: i16,
    pub custom_field_1_name: String,
    pub custom_field_2_name: String,
    pub custom_field_3_name: String,
    pub suspended: bool,
    pub created_at: OffsetDateTime,
}

impl From<Row> for Organisation {
    fn from(row: Row) -> Self {
        Self {
            id: row.organisation_id.to_string(),
            slug: row.slug,
            display_name: row.display_name,
            default_locale: row.default_locale,
            unknown_members: row.unknown_members.into(),
            custom_field_1_name: row.custom_field_1_name,
            custom_field_2_name: row.custom_field_2_name,
            custom_field_3_name: row.custom_field_3_name,
            suspended: row.suspended,
            create_time: Some(timestamp(row.created_at)),
        }
    }
}

pub(crate) async fn create(
    connection: &mut PgConnection,
    id: OrganisationId,
    organisation: Organisation,
    now: OffsetDateTime,
) -> Result<Organisation, Error> {
    let row = sqlx::query_as!(
        Row,
        r#"INSERT INTO identity.organisation
                  (organisation_id, slug, display_name, default_locale, unknown_members,
                   custom_field_1_name, custom_field_2_name, custom_field_3_name, suspended,
                   created_at)
           VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
           ON CONFLICT (slug) DO NOTHING
           RETURNING organisation_id AS "organisation_id: OrganisationId", slug, display_name,
                     default_locale, unknown_members, custom_field_1_name, custom_field_2_name,
                     custom_field_3_name, suspended, created_at"#,
        id as OrganisationId,
        organisation.slug,
        organisation.display_name,
        organisation.default_locale,
        i16::try_from(organisation.unknown_members).unwrap_or_default(),
        organisation.custom_field_1_name,
        organisation.custom_field_2_name,
        organisation.custom_field_3_name,
        organisation.suspended,
        now,
    )
    .fetch_optional(&mut *connection)
    .await?;
    let Some(row) = row else {
        return Err(Error::Taken { attribute: "slug", value: organisation.slug });
    };
    sqlx::query!(
        "INSERT INTO identity.feed_lock (organisation_id) VALUES ($1)",
        id as OrganisationId
    )
    .execute(connection)
    .await?;
    Ok(row.into())
}

pub(crate) async fn get(
    connection: &mut PgConnection,
    id: OrganisationId,
) -> Result<Organisation, Error> {
    sqlx::query_as!(
        Row,
        r#"SELECT organisation_id AS "organisation_id: OrganisationId", slug, display_name,
                  default_locale, unknown_members, custom_field_1_name, custom_field_2_name,
                  custom_field_3_name, suspended, created_at
             FROM identity.organisation WHERE organisation_id = $1"#,
        id as OrganisationId,
    )
    .fetch_optional(connection)
    .await?
    .map(Into::into)
    .ok_or(Error::NotFound("organisation"))
}

pub(crate) async fn get_by_slug(
    connection: &mut PgConnection,
    slug: String,
) -> Result<Organisation, Error> {
    sqlx::query_as!(
        Row,
        r#"SELECT organisation_id AS "organisation_id: OrganisationId", slug, display_name,
                  default_locale, unknown_members, custom_field_1_name, custom_field_2_name,
                  custom_field_3_name, suspended, created_at
             FROM identity.organisation WHERE slug = $1"#,
        slug,
    )
    .fetch_optional(connection)
    .await?
    .map(Into::into)
    .ok_or(Error::NotFound("organisation"))
}

/// The ids of those after `after`.
pub(crate) async fn ids(
    connection: &mut PgConnection,
    after: Option<OrganisationId>,
    limit: i64,
) -> Result<Vec<OrganisationId>, sqlx::Error> {
    sqlx::query_scalar!(
        r#"SELECT organisation_id AS "organisation_id: OrganisationId"
             FROM identity.organisation
            WHERE $1::uuid IS NULL OR organisation_id > $1
            ORDER BY organisation_id LIMIT $2"#,
        after as Option<OrganisationId>,
        limit,
    )
    .fetch_all(connection)
    .await
}

/// Those after `after`, by id.
pub(crate) async fn list(
    connection: &mut PgConnection,
    after: Option<OrganisationId>,
    limit: i64,
) -> Result<Vec<Organisation>, Error> {
    let rows = sqlx::query_as!(
        Row,
        r#"SELECT organisation_id AS "organisation_id: OrganisationId", slug, display_name,
                  default_locale, unknown_members, custom_field_1_name, custom_field_2_name,
                  custom_field_3_name, suspended, created_at
             FROM identity.organisation
            WHERE $1::uuid IS NULL OR organisation_id > $1
            ORDER BY organisation_id LIMIT $2"#,
        after as Option<OrganisationId>,
        limit,
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(Into::into).collect())
}

pub(crate) async fn update(
    connection: &mut PgConnection,
    id: OrganisationId,
    organisation: Organisation,
) -> Result<Organisation, Error> {
    sqlx::query_as!(
        Row,
        r#"UPDATE identity.organisation
              SET display_name = $2, default_locale = $3, unknown_members = $4,
                  custom_field_1_name = $5, custom_field_2_name = $6, custom_field_3_name = $7,
                  suspended = $8
            WHERE organisation_id = $1
           RETURNING organisation_id AS "organisation_id: OrganisationId", slug, display_name,
                     default_locale, unknown_members, custom_field_1_name, custom_field_2_name,
                     custom_field_3_name, suspended, created_at"#,
        id as OrganisationId,
        organisation.display_name,
        organisation.default_locale,
        i16::try_from(organisation.unknown_members).unwrap_or_default(),
        organisation.custom_field_1_name,
        organisation.custom_field_2_name,
        organisation.custom_field_3_name,
        organisation.suspended,
    )
    .fetch_optional(connection)
    .await?
    .map(Into::into)
    .ok_or(Error::NotFound("organisation"))
}
