//! The newest changes of an organisation, held in memory for all who watch it in this process.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

use tokio::sync::{Mutex, watch};
use uuid::Uuid;

use super::read::{self, BATCH, Refusal, Turns};
use super::wake::Hint;
use super::{Change, Kind, Position};
use crate::id::OrganisationId;

/// The most bytes of payload that a tail holds.
const LARGEST: usize = 4 * 1024 * 1024;

/// One organisation's tail. It asks the database once for each hint, whoever and how many wait.
#[derive(Debug)]
pub(super) struct Tail {
    organisation: OrganisationId,
    turns: Turns,
    /// The most changes to hold.
    length: usize,
    /// Counts the hints that there may be more than is held.
    hints: watch::Sender<u64>,
    recent: Mutex<Recent>,
    /// The newest sequence that is held.
    newest: AtomicI64,
    /// Readers who are further behind than the tail reaches take turns here, so that they load the
    /// database with one batch at a time, and nobody else's wait.
    behind: Mutex<()>,
}

/// What comes after a position.
#[derive(Debug)]
pub(super) struct Batch {
    pub changes: Vec<Arc<Change>>,
    /// Whether there is more after these.
    pub more: bool,
    /// The newest sequence known.
    pub newest: i64,
}

impl Tail {
    pub(super) fn new(turns: Turns, organisation: OrganisationId, length: usize) -> Self {
        Self {
            organisation,
            turns,
            length,
            hints: watch::Sender::new(1),
            recent: Mutex::default(),
            newest: AtomicI64::new(0),
            behind: Mutex::default(),
        }
    }

    /// Says that there may be more.
    pub(super) fn hint(&self, hint: Hint) {
        if !matches!(hint, Hint::Reached(sequence) if sequence <= self.newest.load(Relaxed)) {
            self.hints.send_modify(|hints| *hints += 1);
        }
    }

    /// Tells of hints.
    pub(super) fn hints(&self) -> watch::Receiver<u64> {
        self.hints.subscribe()
    }

    /// The changes after a position, at most [`BATCH`].
    pub(super) async fn after(&self, position: Position) -> Result<Batch, Refusal> {
        if let Some(batch) = self.held(position).await? {
            return Ok(batch);
        }
        let _turn = self.behind.lock().await;
        // Whoever had the turn before may have read the same.
        if let Some(batch) = self.held(position).await? {
            return Ok(batch);
        }
        let hint = *self.hints.borrow();
        let changes = self.read(position).await?;
        let mut recent = self.recent.lock().await;
        recent.join(position, &changes, hint, self.length);
        self.newest.store(recent.newest().sequence, Relaxed);
        let newest = changes.last().map_or(position.sequence, |last| last.sequence);
        let more = changes.len() == BATCH;
        Ok(Batch { changes, more, newest: newest.max(recent.newest().sequence) })
    }

    /// None where the tail does not reach back to the position.
    async fn held(&self, position: Position) -> Result<Option<Batch>, Refusal> {
        let mut recent = self.recent.lock().await;
        if !recent.holds(position) {
            return Ok(None);
        }
        let hint = *self.hints.borrow();
        if position == recent.newest() && recent.asked != hint {
            match self.read(position).await {
                Ok(changes) => {
                    // A full batch is followed by more: ask again.
                    recent.asked = if changes.len() == BATCH { recent.asked } else { hint };
                    recent.extend(changes, self.length);
                    self.newest.store(recent.newest().sequence, Relaxed);
                }
                Err(refusal) => {
                    // Of another history: whoever still reads in it finds out from the database.
                    *recent = Recent::default();
                    return Err(refusal);
                }
            }
        }
        Ok(Some(recent.after(position)))
    }

    async fn read(&self, position: Position) -> Result<Vec<Arc<Change>>, Refusal> {
        let organisation = self.organisation;
        let changes = self
            .turns
            .read(organisation, move |c| Box::pin(read::after(c, organisation, position)))
            .await?;
        if let Some(last) = changes.last() {
            // Nobody is told what a crash could take back.
            self.turns.database.lasting(organisation, last.sequence).await?;
        }
        Ok(changes.into_iter().map(Arc::new).collect())
    }
}

/// Changes without a gap, up to the newest that was there when the database was last asked.
#[derive(Debug)]
struct Recent {
    /// Where the first of them begins.
    start: Position,
    changes: VecDeque<Arc<Change>>,
    bytes: usize,
    /// The hint after which the database was last asked; 0 where it never was.
    asked: u64,
}

impl Default for Recent {
    fn default() -> Self {
        Self { start: Position::START, changes: VecDeque::new(), bytes: 0, asked: 0 }
    }
}

impl Recent {
    fn newest(&self) -> Position {
        self.changes.back().map_or(self.start, |last| last.position())
    }

    /// Whether everything after the position is here.
    fn holds(&self, position: Position) -> bool {
        self.asked > 0 && self.index(position).is_some()
    }

    /// How many changes come before those after the position.
    fn index(&self, position: Position) -> Option<usize> {
        let index = usize::try_from(position.sequence - self.start.sequence).ok()?;
        let there = match index.checked_sub(1) {
            None => self.start,
            Some(last) => self.changes.get(last)?.position(),
        };
        (there == position).then_some(index)
    }

    fn after(&self, position: Position) -> Batch {
        let from = self.index(position).unwrap_or(self.changes.len());
        let changes: Vec<_> = self.changes.iter().skip(from).take(BATCH).cloned().collect();
        let more = from + changes.len() < self.changes.len();
        Batch { changes, more, newest: self.newest().sequence }
    }

    fn extend(&mut self, changes: impl IntoIterator<Item = Arc<Change>>, length: usize) {
        for change in changes {
            if change.kind == Kind::Erased {
                self.erase(change.subject_id);
            }
            self.bytes += change.bytes();
            self.changes.push_back(change);
        }
        while self.changes.len() > length || self.bytes > LARGEST {
            let Some(oldest) = self.changes.pop_front() else { break };
            self.bytes -= oldest.bytes();
            self.start = oldest.position();
        }
    }

    /// Erases what the changes of a subject say.
    fn erase(&mut self, subject: Uuid) {
        for change in self.changes.iter_mut().filter(|change| change.subject_id == subject) {
            let erased = change.erased();
            self.bytes -= change.bytes() - erased.bytes();
            *change = Arc::new(erased);
        }
    }

    /// Takes what was read after a position: in front of what is here, where that follows without
    /// a gap, else in its place, where it is the feed's end.
    fn join(&mut self, position: Position, read: &[Arc<Change>], asked: u64, length: usize) {
        let end = read.last().map_or(position, |last| last.position());
        let rest = self.holds(end).then(|| self.index(end)).flatten();
        match rest {
            Some(known) if position.sequence < self.start.sequence => {
                let rest = self.changes.split_off(known);
                *self = Self { start: position, asked: self.asked, ..Self::default() };
                self.extend(read.iter().cloned().chain(rest), length);
            }
            Some(_) => {}
            None if read.len() < BATCH => {
                *self = Self { start: position, asked, ..Self::default() };
                self.extend(read.iter().cloned(), length);
            }
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use time::OffsetDateTime;

    use super::*;
    use crate::id::Revision;

    fn changes(sequences: std::ops::RangeInclusive<i64>) -> Vec<Arc<Change>> {
        let organisation_id = OrganisationId::new();
        let change = |sequence: i64| Change {
            organisation_id,
            sequence,
            change_id: Uuid::from_u128(sequence.unsigned_abs().into()),
            written_at: OffsetDateTime::UNIX_EPOCH,
            kind: Kind::Created,
            subject_id: Uuid::nil(),
            revision: Revision(1),
            before: None,
            after: Some("{}".into()),
            actor: String::new(),
            traceparent: None,
        };
        sequences.map(|sequence| Arc::new(change(sequence))).collect()
    }

    fn at(sequence: i64) -> Position {
        match sequence {
            0 => Position::START,
            _ => Position { sequence, change_id: Uuid::from_u128(sequence.unsigned_abs().into()) },
        }
    }

    fn sequences(recent: &Recent) -> Vec<i64> {
        recent.changes.iter().map(|change| change.sequence).collect()
    }

    #[test]
    fn a_tail_holds_the_newest_and_answers_from_every_place_in_it() {
        let mut recent = Recent::default();
        assert!(!recent.holds(Position::START), "nobody has asked the database yet");
        recent.join(at(0), &changes(1..=5), 1, 3);
        assert_eq!(sequences(&recent), [3, 4, 5]);
        assert_eq!([1, 2, 4, 5, 6].map(|n| recent.holds(at(n))), [false, true, true, true, false]);
        let batch = recent.after(at(4));
        assert_eq!((batch.changes.len(), batch.more, batch.newest), (1, false, 5));
        assert!(recent.after(at(5)).changes.is_empty());
    }

    #[test]
    fn a_position_of_another_history_is_not_in_it() {
        let mut recent = Recent::default();
        recent.join(at(0), &changes(1..=5), 1, 10);
        assert!(!recent.holds(Position { sequence: 3, change_id: Uuid::from_u128(99) }));
        // What the database says of that history takes the tail's place.
        recent.join(Position { sequence: 3, change_id: Uuid::from_u128(99) }, &[], 2, 10);
        assert_eq!((sequences(&recent).len(), recent.newest().sequence), (0, 3));
    }

    #[test]
    fn what_was_read_further_back_is_put_in_front() {
        let mut recent = Recent::default();
        recent.join(at(3), &changes(4..=6), 1, 10);
        recent.join(at(0), &changes(1..=4), 2, 10);
        assert_eq!(sequences(&recent), [1, 2, 3, 4, 5, 6]);
        // It has not been asked again since.
        assert_eq!(recent.asked, 1);
        // What does not reach it leaves it alone.
        let mut recent = Recent::default();
        recent.join(at(1_000), &changes(1_001..=1_002), 1, 10);
        recent.join(at(0), &changes(1..=500), 2, 10);
        assert_eq!(sequences(&recent), [1_001, 1_002]);
    }

    #[test]
    fn what_is_erased_is_not_held_any_longer() {
        let mut recent = Recent::default();
        let mut told = changes(1..=4);
        for sequence in [1, 2] {
            Arc::get_mut(&mut told[sequence]).unwrap().subject_id = Uuid::from_u128(7);
        }
        recent.join(at(0), &told, 1, 10);
        let mut erasure = changes(5..=5);
        let change = Arc::get_mut(&mut erasure[0]).unwrap();
        (change.kind, change.subject_id, change.after) = (Kind::Erased, Uuid::from_u128(7), None);
        recent.extend(erasure, 10);
        let says: Vec<_> = recent.changes.iter().map(|change| change.after.is_some()).collect();
        assert_eq!(says, [true, false, false, true, false]);
        assert_eq!(recent.bytes, recent.changes.iter().map(|change| change.bytes()).sum::<usize>());
    }

    #[test]
    fn large_payloads_shorten_it() {
        let mut recent = Recent::default();
        let mut large = changes(1..=3);
        for change in &mut large {
            Arc::get_mut(change).unwrap().after = Some("x".repeat(LARGEST / 2));
        }
        recent.join(at(0), &large, 1, 10);
        assert_eq!(sequences(&recent), [3]);
        assert!(recent.bytes <= LARGEST);
    }
}
