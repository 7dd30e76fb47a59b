//! Reading a feed: from a position on, for ever.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use sqlx::PgConnection;
use tokio::sync::{broadcast, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::{Change, InvalidPageToken, Page, Position, TokenKey, head};
use crate::clock;
use crate::grpc::database_status;
use crate::id::OrganisationId;
use crate::life::Life;
use crate::postgres::Database;

/// How many changes are read at once.
const BATCH: i64 = 500;
/// How often every organisation's feed is looked at, hint or not: correctness rests on this.
const SWEEP: Duration = Duration::from_secs(2);
/// How often an idle watch hears where it stands.
const HEARTBEAT: Duration = Duration::from_secs(30);
/// How long a reader may leave a message waiting.
const SLOWEST_READER: Duration = Duration::from_secs(30);

/// One service's feed, for its readers.
#[derive(Debug, Clone)]
pub struct Feed {
    database: Database,
    key: TokenKey,
    wake: broadcast::Sender<OrganisationId>,
    life: Life,
}

/// What to watch.
#[derive(Debug, Clone)]
pub struct Watch {
    /// The organisation; every one where it is none.
    pub organisation: Option<OrganisationId>,
    /// Where to resume, at most one token an organisation.
    pub resume_tokens: Vec<String>,
    /// Whether an organisation without a token begins after its newest change.
    pub from_now: bool,
}

/// What a watch tells.
#[derive(Debug, Clone)]
pub struct Watched {
    /// Where to resume after it.
    pub resume_token: String,
    /// The change; none in a heart-beat.
    pub change: Option<Change>,
}

type Sender = mpsc::Sender<Result<Watched, Status>>;

impl Feed {
    /// The feed called `name` in the database's schema.
    pub async fn open(
        name: &'static str,
        database: Database,
        life: Life,
    ) -> Result<Self, sqlx::Error> {
        let secret: Vec<u8> = database
            .read_shared(|connection| {
                Box::pin(async move {
                    sqlx::query_scalar("SELECT secret FROM feed_key").fetch_one(connection).await
                })
            })
            .await?;
        let secret = secret.try_into().map_err(|_| {
            sqlx::Error::Configuration("feed_key.secret is not 32 bytes long".into())
        })?;
        let (wake, _) = broadcast::channel(1024);
        Ok(Self { database, key: TokenKey::new(name, secret), wake, life })
    }

    /// Wakes this process' readers: call it after a commit that appended. A hint, never needed for
    /// correctness.
    pub fn wake(&self, organisation: OrganisationId) {
        // An error says that nobody is watching.
        drop(self.wake.send(organisation));
    }

    /// The token to resume with after a position.
    #[must_use]
    pub fn token(&self, organisation: OrganisationId, position: Position) -> String {
        self.key.seal(organisation, position)
    }

    /// The token for the next page of a list.
    #[must_use]
    pub fn page_token(&self, organisation: OrganisationId, query: &str, page: Page) -> String {
        self.key.seal_page(organisation, query, page, clock::now())
    }

    /// Where a list goes on; none for the first page, whose token is empty.
    pub fn open_page(
        &self,
        organisation: OrganisationId,
        query: &str,
        token: &str,
    ) -> Result<Option<Page>, InvalidPageToken> {
        if token.is_empty() {
            return Ok(None);
        }
        self.key.open_page(organisation, query, token, clock::now()).map(Some)
    }

    /// Watches until the reader goes away or the process stops.
    ///
    /// Errors: `INVALID_ARGUMENT` for a token that is not of this feed or of another organisation,
    /// `OUT_OF_RANGE` for one whose change is not there (any more), `UNAVAILABLE` to a reader that
    /// is too slow and at shutdown.
    pub fn watch(&self, watch: Watch) -> Result<ReceiverStream<Result<Watched, Status>>, Status> {
        let mut positions = HashMap::new();
        for token in &watch.resume_tokens {
            let (organisation, position) = self.key.open(token).ok_or_else(|| {
                Status::invalid_argument("a resume token is not one of this feed; list afresh")
            })?;
            if watch.organisation.is_some_and(|only| only != organisation) {
                return Err(Status::invalid_argument("a resume token is of another organisation"));
            }
            positions.insert(organisation, position);
        }
        let (sender, receiver) = mpsc::channel(1);
        let reader = Reader {
            feed: self.clone(),
            only: watch.organisation,
            from_now: watch.from_now,
            resumed: positions.keys().copied().collect(),
            positions,
        };
        let life = self.life.clone();
        self.life.spawn(async move {
            let end = tokio::select! {
                end = reader.run(&sender) => end,
                () = life.stopped() => Some(Status::unavailable("shutting down; resume elsewhere")),
                () = sender.closed() => None,
            };
            if let Some(status) = end {
                drop(sender.try_send(Err(status)));
            }
        });
        Ok(ReceiverStream::new(receiver))
    }

    async fn organisations(&self) -> Result<Vec<OrganisationId>, sqlx::Error> {
        self.database
            .read_shared(|connection| {
                Box::pin(async move {
                    sqlx::query_scalar("SELECT organisation_id FROM feed_lock")
                        .fetch_all(connection)
                        .await
                })
            })
            .await
    }
}

struct Reader {
    feed: Feed,
    only: Option<OrganisationId>,
    from_now: bool,
    positions: HashMap<OrganisationId, Position>,
    /// Organisations whose token has not been compared with the feed yet.
    resumed: BTreeSet<OrganisationId>,
}

impl Reader {
    /// Reads until an error ends the watch; none where the reader has gone.
    async fn run(mut self, sender: &Sender) -> Option<Status> {
        let mut wake = self.feed.wake.subscribe();
        let mut sweep = tokio::time::interval(SWEEP);
        sweep.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut heartbeat = tokio::time::interval(HEARTBEAT);
        let mut first = true;
        loop {
            let moved = tokio::select! {
                _ = sweep.tick() => None,
                _ = heartbeat.tick() => {
                    if let Err(end) = self.beat(sender).await {
                        return end;
                    }
                    continue;
                }
                hint = wake.recv() => hint.ok(),
            };
            let moved = match (moved, self.only) {
                (Some(moved), Some(only)) if moved != only => continue,
                (Some(moved), _) => vec![moved],
                (None, Some(only)) => vec![only],
                (None, None) => match self.feed.organisations().await {
                    Ok(organisations) => organisations,
                    Err(error) => return Some(database_status(&error)),
                },
            };
            for organisation in moved {
                if let Err(end) = self.read(organisation, first && self.from_now, sender).await {
                    return end;
                }
            }
            first = false;
        }
    }

    /// Sends what is new in one organisation.
    async fn read(
        &mut self,
        organisation: OrganisationId,
        skip: bool,
        sender: &Sender,
    ) -> Result<(), Option<Status>> {
        let mut position = match self.positions.get(&organisation) {
            Some(position) => *position,
            None if skip => {
                let newest = self
                    .feed
                    .database
                    .read(organisation, move |c| Box::pin(head(c, organisation)))
                    .await
                    .map_err(|error| Some(database_status(&error)))?;
                newest.position
            }
            None => Position::START,
        };
        loop {
            let check = self.resumed.remove(&organisation);
            let changes = self
                .feed
                .database
                .read(organisation, move |c| Box::pin(after(c, organisation, position, check)))
                .await
                .map_err(|error| Some(database_status(&error)))?
                .ok_or_else(|| {
                    Some(Status::out_of_range(
                        "the change that the resume token names is not in the feed; list afresh",
                    ))
                })?;
            let more = changes.len() == usize::try_from(BATCH).unwrap_or(usize::MAX);
            for change in changes {
                position = Position { sequence: change.sequence, change_id: change.change_id };
                let resume_token = self.feed.key.seal(organisation, position);
                #[cfg(feature = "failpoints")]
                crate::failpoint::crash("feed-before-send");
                send(sender, Watched { resume_token, change: Some(change) }).await?;
            }
            self.positions.insert(organisation, position);
            if !more {
                return Ok(());
            }
        }
    }

    async fn beat(&self, sender: &Sender) -> Result<(), Option<Status>> {
        for (organisation, position) in &self.positions {
            let resume_token = self.feed.key.seal(*organisation, *position);
            send(sender, Watched { resume_token, change: None }).await?;
        }
        Ok(())
    }
}

async fn send(sender: &Sender, watched: Watched) -> Result<(), Option<Status>> {
    sender.send_timeout(Ok(watched), SLOWEST_READER).await.map_err(|error| match error {
        mpsc::error::SendTimeoutError::Timeout(_) => {
            Some(Status::unavailable("the reader is too slow; resume with the last token"))
        }
        mpsc::error::SendTimeoutError::Closed(_) => None,
    })
}

/// The changes after a position, at most [`BATCH`]; none where the position is not in the feed or
/// what follows it is not.
async fn after(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    position: Position,
    check: bool,
) -> Result<Option<Vec<Change>>, sqlx::Error> {
    if check && position != Position::START {
        let there: Option<bool> = sqlx::query_scalar(
            "SELECT true FROM change
              WHERE organisation_id = $1 AND sequence = $2 AND change_id = $3",
        )
        .bind(organisation)
        .bind(position.sequence)
        .bind(position.change_id)
        .fetch_optional(&mut *connection)
        .await?;
        if there.is_none() {
            return Ok(None);
        }
    }
    let changes: Vec<Change> = sqlx::query_as(
        "SELECT organisation_id, sequence, change_id, written_at, kind, subject_id, revision,
                before, after, actor, traceparent
           FROM change
          WHERE organisation_id = $1 AND sequence > $2
          ORDER BY sequence LIMIT $3",
    )
    .bind(organisation)
    .bind(position.sequence)
    .bind(BATCH)
    .fetch_all(connection)
    .await?;
    let gap = changes.first().is_some_and(|first| first.sequence != position.sequence + 1);
    Ok((!gap).then_some(changes))
}
