//! Rules of sessions in the console.

use time::Duration;

/// How long a session lasts that nobody uses.
pub const IDLE: Duration = Duration::minutes(30);

/// How long a session lasts, however much it is used.
pub const LONGEST: Duration = Duration::hours(12);
