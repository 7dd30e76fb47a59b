//! Lists of groups, page by page.

use muster_proto::filter::v1::Filter;
use muster_proto::group::v1::Group;
use muster_runtime::feed::{self, Head};
use muster_runtime::id::{GroupId, OrganisationId};
use sqlx::{PgConnection, QueryBuilder};

use super::filter::condition;
use super::group::Row;
use super::membership;
use crate::Error;

/// The most members that a page of groups holds, more than one group's.
const MOST_MEMBERS: i64 = 200_000;

/// Which groups to list.
#[derive(Debug, Clone)]
pub(crate) struct Listing {
    pub filter: Option<Filter>,
    pub order_by: String,
    pub after: Option<GroupId>,
    /// The page is read backwards from here.
    pub before: Option<GroupId>,
    pub skip: i64,
    /// 0 for the total only.
    pub limit: i64,
    pub with_members: bool,
}

/// A page of groups.
#[derive(Debug)]
pub(crate) struct Page {
    pub groups: Vec<Group>,
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
) -> Result<Page, Error> {
    let head = feed::head(connection, organisation).await?;
    let total = match &listing.filter {
        None => head.total,
        Some(filter) => {
            let mut query = QueryBuilder::new("SELECT count(*) FROM groups.groups AS g WHERE ");
            condition(&mut query, organisation, Some(filter))?;
            query.build_query_scalar().fetch_one(&mut *connection).await?
        }
    };
    let mut page = Page { groups: Vec::new(), more: false, total, head };
    if listing.limit == 0 || total == 0 {
        return Ok(page);
    }
    let mut query = QueryBuilder::new(
        "SELECT g.group_id, g.revision, g.created_at, g.updated_at, g.origin, g.display_name,
                g.external_id, g.member_count
           FROM groups.groups AS g
          WHERE ",
    );
    condition(&mut query, organisation, listing.filter.as_ref())?;
    if let Some(after) = listing.after {
        query.push(" AND g.group_id > ").push_bind(after);
    }
    if let Some(before) = listing.before {
        query.push(" AND g.group_id < ").push_bind(before);
    }
    query.push(" ORDER BY ");
    super::filter::push_order(&mut query, organisation, &listing.order_by)?;
    query.push(if listing.before.is_some() { "g.group_id DESC" } else { "g.group_id" });
    query.push(" LIMIT ").push_bind(listing.limit + 1);
    query.push(" OFFSET ").push_bind(listing.skip);
    let mut rows: Vec<Row> = query.build_query_as().fetch_all(&mut *connection).await?;
    let limit = usize::try_from(listing.limit).unwrap_or(usize::MAX);
    page.more = rows.len() > limit;
    rows.truncate(limit);
    page.groups = rows.into_iter().map(|row| row.into_group(organisation)).collect();
    if listing.with_members {
        page.more |= put_members(connection, organisation, &mut page.groups).await?;
    }
    if listing.before.is_some() {
        page.groups.reverse();
    }
    Ok(page)
}

/// Puts the members of each group, and drops the groups at the end for whose members there is no
/// room; whether there were such.
pub(crate) async fn put_members(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    groups: &mut Vec<Group>,
) -> Result<bool, Error> {
    let mut count = 0;
    let has_room = |group: &&Group| {
        count += group.member_count;
        count <= MOST_MEMBERS
    };
    let room = groups.iter().take_while(has_room).count().max(1);
    let cut = room < groups.len();
    groups.truncate(room);
    let ids = groups.iter().filter_map(|group| group.id.parse().ok()).collect();
    let mut members = membership::of_groups(connection, organisation, ids).await?;
    for group in groups {
        let id = group.id.parse::<GroupId>().ok();
        let members = id.and_then(|id| members.remove(&id)).unwrap_or_default();
        group.member_ids = members.iter().map(ToString::to_string).collect();
    }
    Ok(cut)
}
