//! Writes that come together, made in one transaction.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
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

/// What came of a write; none where it was not made with the others.
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
pub struct Writes<W: Writer>(Gathering<Whose, Waiting<W>>);

/// Somebody who waits for a write.
struct Waiting<W: Writer> {
    write: W::Write,
    span: Span,
    tell: oneshot::Sender<Result<W::Made, Status>>,
}

impl<W: Writer> Writes<W> {
    /// Writes by `writer`. What has gathered is made, too, where the process is about to end.
    pub fn new(writer: W, life: &Life) -> Self {
        let life = life.clone();
        Self(Gathering::new(LARGEST, move |turn, those: Vec<Waiting<W>>| {
            // In the trace of the first. Outside of the runtime nobody waits any more.
            let span = those.first().map_or_else(Span::none, |waiting| waiting.span.clone());
            if Handle::try_current().is_ok() {
                life.spawn_untraced(go_on(writer.clone(), turn, those).instrument(span));
            }
        }))
    }

    /// Makes a write: with others, where others are being made or come at the same moment. It is
    /// made, too, where the caller hangs up.
    pub async fn make(
        &self,
        organisation: OrganisationId,
        actor: Actor,
        write: W::Write,
    ) -> Result<W::Made, Status> {
        let (tell, told) = oneshot::channel();
        let waiting = Waiting { span: Span::current(), write, tell };
        self.0.add(&(organisation, actor), waiting);
        // Nobody tells only where the process ends.
        told.await.unwrap_or_else(|_| Err(Status::unavailable("the process ends; try again")))
    }
}

/// Makes what has gathered, in a turn for as long as one lasts, and then without it.
async fn go_on<W: Writer>(writer: W, turn: Turn<Whose, Waiting<W>>, those: Vec<Waiting<W>>) {
    let those = turn.with_others(those).await;
    let mut made = pin!(make_all(&writer, turn.whose().0, those));
    if tokio::time::timeout(LONGEST_TURN, &mut made).await.is_err() {
        drop(turn);
        made.await;
    }
}

/// Makes what has gathered, and tells those who wait: as many as can be together, what is left of
/// them together again, and where that does not help each by itself. All of it in one turn, since
/// the next would find locked what one of this turn still writes.
async fn make_all<W: Writer>(writer: &W, organisation: OrganisationId, mut those: Vec<Waiting<W>>) {
    while those.len() > 1 {
        let count = those.len();
        those = make_together(writer, organisation, those).await;
        if those.len() == count {
            break;
        }
    }
    let each = those.into_iter().map(|Waiting { write, tell, span }| {
        let alone = async move {
            drop(tell.send(writer.alone(organisation, write).await.map_err(Into::into)));
        };
        alone.instrument(span)
    });
    join_all(each).await;
}

/// Makes writes in one transaction, and tells of those that were made; the others.
async fn make_together<W: Writer>(
    writer: &W,
    organisation: OrganisationId,
    those: Vec<Waiting<W>>,
) -> Vec<Waiting<W>> {
    let (writes, asked): (Vec<Write<W>>, Vec<_>) = those
        .into_iter()
        .map(|Waiting { write, span, tell }| {
            ((write, span.in_scope(telemetry::traceparent)), (span, tell))
        })
        .unzip();
    let writes = Arc::new(writes);
    let mut made = together(writer, organisation, &writes).await.into_iter();
    let writes = Arc::unwrap_or_clone(writes).into_iter();
    let left = writes.zip(asked).filter_map(|((write, _), (span, tell))| {
        let Some(made) = made.next().flatten() else { return Some(Waiting { write, span, tell }) };
        // Who has hung up hears of nothing.
        drop(tell.send(made));
        None
    });
    left.collect()
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

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::Mutex;

    use super::*;

    /// Notes what it is asked to write. Of several writes of one letter it makes the first, and of
    /// those of an `x` none together.
    #[derive(Debug, Clone, Default)]
    struct Noting(Arc<Mutex<Vec<Vec<&'static str>>>>);

    impl Noting {
        async fn note(&self, writes: Vec<&'static str>) {
            self.0.lock().unwrap().push(writes);
            // Others go on meanwhile.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    impl Writer for Noting {
        type Write = &'static str;
        type Made = ();
        type Error = Status;

        async fn alone(&self, _: OrganisationId, write: &'static str) -> Result<(), Status> {
            self.note(vec![write]).await;
            Ok(())
        }

        async fn together(
            &self,
            _: OrganisationId,
            writes: Arc<Vec<Write<Self>>>,
        ) -> AllMade<Self> {
            let writes: Vec<&'static str> = writes.iter().map(|(write, _)| *write).collect();
            self.note(writes.clone()).await;
            let mut letters = HashSet::from(["x"]);
            Ok(writes.iter().map(|write| letters.insert(&write[..1]).then_some(Ok(()))).collect())
        }

        fn database_error(_: &Status) -> Option<&sqlx::Error> {
            None
        }
    }

    #[tokio::test]
    async fn what_cannot_be_made_with_the_others_is_made_before_the_next() {
        let noting = Noting::default();
        let writes = Writes::new(noting.clone(), &Life::new());
        let organisation = OrganisationId::new();
        let make = |write| {
            let (writes, actor) = (writes.clone(), Actor::Caller(String::new()));
            tokio::spawn(async move { writes.make(organisation, actor, write).await })
        };
        let mut made: Vec<_> = ["a1", "a2", "b1", "a3", "x1", "x2"].map(make).into();
        while noting.0.lock().unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
        made.extend(["c1", "a4"].map(make));
        for made in join_all(made).await {
            made.unwrap().unwrap();
        }
        let mut calls = noting.0.lock().unwrap().clone();
        // Each by itself, at the same time.
        calls[4..6].sort_unstable();
        assert_eq!(
            calls,
            [
                vec!["a1", "a2", "b1", "a3", "x1", "x2"],
                vec!["a2", "a3", "x1", "x2"],
                vec!["a3", "x1", "x2"],
                vec!["x1", "x2"],
                vec!["x1"],
                vec!["x2"],
                vec!["c1", "a4"],
            ]
        );
    }
}
