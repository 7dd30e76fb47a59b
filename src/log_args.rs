//! How long the provisioning log is kept, from the command line.

use std::time::Duration;

use clap::Args;
use muster_identity::provisioning_log::Settings;

/// How long the provisioning log is kept.
#[derive(Debug, Clone, Args)]
pub struct LogArgs {
    /// How many days a SCIM request is kept in the provisioning log
    #[arg(long, env = "MUSTER_LOG_RETENTION_DAYS", default_value_t = 30.0, value_name = "DAYS")]
    pub log_retention_days: f64,
    /// How often what need not be kept is deleted; for tests
    #[arg(
        long,
        env = "MUSTER_LOG_PRUNE",
        default_value_t = 3_600.0,
        value_name = "SECONDS",
        hide = true
    )]
    pub log_prune: f64,
}

impl LogArgs {
    /// The settings of the log.
    #[must_use]
    pub fn settings(&self) -> Settings {
        // What is negative or no number is no time at all.
        let seconds = |seconds: f64| Duration::try_from_secs_f64(seconds).unwrap_or_default();
        Settings {
            keep_age: seconds(self.log_retention_days * 24.0 * 60.0 * 60.0),
            prune: seconds(self.log_prune),
        }
    }
}
