//! Reads that come together, made in one.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tracing::{Instrument as _, Span};

use super::{Gathering, Turn};
use crate::deadline;

/// Reads a `T` of each of several `I` of a `K`, by id: what there is.
type Ask<K, I, T, E> =
    Arc<dyn Fn(K, Vec<I>) -> BoxFuture<'static, Result<HashMap<I, T>, E>> + Send + Sync>;

/// Reads that are made together: of ids `I` of each `K`, which bring a `T` or fail by `E`. Cloning it
/// gives the same.
pub struct Reads<K: Clone + Eq + Hash, I, T, E> {
    ask: Ask<K, I, T, E>,
    patience: Duration,
    gathering: Gathering<K, Asking<I, T>>,
}

/// Somebody who waits for a read.
struct Asking<I, T> {
    id: I,
    tell: oneshot::Sender<Option<T>>,
    span: Span,
}

impl<K: Clone + Eq + Hash, I, T, E> Clone for Reads<K, I, T, E> {
    fn clone(&self) -> Self {
        let (ask, gathering) = (self.ask.clone(), self.gathering.clone());
        Self { ask, patience: self.patience, gathering }
    }
}

impl<K: Clone + Eq + Hash, I, T, E> fmt::Debug for Reads<K, I, T, E> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Reads").field("patience", &self.patience).finish_non_exhaustive()
    }
}

impl<K, I, T, E> Reads<K, I, T, E>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
    I: Clone + Eq + Hash + Send + 'static,
    T: Clone + Send + 'static,
    E: Send + 'static,
{
    /// `ask` reads several at once, `largest` at most. Who waits for others' reads does so for
    /// `patience`, and then reads alone: where a replica hangs, only those wait for it of whom it was
    /// asked first.
    pub fn new<F, A>(largest: usize, patience: Duration, ask: F) -> Self
    where
        F: Fn(K, Vec<I>) -> A + Send + Sync + 'static,
        A: Future<Output = Result<HashMap<I, T>, E>> + Send + 'static,
    {
        let ask: Ask<K, I, T, E> = Arc::new(move |whose, ids| ask(whose, ids).boxed());
        let asking = ask.clone();
        let gathering = Gathering::new(largest, move |turn, those: Vec<Asking<I, T>>| {
            // In the trace of the first. Outside of the runtime nobody waits any more.
            let span = those.first().map_or_else(Span::none, |first| first.span.clone());
            if let Ok(runtime) = Handle::try_current() {
                let ask = asking.clone();
                let read = async move {
                    let those = turn.with_others(those).await;
                    read_together(ask, patience, turn, those).await;
                };
                runtime.spawn(read.instrument(span));
            }
        });
        Self { ask, patience, gathering }
    }

    /// What there is of an id, as it was after this was called.
    pub async fn get(&self, whose: &K, id: &I) -> Result<Option<T>, E> {
        let (tell, told) = oneshot::channel();
        let asking = Asking { id: id.clone(), tell, span: Span::current() };
        let mut turn = None;
        if let Some((begun, asking)) = self.gathering.join(whose, asking) {
            let those = begun.with_others(vec![asking]).await;
            if those.len() == 1 {
                turn = Some(begun);
            } else {
                // For the others, too, where the caller hangs up.
                let read = read_together(self.ask.clone(), self.patience, begun, those);
                tokio::spawn(read.in_current_span());
            }
        }
        // Where the read fails, which may be for another's sake, or takes too long, each reads alone.
        if turn.is_none()
            && let Ok(Ok(answer)) = tokio::time::timeout(self.patience, told).await
        {
            return Ok(answer);
        }
        let found = self.get_all(whose.clone(), vec![id.clone()]).await;
        drop(turn);
        Ok(found?.remove(id))
    }

    /// What there is of several ids, in a read of its own.
    pub async fn get_all(&self, whose: K, ids: Vec<I>) -> Result<HashMap<I, T>, E> {
        (self.ask)(whose, ids).await
    }
}

/// Reads for those who wait, and tells them. Where that fails, it is told by nobody's being told.
async fn read_together<K, I, T, E>(
    ask: Ask<K, I, T, E>,
    patience: Duration,
    turn: Turn<K, Asking<I, T>>,
    those: Vec<Asking<I, T>>,
) where
    K: Clone + Eq + Hash,
    I: Clone + Eq + Hash,
    T: Clone,
{
    let ids = those.iter().map(|asking| asking.id.clone()).collect();
    let asked = deadline::within(patience, ask(turn.whose().clone(), ids));
    let found = tokio::time::timeout(patience, asked).await;
    drop(turn);
    if let Ok(Ok(found)) = found {
        for Asking { id, tell, .. } in those {
            // Who has hung up hears of nothing.
            drop(tell.send(found.get(&id).cloned()));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use futures::future::{join_all, pending};
    use tokio::sync::Semaphore;
    use tokio::task::{JoinHandle, yield_now};
    use tonic::Status;

    use super::*;

    const LARGEST: usize = 3;
    const PATIENCE: Duration = Duration::from_millis(250);

    type Read = Reads<String, String, String, Status>;

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
        fn gathered<F>(self: &Arc<Self>, unlucky: &'static str, failing: F) -> Read
        where
            F: Fn() -> BoxFuture<'static, Status> + Send + Sync + 'static,
        {
            let service = self.clone();
            Reads::new(LARGEST, PATIENCE, move |organisation, ids: Vec<String>| {
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
        gathered: &Read,
        organisation: &'static str,
        id: &'static str,
    ) -> JoinHandle<Result<Option<String>, Status>> {
        let gathered = gathered.clone();
        tokio::spawn(async move { gathered.get(&organisation.to_owned(), &id.to_owned()).await })
    }

    async fn told(asked: JoinHandle<Result<Option<String>, Status>>) -> Option<String> {
        asked.await.unwrap().unwrap()
    }

    #[tokio::test]
    async fn who_comes_during_a_call_is_asked_about_in_the_next_so_many_at_most() {
        let service = Service::new();
        let gathered = service.gathered("", away);
        let first = ask(&gathered, "acme", "a");
        service.calls(1).await;
        let others = ["b", "nobody", "c", "b"].map(|id| ask(&gathered, "acme", id));
        let elsewhere = ask(&gathered, "globex", "z");
        assert_eq!(service.calls(2).await, [vec!["a"], vec!["z"]]);
        yield_now().await;
        service.answers.add_permits(4);
        let all = join_all(others.map(told)).await;
        assert_eq!(all, [Some("B".to_owned()), None, Some("C".to_owned()), Some("B".to_owned())]);
        assert_eq!(told(first).await.as_deref(), Some("A"));
        assert_eq!(told(elsewhere).await.as_deref(), Some("Z"));
        assert_eq!(service.calls(4).await[2..], [vec!["b", "nobody", "c"], vec!["b"]]);
        assert!(gathered.gathering.lock().is_empty());
    }

    #[tokio::test]
    async fn who_comes_at_the_same_moment_is_asked_about_with_the_first_so_many_at_most() {
        let service = Service::new();
        let gathered = service.gathered("", away);
        service.answers.add_permits(2);
        let asked = ["a", "b", "c", "d"].map(|id| ask(&gathered, "acme", id));
        assert_eq!(join_all(asked.map(told)).await.into_iter().flatten().count(), 4);
        let calls = service.calls(2).await;
        assert_eq!(calls.iter().map(Vec::len).collect::<Vec<_>>(), [3, 1]);
    }

    #[tokio::test]
    async fn who_hangs_up_leaves_the_others_the_call_that_is_for_them_too() {
        let service = Service::new();
        let gathered = service.gathered("", away);
        let [first, second] = ["a", "b"].map(|id| ask(&gathered, "acme", id));
        assert_eq!(service.calls(1).await, [vec!["a", "b"]]);
        first.abort();
        yield_now().await;
        service.answers.add_permits(1);
        assert_eq!(told(second).await.as_deref(), Some("B"));
        assert_eq!(service.calls(1).await.len(), 1);
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
