//! Where pages by index ended lately, so that the next one is read from there: page 1,000 of an
//! import costs what its first page does. And where one began to which many were counted off, so that
//! it is not done again.
//!
//! A place says that at a change of the feed so many users had ids up to `last`. What was created and
//! deleted since then is added and taken away, so it is exact; where no place is known, in another
//! replica, say, the page is counted off from the first user.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};

use muster_runtime::feed::Position;
use muster_runtime::id::{OrganisationId, UserId};
use sqlx::PgConnection;

/// How many places of an organisation are known: enough for any page to be near one.
const MOST_PLACES: usize = 128;
/// How many organisations have places.
const MOST_ORGANISATIONS: usize = 1_024;
/// After how many changes a place is forgotten.
const MOST_CHANGES: i64 = 1_000;

/// An end of a page, or where one begins.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    /// How many users there are up to it.
    pub count: i64,
    /// The last of them, or an id between that and the next.
    pub last: UserId,
    /// The feed's newest change then.
    pub head: Position,
}

/// Places of organisations. Cloning it gives the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct Places(Arc<Mutex<HashMap<OrganisationId, VecDeque<Place>>>>);

impl Places {
    /// The place closest before `skip` users, as it stands at change `head` in this transaction.
    pub(super) async fn before(
        &self,
        connection: &mut PgConnection,
        organisation: OrganisationId,
        skip: i64,
        head: Position,
    ) -> Result<Option<Place>, sqlx::Error> {
        let Some(mut place) = self.closest(organisation, skip, head) else { return Ok(None) };
        if place.head != head {
            let since = sqlx::query!(
                r#"SELECT count(*) AS "count!",
                          coalesce(bool_or(sequence = $2 AND change_id = $5), false) AS "begins!",
                          coalesce(sum(CASE kind WHEN 1 THEN 1 WHEN 3 THEN -1 ELSE 0 END)
                                   FILTER (WHERE sequence > $2 AND subject_id <= $4), 0) AS "moved!"
                     FROM identity.change
                    WHERE organisation_id = $1 AND sequence >= $2 AND sequence <= $3"#,
                organisation as OrganisationId,
                place.head.sequence,
                head.sequence,
                place.last.uuid(),
                place.head.change_id,
            )
            .fetch_one(connection)
            .await?;
            // Some are no longer kept, or the database was restored to a time before.
            if !since.begins || since.count != head.sequence - place.head.sequence + 1 {
                return Ok(None);
            }
            place.count += since.moved;
        }
        Ok((place.count <= skip).then_some(place))
    }

    fn closest(&self, organisation: OrganisationId, skip: i64, head: Position) -> Option<Place> {
        let places = muster_runtime::lock(&self.0);
        let serves = |place: &&Place| {
            let changes = head.sequence - place.head.sequence;
            place.count <= skip && (0..=MOST_CHANGES).contains(&changes)
        };
        let places = places.get(&organisation)?.iter().filter(serves);
        places.max_by_key(|place| place.count).copied()
    }

    /// Remembers a place.
    pub(super) fn remember(&self, organisation: OrganisationId, place: Place) {
        let mut all = muster_runtime::lock(&self.0);
        if all.len() >= MOST_ORGANISATIONS && !all.contains_key(&organisation) {
            all.clear();
        }
        let places = all.entry(organisation).or_default();
        places.retain(|other| other.last != place.last);
        if places.len() == MOST_PLACES {
            places.pop_front();
        }
        places.push_back(place);
    }
}
