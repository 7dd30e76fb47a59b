//! Sends the entries to identity, many at once, beside the requests.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::response::Response;
use muster_proto::identity::v1::provisioning_log_service_client::ProvisioningLogServiceClient;
use muster_proto::identity::v1::{AppendProvisioningLogRequest, ProvisioningLogEntry};
use muster_runtime::grpc::is_away;
use muster_runtime::life::Life;
use muster_runtime::transport::Transport;
use muster_runtime::{deadline, metrics, telemetry};
use opentelemetry::KeyValue;
use opentelemetry::metrics::Counter;
use tokio::sync::mpsc;

use super::Call;

/// How many entries wait at most; what comes while so many do is dropped, and counted.
const QUEUE: usize = 10_000;
/// How many are sent at once at most.
const BATCH: usize = 500;
/// How long a batch is gathered: an admin sees a request about so much later.
const GATHER: Duration = Duration::from_millis(250);
/// How long identity may take for a batch.
const APPEND: Duration = Duration::from_secs(10);
/// How long to wait before a batch is sent again, at first and at most.
const AGAIN: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// How long entries are still taken after the process was told to stop, for requests under way, and
/// how long what is left is tried after that.
const LAST: (Duration, Duration) = (Duration::from_secs(25), Duration::from_secs(5));

/// Takes entries. Cloning it gives the same.
#[derive(Debug, Clone)]
pub(crate) struct Log {
    queue: mpsc::Sender<ProvisioningLogEntry>,
    lost: Arc<Lost>,
}

/// What is not in the log though it should be.
#[derive(Debug)]
struct Lost {
    counter: Counter<u64>,
    /// Since that was last written to the process' own log.
    untold: AtomicU64,
}

impl Lost {
    fn count(&self, entries: usize, reason: &'static str) {
        let entries = entries as u64;
        self.counter.add(entries, &[KeyValue::new("muster.reason", reason)]);
        self.untold.fetch_add(entries, Ordering::Relaxed);
    }

    fn tell(&self) {
        let count = self.untold.swap(0, Ordering::Relaxed);
        if count > 0 {
            tracing::warn!(count, "requests are missing from the provisioning log");
        }
    }
}

impl Log {
    /// Starts the task that writes; it ends with the life, after what is left is written.
    pub(crate) fn start(identity: Transport, life: &Life) -> Self {
        let (log, entries) = Self::queue(QUEUE);
        let writer = Writer {
            entries,
            client: ProvisioningLogServiceClient::new(identity),
            lost: log.lost.clone(),
            life: life.clone(),
        };
        life.spawn(writer.run());
        log
    }

    fn queue(capacity: usize) -> (Self, mpsc::Receiver<ProvisioningLogEntry>) {
        let (queue, entries) = mpsc::channel(capacity);
        let waiting = queue.downgrade();
        metrics::LOG_QUEUE.gauge([], move || {
            let queue = waiting.upgrade()?;
            Some(metrics::number(queue.max_capacity() - queue.capacity()))
        });
        let lost = Lost { counter: metrics::LOG_LOST.counter(), untold: AtomicU64::new(0) };
        (Self { queue, lost: Arc::new(lost) }, entries)
    }

    /// Notes a request that is answered. Call it within the request's span.
    pub(crate) fn answered(&self, call: &Call, response: &Response) {
        let Some(entry) = call.entry(response, telemetry::trace_id()) else { return };
        if self.queue.try_send(entry).is_err() {
            self.lost.count(1, "full");
        }
    }
}

struct Writer {
    entries: mpsc::Receiver<ProvisioningLogEntry>,
    client: ProvisioningLogServiceClient<Transport>,
    lost: Arc<Lost>,
    life: Life,
}

impl Writer {
    async fn run(mut self) {
        let life = self.life.clone();
        let too_late = async {
            life.stopped().await;
            tokio::time::sleep(LAST.0).await;
        };
        tokio::pin!(too_late);
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            let over = tokio::select! {
                // None where the last request is over: requests hold the other end.
                count = self.entries.recv_many(&mut batch, BATCH) => count == 0,
                () = &mut too_late => true,
            };
            if over {
                break;
            }
            fill(&mut batch, &mut self.entries, &self.life).await;
            self.append(std::mem::take(&mut batch)).await;
        }
        self.lost.tell();
    }

    /// Sends a batch, and again while identity is away.
    async fn append(&mut self, entries: Vec<ProvisioningLogEntry>) {
        let count = entries.len();
        let mut again = AGAIN.0;
        let mut since_stop = None;
        loop {
            let request = AppendProvisioningLogRequest { entries: entries.clone() };
            let appended =
                deadline::within(APPEND, self.client.append_provisioning_log(request)).await;
            let Err(status) = appended else {
                self.lost.tell();
                return;
            };
            if !is_away(status.code()) {
                // It would be refused again.
                tracing::warn!(code = ?status.code(), "the provisioning log was not written");
                return self.lost.count(count, "refused");
            }
            if self.life.is_stopped() {
                let since = *since_stop.get_or_insert_with(tokio::time::Instant::now);
                if since.elapsed() > LAST.1 {
                    return self.lost.count(count, "stopped");
                }
                again = AGAIN.0;
                tokio::time::sleep(again).await;
            } else {
                tokio::select! {
                    () = tokio::time::sleep(again) => {}
                    () = self.life.stopped() => {}
                }
                again = (again * 2).min(AGAIN.1);
            }
        }
    }
}

/// Fills a batch with what comes within [`GATHER`]; at once, where enough waits.
async fn fill(
    batch: &mut Vec<ProvisioningLogEntry>,
    entries: &mut mpsc::Receiver<ProvisioningLogEntry>,
    life: &Life,
) {
    if batch.len() + entries.len() < BATCH {
        tokio::select! {
            () = tokio::time::sleep(GATHER) => {}
            () = life.stopped() => {}
        }
    }
    while batch.len() < BATCH
        && let Ok(entry) = entries.try_recv()
    {
        batch.push(entry);
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use futures::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn a_whole_batch_that_waits_is_not_gathered_for() {
        let (log, mut entries) = Log::queue(BATCH);
        let call = Call::operation(&http::Method::GET, "/Users", None);
        call.by("o", "k");
        for _ in 0..BATCH {
            log.answered(&call, &Response::new(Body::empty()));
        }
        let mut batch = vec![entries.recv().await.unwrap()];
        let life = Life::default();
        assert!(fill(&mut batch, &mut entries, &life).now_or_never().is_some());
        assert_eq!(batch.len(), BATCH);
        batch.truncate(1);
        assert!(fill(&mut batch, &mut entries, &life).now_or_never().is_none());
    }

    #[test]
    fn what_finds_the_queue_full_is_counted_and_waits_for_nobody() {
        let (log, mut entries) = Log::queue(2);
        let call = Call::operation(&http::Method::GET, "/Users", None);
        call.by("o", "k");
        let answer = Response::new(Body::empty());
        for _ in 0..5 {
            log.answered(&call, &answer);
        }
        assert_eq!(log.lost.untold.load(Ordering::Relaxed), 3);
        assert!(entries.try_recv().is_ok());
        log.answered(&call, &answer);
        assert_eq!(log.lost.untold.load(Ordering::Relaxed), 3);
    }
}
