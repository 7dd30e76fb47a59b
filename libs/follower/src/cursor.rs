//! The table `cursor`: how far each organisation has been followed.

use muster_runtime::feed::token_position;
use muster_runtime::id::OrganisationId;
use sqlx::PgConnection;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use crate::session::Message;
use crate::{Keeper, Take};

/// A listing that has not said anything for so long has died.
const LISTING_DIED: Duration = Duration::minutes(1);

/// What came of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Advance {
    /// It is applied, now or earlier; whether the service's own feed got anything of it.
    Done { appended: bool },
    /// Another replica is at work on the organisation this moment.
    Busy,
    /// It does not follow what was applied last: the feed is to be read from there.
    Gap,
    /// The organisation is being listed afresh.
    Listing,
}

/// Where an organisation stands.
#[derive(Debug, Clone)]
pub(crate) struct Cursor {
    pub organisation: OrganisationId,
    /// Empty where it has not begun.
    pub resume_token: String,
    /// Whether it is being listed afresh by somebody who is alive; none where it is not.
    pub listing: Option<bool>,
}

/// Where every organisation stands.
pub(crate) async fn all(
    connection: &mut PgConnection,
    now: OffsetDateTime,
) -> Result<Vec<Cursor>, sqlx::Error> {
    let rows: Vec<(OrganisationId, String, Option<OffsetDateTime>)> =
        sqlx::query_as("SELECT organisation_id, resume_token, listing_at FROM cursor")
            .fetch_all(connection)
            .await?;
    let cursor = |(organisation, resume_token, listing_at): (_, _, Option<OffsetDateTime>)| {
        let listing = listing_at.map(|at| now - at < LISTING_DIED);
        Cursor { organisation, resume_token, listing }
    };
    Ok(rows.into_iter().map(cursor).collect())
}

/// Applies changes of one organisation and one actor, without a gap between them, and advances the
/// cursor.
pub(crate) async fn advance<K: Keeper>(
    connection: &mut PgConnection,
    batch: Vec<Message>,
) -> Result<Advance, sqlx::Error> {
    let (Some(first), Some(last)) = (batch.first(), batch.last()) else {
        return Ok(Advance::Done { appended: false });
    };
    let organisation = first.user.organisation;
    let (before, newest) = (first.sequence - 1, last.sequence);
    let token = last.resume_token.clone();
    let mut sequence = step(connection, organisation, before, newest, &token).await?;
    if sequence.is_none() {
        match lock(connection, organisation).await? {
            None => return Ok(Advance::Busy),
            Some((_, true)) => return Ok(Advance::Listing),
            Some((sequence, _)) if newest <= sequence => {
                return Ok(Advance::Done { appended: false });
            }
            Some((sequence, _)) if before > sequence => return Ok(Advance::Gap),
            // It is the organisation's first, or whoever held the row has just let it go.
            Some(_) => sequence = step(connection, organisation, before, newest, &token).await?,
        }
    }
    let Some(sequence) = sequence else { return Ok(Advance::Busy) };
    let users = batch.into_iter().filter(|message| message.sequence > sequence);
    let users = users.map(|message| message.user).collect();
    let appended = K::apply(&mut *connection, users, Take::Newer).await?;
    #[cfg(feature = "failpoints")]
    muster_runtime::failpoint::crash("follow-before-commit");
    Ok(Advance::Done { appended })
}

/// Brings the cursor from a sequence, or one after it, to another, and holds it until the
/// transaction ends; where it was. None where it was elsewhere, the organisation is being listed
/// afresh, or another replica holds the row.
async fn step(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    from: i64,
    to: i64,
    resume_token: &str,
) -> Result<Option<i64>, sqlx::Error> {
    sqlx::query_scalar(
        "UPDATE cursor AS c SET sequence = $3, resume_token = $4
           FROM (SELECT organisation_id, sequence FROM cursor
                  WHERE organisation_id = $1 FOR UPDATE SKIP LOCKED) AS held
          WHERE c.organisation_id = $1 AND held.organisation_id = $1 AND c.listing IS NULL
            AND held.sequence >= $2 AND held.sequence < $3
         RETURNING held.sequence",
    )
    .bind(organisation)
    .bind(from)
    .bind(to)
    .bind(resume_token)
    .fetch_optional(connection)
    .await
}

/// The sequence that the organisation has come to and whether it is being listed afresh; none where
/// another replica holds the row.
async fn lock(
    connection: &mut PgConnection,
    organisation: OrganisationId,
) -> Result<Option<(i64, bool)>, sqlx::Error> {
    let found = sqlx::query_as(
        "SELECT sequence, listing IS NOT NULL FROM cursor
          WHERE organisation_id = $1 FOR UPDATE SKIP LOCKED",
    )
    .bind(organisation)
    .fetch_optional(&mut *connection)
    .await?;
    if found.is_some() {
        return Ok(found);
    }
    // To insert a row that is there would wait for whoever holds it, in spite of `DO NOTHING`, and
    // for the next to hold it, and so on.
    let there = sqlx::query_scalar("SELECT EXISTS (SELECT FROM cursor WHERE organisation_id = $1)")
        .bind(organisation)
        .fetch_one(&mut *connection)
        .await?;
    if there {
        return Ok(None);
    }
    let inserted = sqlx::query(
        "INSERT INTO cursor (organisation_id, sequence, resume_token) VALUES ($1, 0, '')
         ON CONFLICT (organisation_id) DO NOTHING",
    )
    .bind(organisation)
    .execute(connection)
    .await?;
    Ok((inserted.rows_affected() == 1).then_some((0, false)))
}

/// Notes that `listing` lists the organisation afresh; nobody follows it meanwhile, and an earlier
/// listing ends.
pub(crate) async fn begin_listing(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    listing: Uuid,
    now: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO cursor (organisation_id, sequence, resume_token, listing, listing_at)
         VALUES ($1, 0, '', $2, $3)
         ON CONFLICT (organisation_id) DO UPDATE
            SET listing = EXCLUDED.listing, listing_at = EXCLUDED.listing_at",
    )
    .bind(organisation)
    .bind(listing)
    .bind(now)
    .execute(connection)
    .await
    .map(drop)
}

/// Whether it is still `listing` that lists the organisation; the cursor is locked then.
pub(crate) async fn still_listing(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    listing: Uuid,
    now: OffsetDateTime,
) -> Result<bool, sqlx::Error> {
    let updated = sqlx::query(
        "UPDATE cursor SET listing_at = $3 WHERE organisation_id = $1 AND listing = $2",
    )
    .bind(organisation)
    .bind(listing)
    .bind(now)
    .execute(connection)
    .await?;
    Ok(updated.rows_affected() == 1)
}

/// Notes that all is listed, and that the feed is to be followed from the list's token on.
pub(crate) async fn end_listing(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    listing: Uuid,
    resume_token: String,
) -> Result<bool, sqlx::Error> {
    let position = token_position(&resume_token)
        .ok_or_else(|| sqlx::Error::Protocol("a list ended without a resume token".into()))?;
    let updated = sqlx::query(
        "UPDATE cursor SET sequence = $3, resume_token = $4, listing = NULL, listing_at = NULL
          WHERE organisation_id = $1 AND listing = $2",
    )
    .bind(organisation)
    .bind(listing)
    .bind(position.sequence)
    .bind(resume_token)
    .execute(connection)
    .await?;
    Ok(updated.rows_affected() == 1)
}
