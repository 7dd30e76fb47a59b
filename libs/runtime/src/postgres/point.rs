//! Reads of one statement, in one round trip.
//!
//! A transaction that names its organisation takes three round trips for one statement: `BEGIN` with
//! the organisation, the statement, `COMMIT`. A connection that keeps its organisation from one read
//! to the next takes one, and two where the organisation is another than before. Such connections do
//! nothing else: transactions have a pool of their own, so that none finds an organisation set that it
//! has not set itself. `docs/decisions/0020-reads-of-one-statement.md`.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _, PgConnection};
use tokio::sync::Semaphore;

use super::Metrics;
use crate::id::OrganisationId;

/// The connections. Cloning it gives the same.
#[derive(Debug, Clone)]
pub(super) struct Points(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    options: PgConnectOptions,
    places: Semaphore,
    wait: Duration,
    free: Mutex<Vec<Pinned>>,
}

/// A connection, and whose rows it sees.
#[derive(Debug)]
struct Pinned {
    connection: PgConnection,
    organisation: Option<OrganisationId>,
}

impl Points {
    /// At most so many connections, made when they are needed; whoever has none after `wait` fails.
    pub(super) fn new(options: PgConnectOptions, most: u32, wait: Duration) -> Self {
        let places = Semaphore::new(usize::try_from(most).unwrap_or(1));
        Self(Arc::new(Shared { options, places, wait, free: Mutex::default() }))
    }

    /// Runs `work`, which only reads, with a connection that sees the organisation's rows; once more
    /// where the server that the connection led to has gone.
    pub(super) async fn read<T, E, F>(
        &self,
        organisation: OrganisationId,
        metrics: &Metrics,
        work: F,
    ) -> Result<T, E>
    where
        F: for<'c> FnOnce(&'c mut PgConnection) -> BoxFuture<'c, Result<T, E>> + Clone,
        E: From<sqlx::Error>,
    {
        let begun = Instant::now();
        let place = tokio::time::timeout(self.0.wait, self.0.places.acquire()).await;
        let acquired = match place {
            Ok(Ok(place)) => self.pinned(organisation).await.map(|pinned| (place, pinned)),
            Ok(Err(_)) => Err(sqlx::Error::PoolClosed),
            Err(_) => Err(sqlx::Error::PoolTimedOut),
        };
        metrics.acquired(begun, acquired.as_ref().err());
        let (_place, mut pinned) = acquired?;
        // Where the caller hangs up meanwhile, the connection is closed as it is dropped.
        let done = work.clone()(&mut pinned.connection).await;
        if done.is_ok() || pinned.connection.ping().await.is_ok() {
            self.lock().push(pinned);
            return done;
        }
        self.lock().clear();
        let mut pinned = self.connect(organisation).await?;
        let done = work(&mut pinned.connection).await;
        if done.is_ok() {
            self.lock().push(pinned);
        }
        done
    }

    /// A connection set to the organisation: one that is already, another, or a new one.
    async fn pinned(&self, organisation: OrganisationId) -> Result<Pinned, sqlx::Error> {
        let free = {
            let mut free = self.lock();
            let same = free.iter().rposition(|pinned| pinned.organisation == Some(organisation));
            match same {
                Some(at) => return Ok(free.swap_remove(at)),
                None => free.pop(),
            }
        };
        if let Some(mut pinned) = free
            && pinned.set(organisation).await.is_ok()
        {
            return Ok(pinned);
        }
        self.connect(organisation).await
    }

    async fn connect(&self, organisation: OrganisationId) -> Result<Pinned, sqlx::Error> {
        let connecting = tokio::time::timeout(self.0.wait, self.0.options.connect()).await;
        let connection = connecting.map_err(|_| sqlx::Error::PoolTimedOut)??;
        let mut pinned = Pinned { connection, organisation: None };
        pinned.set(organisation).await?;
        Ok(pinned)
    }

    /// How many connections are in use.
    pub(super) fn used(&self, most: u32) -> u32 {
        most.saturating_sub(u32::try_from(self.0.places.available_permits()).unwrap_or(most))
    }

    /// How many connections do nothing now.
    pub(super) fn idle(&self) -> usize {
        self.lock().len()
    }

    /// Closes those that do nothing, and lets nobody have another.
    pub(super) async fn close(&self) {
        self.0.places.close();
        let free = std::mem::take(&mut *self.lock());
        for pinned in free {
            drop(pinned.connection.close().await);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Pinned>> {
        crate::lock(&self.0.free)
    }
}

impl Pinned {
    async fn set(&mut self, organisation: OrganisationId) -> Result<(), sqlx::Error> {
        self.organisation = None;
        // A parsed UUID, so nothing to inject.
        let set = format!("SET muster.organisation_id = '{organisation}'");
        self.connection.execute(AssertSqlSafe(set)).await?;
        self.organisation = Some(organisation);
        Ok(())
    }
}
