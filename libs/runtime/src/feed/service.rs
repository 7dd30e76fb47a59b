//! One service's feed, as its RPCs use it.

use std::sync::Arc;

use opentelemetry::KeyValue;
use tokio::sync::Semaphore;

use super::keys::{self, Keys};
use super::read::{Refusal, Turns};
use super::retention;
use super::wake::Wakers;
use super::{InvalidPageToken, Page, Position, Settings, head};
use crate::id::OrganisationId;
use crate::life::Life;
use crate::metrics;
use crate::postgres::Database;

/// One service's feed, for its readers. Cloning it gives the same.
#[derive(Debug, Clone)]
pub struct Feed {
    pub(super) database: Database,
    pub(super) turns: Turns,
    pub(super) keys: Keys,
    pub(super) settings: Settings,
    pub(super) wakers: Arc<Wakers>,
    /// One permit for each watch there may be.
    pub(super) streams: Arc<Semaphore>,
    pub(super) life: Life,
}

impl Feed {
    /// The feed called `name` in the database's schema. What it does by itself (waking readers,
    /// deleting what need not be kept) ends with the life.
    pub async fn open(
        name: &'static str,
        database: Database,
        life: Life,
        settings: Settings,
    ) -> Result<Self, sqlx::Error> {
        let keys = database.read_shared(move |c| Box::pin(keys::read(c, name))).await?;
        let turns = Turns::new(database.clone());
        let feed = Self {
            keys: Keys::new(keys),
            wakers: Arc::new(Wakers::new(database.clone(), turns.clone(), settings.clone())),
            turns,
            streams: Arc::new(Semaphore::new(settings.max_streams)),
            database,
            settings,
            life: life.clone(),
        };
        let (streams, max) = (feed.streams.clone(), feed.settings.max_streams);
        metrics::FEED_STREAMS.gauge([KeyValue::new("muster.feed", name)], move || {
            Some(metrics::number(max - streams.available_permits()))
        });
        let background = feed.clone();
        life.clone().spawn(async move {
            let channel = format!("muster_{name}_feed");
            tokio::select! {
                () = background.wakers.run(&channel) => {}
                () = background.reread_keys(name) => {}
                () = retention::run(&background) => {}
                () = life.stopped() => {}
            }
        });
        Ok(feed)
    }

    /// Wakes the readers of this process and, soon, of other replicas: call it after a commit that
    /// appended. A hint, never needed for correctness.
    pub fn wake(&self, organisation: OrganisationId) {
        self.wakers.wake(organisation);
    }

    /// The token to resume with after a position.
    #[must_use]
    pub fn token(&self, organisation: OrganisationId, position: Position) -> String {
        self.keys.seal(organisation, position)
    }

    /// The token for the next page of a list.
    #[must_use]
    pub fn page_token(&self, organisation: OrganisationId, query: &str, page: Page) -> String {
        self.keys.seal_page(organisation, query, page)
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
        self.keys.open_page(organisation, query, token).map(Some)
    }

    /// The newest change of an organisation.
    pub(super) async fn head(&self, organisation: OrganisationId) -> Result<Position, Refusal> {
        let head = self.turns.read(organisation, move |c| {
            Box::pin(async move { Ok(head(c, organisation).await?.position) })
        });
        head.await
    }

    /// Takes up a new key, and forgets one that was deleted.
    async fn reread_keys(&self, name: &'static str) {
        loop {
            tokio::time::sleep(keys::REREAD).await;
            match self.database.read_shared(move |c| Box::pin(keys::read(c, name))).await {
                Ok(keys) => self.keys.replace(keys),
                Err(error) => tracing::warn!(%error, "the keys of tokens could not be read again"),
            }
        }
    }
}
