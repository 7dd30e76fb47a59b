//! Work that is done together with what comes while it waits.
//!
//! A call, or a transaction, costs as much as dozens of things more in it. So while one is under way
//! for somebody, what comes of theirs waits, and all of it goes into the next. What is alone does
//! not wait; and the more there is, the less each costs.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard};

mod reads;
mod writes;

pub use self::reads::Reads;
pub use self::writes::{AllMade, Made, Whose, Write, Writer, Writes};

/// How often a turn steps back for whoever can go on: once for those who are ready, and once more
/// for those whose requests have come meanwhile.
const YIELDS: usize = 2;

/// Gathers work `W` of each `K`. Cloning it gives the same.
pub struct Gathering<K: Clone + Eq + Hash, W>(Arc<Gathered<K, W>>);

struct Gathered<K: Clone + Eq + Hash, W> {
    /// What waits; whose turn it is has an entry.
    waiting: Mutex<HashMap<K, Vec<W>>>,
    /// The most that is done in one turn; the rest goes with the next.
    largest: usize,
    begin: Begin<K, W>,
}

/// Begins a turn.
type Begin<K, W> = Box<dyn Fn(Turn<K, W>, Vec<W>) + Send + Sync>;

impl<K: Clone + Eq + Hash, W> Clone for Gathering<K, W> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<K: Clone + Eq + Hash, W> fmt::Debug for Gathering<K, W> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Gathering")
            .field("largest", &self.0.largest)
            .finish_non_exhaustive()
    }
}

impl<K: Clone + Eq + Hash, W> Gathering<K, W> {
    /// `begin` begins a turn, and does not wait for it.
    pub fn new(largest: usize, begin: impl Fn(Turn<K, W>, Vec<W>) + Send + Sync + 'static) -> Self {
        let (waiting, begin) = (Mutex::default(), Box::new(begin));
        Self(Arc::new(Gathered { waiting, largest, begin }))
    }

    /// Gives the work back with the turn, where nobody has it; otherwise it goes with the next.
    pub fn join(&self, whose: &K, work: W) -> Option<(Turn<K, W>, W)> {
        let mut waiting = self.lock();
        if let Some(others) = waiting.get_mut(whose) {
            others.push(work);
            return None;
        }
        waiting.insert(whose.clone(), Vec::new());
        Some((Turn { of: self.clone(), whose: whose.clone() }, work))
    }

    /// Has the work done: in a turn of its own, where nobody has it; otherwise with the next.
    pub fn add(&self, whose: &K, work: W) {
        if let Some((turn, work)) = self.join(whose, work) {
            (self.0.begin)(turn, vec![work]);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<K, Vec<W>>> {
        crate::lock(&self.0.waiting)
    }
}

/// That work is under way. When it is dropped, in whatever way, what has gathered begins.
pub struct Turn<K: Clone + Eq + Hash, W> {
    of: Gathering<K, W>,
    whose: K,
}

impl<K: Clone + Eq + Hash, W> Turn<K, W> {
    /// Whose it is.
    pub fn whose(&self) -> &K {
        &self.whose
    }

    /// Lets everybody go on who can at once, and adds what has gathered by then: it goes with this
    /// turn. Where nobody can, this takes microseconds.
    pub async fn with_others(&self, mut work: Vec<W>) -> Vec<W> {
        for _ in 0..YIELDS {
            tokio::task::yield_now().await;
        }
        if let Some(others) = self.of.lock().get_mut(&self.whose) {
            let room = self.of.0.largest.saturating_sub(work.len());
            work.extend(others.drain(..others.len().min(room)));
        }
        work
    }
}

impl<K: Clone + Eq + Hash + fmt::Debug, W> fmt::Debug for Turn<K, W> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Turn").field("whose", &self.whose).finish_non_exhaustive()
    }
}

impl<K: Clone + Eq + Hash, W> Drop for Turn<K, W> {
    fn drop(&mut self) {
        let mut waiting = self.of.lock();
        let Some(others) = waiting.get_mut(&self.whose) else { return };
        let later = others.split_off(others.len().min(self.of.0.largest));
        let next = std::mem::replace(others, later);
        if next.is_empty() {
            waiting.remove(&self.whose);
            return;
        }
        drop(waiting);
        let turn = Self { of: self.of.clone(), whose: self.whose.clone() };
        (self.of.0.begin)(turn, next);
    }
}
