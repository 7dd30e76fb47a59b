//! The statements that read a feed.

use std::fmt::Write as _;
use std::sync::Arc;

use futures::future::BoxFuture;
use sqlx::{AssertSqlSafe, PgConnection, Row as _};
use time::OffsetDateTime;
use tokio::sync::Semaphore;
use uuid::Uuid;

use super::{Change, Position};
use crate::id::OrganisationId;
use crate::postgres::Database;

/// How many changes are read at once.
pub(super) const BATCH: usize = 500;
/// How many of the newest changes are looked at for who has moved: what is written in a second, about.
const MOVED: i64 = 2_000;
/// How many connections readers take at most: half of a service's.
const AT_ONCE: usize = 8;

/// Why nothing can be read after a position.
#[derive(Debug)]
pub(super) enum Refusal {
    /// The position is not in the feed: it is of another history, or too old.
    Lost,
    /// The database failed.
    Database(sqlx::Error),
}

impl From<sqlx::Error> for Refusal {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error)
    }
}

/// The database as the readers of a feed use it: so many at once and no more, so that however many
/// watch, the calls of others find a connection.
#[derive(Debug, Clone)]
pub(super) struct Turns {
    pub(super) database: Database,
    turns: Arc<Semaphore>,
}

impl Turns {
    pub(super) fn new(database: Database) -> Self {
        Self { database, turns: Arc::new(Semaphore::new(AT_ONCE)) }
    }

    /// Reads by one statement, as one of an organisation, when its turn has come.
    pub(super) async fn read<T, F>(
        &self,
        organisation: OrganisationId,
        work: F,
    ) -> Result<T, Refusal>
    where
        F: for<'c> FnOnce(&'c mut PgConnection) -> BoxFuture<'c, Result<T, Refusal>>
            + Clone
            + Send
            + 'static,
        T: Send + 'static,
    {
        // Nobody closes it.
        let _turn = self.turns.acquire().await;
        self.database.point(organisation, work).await
    }
}

/// The changes after a position, at most [`BATCH`].
///
/// The position's own row is read with them, so that a reader whose feed was restored to another
/// history under them notices with the next batch.
pub(super) async fn after(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    position: Position,
) -> Result<Vec<Change>, Refusal> {
    let own = usize::from(position != Position::START);
    let mut changes: Vec<Change> = sqlx::query_as(
        "SELECT organisation_id, sequence, change_id, written_at, kind, subject_id, revision,
                CASE WHEN sequence > $2 THEN before::text END AS before,
                CASE WHEN sequence > $2 THEN after::text END AS after, actor, traceparent
           FROM change
          WHERE organisation_id = $1 AND sequence >= $2
          ORDER BY sequence LIMIT $3",
    )
    .bind(organisation)
    .bind(position.sequence)
    .bind(i64::try_from(BATCH + own).unwrap_or(i64::MAX))
    .fetch_all(connection)
    .await?;
    if own == 1 && changes.first().map(Change::position) != Some(position) {
        return Err(Refusal::Lost);
    }
    changes.drain(..own);
    let gapless = changes.iter().zip(position.sequence + 1..).all(|(c, next)| c.sequence == next);
    if gapless { Ok(changes) } else { Err(Refusal::Lost) }
}

/// How much of a feed its readers may rely on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kept {
    /// Changes written since then are kept,
    pub since: OffsetDateTime,
    /// and this many of the newest.
    pub newest: i64,
}

/// The newest change, where a reader may go on after `position`.
///
/// By the limits of retention, not by what happens to be there still; a reader from the start needs
/// the first change.
pub(super) async fn resume(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    position: Position,
    kept: Kept,
) -> Result<Position, Refusal> {
    let found: Option<(i64, Uuid, Option<Uuid>, Option<OffsetDateTime>)> = sqlx::query_as(
        "SELECT head.sequence, head.change_id, this.change_id, this.written_at
           FROM (SELECT sequence, change_id FROM change
                  WHERE organisation_id = $1 ORDER BY sequence DESC LIMIT 1) AS head
           LEFT JOIN change AS this ON this.organisation_id = $1 AND this.sequence = $2",
    )
    .bind(organisation)
    .bind(position.sequence.max(1))
    .fetch_optional(connection)
    .await?;
    let Some((sequence, change_id, this, written_at)) = found else {
        return if position == Position::START { Ok(position) } else { Err(Refusal::Lost) };
    };
    let there = this.is_some_and(|id| position == Position::START || id == position.change_id);
    let old = written_at.is_some_and(|at| at < kept.since)
        && sequence - position.sequence.max(1) >= kept.newest;
    if there && !old { Ok(Position { sequence, change_id }) } else { Err(Refusal::Lost) }
}

/// The newest change of each of these organisations, in one round trip.
///
/// Each is read with itself set as the transaction's organisation, so it needs no policy that shows
/// one organisation's rows to another.
pub(super) async fn heads(
    connection: &mut PgConnection,
    organisations: &[OrganisationId],
) -> Result<Vec<(OrganisationId, Position)>, sqlx::Error> {
    let mut statements = String::new();
    for id in organisations {
        // Parsed UUIDs, so nothing to inject.
        write!(
            statements,
            "SET LOCAL muster.organisation_id = '{id}';
             SELECT organisation_id, sequence, change_id FROM change
              WHERE organisation_id = '{id}' ORDER BY sequence DESC LIMIT 1;"
        )
        .expect("a string takes everything");
    }
    let rows = sqlx::raw_sql(AssertSqlSafe(statements)).fetch_all(connection).await?;
    let mut heads: Vec<_> = organisations.iter().map(|id| (*id, Position::START)).collect();
    for row in rows {
        let organisation: OrganisationId = row.try_get(0)?;
        let position = Position { sequence: row.try_get(1)?, change_id: row.try_get(2)? };
        if let Some(head) = heads.iter_mut().find(|(id, _)| *id == organisation) {
            head.1 = position;
        }
    }
    Ok(heads)
}

/// The organisations that have a feed.
pub(super) async fn organisations(
    connection: &mut PgConnection,
) -> Result<Vec<OrganisationId>, sqlx::Error> {
    sqlx::query_scalar("SELECT organisation_id FROM feed_lock").fetch_all(connection).await
}

/// The organisations that the newest changes are of, of those written since then, and the newest
/// sequence of each.
pub(super) async fn moved(
    connection: &mut PgConnection,
    since: OffsetDateTime,
) -> Result<Vec<(OrganisationId, i64)>, sqlx::Error> {
    sqlx::query_as(
        "SELECT organisation_id, max(sequence)
           FROM (SELECT organisation_id, sequence FROM feed_position
                  WHERE written_at > $1 ORDER BY written_at DESC LIMIT $2) AS lately
          GROUP BY organisation_id",
    )
    .bind(since)
    .bind(MOVED)
    .fetch_all(connection)
    .await
}

/// The changes of one subject before `before`, the newest first.
pub(super) async fn history(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    subject: Uuid,
    before: i64,
    limit: i64,
) -> Result<Vec<Change>, sqlx::Error> {
    sqlx::query_as(
        "SELECT organisation_id, sequence, change_id, written_at, kind, subject_id, revision,
                before::text AS before, after::text AS after, actor, traceparent
           FROM change
          WHERE organisation_id = $1 AND subject_id = $2 AND sequence < $3
          ORDER BY sequence DESC LIMIT $4",
    )
    .bind(organisation)
    .bind(subject)
    .bind(before)
    .bind(limit)
    .fetch_all(connection)
    .await
}
