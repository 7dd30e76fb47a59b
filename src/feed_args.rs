//! How a feed is read and kept, from the command line.

use std::time::Duration;

use clap::{ArgAction, Args};
use muster_runtime::feed::Settings;

/// How a feed is read and kept.
#[derive(Debug, Clone, Args)]
pub struct FeedArgs {
    /// How many days a change is kept
    #[arg(long, env = "MUSTER_FEED_KEEP_DAYS", default_value_t = 30.0, value_name = "DAYS")]
    pub feed_keep_days: f64,
    /// How many of an organisation's newest changes are kept, however old
    #[arg(long, env = "MUSTER_FEED_KEEP_CHANGES", default_value_t = 10_000, value_name = "NUMBER")]
    pub feed_keep_changes: i64,
    /// The most watches at once
    #[arg(long, env = "MUSTER_FEED_MAX_STREAMS", default_value_t = 1_000, value_name = "NUMBER")]
    pub feed_max_streams: usize,
    /// How long a reader of the feed may leave a message waiting
    #[arg(long, env = "MUSTER_FEED_SEND_LIMIT", default_value_t = 30.0, value_name = "SECONDS")]
    pub feed_send_limit: f64,
    /// How long a watch lasts, give or take a fifth
    #[arg(long, env = "MUSTER_FEED_STREAM_AGE", default_value_t = 600.0, value_name = "SECONDS")]
    pub feed_stream_age: f64,
    /// How long it takes to compare every organisation's newest change with every reader
    #[arg(long, env = "MUSTER_FEED_SWEEP", default_value_t = 60.0, value_name = "SECONDS")]
    pub feed_sweep: f64,
    /// How often the database is asked which organisations have moved lately; for tests
    #[arg(
        long,
        env = "MUSTER_FEED_LOOK",
        default_value_t = 1.0,
        value_name = "SECONDS",
        hide = true
    )]
    pub feed_look: f64,
    /// How often what need not be kept is deleted
    #[arg(long, env = "MUSTER_FEED_PRUNE", default_value_t = 3_600.0, value_name = "SECONDS")]
    pub feed_prune: f64,
    /// Whether readers are told of a change before the sweep finds it; for tests
    #[arg(
        long,
        env = "MUSTER_FEED_HINTS",
        default_value_t = true,
        action = ArgAction::Set,
        hide = true
    )]
    pub feed_hints: bool,
}

impl FeedArgs {
    /// The settings of a feed.
    #[must_use]
    pub fn settings(&self) -> Settings {
        Settings {
            keep_age: seconds(self.feed_keep_days * 24.0 * 60.0 * 60.0),
            keep_changes: self.feed_keep_changes,
            max_streams: self.feed_max_streams,
            send_limit: seconds(self.feed_send_limit),
            stream_age: seconds(self.feed_stream_age),
            look: seconds(self.feed_look),
            sweep: seconds(self.feed_sweep),
            prune: seconds(self.feed_prune),
            hints: self.feed_hints,
            ..Settings::default()
        }
    }
}

/// What is negative or no number is no time at all.
fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}
