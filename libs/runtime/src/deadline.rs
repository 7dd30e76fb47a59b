//! Deadlines that travel with calls: set once where a request comes in, read wherever a call goes
//! out, so that nobody works for a client who has given up.

use std::future::Future;
use std::time::{Duration, Instant};

tokio::task_local! {
    static DEADLINE: Instant;
}

/// What each hop keeps back for itself, so that the caller still hears of a deadline missed below.
const HOP: Duration = Duration::from_millis(20);

/// Runs `work` with a deadline; one that is nearer already stays.
pub async fn within<F: Future>(limit: Duration, work: F) -> F::Output {
    let deadline = Instant::now() + limit;
    let deadline = DEADLINE.try_with(|outer| (*outer).min(deadline)).unwrap_or(deadline);
    DEADLINE.scope(deadline, work).await
}

/// How long a call that goes out now may take; none where no deadline was set.
#[must_use]
pub fn remaining() -> Option<Duration> {
    DEADLINE
        .try_with(|deadline| deadline.saturating_duration_since(Instant::now()).saturating_sub(HOP))
        .ok()
}

/// The value of the `grpc-timeout` header: at most eight digits and a unit.
#[must_use]
pub(crate) fn to_header(limit: Duration) -> String {
    let millis = limit.as_millis();
    if millis < 100_000_000 { format!("{millis}m") } else { format!("{}S", limit.as_secs()) }
}

/// Reads a `grpc-timeout` header; none where it is not of that form.
#[must_use]
pub(crate) fn from_header(value: &str) -> Option<Duration> {
    let (digits, unit) = value.split_at_checked(value.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_reads_back_what_was_written() {
        for millis in [0, 1, 250, 10_000, 99_999_999] {
            let limit = Duration::from_millis(millis);
            assert_eq!(from_header(&to_header(limit)), Some(limit));
        }
    }

    #[test]
    fn a_header_of_another_form_is_none() {
        for value in ["", "m", "10", "10x", "123456789m", "-1m", "1é"] {
            assert_eq!(from_header(value), None, "{value}");
        }
    }

    #[tokio::test]
    async fn an_inner_deadline_cannot_be_later_than_the_outer() {
        within(Duration::from_secs(1), async {
            within(Duration::from_mins(1), async {
                assert!(remaining() <= Some(Duration::from_secs(1)));
            })
            .await;
        })
        .await;
        assert_eq!(remaining(), None);
    }
}
