//! API keys. Only the SHA-256 of a secret is kept.

use muster_proto::identity::v1::{ApiKey, Organisation};
use muster_runtime::clock::timestamp;
use muster_runtime::feed::Actor;
use muster_runtime::id::{ApiKeyId, OrganisationId};
use sqlx::PgConnection;
use time::OffsetDateTime;

use super::organisation;
use crate::Error;
use crate::secret::Hash;

struct Row {
    organisation_id: OrganisationId,
    api_key_id: ApiKeyId,
    prefix: String,
    label: String,
    created_at: OffsetDateTime,
    creator: String,
    expires_at: Option<OffsetDateTime>,
    revoked_at: Option<OffsetDateTime>,
    first_used_at: Option<OffsetDateTime>,
    last_used_at: Option<OffsetDateTime>,
    source_networks: Vec<String>,
}

impl From<Row> for ApiKey {
    fn from(row: Row) -> Self {
        Self {
            id: row.api_key_id.to_string(),
            organisation_id: row.organisation_id.to_string(),
            label: row.label,
            prefix: row.prefix,
            create_time: Some(timestamp(row.created_at)),
            creator: Some(Actor::from_column(&row.creator).to_proto()),
            expire_time: row.expires_at.map(timestamp),
            revoke_time: row.revoked_at.map(timestamp),
            last_use_time: row.last_used_at.map(timestamp),
            first_use_time: row.first_used_at.map(timestamp),
            source_networks: row.source_networks,
        }
    }
}

/// A key to create.
pub(crate) struct NewApiKey {
    pub hash: Hash,
    pub prefix: String,
    pub label: String,
    pub expires_at: Option<OffsetDateTime>,
    pub source_networks: Vec<String>,
    pub creator: Actor,
}

pub(crate) async fn create(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    key: NewApiKey,
    now: OffsetDateTime,
) -> Result<ApiKey, Error> {
    sqlx::query_as!(
        Row,
        r#"INSERT INTO identity.api_key
                  (organisation_id, api_key_id, secret_hash, prefix, label, created_at, creator,
                   expires_at, source_networks)
           SELECT organisation_id, $2, $3, $4, $5, $6, $7, $8, $9
             FROM identity.organisation WHERE organisation_id = $1
           RETURNING organisation_id AS "organisation_id: OrganisationId",
                     api_key_id AS "api_key_id: ApiKeyId", prefix, label, created_at, creator,
                     expires_at, revoked_at, first_used_at, last_used_at, source_networks"#,
        organisation as OrganisationId,
        ApiKeyId::new() as ApiKeyId,
        &key.hash[..],
        key.prefix,
        key.label,
        now,
        key.creator.to_column(),
        key.expires_at,
        &key.source_networks,
    )
    .fetch_optional(connection)
    .await?
    .map(Into::into)
    .ok_or(Error::NotFound("organisation"))
}

pub(crate) async fn list(
    connection: &mut PgConnection,
    organisation: OrganisationId,
) -> Result<Vec<ApiKey>, Error> {
    let rows = sqlx::query_as!(
        Row,
        r#"SELECT organisation_id AS "organisation_id: OrganisationId",
                  api_key_id AS "api_key_id: ApiKeyId", prefix, label, created_at, creator,
                  expires_at, revoked_at, first_used_at, last_used_at, source_networks
             FROM identity.api_key WHERE organisation_id = $1 ORDER BY api_key_id LIMIT 1000"#,
        organisation as OrganisationId,
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(Into::into).collect())
}

/// Revokes a key; one that is revoked keeps its time.
pub(crate) async fn revoke(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    id: ApiKeyId,
    now: OffsetDateTime,
) -> Result<ApiKey, Error> {
    sqlx::query_as!(
        Row,
        r#"UPDATE identity.api_key SET revoked_at = coalesce(revoked_at, $3)
            WHERE organisation_id = $1 AND api_key_id = $2
           RETURNING organisation_id AS "organisation_id: OrganisationId",
                     api_key_id AS "api_key_id: ApiKeyId", prefix, label, created_at, creator,
                     expires_at, revoked_at, first_used_at, last_used_at, source_networks"#,
        organisation as OrganisationId,
        id as ApiKeyId,
        now,
    )
    .fetch_optional(connection)
    .await?
    .map(Into::into)
    .ok_or(Error::NotFound("API key"))
}

/// A key that may be used at `now`, with its organisation; and whether its last use was noted long
/// enough ago to be noted again.
pub(crate) async fn authenticate(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    hash: Hash,
    now: OffsetDateTime,
) -> Result<(ApiKey, Organisation, bool), Error> {
    let row = sqlx::query!(
        r#"SELECT k.api_key_id AS "api_key_id: ApiKeyId", k.prefix, k.label,
                  k.created_at AS key_created_at, k.creator, k.expires_at, k.revoked_at,
                  k.first_used_at, k.last_used_at, k.source_networks, o.organisation_id AS "organisation_id: OrganisationId", o.slug,
                  o.display_name, o.default_locale, o.unknown_members, o.custom_field_1_name,
                  o.custom_field_2_name, o.custom_field_3_name, o.suspended, o.created_at
             FROM identity.api_key AS k
             JOIN identity.organisation AS o ON o.organisation_id = k.organisation_id
            WHERE k.organisation_id = $1 AND k.secret_hash = $2
              AND k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > $3)
              AND NOT o.suspended"#,
        organisation as OrganisationId,
        &hash[..],
        now,
    )
    .fetch_optional(&mut *connection)
    .await?;
    let Some(row) = row else {
        return Err(refused(connection, organisation, hash).await?);
    };
    let stale = row.last_used_at.is_none_or(|used| now - used > time::Duration::minutes(1));
    let key = Row {
        organisation_id: row.organisation_id,
        api_key_id: row.api_key_id,
        prefix: row.prefix,
        label: row.label,
        created_at: row.key_created_at,
        creator: row.creator,
        expires_at: row.expires_at,
        revoked_at: row.revoked_at,
        first_used_at: row.first_used_at,
        last_used_at: row.last_used_at,
        source_networks: row.source_networks,
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
    Ok((key.into(), organisation.into(), stale))
}

/// Why a key may not be used: whose it is, where it is anybody's.
async fn refused(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    hash: Hash,
) -> Result<Error, sqlx::Error> {
    let id = sqlx::query_scalar!(
        r#"SELECT api_key_id AS "api_key_id: ApiKeyId"
             FROM identity.api_key
            WHERE organisation_id = $1 AND secret_hash = $2"#,
        organisation as OrganisationId,
        &hash[..],
    )
    .fetch_optional(connection)
    .await?;
    Ok(id.map_or(Error::Unauthenticated, |api_key| Error::KeyRefused { organisation, api_key }))
}

/// Notes a key's use.
pub(crate) async fn used(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    hash: Hash,
    now: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE identity.api_key
            SET first_used_at = coalesce(first_used_at, $3),
                last_used_at = greatest(last_used_at, $3)
          WHERE organisation_id = $1 AND secret_hash = $2",
        organisation as OrganisationId,
        &hash[..],
        now,
    )
    .execute(connection)
    .await
    .map(drop)
}
