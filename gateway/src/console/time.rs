//! Moments on pages, in UTC.

use prost_types::Timestamp;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;

fn moment(timestamp: Timestamp) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(timestamp.seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

/// For the `datetime` of a `time` element.
pub(super) fn machine(timestamp: Timestamp) -> String {
    moment(timestamp).format(&Rfc3339).unwrap_or_default()
}

/// For people: `25 Nov 2026, 22:31 UTC`.
pub(super) fn people(timestamp: Timestamp) -> String {
    let format =
        format_description!("[day padding:none] [month repr:short] [year], [hour]:[minute] UTC");
    moment(timestamp).format(format).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_shown_in_utc() {
        let timestamp = Timestamp { seconds: 1_795_646_000, nanos: 5 };
        assert_eq!(people(timestamp), "25 Nov 2026, 22:33 UTC");
        assert_eq!(machine(timestamp), "2026-11-25T22:33:20Z");
    }
}
