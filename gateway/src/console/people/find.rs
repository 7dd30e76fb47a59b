//! Who is looked for, and the page of those found.
//!
//! Groups and approvers are other services' knowledge: where they are asked about, those services
//! name users in order, and identity is asked which of them meet the rest. A page looks at so many
//! at most, and says where the next goes on.

use std::collections::BTreeSet;

use muster_proto::approver::v1::{
    ApproverState, BatchGetApproversRequest, ListUsersWithPendingApproversRequest,
};
use muster_proto::filter::v1::comparison::Operand;
use muster_proto::filter::v1::filter::Kind;
use muster_proto::filter::v1::{Comparison, Filter, Ids, Operator};
use muster_proto::group::v1::ListUsersInGroupsRequest;
use muster_proto::identity::v1::{ContentRegion, SearchUsersRequest, User};
use serde::{Deserialize, Serialize};

use super::super::frame::Problem;
use crate::Gateway;

/// How many people a page has that does not say, and at most.
const DEFAULT_PAGE: i32 = 50;
const LARGEST_PAGE: i32 = 200;
/// How many users another service names at once.
const BATCH: i32 = 1_000;
/// How often it is asked for one page.
const ROUNDS: usize = 10;

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
    if criteria.group.trim().is_empty() && criteria.approvers != "pending" {
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
    let mut found = Found::default();
    let mut after = criteria.page.clone();
    for _ in 0..ROUNDS {
        let (ids, next) = named(gateway, organisation, criteria, after).await?;
        let left = size - found.users.len();
        let request = SearchUsersRequest {
            page_size: i32::try_from(left).unwrap_or(i32::MAX),
            among: Some(Ids { ids }),
            ..criteria.of_identity(organisation)
        };
        let answer = gateway.parts.users.clone().search_users(request).await?.into_inner();
        found.users.extend(answer.users);
        found.user_count = answer.user_count;
        found.active_user_count = answer.active_user_count;
        let is_full = found.users.len() >= size;
        if is_full && (!answer.next_page_token.is_empty() || !next.is_empty()) {
            found.next = found.users.last().map(|user| user.id.clone());
            return Ok(found);
        }
        if next.is_empty() {
            return Ok(found);
        }
        after = next;
    }
    found.is_cut = true;
    found.next = Some(after);
    Ok(found)
}

/// Those after `after` who are in the group and wait for an approver, as far as that is asked; and
/// after whom to go on.
async fn named(
    gateway: &Gateway,
    organisation: &str,
    criteria: &Criteria,
    after: String,
) -> Result<(Vec<String>, String), Problem> {
    let organisation_id = organisation.to_owned();
    let group = criteria.group.trim();
    if group.is_empty() {
        let request = ListUsersWithPendingApproversRequest {
            organisation_id,
            page_size: BATCH,
            page_token: after,
        };
        let mut approvers = gateway.parts.approvers.clone();
        let answer = approvers.list_users_with_pending_approvers(request).await?.into_inner();
        return Ok((answer.user_ids, answer.next_page_token));
    }
    let name = Comparison {
        attribute: "display_name".to_owned(),
        operator: Operator::Equal.into(),
        operand: Some(Operand::Text(group.to_owned())),
    };
    let request = ListUsersInGroupsRequest {
        organisation_id,
        filter: Some(Filter { kind: Some(Kind::Comparison(name)) }),
        page_size: BATCH,
        page_token: after,
    };
    let mut groups = gateway.parts.groups.clone();
    let answer = groups.list_users_in_groups(request).await?.into_inner();
    let mut ids = answer.user_ids;
    if criteria.approvers == "pending" {
        let waiting = waiting(gateway, organisation, ids.clone()).await?;
        ids.retain(|id| waiting.contains(id));
    }
    Ok((ids, answer.next_page_token))
}

/// Those of these users who wait for an approver.
async fn waiting(
    gateway: &Gateway,
    organisation: &str,
    user_ids: Vec<String>,
) -> Result<BTreeSet<String>, Problem> {
    let request = BatchGetApproversRequest { organisation_id: organisation.to_owned(), user_ids };
    let answer = gateway.parts.approvers.clone().batch_get_approvers(request).await?.into_inner();
    let waits = answer.users.into_iter().filter(|user| {
        user.approvers.iter().any(|approver| approver.state() == ApproverState::Pending)
    });
    Ok(waits.map(|user| user.user_id).collect())
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
