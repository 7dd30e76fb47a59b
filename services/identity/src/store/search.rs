//! Searches of people: SQL that is put together at run time, over `listed_user`.
//!
//! What is common is found soonest by reading people in order, what is rare by the index of words
//! (docs/decisions/0010-searching-people.md).

use muster_proto::identity::v1::{ContentRegion, UnknownCountry, User};
use muster_runtime::feed::{self, Head};
use muster_runtime::id::{OrganisationId, UserId};
use sqlx::{PgConnection, Postgres, QueryBuilder};

use super::user;
use crate::Error;
use crate::content_region::probable_code;
use crate::listed::Query;

/// How many people are read in order before the index of words is asked.
const WALK: i64 = 4_000;
/// How many of them must have been found for the rest to be read in order too.
const COMMON: usize = 20;

/// What to look for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Search {
    pub query: Query,
    pub active: Option<bool>,
    pub not_from_scim: bool,
    pub content_region: Option<ContentRegion>,
    /// Empty for any.
    pub unknown_country: Option<String>,
    /// As keys.
    pub custom_fields: [Option<String>; 3],
    pub among: Option<Vec<UserId>>,
    pub after: Option<UserId>,
    /// The page is read backwards from here.
    pub before: Option<UserId>,
    pub limit: i64,
}

/// A page of those found.
#[derive(Debug)]
pub(crate) struct Found {
    pub users: Vec<User>,
    /// Whether there are more, in the direction in which it was read.
    pub more: bool,
    /// The feed's newest change before the page was read.
    pub head: Head,
}

pub(crate) async fn search(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    search: Search,
) -> Result<Found, Error> {
    let head = feed::head(connection, organisation).await?;
    let mut ids = find(connection, organisation, &search).await?;
    let limit = usize::try_from(search.limit).unwrap_or(usize::MAX);
    let more = ids.len() > limit;
    ids.truncate(limit);
    let users = user::batch_get(connection, organisation, ids).await?;
    Ok(Found { users, more, head })
}

/// Up to one more than the limit.
async fn find(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    search: &Search,
) -> Result<Vec<UserId>, sqlx::Error> {
    let limit = usize::try_from(search.limit + 1).unwrap_or(usize::MAX);
    if search.query.keys.is_empty() || search.among.is_some() {
        return select(connection, organisation, search, &Source::InOrder, limit).await;
    }
    let Some(end) = end_of_walk(connection, organisation, search).await? else {
        return select(connection, organisation, search, &Source::InOrder, limit).await;
    };
    let through = Source::Through(end);
    let mut found = select(connection, organisation, search, &through, limit).await?;
    if found.len() == limit {
        return Ok(found);
    }
    let source = if found.len() >= COMMON { Source::InOrder } else { Source::Words };
    let rest = match search.before {
        Some(_) => Search { before: Some(end), ..search.clone() },
        None => Search { after: Some(end), ..search.clone() },
    };
    let left = limit - found.len();
    found.extend(select(connection, organisation, &rest, &source, left).await?);
    Ok(found)
}

/// Where people come from.
enum Source {
    /// One after the other.
    InOrder,
    /// The same, through this one.
    Through(UserId),
    /// Whoever the index of words names.
    Words,
}

/// The last of those whom a walk reads; none where it would read all.
async fn end_of_walk(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    search: &Search,
) -> Result<Option<UserId>, sqlx::Error> {
    let mut query = QueryBuilder::new("SELECT l.user_id FROM identity.listed_user AS l WHERE ");
    query.push("l.organisation_id = ").push_bind(organisation);
    push_place(&mut query, search);
    query.push(" OFFSET ").push_bind(WALK).push(" LIMIT 1");
    query.build_query_scalar().fetch_optional(connection).await
}

async fn select(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    search: &Search,
    source: &Source,
    limit: usize,
) -> Result<Vec<UserId>, sqlx::Error> {
    // Those who are named are found first, and put in order then: nobody reads everybody in order,
    // to look whether they are named.
    let mut query = QueryBuilder::new(match search.among {
        Some(_) => "WITH among AS MATERIALIZED (SELECT l.user_id FROM identity.listed_user AS l",
        None => "SELECT l.user_id FROM identity.listed_user AS l",
    });
    if let Source::Words = source {
        query.push(" JOIN identity.users_with_words(").push_bind(search.query.keys.clone());
        query.push(") AS named (user_id) ON named.user_id = l.user_id");
    }
    query.push(" WHERE l.organisation_id = ").push_bind(organisation);
    push_condition(&mut query, organisation, search);
    match source {
        Source::Words => {}
        // The index that names the few who are inactive is the other table's.
        Source::InOrder if search.active == Some(false) && search.among.is_none() => {
            query.push(" AND l.user_id IN (SELECT u.user_id FROM identity.users AS u ");
            query.push("WHERE u.organisation_id = ").push_bind(organisation);
            query.push(" AND NOT u.active)");
        }
        Source::InOrder => {}
        Source::Through(end) => {
            let backwards = search.before.is_some();
            query.push(if backwards { " AND l.user_id >= " } else { " AND l.user_id <= " });
            query.push_bind(*end);
        }
    }
    if search.among.is_some() {
        query.push(") SELECT l.user_id FROM among AS l WHERE true");
    }
    push_place(&mut query, search);
    query.push(" LIMIT ").push_bind(i64::try_from(limit).unwrap_or(i64::MAX));
    query.build_query_scalar().fetch_all(connection).await
}

/// Pushes where the page begins, and the order.
fn push_place(query: &mut QueryBuilder<Postgres>, search: &Search) {
    if let Some(after) = search.after {
        query.push(" AND l.user_id > ").push_bind(after);
    }
    match search.before {
        Some(before) => {
            query.push(" AND l.user_id < ").push_bind(before);
            query.push(" ORDER BY l.user_id DESC");
        }
        None => {
            query.push(" ORDER BY l.user_id");
        }
    }
}

fn push_condition(
    query: &mut QueryBuilder<Postgres>,
    organisation: OrganisationId,
    search: &Search,
) {
    for part in &search.query.parts {
        // With the blank before the first word, as the parts have it.
        query.push(" AND strpos(' ' || l.words, ").push_bind(part.clone()).push(") > 0");
    }
    if let Some(active) = search.active {
        query.push(if active { " AND l.active" } else { " AND NOT l.active" });
    }
    if search.not_from_scim {
        query.push(" AND l.origin <> 1");
    }
    if let Some(region) = search.content_region {
        let region = i16::try_from(region as i32).unwrap_or_default();
        query.push(" AND l.content_region = ").push_bind(region);
    }
    match search.unknown_country.as_deref() {
        None => {}
        Some("") => drop(query.push(" AND l.unknown_country IS NOT NULL")),
        Some(code) => drop(query.push(" AND l.unknown_country = ").push_bind(code.to_owned())),
    }
    let columns = ["custom_field_1_key", "custom_field_2_key", "custom_field_3_key"];
    for (column, key) in columns.into_iter().zip(&search.custom_fields) {
        // The index that names the few who have a value is the other table's.
        if let Some(key) = key {
            query.push(" AND l.user_id IN (SELECT u.user_id FROM identity.users AS u ");
            query.push("WHERE u.organisation_id = ").push_bind(organisation);
            query.push(" AND u.").push(column).push(" = ").push_bind(key.clone()).push(")");
        }
    }
    if let Some(among) = &search.among {
        query.push(" AND l.user_id = ANY (").push_bind(among.clone()).push(")");
    }
}

/// Has the index of words take what was written since it last did.
pub(crate) async fn index_words(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query!("SELECT identity.index_words()").fetch_one(connection).await.map(drop)
}

/// The country codes that ISO 3166-1 does not know, and how many users have each.
pub(crate) async fn unknown_countries(
    connection: &mut PgConnection,
    organisation: OrganisationId,
) -> Result<Vec<UnknownCountry>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"SELECT unknown_country AS "country_code!", count(*) AS "user_count!"
             FROM identity.listed_user
            WHERE organisation_id = $1 AND unknown_country IS NOT NULL
            GROUP BY unknown_country
            ORDER BY count(*) DESC, unknown_country LIMIT 1000"#,
        organisation as OrganisationId,
    )
    .fetch_all(connection)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| UnknownCountry {
            probable_country_code: probable_code(&row.country_code).unwrap_or_default().to_owned(),
            country_code: row.country_code,
            user_count: row.user_count,
        })
        .collect())
}
