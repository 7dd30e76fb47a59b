//! The life of a process: one token that says stop, and a count of the work that must still end.

use std::future::Future;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

/// Shared by everything in a process that runs until it is told to stop.
#[derive(Debug, Clone, Default)]
pub struct Life {
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Life {
    /// A life that has just begun.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
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

    /// Says stop and waits until all spawned work has ended.
    pub async fn drain(&self) {
        self.stop();
        self.tasks.close();
        self.tasks.wait().await;
    }
}
