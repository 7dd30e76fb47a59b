//! Waking readers: which organisations may have new changes.
//!
//! From the quickest to the surest: the process that wrote wakes its own readers; it tells other
//! replicas by a coalesced `NOTIFY` on a connection of its own; every second the database is asked
//! who has moved lately; and the sweep compares every organisation's newest change with where the
//! readers are. All but the sweep are hints, which may be lost.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use sqlx::PgPool;
use sqlx::postgres::PgListener;
use tokio::sync::Notify;
use tonic::Status;
use uuid::Uuid;

use super::Position;
use super::read::{self, Turns};
use super::settings::Settings;
use super::tail::Tail;
use crate::clock;
use crate::grpc::database_status;
use crate::id::OrganisationId;
use crate::lock;
use crate::postgres::Database;

/// How many organisations' newest changes are read in one round trip.
pub(super) const CHUNK: usize = 100;
/// No replica is told more often than this: the commits of all who notify queue behind one lock.
const NOTIFY_PAUSE: Duration = Duration::from_millis(50);
/// How many ids a notification holds: it takes 8,000 bytes.
const NOTIFY_IDS: usize = 200;
/// Twice the longest that a transaction may take: a change is visible within that of its time.
const LATELY: Duration = Duration::from_secs(10);
/// How long to wait before a connection that failed is tried again.
const AGAIN: Duration = Duration::from_secs(5);

/// What is said of an organisation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hint {
    /// It may have changed.
    Moved,
    /// It has a change of this sequence.
    Reached(i64),
    /// This is its newest change.
    Head(Position),
}

/// Who reads in this process.
#[derive(Debug)]
pub(super) struct Wakers {
    database: Database,
    turns: Turns,
    settings: Settings,
    tails: Mutex<HashMap<OrganisationId, Weak<Tail>>>,
    everywhere: Mutex<Vec<Weak<Everywhere>>>,
    /// Organisations that other replicas have not been told of yet.
    untold: Mutex<BTreeSet<OrganisationId>>,
    tell: Notify,
    /// Tells our own notifications from others'.
    process: Uuid,
}

/// What a reader of all organisations has been told and not looked at yet.
#[derive(Debug, Default)]
pub(super) struct Everywhere {
    hints: Mutex<BTreeMap<OrganisationId, Hint>>,
    hinted: Notify,
}

impl Everywhere {
    fn hint(&self, organisation: OrganisationId, hint: Hint) {
        // Of two that differ nothing is certain but that it moved.
        let mut hints = lock(&self.hints);
        hints
            .entry(organisation)
            .and_modify(|known| *known = if *known == hint { hint } else { Hint::Moved })
            .or_insert(hint);
        drop(hints);
        self.hinted.notify_one();
    }

    /// What has been told since it was last taken.
    pub(super) fn take(&self) -> BTreeMap<OrganisationId, Hint> {
        std::mem::take(&mut *lock(&self.hints))
    }

    /// Waits until something is told.
    pub(super) async fn hinted(&self) {
        self.hinted.notified().await;
    }
}

impl Wakers {
    pub(super) fn new(database: Database, turns: Turns, settings: Settings) -> Self {
        Self {
            database,
            turns,
            settings,
            tails: Mutex::default(),
            everywhere: Mutex::default(),
            untold: Mutex::default(),
            tell: Notify::new(),
            process: Uuid::new_v4(),
        }
    }

    /// The organisation's tail, which lives as long as anyone holds it.
    pub(super) fn tail(&self, organisation: OrganisationId) -> Arc<Tail> {
        let mut tails = lock(&self.tails);
        if let Some(tail) = tails.get(&organisation).and_then(Weak::upgrade) {
            return tail;
        }
        let tail = Arc::new(Tail::new(self.turns.clone(), organisation, self.settings.tail));
        tails.insert(organisation, Arc::downgrade(&tail));
        tail
    }

    /// A reader of all organisations.
    pub(super) fn everywhere(&self) -> Arc<Everywhere> {
        let reader = Arc::new(Everywhere::default());
        lock(&self.everywhere).push(Arc::downgrade(&reader));
        reader
    }

    /// Wakes the readers of this process and, soon, of the others.
    pub(super) fn wake(&self, organisation: OrganisationId) {
        if !self.settings.hints {
            return;
        }
        self.hint(organisation, Hint::Moved);
        lock(&self.untold).insert(organisation);
        self.tell.notify_one();
    }

    fn hint(&self, organisation: OrganisationId, hint: Hint) {
        if let Some(tail) = lock(&self.tails).get(&organisation).and_then(Weak::upgrade) {
            tail.hint(hint);
        }
        for reader in lock(&self.everywhere).iter().filter_map(Weak::upgrade) {
            reader.hint(organisation, hint);
        }
    }

    /// Forgets the readers that have gone; whether any are left, of one organisation and of all.
    fn readers(&self) -> (bool, bool) {
        let mut tails = lock(&self.tails);
        tails.retain(|_, tail| tail.strong_count() > 0);
        let mut everywhere = lock(&self.everywhere);
        everywhere.retain(|reader| reader.strong_count() > 0);
        (!tails.is_empty(), !everywhere.is_empty())
    }

    /// Wakes readers for ever; `channel` is what the feed's replicas notify each other on.
    pub(super) async fn run(&self, channel: &str) {
        let hints = async {
            if self.settings.hints {
                let beside = self.database.beside(2);
                tokio::join!(
                    self.tell(&beside, channel),
                    self.listen(&beside, channel),
                    self.look()
                );
            }
        };
        tokio::join!(hints, self.sweep());
    }

    /// Tells the other replicas what this one has written.
    async fn tell(&self, beside: &PgPool, channel: &str) {
        loop {
            self.tell.notified().await;
            let untold: Vec<_> = std::mem::take(&mut *lock(&self.untold)).into_iter().collect();
            for organisations in untold.chunks(NOTIFY_IDS) {
                let ids: Vec<String> = organisations.iter().map(ToString::to_string).collect();
                let told = sqlx::query("SELECT pg_notify($1, $2)")
                    .bind(channel)
                    .bind(format!("{} {}", self.process, ids.join(",")))
                    .execute(beside)
                    .await;
                if let Err(error) = told {
                    tracing::warn!(%error, "other replicas could not be told of changes");
                    tokio::time::sleep(AGAIN).await;
                }
            }
            tokio::time::sleep(NOTIFY_PAUSE).await;
        }
    }

    /// Hears what other replicas have written.
    async fn listen(&self, beside: &PgPool, channel: &str) {
        loop {
            if let Err(error) = self.hear(beside, channel).await {
                tracing::warn!(%error, "other replicas' changes are not heard of at once");
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    async fn hear(&self, beside: &PgPool, channel: &str) -> Result<(), sqlx::Error> {
        let mut listener = PgListener::connect_with(beside).await?;
        listener.listen(channel).await?;
        loop {
            let notification = listener.recv().await?;
            let Some((process, ids)) = notification.payload().split_once(' ') else { continue };
            if process == self.process.to_string() {
                continue;
            }
            for organisation in ids.split(',').filter_map(|id| id.parse().ok()) {
                self.hint(organisation, Hint::Moved);
            }
        }
    }

    /// Looks which organisations have moved lately.
    async fn look(&self) {
        let mut seen = HashMap::new();
        loop {
            tokio::time::sleep(self.settings.look).await;
            if self.readers() == (false, false) {
                continue;
            }
            let since = clock::now() - LATELY;
            let moved = self.database.read_shared(move |c| Box::pin(read::moved(c, since))).await;
            match moved {
                Ok(moved) => {
                    for (organisation, sequence) in &moved {
                        if seen.get(organisation) != Some(sequence) {
                            self.hint(*organisation, Hint::Reached(*sequence));
                        }
                    }
                    seen = moved.into_iter().collect();
                }
                Err(error) => {
                    drop(database_status(&error));
                    tokio::time::sleep(AGAIN).await;
                }
            }
        }
    }

    /// Compares every organisation's newest change with where the readers are, again and again.
    async fn sweep(&self) {
        loop {
            let organisations = match self.readers() {
                (false, false) => Vec::new(),
                (true, false) => lock(&self.tails).keys().copied().collect(),
                (_, true) => self.organisations().await.unwrap_or_default(),
            };
            let chunks = organisations.chunks(CHUNK);
            let pause = self.settings.sweep / u32::try_from(chunks.len().max(1)).unwrap_or(1);
            for chunk in chunks {
                for (organisation, head) in self.heads(chunk).await.unwrap_or_default() {
                    self.hint(organisation, Hint::Head(head));
                }
                tokio::time::sleep(pause).await;
            }
            if organisations.is_empty() {
                tokio::time::sleep(pause).await;
            }
        }
    }

    /// The organisations that have a feed. What fails is logged.
    pub(super) async fn organisations(&self) -> Result<Vec<OrganisationId>, Status> {
        let organisations = self.database.read_shared(|c| Box::pin(read::organisations(c)));
        organisations.await.map_err(|error| database_status(&error))
    }

    /// The newest change of each of these organisations. What fails is logged.
    pub(super) async fn heads(
        &self,
        organisations: &[OrganisationId],
    ) -> Result<Vec<(OrganisationId, Position)>, Status> {
        let ids = organisations.to_vec();
        let heads = self
            .database
            .read_shared(move |c| Box::pin(async move { read::heads(c, &ids).await }))
            .await;
        heads.map_err(|error| database_status(&error))
    }
}
