//! How far behind identity a process is.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use muster_runtime::id::OrganisationId;
use muster_runtime::{clock, lock, metrics};
use opentelemetry::KeyValue;
use time::OffsetDateTime;
use tokio::time::Instant;

/// A lag above this is a line in the log.
const LATE: Duration = Duration::from_mins(1);
/// How often it is looked at.
const LOOK: Duration = Duration::from_secs(15);
/// A feed that says nothing at all for so long is not followed: an idle one has its heart-beats.
const SILENCE: Duration = Duration::from_secs(90);

/// Where each organisation stands. What has not been heard of is not behind.
#[derive(Debug)]
pub(crate) struct Lag {
    organisations: Mutex<HashMap<OrganisationId, Standing>>,
    heard: Mutex<Instant>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Standing {
    /// The newest sequence there is.
    head: i64,
    /// The newest that is applied.
    applied: i64,
    /// When the oldest was written that is not.
    waits_since: Option<OffsetDateTime>,
}

/// The lag of the process.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Measured {
    /// Of all organisations together.
    pub changes: i64,
    /// Of the organisation that is furthest behind.
    pub age: Duration,
    /// That organisation.
    pub organisation: Option<OrganisationId>,
}

impl Lag {
    fn new() -> Self {
        Self { organisations: Mutex::default(), heard: Mutex::new(Instant::now()) }
    }

    /// A lag that the process' metrics tell of, under the follower's name.
    pub(crate) fn measured(follower: &'static str) -> Arc<Self> {
        let lag = Arc::new(Self::new());
        let attributes = [KeyValue::new("muster.follower", follower)];
        let (seconds, changes) = (Arc::downgrade(&lag), Arc::downgrade(&lag));
        metrics::FEED_LAG.gauge(attributes.clone(), move || {
            seconds.upgrade().map(|lag| lag.measure().age.as_secs_f64())
        });
        metrics::FEED_LAG_CHANGES.gauge(attributes, move || {
            changes.upgrade().map(|lag| metrics::number(lag.measure().changes))
        });
        lag
    }

    /// Forgets everything: a stream that has just been opened tells again what is not applied.
    pub(crate) fn begin(&self) {
        lock(&self.organisations).clear();
        self.hear();
    }

    /// Notes that the feed says something.
    pub(crate) fn hear(&self) {
        *lock(&self.heard) = Instant::now();
    }

    /// Notes a change that has come and is not applied yet.
    pub(crate) fn wait(
        &self,
        organisation: OrganisationId,
        sequence: i64,
        head: i64,
        written_at: OffsetDateTime,
    ) {
        let mut organisations = lock(&self.organisations);
        let standing = organisations.entry(organisation).or_default();
        if standing.applied == 0 {
            standing.applied = sequence - 1;
        }
        standing.head = standing.head.max(head).max(sequence);
        standing.waits_since.get_or_insert(written_at);
    }

    /// Notes what is applied, and when the next was written that has come.
    pub(crate) fn advance(
        &self,
        organisation: OrganisationId,
        sequence: i64,
        next: Option<OffsetDateTime>,
    ) {
        let mut organisations = lock(&self.organisations);
        let standing = organisations.entry(organisation).or_default();
        standing.applied = standing.applied.max(sequence);
        let behind = standing.applied < standing.head;
        standing.waits_since = next.or(standing.waits_since.filter(|_| behind));
        if standing.waits_since.is_none() {
            organisations.remove(&organisation);
        }
    }

    /// Notes that an organisation is not followed for now.
    pub(crate) fn stop(&self, organisation: OrganisationId) {
        let mut organisations = lock(&self.organisations);
        organisations.entry(organisation).or_default().waits_since.get_or_insert_with(clock::now);
    }

    /// What an organisation's lag is.
    pub(crate) fn of(&self, organisation: OrganisationId) -> Measured {
        let standing = lock(&self.organisations).get(&organisation).copied().unwrap_or_default();
        Measured {
            changes: standing.head - standing.applied,
            age: standing.waits_since.map_or(Duration::ZERO, age),
            organisation: Some(organisation),
        }
    }

    pub(crate) fn measure(&self) -> Measured {
        let mut measured = Measured::default();
        for (organisation, standing) in lock(&self.organisations).iter() {
            measured.changes += standing.head - standing.applied;
            let age = standing.waits_since.map_or(Duration::ZERO, age);
            if age > measured.age {
                measured.age = age;
                measured.organisation = Some(*organisation);
            }
        }
        let silence = lock(&self.heard).elapsed();
        if silence > SILENCE && silence > measured.age {
            measured.age = silence;
            measured.organisation = None;
        }
        measured
    }
}

fn age(since: OffsetDateTime) -> Duration {
    Duration::try_from(clock::now() - since).unwrap_or_default()
}

/// Writes to the log while the process is late.
pub(crate) async fn warn(lag: &Lag) {
    loop {
        tokio::time::sleep(LOOK).await;
        let measured = lag.measure();
        if measured.age > LATE {
            let organisation = measured.organisation.map(|id| id.to_string());
            let (lag_seconds, lag_changes) = (measured.age.as_secs(), measured.changes);
            tracing::warn!(organisation, lag_seconds, lag_changes, "identity is followed late");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lag_is_what_has_come_and_is_not_applied() {
        let (lag, organisation) = (Lag::new(), OrganisationId::new());
        assert_eq!(lag.measure(), Measured::default());
        let written_at = clock::now() - Duration::from_mins(2);
        lag.wait(organisation, 5, 9, written_at);
        let measured = lag.measure();
        assert_eq!((measured.changes, measured.organisation), (5, Some(organisation)));
        assert!(measured.age >= Duration::from_mins(2));
        lag.advance(organisation, 8, Some(clock::now()));
        assert_eq!(lag.measure().changes, 1);
        assert!(lag.measure().age < Duration::from_mins(1));
        lag.advance(organisation, 9, None);
        assert_eq!(lag.measure(), Measured::default());
    }
}
