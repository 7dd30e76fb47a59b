//! Times as people read them.

use muster_runtime::clock;
use time::format_description::BorrowedFormatItem;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;

/// `25 Nov 2026, 09:05 UTC`.
const PLAIN: &[BorrowedFormatItem<'_>] =
    format_description!("[day padding:none] [month repr:short] [year], [hour]:[minute] UTC");
/// `25 Nov 2026, 09:05:00`, where something else says that times are in UTC.
const EXACT: &[BorrowedFormatItem<'_>] =
    format_description!("[day padding:none] [month repr:short] [year], [hour]:[minute]:[second]");

/// A time, for `<time datetime="{{ moment.iso }}">{{ moment.text }}</time>`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Moment {
    pub text: String,
    pub iso: String,
}

/// Reads what the services answer; none where they answer none.
pub(super) fn moment(timestamp: Option<&prost_types::Timestamp>) -> Option<Moment> {
    written(timestamp, PLAIN)
}

/// The same to the second, without a word of UTC.
pub(super) fn exact_moment(timestamp: Option<&prost_types::Timestamp>) -> Option<Moment> {
    written(timestamp, EXACT)
}

fn written(
    timestamp: Option<&prost_types::Timestamp>,
    format: &[BorrowedFormatItem<'_>],
) -> Option<Moment> {
    let time = clock::time_of(*timestamp?)?.replace_nanosecond(0).ok()?;
    Some(Moment { text: time.format(format).ok()?, iso: time.format(&Rfc3339).ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_written_for_people() {
        let timestamp = prost_types::Timestamp { seconds: 1_795_597_500, nanos: 5 };
        let moment = moment(Some(&timestamp)).unwrap();
        assert_eq!(moment.text, "25 Nov 2026, 09:05 UTC");
        assert_eq!(moment.iso, "2026-11-25T09:05:00Z");
        let exact = exact_moment(Some(&timestamp)).unwrap();
        assert_eq!((exact.text.as_str(), exact.iso), ("25 Nov 2026, 09:05:00", moment.iso));
    }
}
