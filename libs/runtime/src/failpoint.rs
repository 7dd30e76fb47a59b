//! Places where a test ends the process, and mistakes that it makes us make to see that they are
//! noticed. Compiled with the feature `failpoints` only; each is off unless the variable
//! `FAILPOINTS` names it: `FAILPOINTS=commit-after=return`.

use std::time::Duration;

use sqlx::PgConnection;
use sqlx::types::Json;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::feed::{Actor, NewChange};
use crate::id::OrganisationId;
use crate::telemetry;

/// Ends the process here, as a crash would, where the point is on.
pub fn crash(point: &str) {
    fail::fail_point!(point, |_| std::process::abort());
}

/// How far the process' clock is from the others'; `MUSTER_CLOCK_OFFSET_SECONDS` says.
pub(crate) fn clock_offset() -> time::Duration {
    static OFFSET: std::sync::LazyLock<i64> = std::sync::LazyLock::new(|| {
        let text = std::env::var("MUSTER_CLOCK_OFFSET_SECONDS").unwrap_or_default();
        text.parse().unwrap_or_default()
    });
    time::Duration::seconds(*OFFSET)
}

/// Whether the mistake is to be made.
#[must_use]
pub fn is_on(mistake: &str) -> bool {
    fail::fail_point!(mistake, |_| true);
    false
}

/// The mistake of writing the change in another transaction than what it tells of.
pub(crate) async fn leave_transaction(
    connection: &mut PgConnection,
    organisation: OrganisationId,
) -> Result<(), sqlx::Error> {
    if is_on("mistake-change-outside") {
        sqlx::raw_sql("COMMIT").execute(&mut *connection).await?;
        tokio::time::sleep(Duration::from_millis(60)).await;
        let begin = format!("BEGIN; SET LOCAL muster.organisation_id = '{organisation}'");
        sqlx::raw_sql(sqlx::AssertSqlSafe(begin)).execute(connection).await?;
    }
    Ok(())
}

/// The mistake of taking the sequence from a counter, without the lock of the feed; none where it is
/// not made. The counter is a sequence `plain` that the test has made.
pub(crate) async fn append_by_counter(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    actor: &Actor,
    written_at: OffsetDateTime,
    changes: &[NewChange],
) -> Result<Option<i64>, sqlx::Error> {
    if !is_on("mistake-plain-counter") {
        return Ok(None);
    }
    let mut last = None;
    for change in changes {
        let sequence: i64 = sqlx::query_scalar(
            "INSERT INTO change (organisation_id, sequence, change_id, written_at, kind, subject_id,
                                 revision, before, after, actor, traceparent, total, active)
             VALUES ($1, nextval('plain'), $2, $3, $4, $5, $6, $7, $8, $9, $10, 0, 0)
             RETURNING sequence",
        )
        .bind(organisation)
        .bind(Uuid::new_v4())
        .bind(written_at)
        .bind(change.kind)
        .bind(change.subject)
        .bind(change.revision.0)
        .bind(change.before.as_ref().map(Json))
        .bind(change.after.as_ref().map(Json))
        .bind(actor.to_column())
        .bind(telemetry::traceparent())
        .fetch_one(&mut *connection)
        .await?;
        last = Some(sequence);
        // Some commits are slower than others.
        let slow = u64::try_from(sequence % 4).unwrap_or_default();
        tokio::time::sleep(Duration::from_millis(40 * slow)).await;
    }
    Ok(last)
}
