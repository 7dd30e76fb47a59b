//! Who is looked for, and the page of those found.
//!
//! Groups and approvers are other services' knowledge: where they are asked about, those services
//! name users in order, and identity is asked which of them meet the rest. A page looks at so many
//! at most, and says where the next goes on.

mod named;

use muster_proto::filter::v1::Ids;
use muster_proto::identity::v1::{ContentRegion, SearchUsersRequest, User};
use serde::{Deserialize, Serialize};

use self::named::{Named, group_named, members, still_named, waiting, waiting_members};
use super::super::frame::Problem;
use crate::Gateway;

/// How many people a page has that does not say, and at most.
const DEFAULT_PAGE: i32 = 50;
const LARGEST_PAGE: i32 = 200;
/// How many users another service names at once, time after time: few where a page is soon full,
/// and many where it is not. Then the page ends.
const ROUNDS: [i32; 3] = [1_000, 4_000, 5_000];
/// So few found by identity alone are asked about, however many the other service names.
const FEW: i32 = 50;

/// What the query of an address asks for. A field that is empty asks for nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(in super::super) struct Criteria {
    /// Words of a name, an e-mail address or a `userName`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub search: String,
    /// `yes` or `no`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub active: String,
    /// A content region.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub region: String,
    /// A group's name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// What the first custom field is.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub field1: String,
    /// What the second custom field is.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub field2: String,
    /// What the third custom field is.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub field3: String,
    /// `pending`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub approvers: String,
    /// `unknown`, or a code that ISO 3166-1 does not know.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub country: String,
    /// `other`: not from Okta.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub source: String,
    /// Where the page begins.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub page: String,
    /// How many people it has.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub size: String,
}

impl Criteria {
    /// The same question at another address and page.
    pub(in super::super) fn address(&self, path: &str, page: &str) -> String {
        let asked = Self { page: page.to_owned(), ..self.clone() };
        match serde_urlencoded::to_string(&asked) {
            Ok(query) if !query.is_empty() => format!("{path}?{query}"),
            _ => path.to_owned(),
        }
    }

    /// Whether anything but the search box is asked for.
    pub(super) fn has_more_filters(&self) -> bool {
        let plain = Self {
            search: self.search.clone(),
            page: self.page.clone(),
            size: self.size.clone(),
            ..Self::default()
        };
        *self != plain
    }

    /// Whether anything is asked for.
    pub(super) fn is_filtered(&self) -> bool {
        self.has_more_filters() || !self.search.trim().is_empty()
    }

    pub(super) fn custom(&self) -> [&str; 3] {
        [&self.field1, &self.field2, &self.field3]
    }

    /// How many people a page has.
    pub(super) fn size(&self) -> i32 {
        match self.size.parse() {
            Ok(size) if size > 0 => i32::min(size, LARGEST_PAGE),
            _ => DEFAULT_PAGE,
        }
    }

    fn is_pending(&self) -> bool {
        self.approvers == "pending"
    }

    /// What identity knows of it.
    fn of_identity(&self, organisation: &str) -> SearchUsersRequest {
        let asked = |text: &str| Some(text.trim().to_owned()).filter(|text| !text.is_empty());
        let region = format!("CONTENT_REGION_{}", self.region.to_ascii_uppercase());
        SearchUsersRequest {
            organisation_id: organisation.to_owned(),
            query: self.search.trim().to_owned(),
            active: match self.active.as_str() {
                "yes" => Some(true),
                "no" => Some(false),
                _ => None,
            },
            not_from_scim: self.source == "other",
            content_region: ContentRegion::from_str_name(&region).unwrap_or_default().into(),
            unknown_country: asked(&self.country)
                .map(|code| if code == "unknown" { String::new() } else { code }),
            custom_field_1: asked(&self.field1),
            custom_field_2: asked(&self.field2),
            custom_field_3: asked(&self.field3),
            ..SearchUsersRequest::default()
        }
    }
}

/// A page of people.
#[derive(Debug, Default)]
pub(in super::super) struct Found {
    /// By id.
    pub users: Vec<User>,
    /// Where the next page begins.
    pub next: Option<String>,
    /// Where the previous page begins.
    pub previous: Option<String>,
    /// Whether the page ends because enough were looked at, not because it is full.
    pub is_cut: bool,
    /// How many people the organisation has.
    pub user_count: i64,
    /// How many of them are active.
    pub active_user_count: i64,
}

/// The page that is asked for, of so many people at most.
pub(in super::super) async fn find(
    gateway: &Gateway,
    organisation: &str,
    criteria: &Criteria,
    size: i32,
) -> Result<Found, Problem> {
    if criteria.group.trim().is_empty() && !criteria.is_pending() {
        let request = SearchUsersRequest {
            page_token: criteria.page.clone(),
            page_size: size,
            ..criteria.of_identity(organisation)
        };
        let answer = gateway.parts.users.clone().search_users(request).await?.into_inner();
        let some = |token: String| Some(token).filter(|token| !token.is_empty());
        return Ok(Found {
            users: answer.users,
            next: some(answer.next_page_token),
            previous: some(answer.previous_page_token),
            is_cut: false,
            user_count: answer.user_count,
            active_user_count: answer.active_user_count,
        });
    }
    among_named(gateway, organisation, criteria, size).await
}

/// The page of those whom another service names. It begins after a user's id.
async fn among_named(
    gateway: &Gateway,
    organisation: &str,
    criteria: &Criteria,
    size: i32,
) -> Result<Found, Problem> {
    let size = usize::try_from(size).unwrap_or_default();
    let group = match criteria.group.trim() {
        "" => None,
        name => Some(group_named(gateway, organisation, name).await?),
    };
    if let Some(found) = among_few(gateway, organisation, criteria, group.as_deref(), size).await? {
        return Ok(found);
    }
    let mut found = Found::default();
    let mut after = criteria.page.clone();
    for round in ROUNDS {
        let named = match group.as_deref() {
            None => waiting(gateway, organisation, after, round).await?,
            Some("") => Named::default(),
            Some(group) if criteria.is_pending() => {
                waiting_members(gateway, organisation, group, after).await?
            }
            Some(group) => members(gateway, organisation, group, after, round).await?,
        };
        let left = size - found.users.len();
        let request = SearchUsersRequest {
            page_size: i32::try_from(left).unwrap_or(i32::MAX),
            among: Some(Ids { ids: named.ids }),
            ..criteria.of_identity(organisation)
        };
        let answer = gateway.parts.users.clone().search_users(request).await?.into_inner();
        found.users.extend(answer.users);
        found.user_count = answer.user_count;
        found.active_user_count = answer.active_user_count;
        let is_full = found.users.len() >= size;
        if is_full && (!answer.next_page_token.is_empty() || !named.next.is_empty()) {
            found.next = found.users.last().map(|user| user.id.clone());
            return Ok(found);
        }
        if named.next.is_empty() {
            return Ok(found);
        }
        after = named.next;
    }
    found.is_cut = true;
    found.next = Some(after);
    Ok(found)
}

/// The same page where identity alone finds few; none where they are many.
async fn among_few(
    gateway: &Gateway,
    organisation: &str,
    criteria: &Criteria,
    group: Option<&str>,
    size: usize,
) -> Result<Option<Found>, Problem> {
    let request = SearchUsersRequest { page_size: FEW, ..criteria.of_identity(organisation) };
    let everybody = Criteria::default().of_identity(organisation);
    if request == (SearchUsersRequest { page_size: FEW, ..everybody }) {
        return Ok(None);
    }
    let answer = gateway.parts.users.clone().search_users(request).await?.into_inner();
    if !answer.next_page_token.is_empty() {
        return Ok(None);
    }
    let few = answer.users.iter().map(|user| user.id.clone()).filter(|id| *id > criteria.page);
    let named =
        still_named(gateway, organisation, few.collect(), group, criteria.is_pending()).await?;
    let mut users = answer.users;
    users.retain(|user| named.contains(&user.id));
    let is_more = users.len() > size;
    users.truncate(size);
    Ok(Some(Found {
        next: users.last().filter(|_| is_more).map(|user| user.id.clone()),
        users,
        user_count: answer.user_count,
        active_user_count: answer.active_user_count,
        ..Found::default()
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_holds_what_is_asked_and_nothing_else() {
        let criteria =
            Criteria { search: "ann & bo".into(), page: "old".into(), ..Criteria::default() };
        assert_eq!(
            criteria.address("/admin/people", "x"),
            "/admin/people?search=ann+%26+bo&page=x"
        );
        assert_eq!(Criteria::default().address("/admin/people", ""), "/admin/people");
        let read: Criteria = serde_urlencoded::from_str("search=ann+%26+bo&other=1").unwrap();
        assert_eq!(read.search, criteria.search);
    }

    #[test]
    fn a_page_has_fifty_people_and_never_more_than_two_hundred() {
        for (size, expected) in [("", 50), ("x", 50), ("-1", 50), ("10", 10), ("5000", 200)] {
            let criteria = Criteria { size: size.into(), ..Criteria::default() };
            assert_eq!(criteria.size(), expected, "{size}");
        }
    }
}
