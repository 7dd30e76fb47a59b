//! Users who are written while others are, written together.
//!
//! An organisation's writers queue at its feed lock, and a write is six round trips and a
//! transaction of each follower's, however many users are in it. So while users are written for
//! somebody, what else they write gathers, and goes into the next transaction.

use std::sync::Arc;

use muster_proto::identity::v1::User;
use muster_runtime::feed::Feed;
use muster_runtime::gathering::{Gathering, Turn};
use muster_runtime::id::OrganisationId;
use muster_runtime::life::Life;
use muster_runtime::postgres::Database;
use muster_runtime::telemetry;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tonic::Status;
use tracing::{Instrument as _, Span};

use crate::store::user::together::{self, Write};
use crate::store::user::{create, update};

/// The most users in one transaction.
const LARGEST: usize = 50;

/// The organisation, and the actor as a column holds it.
type Whose = (OrganisationId, String);

/// Writes users. Cloning it gives the same.
#[derive(Debug, Clone)]
pub(crate) struct Writes {
    gathering: Gathering<Whose, Waiting>,
    writer: Writer,
}

/// Somebody who waits for a write.
struct Waiting {
    write: Write,
    span: Span,
    tell: oneshot::Sender<Result<User, Status>>,
}

impl Writes {
    pub(crate) fn new(database: Database, feed: Feed, life: Life) -> Self {
        let writer = Writer { database, feed, life };
        let next = writer.clone();
        let gathering = Gathering::new(LARGEST, move |turn, those: Vec<Waiting>| {
            // In the trace of the first. Outside of the runtime nobody waits any more.
            let span = those.first().map_or_else(Span::none, |waiting| waiting.span.clone());
            if Handle::try_current().is_ok() {
                span.in_scope(|| next.life.spawn(next.clone().go_on(turn, those)));
            }
        });
        Self { gathering, writer }
    }

    /// Makes a write: with others, where others are being made. It is made, too, where the caller
    /// hangs up.
    pub(crate) async fn make(
        &self,
        organisation: OrganisationId,
        write: Write,
    ) -> Result<User, Status> {
        let (tell, told) = oneshot::channel();
        let waiting = Waiting { span: Span::current(), write, tell };
        let whose = (organisation, waiting.write.actor().to_column());
        if let Some((_turn, Waiting { write, .. })) = self.gathering.join(&whose, waiting) {
            return self.writer.alone(organisation, write).await;
        }
        // Nobody tells only where the process ends.
        told.await.unwrap_or_else(|_| Err(Status::unavailable("the process ends; try again")))
    }
}

#[derive(Debug, Clone)]
struct Writer {
    database: Database,
    feed: Feed,
    life: Life,
}

impl Writer {
    async fn alone(&self, organisation: OrganisationId, write: Write) -> Result<User, Status> {
        let made = self
            .database
            .write(organisation, move |c| match write {
                Write::Create(write) => Box::pin(create(c, write)),
                Write::Update(write) => Box::pin(update(c, write)),
            })
            .await?;
        self.feed.wake(organisation);
        Ok(made)
    }

    /// Makes what has gathered, and tells those who wait.
    async fn go_on(self, turn: Turn<Whose, Waiting>, those: Vec<Waiting>) {
        let (organisation, _) = *turn.whose();
        let mut tell = Vec::with_capacity(those.len());
        let writes = those.into_iter().map(|waiting| {
            tell.push((waiting.tell, waiting.span.clone()));
            (waiting.write, waiting.span.in_scope(telemetry::traceparent))
        });
        let writes: Arc<Vec<_>> = Arc::new(writes.collect());
        let made = self.together(organisation, writes.clone()).await;
        drop(turn);
        let mut made = made.into_iter();
        for ((write, _), (tell, span)) in Arc::unwrap_or_clone(writes).into_iter().zip(tell) {
            if let Some(made) = made.next().flatten() {
                // Who has hung up hears of nothing.
                drop(tell.send(made));
            } else {
                let this = self.clone();
                let alone = async move { drop(tell.send(this.alone(organisation, write).await)) };
                self.life.spawn_untraced(alone.instrument(span));
            }
        }
    }

    /// What came of each write; none where it is still to be made, by itself.
    async fn together(
        &self,
        organisation: OrganisationId,
        writes: Arc<Vec<(Write, Option<String>)>>,
    ) -> Vec<Option<Result<User, Status>>> {
        let count = writes.len();
        if count == 1 {
            return Vec::new();
        }
        let made = self
            .database
            .write(organisation, move |c| {
                Box::pin(async move { together::write(c, organisation, &writes).await })
            })
            .await;
        self.feed.wake(organisation);
        match made {
            Ok(made) => made.into_iter().map(|made| Some(made?.map_err(Status::from))).collect(),
            Err(error) if error.is_of_one() => Vec::new(),
            Err(error) => vec![Some(Err(error.into())); count],
        }
    }
}
