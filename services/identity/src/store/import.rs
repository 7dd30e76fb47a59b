//! Imports of people: the file, how far it is, and the changes to append at its end.

use muster_proto::identity::v1::{Import, ImportState};
use muster_runtime::clock::timestamp;
use muster_runtime::feed::{Actor, Kept, NewChange, Payload, append_kept};
use muster_runtime::id::OrganisationId;
use sqlx::PgConnection;
use sqlx::types::Json;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use crate::Error;

/// How long a file is kept.
const LIFETIME: Duration = Duration::hours(1);
/// A run that was not heard of for so long has ended with its process.
const SILENCE: Duration = Duration::minutes(1);
/// The kept changes of an import, as the feed takes them.
const CHANGES: &str = "
    SELECT position, change_id, kind, user_id AS subject_id, revision, before, after,
           CASE kind WHEN 1 THEN 1 ELSE 0 END AS total, active
      FROM identity.import_change WHERE organisation_id = $1 AND import_id = $2";

/// Which import.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Which {
    pub organisation: OrganisationId,
    pub import: Uuid,
}

/// Keeps a file, and forgets those that are too old.
pub(crate) async fn create(
    connection: &mut PgConnection,
    which: Which,
    file: Vec<u8>,
    now: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "WITH forgotten AS (
             DELETE FROM identity.import
              WHERE organisation_id = $1 AND created_at < $5
                AND (seen_at IS NULL OR seen_at < $6)
         )
         INSERT INTO identity.import (organisation_id, import_id, created_at, file, state)
         VALUES ($1, $2, $3, $4, 1)",
        which.organisation as OrganisationId,
        which.import,
        now,
        file,
        now - LIFETIME,
        now - SILENCE,
    )
    .execute(connection)
    .await
    .map(drop)
}

pub(crate) async fn get(
    connection: &mut PgConnection,
    which: Which,
    now: OffsetDateTime,
) -> Result<Import, Error> {
    let row = sqlx::query!(
        r#"SELECT created_at, state, seen_at, row_count, done_count, created_count, updated_count,
                  failure
             FROM identity.import
            WHERE organisation_id = $1 AND import_id = $2 AND created_at > $3"#,
        which.organisation as OrganisationId,
        which.import,
        now - LIFETIME,
    )
    .fetch_optional(connection)
    .await?
    .ok_or(Error::NotFound("import"))?;
    let silent = row.seen_at.is_some_and(|seen_at| seen_at < now - SILENCE);
    let mut import = Import {
        id: which.import.to_string(),
        organisation_id: which.organisation.to_string(),
        create_time: Some(timestamp(row.created_at)),
        state: row.state.into(),
        row_count: row.row_count,
        done_count: row.done_count,
        created_count: row.created_count,
        updated_count: row.updated_count,
        failure: row.failure,
    };
    if import.state() == ImportState::Running && silent {
        import.set_state(ImportState::Failed);
        "The import was interrupted. Start it again.".clone_into(&mut import.failure);
    }
    Ok(import)
}

pub(crate) async fn file(
    connection: &mut PgConnection,
    which: Which,
    now: OffsetDateTime,
) -> Result<Vec<u8>, Error> {
    sqlx::query_scalar!(
        "SELECT file FROM identity.import
          WHERE organisation_id = $1 AND import_id = $2 AND created_at > $3",
        which.organisation as OrganisationId,
        which.import,
        now - LIFETIME,
    )
    .fetch_optional(connection)
    .await?
    .ok_or(Error::NotFound("import"))
}

/// Begins a run, where none is under way and none has succeeded; whether it did.
pub(crate) async fn start(
    connection: &mut PgConnection,
    which: Which,
    run: Uuid,
    now: OffsetDateTime,
) -> Result<bool, sqlx::Error> {
    let started = sqlx::query!(
        "UPDATE identity.import
            SET state = 2, run_id = $3, seen_at = $4, row_count = 0, done_count = 0, failure = ''
          WHERE organisation_id = $1 AND import_id = $2
            AND (state IN (1, 4) OR state = 2 AND seen_at < $5)",
        which.organisation as OrganisationId,
        which.import,
        run,
        now,
        now - SILENCE,
    )
    .execute(connection)
    .await?;
    Ok(started.rows_affected() > 0)
}

/// Notes how far a run is.
pub(crate) async fn progress(
    connection: &mut PgConnection,
    which: Which,
    run: Uuid,
    (done, total): (i64, i64),
    now: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE identity.import SET done_count = $4, row_count = $5, seen_at = $6
          WHERE organisation_id = $1 AND import_id = $2 AND run_id = $3",
        which.organisation as OrganisationId,
        which.import,
        run,
        done,
        total,
        now,
    )
    .execute(connection)
    .await
    .map(drop)
}

/// Notes why a run has imported nothing.
pub(crate) async fn fail(
    connection: &mut PgConnection,
    which: Which,
    run: Uuid,
    failure: String,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE identity.import SET state = 4, failure = $4
          WHERE organisation_id = $1 AND import_id = $2 AND run_id = $3",
        which.organisation as OrganisationId,
        which.import,
        run,
        failure,
    )
    .execute(connection)
    .await
    .map(drop)
}

/// Keeps changes for the end of the run's transaction.
pub(crate) async fn keep_changes(
    connection: &mut PgConnection,
    which: Which,
    kept: i64,
    changes: &[NewChange],
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "INSERT INTO identity.import_change
                (organisation_id, import_id, position, change_id, kind, user_id, revision, before,
                 after, active)
         SELECT $1, $2, $3 + n.position, n.change_id, n.kind, n.user_id, n.revision, n.before,
                n.after, n.active
           FROM unnest($4::uuid[], $5::smallint[], $6::uuid[], $7::bigint[], $8::jsonb[],
                       $9::jsonb[], $10::bigint[])
                WITH ORDINALITY
                AS n (change_id, kind, user_id, revision, before, after, active, position)",
        which.organisation as OrganisationId,
        which.import,
        kept,
        &changes.iter().map(|_| Uuid::new_v4()).collect::<Vec<_>>(),
        &changes.iter().map(|change| change.kind as i16).collect::<Vec<_>>(),
        &changes.iter().map(|change| change.subject).collect::<Vec<_>>(),
        &changes.iter().map(|change| change.revision.0).collect::<Vec<_>>(),
        changes.iter().map(|change| change.before.as_ref().map(Json)).collect::<Vec<_>>()
            as Vec<Option<Json<&Payload>>>,
        changes.iter().map(|change| change.after.as_ref().map(Json)).collect::<Vec<_>>()
            as Vec<Option<Json<&Payload>>>,
        &changes.iter().map(|change| change.active).collect::<Vec<_>>(),
    )
    .execute(connection)
    .await
    .map(drop)
}

/// Ends a run: notes what it did, forgets the file's changes and appends them to the feed. Fails
/// where another run has taken over.
pub(crate) async fn finish(
    connection: &mut PgConnection,
    which: Which,
    run: Uuid,
    (created, updated): (i64, i64),
    actor: &Actor,
    now: OffsetDateTime,
) -> Result<(), Error> {
    let finished = sqlx::query!(
        "UPDATE identity.import SET state = 3, created_count = $4, updated_count = $5
          WHERE organisation_id = $1 AND import_id = $2 AND run_id = $3 AND state = 2",
        which.organisation as OrganisationId,
        which.import,
        run,
        created,
        updated,
    )
    .execute(&mut *connection)
    .await?;
    if finished.rows_affected() == 0 {
        return Err(Error::Busy);
    }
    let kept = Kept { source: CHANGES, of: which.import, count: created + updated };
    append_kept(connection, which.organisation, actor, now, kept).await?;
    sqlx::query!(
        "DELETE FROM identity.import_change WHERE organisation_id = $1 AND import_id = $2",
        which.organisation as OrganisationId,
        which.import,
    )
    .execute(connection)
    .await?;
    Ok(())
}
