//! Following another service's feed: every change exactly once, whatever dies when.
//!
//! The follower's schema has the table `cursor`, with a row for each organisation: how far it has
//! come. A change is applied in the transaction that advances the row, and the row is locked
//! first, so replicas side by side take each change once between them.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{Stream, StreamExt as _};
use sqlx::PgConnection;
use tonic::Status;
use tracing::Instrument as _;

use crate::feed::Feed;
use crate::id::OrganisationId;
use crate::life::Life;
use crate::postgres::Database;

/// A change of the followed feed.
#[derive(Debug, Clone)]
pub struct Followed<C> {
    /// The organisation.
    pub organisation: OrganisationId,
    /// Its place in the organisation's feed.
    pub sequence: i64,
    /// Where to resume after it.
    pub resume_token: String,
    /// What the follower makes of the change.
    pub change: C,
}

/// How long to wait before a feed that broke off is opened again.
const REOPEN: Duration = Duration::from_millis(500);
/// How often a change is tried before its organisation is left for the next opening.
const TRIES: u32 = 3;

/// Follows until the life ends.
///
/// `open` opens the feed after the given tokens; `apply` applies one change, tells whether it
/// appended to the follower's own `feed`, and may be called again with one it has applied before. A change that cannot be applied holds up its own
/// organisation only, and is tried again whenever the feed is opened afresh.
pub async fn follow<C, S, O, A>(database: Database, feed: Feed, life: Life, open: O, apply: A)
where
    C: Clone + Send + 'static,
    S: Stream<Item = Result<Followed<C>, Status>> + Send + Unpin,
    O: Fn(Vec<String>) -> BoxFuture<'static, Result<S, Status>> + Send,
    A: for<'c> Fn(&'c mut PgConnection, C) -> BoxFuture<'c, Result<bool, sqlx::Error>>
        + Clone
        + Send
        + 'static,
{
    while !life.is_stopped() {
        let session = async {
            let tokens = tokens(&database).await.map_err(|e| crate::grpc::database_status(&e))?;
            let stream = open(tokens).await?;
            read(&database, &feed, stream, &apply).await
        };
        tokio::select! {
            ended = session => match ended {
                Ok(()) => {}
                Err(status) => {
                    tracing::warn!(code = ?status.code(), message = status.message(), "the followed feed broke off");
                }
            },
            () = life.stopped() => return,
        }
        tokio::select! {
            () = tokio::time::sleep(REOPEN) => {}
            () = life.stopped() => return,
        }
    }
}

/// Applies a stream's changes until it ends, or until an organisation had to be left behind and
/// the stream is idle no longer.
async fn read<C, A>(
    database: &Database,
    feed: &Feed,
    mut stream: impl Stream<Item = Result<Followed<C>, Status>> + Send + Unpin,
    apply: &A,
) -> Result<(), Status>
where
    C: Clone + Send + 'static,
    A: for<'c> Fn(&'c mut PgConnection, C) -> BoxFuture<'c, Result<bool, sqlx::Error>>
        + Clone
        + Send
        + 'static,
{
    let mut behind = BTreeSet::new();
    loop {
        let next = stream.next();
        let item = if behind.is_empty() {
            next.await
        } else {
            match tokio::time::timeout(REOPEN, next).await {
                Ok(item) => item,
                Err(_) => return Ok(()),
            }
        };
        let Some(followed) = item.transpose()? else { return Ok(()) };
        if behind.contains(&followed.organisation) {
            continue;
        }
        let organisation = followed.organisation;
        if !try_advance(database, feed, followed, apply).await {
            behind.insert(organisation);
        }
    }
}

/// Whether the change is applied, now or earlier.
async fn try_advance<C, A>(
    database: &Database,
    feed: &Feed,
    followed: Followed<C>,
    apply: &A,
) -> bool
where
    C: Clone + Send + 'static,
    A: for<'c> Fn(&'c mut PgConnection, C) -> BoxFuture<'c, Result<bool, sqlx::Error>>
        + Clone
        + Send
        + 'static,
{
    let span = tracing::info_span!("follow", organisation = %followed.organisation, sequence = followed.sequence);
    async move {
        for attempt in 1..=TRIES {
            let (this, apply) = (followed.clone(), apply.clone());
            let advanced = database
                .write(followed.organisation, move |c| Box::pin(advance(c, this, apply)))
                .await;
            match advanced {
                Ok(appended) => {
                    // After the commit: a reader who is woken earlier finds nothing.
                    if appended {
                        feed.wake(followed.organisation);
                    }
                    return true;
                }
                Err(error) => {
                    drop(crate::grpc::database_status(&error));
                    tracing::warn!(attempt, "a change could not be applied");
                    tokio::time::sleep(Duration::from_millis(50) * attempt).await;
                }
            }
        }
        false
    }
    .instrument(span)
    .await
}

async fn advance<C, A>(
    connection: &mut PgConnection,
    followed: Followed<C>,
    apply: A,
) -> Result<bool, sqlx::Error>
where
    A: for<'c> Fn(&'c mut PgConnection, C) -> BoxFuture<'c, Result<bool, sqlx::Error>>,
{
    let lock = "SELECT sequence FROM cursor WHERE organisation_id = $1 FOR UPDATE";
    let mut sequence: Option<i64> = sqlx::query_scalar(lock)
        .bind(followed.organisation)
        .fetch_optional(&mut *connection)
        .await?;
    if sequence.is_none() {
        sqlx::query(
            "INSERT INTO cursor (organisation_id, sequence, resume_token) VALUES ($1, 0, '')
             ON CONFLICT (organisation_id) DO NOTHING",
        )
        .bind(followed.organisation)
        .execute(&mut *connection)
        .await?;
        sequence = sqlx::query_scalar(lock)
            .bind(followed.organisation)
            .fetch_optional(&mut *connection)
            .await?;
    }
    let sequence = sequence.unwrap_or_default();
    if sequence >= followed.sequence {
        return Ok(false);
    }
    if sequence + 1 != followed.sequence {
        return Err(sqlx::Error::Protocol(format!(
            "the feed went from change {sequence} to {}",
            followed.sequence
        )));
    }
    let appended = apply(&mut *connection, followed.change).await?;
    #[cfg(feature = "failpoints")]
    crate::failpoint::crash("follow-before-cursor");
    sqlx::query("UPDATE cursor SET sequence = $2, resume_token = $3 WHERE organisation_id = $1")
        .bind(followed.organisation)
        .bind(followed.sequence)
        .bind(followed.resume_token)
        .execute(&mut *connection)
        .await?;
    Ok(appended)
}

async fn tokens(database: &Database) -> Result<Vec<String>, sqlx::Error> {
    database
        .read_shared(|connection| {
            Box::pin(async move {
                sqlx::query_scalar("SELECT resume_token FROM cursor WHERE resume_token <> ''")
                    .fetch_all(connection)
                    .await
            })
        })
        .await
}
