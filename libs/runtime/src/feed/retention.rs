//! Deleting the changes that need not be kept any more.
//!
//! What is kept is decided by age and number; a reader's token is refused by the same limits, not
//! by what happens to be deleted already (`read::resume`).

use sqlx::PgConnection;
use time::OffsetDateTime;

use super::Feed;
use super::read::Kept;
use crate::grpc::database_status;
use crate::id::OrganisationId;

/// How many changes are deleted at once.
const RANGE: i64 = 5_000;

/// Deletes for ever. Replicas that do so at once do it twice in vain, and nothing worse.
pub(super) async fn run(feed: &Feed) {
    loop {
        tokio::time::sleep(feed.settings.prune.mul_f64(rand::random_range(0.8..=1.2))).await;
        let Ok(organisations) = feed.wakers.organisations().await else { continue };
        for organisation in organisations {
            if let Err(error) = prune(feed, organisation).await {
                drop(database_status(&error));
            }
        }
    }
}

/// Deletes what need not be kept of one organisation, in ranges.
async fn prune(feed: &Feed, organisation: OrganisationId) -> Result<(), sqlx::Error> {
    let kept = feed.settings.kept();
    while let Some(range) =
        feed.database.read(organisation, move |c| Box::pin(prunable(c, organisation, kept))).await?
    {
        feed.database
            .write(organisation, move |c| Box::pin(delete(c, organisation, range)))
            .await?;
        tracing::info!(%organisation, first = range.0, last = range.1, "changes were deleted");
    }
    Ok(())
}

/// The first and the last sequence of the next range to delete; none where there is nothing.
async fn prunable(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    kept: Kept,
) -> Result<Option<(i64, i64)>, sqlx::Error> {
    let oldest: Option<(i64, OffsetDateTime)> = sqlx::query_as(
        "SELECT sequence, written_at FROM change
          WHERE organisation_id = $1 ORDER BY sequence LIMIT 1",
    )
    .bind(organisation)
    .fetch_optional(&mut *connection)
    .await?;
    let Some((first, written_at)) = oldest else { return Ok(None) };
    if written_at >= kept.since {
        return Ok(None);
    }
    let newest = super::head(connection, organisation).await?.position.sequence;
    let last = (first + RANGE - 1).min(newest - kept.newest);
    // Up to the first that is young: what is left must have no gap, and clocks differ a little.
    let young: Option<i64> = sqlx::query_scalar(
        "SELECT sequence FROM change
          WHERE organisation_id = $1 AND sequence BETWEEN $2 AND $3 AND written_at >= $4
          ORDER BY sequence LIMIT 1",
    )
    .bind(organisation)
    .bind(first)
    .bind(last)
    .bind(kept.since)
    .fetch_optional(connection)
    .await?;
    let last = young.map_or(last, |young| young - 1);
    Ok((last >= first).then_some((first, last)))
}

async fn delete(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    (first, last): (i64, i64),
) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM change WHERE organisation_id = $1 AND sequence BETWEEN $2 AND $3")
        .bind(organisation)
        .bind(first)
        .bind(last)
        .execute(connection)
        .await
        .map(drop)
}
