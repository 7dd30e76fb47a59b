//! Lists of users, filtered: the SQL of the service that is put together at run time.

use muster_proto::filter::v1::Filter;
use muster_proto::identity::v1::User;
use muster_runtime::feed::{self, Head};
use muster_runtime::id::{OrganisationId, Revision, UserId};
use sqlx::types::Json;
use sqlx::{PgConnection, Postgres, QueryBuilder, Row as _};
use uuid::Uuid;

use super::Row;
use super::places::{Place, Places};
use crate::Error;

/// Which users to list.
#[derive(Debug, Clone, Default)]
pub(crate) struct Listing {
    pub filter: Option<Filter>,
    pub order_by: String,
    pub after: Option<UserId>,
    /// The page is read backwards from here.
    pub before: Option<UserId>,
    pub skip: i64,
    /// 0 for the total only.
    pub limit: i64,
}

/// A page of users.
#[derive(Debug)]
pub(crate) struct Page {
    pub users: Vec<User>,
    /// Whether there are more, in the direction in which it was read.
    pub more: bool,
    pub total: i64,
    /// The feed's newest change before the page was read.
    pub head: Head,
}

pub(crate) async fn list(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    listing: Listing,
    places: &Places,
) -> Result<Page, Error> {
    let head = feed::head(connection, organisation).await?;
    let total = match &listing.filter {
        None => head.total,
        Some(filter) => {
            let mut query = QueryBuilder::new("SELECT count(*) FROM identity.users AS u WHERE ");
            condition(&mut query, organisation, Some(filter))?;
            query.build_query_scalar().fetch_one(&mut *connection).await?
        }
    };
    let mut page = Page { users: Vec::new(), more: false, total, head };
    if listing.limit == 0 || total == 0 {
        return Ok(page);
    }
    let by_place = listing.filter.is_none()
        && listing.order_by.is_empty()
        && listing.after.is_none()
        && listing.before.is_none();
    let mut query = QueryBuilder::new(
        "SELECT u.user_id, u.revision, u.created_at, u.updated_at, u.origin, u.document,
                o.default_locale
           FROM identity.users AS u
           JOIN identity.organisation AS o ON o.organisation_id = u.organisation_id
          WHERE ",
    );
    condition(&mut query, organisation, listing.filter.as_ref())?;
    if let Some(after) = listing.after {
        query.push(" AND u.user_id > ").push_bind(after);
    }
    if let Some(before) = listing.before {
        query.push(" AND u.user_id < ").push_bind(before);
    }
    let (mut skip, mut passed) = (listing.skip, 0);
    if by_place && skip > 0 {
        let place = places.before(connection, organisation, skip, head.position).await?;
        // Counted off in the index, without a look at those who are passed over.
        query.push(
            " AND u.user_id >= (SELECT p.user_id FROM identity.users AS p
                                 WHERE p.organisation_id = ",
        );
        query.push_bind(organisation);
        if let Some(place) = place {
            query.push(" AND p.user_id > ").push_bind(place.last);
        }
        passed = skip - place.map_or(0, |place| place.count);
        query.push(" ORDER BY p.user_id LIMIT 1 OFFSET ").push_bind(passed).push(")");
        skip = 0;
    }
    query.push(" ORDER BY ");
    super::filter::push_order(&mut query, organisation, &listing.order_by)?;
    query.push(if listing.before.is_some() { "u.user_id DESC" } else { "u.user_id" });
    query.push(" LIMIT ").push_bind(listing.limit + 1);
    query.push(" OFFSET ").push_bind(skip);
    for row in query.build().fetch_all(connection).await? {
        let row = Row {
            user_id: row.try_get("user_id")?,
            revision: row.try_get::<Revision, _>("revision")?,
            created_at: row.try_get("created_at")?,
            updated_at: row.try_get("updated_at")?,
            origin: row.try_get("origin")?,
            document: row.try_get::<Json<User>, _>("document")?,
            default_locale: row.try_get("default_locale")?,
        };
        page.users.push(row.into_user(organisation));
    }
    let limit = usize::try_from(listing.limit).unwrap_or(usize::MAX);
    page.more = page.users.len() > limit;
    page.users.truncate(limit);
    if listing.before.is_some() {
        page.users.reverse();
    }
    let id = |user: Option<&User>| user.and_then(|user| user.id.parse::<UserId>().ok());
    let remember = |count, last| {
        places.remember(organisation, Place { count, last, head: head.position });
    };
    if passed > listing.limit
        && let Some(first) = id(page.users.first())
    {
        // Just before the first: nobody is between.
        let before = Uuid::from_u128(first.uuid().as_u128().saturating_sub(1));
        remember(listing.skip, before.into());
    }
    if by_place
        && page.more
        && let Some(last) = id(page.users.last())
    {
        remember(listing.skip + listing.limit, last);
    }
    Ok(page)
}

fn condition(
    query: &mut QueryBuilder<Postgres>,
    organisation: OrganisationId,
    filter: Option<&Filter>,
) -> Result<(), Error> {
    query.push("u.organisation_id = ").push_bind(organisation);
    if let Some(filter) = filter {
        query.push(" AND ");
        super::filter::push(query, organisation, filter)?;
    }
    Ok(())
}
