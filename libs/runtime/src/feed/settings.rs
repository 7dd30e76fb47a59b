//! What of a feed can be set.

use std::time::Duration;

use time::OffsetDateTime;

use super::read::Kept;
use crate::clock;

/// How a feed is read and how long it is kept. What is not about limits is for tests.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How many of an organisation's newest changes are held in memory while anyone watches it.
    pub tail: usize,
    /// How often an idle watch hears where it stands.
    pub heart_beat: Duration,
    /// How long a reader may leave a message waiting.
    pub send_limit: Duration,
    /// How long a watch lasts, give or take a fifth: readers spread over replicas again.
    pub stream_age: Duration,
    /// The most watches at once.
    pub max_streams: usize,
    /// Whether readers are told of a change before the sweep finds it. Nothing but latency depends
    /// on it.
    pub hints: bool,
    /// How often the database is asked which organisations have moved lately.
    pub look: Duration,
    /// How long it takes to compare every organisation's newest change with every reader's
    /// position. Correctness rests on this.
    pub sweep: Duration,
    /// How long a change is kept.
    pub keep_age: Duration,
    /// How many of an organisation's newest changes are kept, however old.
    pub keep_changes: i64,
    /// How often what need not be kept is deleted.
    pub prune: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            tail: 1_000,
            heart_beat: Duration::from_secs(30),
            send_limit: Duration::from_secs(30),
            stream_age: Duration::from_mins(10),
            max_streams: 1_000,
            hints: true,
            look: Duration::from_secs(1),
            sweep: Duration::from_mins(1),
            keep_age: Duration::from_hours(30 * 24),
            keep_changes: 10_000,
            prune: Duration::from_hours(1),
        }
    }
}

impl Settings {
    /// What of a feed is kept now: always the newest change, which carries the totals and the
    /// sequence.
    pub(super) fn kept(&self) -> Kept {
        let age = time::Duration::try_from(self.keep_age).unwrap_or(time::Duration::MAX);
        Kept {
            since: clock::now().checked_sub(age).unwrap_or(OffsetDateTime::UNIX_EPOCH),
            newest: self.keep_changes.max(1),
        }
    }
}
