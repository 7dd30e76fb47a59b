//! Wall-clock time as the database keeps it.

use prost_types::Timestamp;
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

/// A time as messages hold it.
#[must_use]
pub fn timestamp(time: OffsetDateTime) -> Timestamp {
    Timestamp {
        seconds: time.unix_timestamp(),
        nanos: i32::try_from(time.nanosecond()).unwrap_or_default(),
    }
}

/// The time that a message holds; none where it is out of range.
#[must_use]
pub fn time_of(timestamp: Timestamp) -> Option<OffsetDateTime> {
    let nanos = i128::from(timestamp.seconds) * 1_000_000_000 + i128::from(timestamp.nanos);
    OffsetDateTime::from_unix_timestamp_nanos(nanos).ok()
}
