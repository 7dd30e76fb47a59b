//! What must hold of a history: a validator for each promise, with its name in the error.
//!
//! The feed is the log of what was committed, in order; requests are joined to it by their trace
//! ids. So no search is needed: the feed is played through the model once.

pub(crate) mod approvers;
pub(crate) mod feed;
pub(crate) mod groups;
pub(crate) mod users;

use muster_proto::feed::v1::ChangeMetadata;

use super::history::Record;

/// The promises.
pub(crate) const I1: &str = "I1 (what was answered 2xx is there)";
pub(crate) const I2: &str = "I2 (a request happens once or not at all)";
pub(crate) const I3: &str = "I3 (followers arrive where the owner is)";
pub(crate) const I4: &str = "I4 (the feed tells everything, in order)";
pub(crate) const LEGAL: &str = "legal step (each change follows from the state and the request)";
pub(crate) const ORDER: &str = "real time (what returned first is first in the feed)";
pub(crate) const ANSWER: &str = "answer (right in some state between request and answer)";

/// What a change says of where it comes from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Origin<'c> {
    /// The trace id of the request.
    trace: &'c str,
    /// The id of the user or group.
    subject: &'c str,
}

impl<'c> Origin<'c> {
    pub(crate) fn of(metadata: Option<&'c ChangeMetadata>, subject: &'c str) -> Self {
        let traceparent = metadata.map_or("", |metadata| metadata.traceparent.as_str());
        Self { trace: traceparent.split('-').nth(1).unwrap_or_default(), subject }
    }

    /// Which of the operations made the change: of a trace there are several where they were asked
    /// for in bulk, each about somebody else.
    fn find<'j, 'r>(&self, joined: &'j mut [Joined<'r>]) -> Option<&'j mut Joined<'r>> {
        let of_trace = |one: &Joined<'_>| one.record.trace == self.trace;
        let named = joined
            .iter()
            .position(|one| of_trace(one) && one.record.op.subject() == Some(self.subject));
        let made = || joined.iter().position(|o| of_trace(o) && o.record.op.subject().is_none());
        named.or_else(made).map(|at| &mut joined[at])
    }
}

/// A request with what the feed says of it.
#[derive(Debug)]
pub(crate) struct Joined<'r> {
    pub(crate) record: &'r Record,
    /// The sequences of the changes that it made.
    pub(crate) changes: Vec<usize>,
    /// Between which states it was answered: after at least `from` changes, at most `to`.
    pub(crate) from: usize,
    pub(crate) to: usize,
}

/// Joins requests to the changes of their feed, given by origin in order of sequence, and checks
/// what follows from the join alone: exactly one change each, in the order of real time.
pub(crate) fn join<'r>(
    records: &'r [Record],
    origins: &[Origin<'_>],
    violations: &mut Vec<String>,
) -> Vec<Joined<'r>> {
    let mut joined: Vec<Joined<'r>> = records
        .iter()
        .map(|record| Joined { record, changes: Vec::new(), from: 0, to: origins.len() })
        .collect();
    joined.sort_by_key(|one| one.record.sent);
    for (at, origin) in origins.iter().enumerate() {
        if let Some(one) = origin.find(&mut joined) {
            one.changes.push(at + 1);
        }
    }
    for one in &joined {
        let (record, count) = (one.record, one.changes.len());
        if count > 1 {
            violations.push(format!("{I2}: {count} changes {:?} of {record}", one.changes));
        }
        if count > 0 && record.status().is_some() && !record.succeeded() {
            violations.push(format!("{I2}: change {:?} of a refused {record}", one.changes));
        }
    }
    order(&mut joined, violations);
    // When a change happened that no request made is not known.
    let made = |at: usize| joined.iter().any(|one| one.changes.contains(&at));
    let unmade: Vec<bool> = (0..=origins.len()).map(|at| !made(at)).collect();
    for one in &mut joined {
        while one.to < origins.len() && unmade[one.to + 1] {
            one.to += 1;
        }
    }
    joined
}

/// What had returned before a request was sent is before it in the feed.
fn order(joined: &mut [Joined<'_>], violations: &mut Vec<String>) {
    // The moments at which changes are known to have happened, and those from which they may have.
    let mut returned: Vec<(u64, usize)> = Vec::new();
    let mut sent: Vec<(u64, usize)> = Vec::new();
    for one in joined.iter() {
        for change in &one.changes {
            sent.push((one.record.sent, *change));
            if one.record.status().is_some() {
                returned.push((one.record.returned, *change));
            }
        }
    }
    let highest_before = |moments: &[(u64, usize)]| {
        let mut moments = moments.to_vec();
        moments.sort_unstable();
        let mut highest = 0;
        for moment in &mut moments {
            highest = highest.max(moment.1);
            moment.1 = highest;
        }
        moves(moments)
    };
    let (known, possible) = (highest_before(&returned), highest_before(&sent));
    for one in joined {
        one.from = known(one.record.sent);
        if one.record.status().is_some() {
            one.to = possible(one.record.returned).max(one.from);
        }
        if let Some(&change) = one.changes.first()
            && change <= one.from
        {
            violations.push(format!(
                "{ORDER}: change {change} of {} is before change {}, which had returned",
                one.record, one.from
            ));
        }
    }
}

/// The highest change at a moment, given the moments at which it grew.
fn moves(moments: Vec<(u64, usize)>) -> impl Fn(u64) -> usize {
    move |now| match moments.partition_point(|(moment, _)| *moment < now) {
        0 => 0,
        count => moments[count - 1].1,
    }
}
