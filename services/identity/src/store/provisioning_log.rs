//! The provisioning log, and how often there was what in it.

use std::collections::HashMap;

use muster_proto::identity::v1::{ProvisioningCount, ProvisioningLogEntry, ProvisioningOutcome};
use muster_runtime::clock::timestamp;
use muster_runtime::id::{ApiKeyId, LogEntryId, OrganisationId};
use muster_scim::caseless;
use sqlx::postgres::PgRow;
use sqlx::types::Json;
use sqlx::{PgConnection, QueryBuilder, Row as _};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::Error;
use crate::provisioning_log::Entry;

/// How many entries are deleted at once.
const RANGE: i64 = 5_000;

/// Appends entries of one organisation, and counts those that were not there. Where a name is not
/// said, it is what the user is called now, or what the entry before was.
pub(crate) async fn append(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    entries: Vec<Entry>,
) -> Result<(), sqlx::Error> {
    let messages = || entries.iter().map(|entry| &entry.message);
    let names: Vec<Option<String>> =
        messages().map(|m| Some(m.subject_name.clone()).filter(|name| !name.is_empty())).collect();
    let earlier = earlier_names(&entries);
    let key = |name: &Option<String>| name.as_deref().map(caseless::key);
    let keys: Vec<Option<String>> = names.iter().map(key).collect();
    let earlier_keys: Vec<Option<String>> = earlier.iter().map(key).collect();
    let unknown: Vec<serde_json::Value> =
        messages().map(|m| m.unknown_member_ids.clone().into()).collect();
    let small = |number: i32| i16::try_from(number).unwrap_or_default();
    sqlx::query!(
        r#"WITH appended AS (
             INSERT INTO identity.provisioning_log
                    (organisation_id, entry_id, requested_at, duration_us, api_key_id, method,
                     path, action, outcome, status, subject, subject_id, subject_name,
                     subject_name_key, scim_type, detail, unknown_member_ids,
                     unknown_member_count, trace_id, user_agent)
             SELECT $1, n.entry_id, n.requested_at, n.duration_us, n.api_key_id, n.method,
                    n.path, n.action, n.outcome, n.status, n.subject, n.subject_id,
                    coalesce(n.name, u.document->>'user_name', n.earlier, before.subject_name),
                    coalesce(n.name_key, u.user_name_key, n.earlier_key, before.subject_name_key),
                    n.scim_type, n.detail, n.unknown_member_ids, n.unknown_member_count,
                    n.trace_id, n.user_agent
               FROM identity.organisation AS o
              CROSS JOIN unnest($2::uuid[], $3::timestamptz[], $4::bigint[], $5::uuid[],
                                $6::text[], $7::text[], $8::smallint[], $9::smallint[],
                                $10::smallint[], $11::smallint[], $12::uuid[], $13::text[],
                                $14::text[], $15::text[], $16::text[], $17::jsonb[],
                                $18::integer[], $19::text[], $20::text[], $21::text[],
                                $22::text[])
                    AS n (entry_id, requested_at, duration_us, api_key_id, method, path, action,
                          outcome, status, subject, subject_id, name, name_key, scim_type, detail,
                          unknown_member_ids, unknown_member_count, trace_id, user_agent, earlier,
                          earlier_key)
               LEFT JOIN identity.users AS u
                 ON n.name IS NULL AND u.organisation_id = $1 AND u.user_id = n.subject_id
               LEFT JOIN LATERAL (
                      SELECT e.subject_name, e.subject_name_key
                        FROM identity.provisioning_log AS e
                       WHERE n.name IS NULL AND u.user_id IS NULL AND n.earlier IS NULL
                         AND e.organisation_id = $1 AND e.subject_id = n.subject_id
                       ORDER BY e.entry_id DESC LIMIT 1) AS before ON true
              WHERE o.organisation_id = $1
             ON CONFLICT (organisation_id, entry_id) DO NOTHING
             RETURNING action, outcome, requested_at)
           INSERT INTO identity.provisioning_count AS c
                  (organisation_id, action, outcome, count, first_at, last_at)
           SELECT $1, action, outcome, count(*), min(requested_at), max(requested_at)
             FROM appended
            GROUP BY action, outcome
            ORDER BY action, outcome
           ON CONFLICT (organisation_id, action, outcome) DO UPDATE
              SET count = c.count + EXCLUDED.count,
                  first_at = least(c.first_at, EXCLUDED.first_at),
                  last_at = greatest(c.last_at, EXCLUDED.last_at)"#,
        organisation as OrganisationId,
        entries.iter().map(|entry| entry.id).collect::<Vec<_>>() as Vec<LogEntryId>,
        &entries.iter().map(|entry| entry.requested_at).collect::<Vec<_>>(),
        &entries.iter().map(|entry| entry.duration_us).collect::<Vec<_>>(),
        entries.iter().map(|entry| entry.api_key).collect::<Vec<_>>() as Vec<Option<ApiKeyId>>,
        &messages().map(|m| m.method.clone()).collect::<Vec<_>>(),
        &messages().map(|m| m.path.clone()).collect::<Vec<_>>(),
        &messages().map(|m| small(m.action)).collect::<Vec<_>>(),
        &messages().map(|m| small(m.outcome)).collect::<Vec<_>>(),
        &messages().map(|m| small(m.status)).collect::<Vec<_>>(),
        &messages().map(|m| small(m.subject)).collect::<Vec<_>>(),
        entries.iter().map(|entry| entry.subject_id).collect::<Vec<_>>() as Vec<Option<Uuid>>,
        &names as &Vec<Option<String>>,
        &keys as &Vec<Option<String>>,
        &messages().map(|m| m.scim_type.clone()).collect::<Vec<_>>(),
        &messages().map(|m| m.detail.clone()).collect::<Vec<_>>(),
        &unknown,
        &messages().map(|m| m.unknown_member_count).collect::<Vec<_>>(),
        &messages().map(|m| m.trace_id.clone()).collect::<Vec<_>>(),
        &messages().map(|m| m.user_agent.clone()).collect::<Vec<_>>(),
        &earlier as &Vec<Option<String>>,
        &earlier_keys as &Vec<Option<String>>,
    )
    .execute(connection)
    .await
    .map(drop)
}

/// What each entry's subject was called earlier in the same batch, where it was.
fn earlier_names(entries: &[Entry]) -> Vec<Option<String>> {
    let mut names: HashMap<Uuid, String> = HashMap::new();
    let earlier = entries.iter().map(|entry| {
        let id = entry.subject_id?;
        let name = &entry.message.subject_name;
        if name.is_empty() {
            return names.get(&id).cloned();
        }
        names.insert(id, name.clone());
        None
    });
    earlier.collect()
}

/// Which entries to list.
#[derive(Debug, Clone, Default)]
pub(crate) struct Listing {
    pub outcome: Option<ProvisioningOutcome>,
    pub subject_id: Option<Uuid>,
    /// As [`caseless::key`] makes it.
    pub subject_name_prefix: Option<String>,
    pub api_key: Option<ApiKeyId>,
    pub changes_only: bool,
    pub since: Option<OffsetDateTime>,
    pub until: Option<OffsetDateTime>,
    /// The page begins after this entry, so with an earlier one.
    pub before: Option<LogEntryId>,
    pub limit: i64,
}

/// The columns of an entry, as [`entry`] reads them.
const COLUMNS: &str = "entry_id, requested_at, duration_us, api_key_id, method, path, action,
    outcome, status, subject, subject_id, subject_name, scim_type, detail, unknown_member_ids,
    unknown_member_count, trace_id, user_agent";

/// The newest first.
pub(crate) async fn list(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    listing: Listing,
) -> Result<Vec<ProvisioningLogEntry>, sqlx::Error> {
    let mut query = QueryBuilder::new("SELECT ");
    query.push(COLUMNS).push(" FROM identity.provisioning_log WHERE organisation_id = ");
    query.push_bind(organisation);
    if let Some(outcome) = listing.outcome {
        // A number of ours, in the text: so that the partial index of what is not applied serves.
        query.push(format!(" AND outcome = {}", outcome as i16));
    }
    if let Some(id) = listing.subject_id {
        query.push(" AND subject_id = ").push_bind(id);
    }
    if let Some(prefix) = listing.subject_name_prefix {
        query.push(" AND subject_name_key ^@ ").push_bind(prefix);
    }
    if let Some(id) = listing.api_key {
        query.push(" AND api_key_id = ").push_bind(id);
    }
    if listing.changes_only {
        query.push(" AND method <> 'GET'");
    }
    if let Some(since) = listing.since {
        query.push(" AND entry_id >= ").push_bind(LogEntryId::first_at(since));
    }
    for bound in [listing.until.map(LogEntryId::first_at), listing.before].into_iter().flatten() {
        query.push(" AND entry_id < ").push_bind(bound);
    }
    query.push(" ORDER BY entry_id DESC LIMIT ").push_bind(listing.limit);
    let rows = query.build().fetch_all(connection).await?;
    rows.into_iter().map(|row| entry(organisation, &row)).collect()
}

pub(crate) async fn get(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    id: LogEntryId,
) -> Result<ProvisioningLogEntry, Error> {
    let mut query = QueryBuilder::new("SELECT ");
    query.push(COLUMNS).push(" FROM identity.provisioning_log WHERE organisation_id = ");
    query.push_bind(organisation).push(" AND entry_id = ").push_bind(id);
    let row = query.build().fetch_optional(connection).await?;
    let row = row.ok_or(Error::NotFound("entry of the provisioning log"))?;
    Ok(entry(organisation, &row)?)
}

fn entry(organisation: OrganisationId, row: &PgRow) -> Result<ProvisioningLogEntry, sqlx::Error> {
    let number = |name: &str| row.try_get::<i16, _>(name).map(i32::from);
    let text = |name: &str| row.try_get::<String, _>(name);
    let id =
        |name: &str| row.try_get::<Option<Uuid>, _>(name).map(|id| id.map(|id| id.to_string()));
    let duration: i64 = row.try_get("duration_us")?;
    let unknown: Json<Vec<String>> = row.try_get("unknown_member_ids")?;
    Ok(ProvisioningLogEntry {
        id: row.try_get::<Uuid, _>("entry_id")?.to_string(),
        organisation_id: organisation.to_string(),
        request_time: Some(timestamp(row.try_get("requested_at")?)),
        duration: Some(prost_types::Duration {
            seconds: duration / 1_000_000,
            nanos: i32::try_from(duration % 1_000_000 * 1_000).unwrap_or_default(),
        }),
        api_key_id: id("api_key_id")?.unwrap_or_default(),
        method: text("method")?,
        path: text("path")?,
        action: number("action")?,
        outcome: number("outcome")?,
        status: number("status")?,
        subject: number("subject")?,
        subject_id: id("subject_id")?.unwrap_or_default(),
        subject_name: row.try_get::<Option<String>, _>("subject_name")?.unwrap_or_default(),
        scim_type: text("scim_type")?,
        detail: text("detail")?,
        unknown_member_ids: unknown.0,
        unknown_member_count: row.try_get("unknown_member_count")?,
        trace_id: text("trace_id")?,
        user_agent: text("user_agent")?,
    })
}

pub(crate) async fn counts(
    connection: &mut PgConnection,
    organisation: OrganisationId,
) -> Result<Vec<ProvisioningCount>, sqlx::Error> {
    let rows = sqlx::query!(
        "SELECT action, outcome, count, first_at, last_at
           FROM identity.provisioning_count
          WHERE organisation_id = $1 ORDER BY action, outcome",
        organisation as OrganisationId,
    )
    .fetch_all(connection)
    .await?;
    let counts = rows.into_iter().map(|row| ProvisioningCount {
        action: row.action.into(),
        outcome: row.outcome.into(),
        count: row.count,
        first_time: Some(timestamp(row.first_at)),
        last_time: Some(timestamp(row.last_at)),
    });
    Ok(counts.collect())
}

/// The last of the next range of entries before `first_kept`; none where there is nothing.
pub(crate) async fn prunable(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    first_kept: LogEntryId,
) -> Result<Option<LogEntryId>, sqlx::Error> {
    sqlx::query_scalar!(
        r#"SELECT entry_id AS "entry_id: LogEntryId"
             FROM (SELECT entry_id FROM identity.provisioning_log
                    WHERE organisation_id = $1 AND entry_id < $2
                    ORDER BY entry_id LIMIT $3) AS oldest
            ORDER BY entry_id DESC LIMIT 1"#,
        organisation as OrganisationId,
        first_kept as LogEntryId,
        RANGE,
    )
    .fetch_optional(connection)
    .await
}

pub(crate) async fn delete(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    last: LogEntryId,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "DELETE FROM identity.provisioning_log WHERE organisation_id = $1 AND entry_id <= $2",
        organisation as OrganisationId,
        last as LogEntryId,
    )
    .execute(connection)
    .await
    .map(drop)
}
