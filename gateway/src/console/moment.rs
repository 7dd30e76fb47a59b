//! Times as people read them.

use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;

/// `25 Nov 2026, 09:05 UTC`.
const PLAIN: &[BorrowedFormatItem<'_>] =
    format_description!("[day padding:none] [month repr:short] [year], [hour]:[minute] UTC");

/// A time, for `<time datetime="{{ moment.iso }}">{{ moment.text }}</time>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Moment {
    pub text: String,
    pub iso: String,
}

/// Reads what the services answer; none where they answer none.
pub(super) fn moment(timestamp: Option<&prost_types::Timestamp>) -> Option<Moment> {
    let time = OffsetDateTime::from_unix_timestamp(timestamp?.seconds).ok()?;
    Some(Moment { text: time.format(PLAIN).ok()?, iso: time.format(&Rfc3339).ok()? })
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
    }
}
