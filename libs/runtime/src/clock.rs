//! Wall-clock time as the database keeps it.

use time::OffsetDateTime;

/// Now, to the microsecond: what Postgres stores, so that what a write answers is what a later
/// read answers.
#[must_use]
pub fn now() -> OffsetDateTime {
    let now = OffsetDateTime::now_utc();
    #[cfg(feature = "failpoints")]
    let now = now + crate::failpoint::clock_offset();
    now.replace_microsecond(now.microsecond()).unwrap_or(now)
}
