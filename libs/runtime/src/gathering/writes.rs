//! Writes that come together, made in one transaction.

use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tonic::Status;
use tracing::{Instrument as _, Span};

use super::{Gathering, Turn};
use crate::feed::Actor;
use crate::id::OrganisationId;
use crate::life::Life;
use crate::{postgres, telemetry};

/// The most writes in one transaction.
const LARGEST: usize = 50;
/// How long others wait for a transaction at most: one that waits for a lock, or has a great deal to
/// write, goes on beside the next.
const LONGEST_TURN: Duration = Duration::from_millis(100);

/// In which organisation writes are made, and by whom: a transaction's changes have one actor.
pub type Whose = (OrganisationId, Actor);

/// A write, and the `traceparent` of the request that asked for it.
pub type Write<W> = (<W as Writer>::Write, Option<String>);

/// What came of a write; none where it has to be made by itself.
pub type Made<T, E> = Option<Result<T, E>>;

/// What came of writes, in order; where they failed together, none was made.
pub type AllMade<W> =
    Result<Vec<Made<<W as Writer>::Made, <W as Writer>::Error>>, <W as Writer>::Error>;

/// Makes writes.
pub trait Writer: Clone + Send + Sync + 'static {
    /// What is to be written.
    type Write: Clone + Send + Sync + 'static;
    /// What was written.
    type Made: Send + 'static;
    /// Why it was not.
    type Error: Into<Status> + Send + 'static;

    /// Makes a write in a transaction of its own.
    fn alone(
        &self,
        organisation: OrganisationId,
        write: Self::Write,
    ) -> impl Future<Output = Result<Self::Made, Self::Error>> + Send;

    /// Makes writes of one actor in one transaction.
    fn together(
        &self,
        organisation: OrganisationId,
        writes: Arc<Vec<Write<Self>>>,
    ) -> impl Future<Output = AllMade<Self>> + Send;

    /// What failed in the database, where that is what an error is.
    fn database_error(error: &Self::Error) -> Option<&sqlx::Error>;
}

/// Writes that are made together where they come together. Cloning it gives the same.
#[derive(Debug, Clone)]
pub struct Writes<W: Writer> {
    gathering: Gathering<Whose, Waiting<W>>,
    writer: W,
}

/// Somebody who waits for a write.
struct Waiting<W: Writer> {
    write: W::Write,
    span: Span,
    tell: oneshot::Sender<Result<W::Made, Status>>,
}

impl<W: Writer> Writes<W> {
    /// Writes by `writer`. What has gathered is made, too, where the process is about to end.
    pub fn new(writer: W, life: &Life) -> Self {
        let (next, life) = (writer.clone(), life.clone());
        let gathering = Gathering::new(LARGEST, move |turn, those: Vec<Waiting<W>>| {
            // In the trace of the first. Outside of the runtime nobody waits any more.
            let span = those.first().map_or_else(Span::none, |waiting| waiting.span.clone());
            if Handle::try_current().is_ok() {
                let made = go_on(next.clone(), life.clone(), turn, those);
                life.spawn_untraced(made.instrument(span));
            }
        });
        Self { gathering, writer }
    }

    /// Makes a write: with others, where others are being made. It is made, too, where the caller
    /// hangs up.
    pub async fn make(
        &self,
        organisation: OrganisationId,
        actor: Actor,
        write: W::Write,
    ) -> Result<W::Made, Status> {
        let (tell, told) = oneshot::channel();
        let waiting = Waiting { span: Span::current(), write, tell };
        if let Some((turn, waiting)) = self.gathering.join(&(organisation, actor), waiting) {
            let alone = Box::pin(self.writer.alone(organisation, waiting.write));
            return in_turn(turn, alone).await.map_err(Into::into);
        }
        // Nobody tells only where the process ends.
        told.await.unwrap_or_else(|_| Err(Status::unavailable("the process ends; try again")))
    }
}

/// Works for as long as a turn lasts, and then without it.
async fn in_turn<K: Clone + Eq + Hash, W, F: Future + Unpin>(
    turn: Turn<K, W>,
    mut work: F,
) -> F::Output {
    if let Ok(done) = tokio::time::timeout(LONGEST_TURN, &mut work).await {
        return done;
    }
    drop(turn);
    work.await
}

/// Makes what has gathered, and tells those who wait.
async fn go_on<W: Writer>(
    writer: W,
    life: Life,
    turn: Turn<Whose, Waiting<W>>,
    mut those: Vec<Waiting<W>>,
) {
    let organisation = turn.whose().0;
    if those.len() == 1
        && let Some(Waiting { write, tell, .. }) = those.pop()
    {
        let made = in_turn(turn, Box::pin(writer.alone(organisation, write))).await;
        // Who has hung up hears of nothing.
        drop(tell.send(made.map_err(Into::into)));
        return;
    }
    let mut tell = Vec::with_capacity(those.len());
    let writes = those.into_iter().map(|waiting| {
        tell.push((waiting.tell, waiting.span.clone()));
        (waiting.write, waiting.span.in_scope(telemetry::traceparent))
    });
    let writes: Arc<Vec<Write<W>>> = Arc::new(writes.collect());
    let made = in_turn(turn, Box::pin(together(&writer, organisation, &writes))).await;
    let mut made = made.into_iter();
    for ((write, _), (tell, span)) in Arc::unwrap_or_clone(writes).into_iter().zip(tell) {
        if let Some(made) = made.next().flatten() {
            drop(tell.send(made));
        } else {
            let writer = writer.clone();
            let alone = async move {
                drop(tell.send(writer.alone(organisation, write).await.map_err(Into::into)));
            };
            life.spawn_untraced(alone.instrument(span));
        }
    }
}

/// What came of each write; nothing where all have to be made by themselves.
async fn together<W: Writer>(
    writer: &W,
    organisation: OrganisationId,
    writes: &Arc<Vec<Write<W>>>,
) -> Vec<Made<W::Made, Status>> {
    match writer.together(organisation, writes.clone()).await {
        Ok(made) => made.into_iter().map(|made| Some(made?.map_err(Into::into))).collect(),
        Err(error) if W::database_error(&error).is_none_or(postgres::is_of_one) => Vec::new(),
        Err(error) => {
            let status: Status = error.into();
            writes.iter().map(|_| Some(Err(status.clone()))).collect()
        }
    }
}
