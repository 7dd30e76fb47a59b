//! The life of a process: what it needs to be ready, two tokens that say leave and stop, and a count
//! of the work that must still end.

use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::BoxFuture;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

/// How long one look at what a process needs may take.
const LOOK: Duration = Duration::from_secs(2);

/// Shared by everything in a process that runs until it is told to stop.
#[derive(Debug, Clone, Default)]
pub struct Life {
    leave: CancellationToken,
    stop: CancellationToken,
    tasks: TaskTracker,
    readiness: Arc<Readiness>,
}

#[derive(Default)]
struct Readiness {
    started: AtomicBool,
    needs: Mutex<Vec<Need>>,
}

/// Something without which a process cannot do its work, and how to look whether it is there.
type Need = (&'static str, Arc<dyn Fn() -> BoxFuture<'static, bool> + Send + Sync>);

impl fmt::Debug for Readiness {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Readiness").field("started", &self.started).finish_non_exhaustive()
    }
}

impl Life {
    /// A life that has just begun.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes that the process cannot do its work without `what`, and how to look whether it is
    /// there.
    pub fn needs<F>(&self, what: &'static str, look: impl Fn() -> F + Send + Sync + 'static)
    where
        F: Future<Output = bool> + Send + 'static,
    {
        let need: Need = (what, Arc::new(move || Box::pin(look())));
        crate::lock(&self.readiness.needs).push(need);
    }

    /// Notes that everything is started.
    pub fn started(&self) {
        self.readiness.started.store(true, Ordering::Relaxed);
    }

    /// Whether the process can do its work; why not, in words.
    pub async fn readiness(&self) -> Result<(), String> {
        if self.is_leaving() {
            return Err("shutting down".to_owned());
        }
        if !self.readiness.started.load(Ordering::Relaxed) {
            return Err("starting".to_owned());
        }
        let needs = crate::lock(&self.readiness.needs).clone();
        let looks = needs.into_iter().map(async |(what, look)| {
            let there = tokio::time::timeout(LOOK, look()).await.unwrap_or_default();
            (!there).then_some(what)
        });
        let missing: Vec<_> =
            futures::future::join_all(looks).await.into_iter().flatten().collect();
        if missing.is_empty() { Ok(()) } else { Err(format!("without {}", missing.join(", "))) }
    }

    /// Says that the process will stop: it is not ready any more, so that nobody sends it more, and
    /// goes on answering who does.
    pub fn leave(&self) {
        self.leave.cancel();
    }

    /// Whether someone has said leave, or stop.
    #[must_use]
    pub fn is_leaving(&self) -> bool {
        self.leave.is_cancelled() || self.is_stopped()
    }

    /// Waits until someone says leave, or stop.
    pub async fn left(&self) {
        tokio::select! {
            () = self.leave.cancelled() => {}
            () = self.stopped() => {}
        }
    }

    /// Says stop.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Waits until someone says stop.
    pub async fn stopped(&self) {
        self.stop.cancelled().await;
    }

    /// Whether someone has said stop.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// Runs work that goes on when its caller hangs up, and that `drain` waits for.
    pub fn spawn<F>(&self, work: F) -> tokio::task::JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.tasks.spawn(work.in_current_span())
    }

    /// The same for work that is no part of the trace that is under way, such as a watch, which
    /// goes on for long after it was asked for.
    pub fn spawn_untraced<F>(&self, work: F) -> tokio::task::JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.tasks.spawn(work)
    }

    /// Says stop and waits until all spawned work has ended.
    pub async fn drain(&self) {
        self.stop();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_process_is_ready_from_its_start_to_its_leave_while_it_has_what_it_needs() {
        let life = Life::new();
        assert_eq!(life.readiness().await, Err("starting".to_owned()));
        let there = Arc::new(AtomicBool::new(true));
        let look = there.clone();
        life.needs("the database", move || {
            let there = look.load(Ordering::Relaxed);
            async move { there }
        });
        life.started();
        assert_eq!(life.readiness().await, Ok(()));
        there.store(false, Ordering::Relaxed);
        assert_eq!(life.readiness().await, Err("without the database".to_owned()));
        there.store(true, Ordering::Relaxed);
        life.leave();
        assert_eq!(life.readiness().await, Err("shutting down".to_owned()));
        assert!(!life.is_stopped());
    }

    #[tokio::test]
    async fn what_does_not_answer_is_not_there() {
        let life = Life::new();
        life.needs("identity", std::future::pending);
        life.started();
        assert_eq!(life.readiness().await, Err("without identity".to_owned()));
    }
}
