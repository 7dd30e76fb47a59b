//! Reads of many requests, made in one call.
//!
//! A call costs as much as dozens of users more in it. So while a service is asked about a user of
//! an organisation, whoever else asks waits for the next call, which asks about all of them. Who is
//! alone does not wait; and the more there are, the less each costs.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use muster_runtime::deadline;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tonic::Status;
use tracing::{Instrument as _, Span};

/// How long somebody waits for others' calls before asking alone: where a replica hangs, only those
/// whom it was asked about wait for it.
const PATIENCE: Duration = Duration::from_millis(250);

/// The most ids in one call; the rest go with the next.
const LARGEST: usize = 100;

/// Asks a service about ids of an organisation: what there is, by id.
type Ask<T> = Arc<
    dyn Fn(String, Vec<String>) -> BoxFuture<'static, Result<HashMap<String, T>, Status>>
        + Send
        + Sync,
>;

/// One of the reads. Cloning it gives the same.
pub(crate) struct Gathered<T> {
    ask: Ask<T>,
    /// Who waits, by organisation; those of whom a call is under way have an entry.
    waiting: Arc<Mutex<HashMap<String, Vec<Waiting<T>>>>>,
}

struct Waiting<T> {
    id: String,
    tell: oneshot::Sender<Option<T>>,
    span: Span,
}

impl<T> Clone for Gathered<T> {
    fn clone(&self) -> Self {
        Self { ask: self.ask.clone(), waiting: self.waiting.clone() }
    }
}

impl<T> fmt::Debug for Gathered<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Gathered").finish_non_exhaustive()
    }
}

impl<T: Clone + Send + 'static> Gathered<T> {
    pub(crate) fn new<F, A>(ask: F) -> Self
    where
        F: Fn(String, Vec<String>) -> A + Send + Sync + 'static,
        A: Future<Output = Result<HashMap<String, T>, Status>> + Send + 'static,
    {
        let ask = Arc::new(move |organisation, ids| ask(organisation, ids).boxed());
        Self { ask, waiting: Arc::default() }
    }

    /// What there is of an id, as it was after this was called.
    pub(crate) async fn get(&self, organisation: &str, id: &str) -> Result<Option<T>, Status> {
        let turn = match self.join(organisation, id) {
            Ok(turn) => Some(turn),
            Err(told) => match tokio::time::timeout(PATIENCE, told).await {
                Ok(Ok(answer)) => return Ok(answer),
                // The call failed, which may be for another's sake, or takes too long.
                Ok(Err(_)) | Err(_) => None,
            },
        };
        let found = self.get_all(organisation, vec![id.to_owned()]).await;
        drop(turn);
        Ok(found?.remove(id))
    }

    /// What there is of several ids, in a call of its own.
    pub(crate) async fn get_all(
        &self,
        organisation: &str,
        ids: Vec<String>,
    ) -> Result<HashMap<String, T>, Status> {
        (self.ask)(organisation.to_owned(), ids).await
    }

    /// The turn to ask, where nobody does; otherwise what the next call brings.
    fn join(&self, organisation: &str, id: &str) -> Result<Turn<T>, oneshot::Receiver<Option<T>>> {
        let mut waiting = self.lock();
        let Some(others) = waiting.get_mut(organisation) else {
            waiting.insert(organisation.to_owned(), Vec::new());
            return Ok(Turn { of: self.clone(), organisation: organisation.to_owned() });
        };
        let (tell, told) = oneshot::channel();
        others.push(Waiting { id: id.to_owned(), tell, span: Span::current() });
        Err(told)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Vec<Waiting<T>>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// That a call is under way. When it ends, in whatever way, those who have come meanwhile are next.
struct Turn<T: Clone + Send + 'static> {
    of: Gathered<T>,
    organisation: String,
}

impl<T: Clone + Send + 'static> Turn<T> {
    /// Asks about those who wait, and tells them. Where that fails, it is told by nobody's being
    /// told.
    async fn ask_for(self, those: Vec<Waiting<T>>) {
        let ids = those.iter().map(|waiting| waiting.id.clone()).collect();
        let asked = deadline::within(PATIENCE, self.of.get_all(&self.organisation, ids));
        let found = tokio::time::timeout(PATIENCE, asked).await;
        drop(self);
        if let Ok(Ok(found)) = found {
            for Waiting { id, tell, .. } in those {
                // Who has hung up hears of nothing.
                drop(tell.send(found.get(&id).cloned()));
            }
        }
    }
}

impl<T: Clone + Send + 'static> Drop for Turn<T> {
    fn drop(&mut self) {
        let mut waiting = self.of.lock();
        let Some(others) = waiting.get_mut(&self.organisation) else { return };
        let later = others.split_off(others.len().min(LARGEST));
        let next = std::mem::replace(others, later);
        let Some(first) = next.first() else {
            waiting.remove(&self.organisation);
            return;
        };
        drop(waiting);
        let span = first.span.clone();
        let turn = Self { of: self.of.clone(), organisation: self.organisation.clone() };
        // Outside of the runtime nobody waits any more. In the trace of the first.
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(turn.ask_for(next).instrument(span));
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::future::{join_all, pending};
    use tokio::sync::Semaphore;
    use tokio::task::{JoinHandle, yield_now};

    use super::*;

    /// A service that knows every id but "nobody", as often as it may answer.
    struct Service {
        calls: Mutex<Vec<(String, Vec<String>)>>,
        answers: Semaphore,
    }

    impl Service {
        fn new() -> Arc<Self> {
            Arc::new(Self { calls: Mutex::default(), answers: Semaphore::new(0) })
        }

        /// The read, whose call for `unlucky` ends by `failing`.
        fn gathered<F>(self: &Arc<Self>, unlucky: &'static str, failing: F) -> Gathered<String>
        where
            F: Fn() -> BoxFuture<'static, Status> + Send + Sync + 'static,
        {
            let service = self.clone();
            Gathered::new(move |organisation, ids: Vec<String>| {
                let service = service.clone();
                let failing = ids.iter().any(|id| id == unlucky).then(&failing);
                service.calls.lock().unwrap().push((organisation, ids.clone()));
                async move {
                    if let Some(failing) = failing {
                        return Err(failing.await);
                    }
                    service.answers.acquire().await.unwrap().forget();
                    let known = ids.into_iter().filter(|id| id != "nobody");
                    Ok(known.map(|id| (id.clone(), id.to_uppercase())).collect())
                }
            })
        }

        /// The calls so far, when there are so many: who was asked about in each.
        async fn calls(&self, count: usize) -> Vec<Vec<String>> {
            loop {
                let calls: Vec<Vec<String>> =
                    self.calls.lock().unwrap().iter().map(|(_, ids)| ids.clone()).collect();
                if calls.len() >= count {
                    return calls;
                }
                yield_now().await;
            }
        }
    }

    fn away() -> BoxFuture<'static, Status> {
        async { Status::unavailable("away") }.boxed()
    }

    fn ask(
        gathered: &Gathered<String>,
        organisation: &'static str,
        id: &'static str,
    ) -> JoinHandle<Result<Option<String>, Status>> {
        let gathered = gathered.clone();
        tokio::spawn(async move { gathered.get(organisation, id).await })
    }

    async fn told(asked: JoinHandle<Result<Option<String>, Status>>) -> Option<String> {
        asked.await.unwrap().unwrap()
    }

    #[tokio::test]
    async fn who_comes_during_a_call_is_asked_about_in_the_next() {
        let service = Service::new();
        let gathered = service.gathered("", away);
        let first = ask(&gathered, "acme", "a");
        service.calls(1).await;
        let others = ["b", "nobody", "c", "b"].map(|id| ask(&gathered, "acme", id));
        let elsewhere = ask(&gathered, "globex", "z");
        assert_eq!(service.calls(2).await, [vec!["a"], vec!["z"]]);
        yield_now().await;
        service.answers.add_permits(3);
        let all = join_all(others.map(told)).await;
        assert_eq!(all, [Some("B".to_owned()), None, Some("C".to_owned()), Some("B".to_owned())]);
        assert_eq!(told(first).await.as_deref(), Some("A"));
        assert_eq!(told(elsewhere).await.as_deref(), Some("Z"));
        assert_eq!(service.calls(3).await[2], ["b", "nobody", "c", "b"]);
        assert!(gathered.lock().is_empty());
    }

    #[tokio::test]
    async fn a_call_has_so_many_ids_at_most() {
        let service = Service::new();
        let gathered = service.gathered("", away);
        let _first = ask(&gathered, "acme", "a");
        service.calls(1).await;
        let others: Vec<_> = (0..=LARGEST).map(|_| ask(&gathered, "acme", "b")).collect();
        yield_now().await;
        service.answers.add_permits(3);
        join_all(others.into_iter().map(told)).await;
        let sizes: Vec<usize> = service.calls(3).await.iter().map(Vec::len).collect();
        assert_eq!(sizes, [1, LARGEST, 1]);
    }

    #[tokio::test]
    async fn who_hangs_up_lets_the_others_go_on() {
        let service = Service::new();
        let gathered = service.gathered("", away);
        let first = ask(&gathered, "acme", "a");
        service.calls(1).await;
        let second = ask(&gathered, "acme", "b");
        yield_now().await;
        first.abort();
        service.answers.add_permits(1);
        assert_eq!(told(second).await.as_deref(), Some("B"));
    }

    #[tokio::test]
    async fn a_call_that_fails_or_hangs_fails_or_hangs_for_nobody_else() {
        for failing in [away, || pending().boxed()] {
            let service = Service::new();
            let gathered = service.gathered("unlucky", failing);
            let first = ask(&gathered, "acme", "a");
            service.calls(1).await;
            let unlucky = ask(&gathered, "acme", "unlucky");
            let beside = ask(&gathered, "acme", "b");
            yield_now().await;
            service.answers.add_permits(2);
            assert_eq!(told(first).await.as_deref(), Some("A"));
            assert_eq!(told(beside).await.as_deref(), Some("B"));
            assert!(service.calls(3).await.contains(&vec!["b".to_owned()]));
            unlucky.abort();
        }
    }

    #[tokio::test]
    async fn who_asks_first_and_hangs_keeps_nobody_waiting() {
        let service = Service::new();
        let gathered = service.gathered("unlucky", || pending().boxed());
        let unlucky = ask(&gathered, "acme", "unlucky");
        service.calls(1).await;
        service.answers.add_permits(1);
        assert_eq!(told(ask(&gathered, "acme", "b")).await.as_deref(), Some("B"));
        unlucky.abort();
    }
}
