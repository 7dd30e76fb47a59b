//! Erasing what changes say of a subject.
//!
//! The rows stay, with their sequences, ids and actors, so the feed stays without a gap and every
//! token good; readers get such a change without `before` and `after`.

use sqlx::PgConnection;
use uuid::Uuid;

use super::Change;
use crate::id::OrganisationId;

/// Erases what every change of a subject says; how many said anything.
///
/// A tail in memory erases with the change of kind `Erased` that tells of it.
pub async fn erase(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    subject: Uuid,
) -> Result<u64, sqlx::Error> {
    let erased = sqlx::query(
        "UPDATE change SET before = NULL, after = NULL
          WHERE organisation_id = $1 AND subject_id = $2
            AND (before IS NOT NULL OR after IS NOT NULL)",
    )
    .bind(organisation)
    .bind(subject)
    .execute(connection)
    .await?;
    Ok(erased.rows_affected())
}

/// Every change of a subject that is kept, the newest first.
pub async fn history(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    subject: Uuid,
) -> Result<Vec<Change>, sqlx::Error> {
    super::read::history(connection, organisation, subject, i64::MAX, i64::MAX).await
}

impl Change {
    /// The change without what it said.
    pub(super) fn erased(&self) -> Self {
        Self { before: None, after: None, ..self.clone() }
    }
}
