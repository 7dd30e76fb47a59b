//! What is on disk.
//!
//! A transaction that writes commits without waiting for the disk, and then waits, on the same
//! connection and together with whoever else does: so that its locks, the feed's above all, are held
//! for statements and not for the disk. `docs/decisions/0022-commit-then-flush.md`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use sqlx::{Executor as _, PgConnection};

use crate::id::OrganisationId;

/// Waits until everything that was committed before is on disk and, with synchronous replication,
/// where that wants it: it is a commit that does wait, of a message that nobody reads, and commits
/// come on disk in their order.
pub(super) const FLUSH: &str = "SELECT pg_logical_emit_message(true, 'muster', '')";

/// Runs [`FLUSH`].
pub(super) async fn flush(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    connection.execute(FLUSH).await.map(drop)
}

/// Up to which sequence each organisation's changes are known to be on disk. Cloning it gives the
/// same.
#[derive(Debug, Clone, Default)]
pub(super) struct Lasting(Arc<Mutex<HashMap<OrganisationId, i64>>>);

impl Lasting {
    /// Whether the changes up to a sequence are.
    pub(super) fn reaches(&self, organisation: OrganisationId, sequence: i64) -> bool {
        self.lock().get(&organisation).is_some_and(|known| *known >= sequence)
    }

    /// Notes that they are.
    pub(super) fn note(&self, organisation: OrganisationId, sequence: i64) {
        let mut known = self.lock();
        let known = known.entry(organisation).or_default();
        *known = sequence.max(*known);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<OrganisationId, i64>> {
        crate::lock(&self.0)
    }
}
