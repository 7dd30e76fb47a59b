//! Lists: filters, order and pages.

use muster::scim_client::query;
use serde_json::{Value, json};

use super::key::{key, same};
use super::user::MUSTER;
use super::{Expected, Model, User};

const LIST: &str = "urn:ietf:params:scim:api:messages:2.0:ListResponse";

/// What is listed.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Query {
    Users(Page),
    UserName(String),
    ExternalId(String),
    Email(String),
    Active(bool),
    HasTitle,
    /// Users of a group.
    InGroup(String),
    /// Users for whom somebody with this address approves.
    Approver(String),
    /// Two conditions at once.
    ActiveWithEmail(String),
    /// Users by `userName`.
    Sorted,
    Groups(Page),
    GroupName(String),
    /// A filter that nobody can read.
    Unreadable,
}

/// Which part of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Page {
    /// May be 0 or negative, which is read as 1.
    pub(crate) start_index: i64,
    pub(crate) count: usize,
}

impl Query {
    pub(super) fn path(&self) -> String {
        let filter =
            |endpoint: &str, filter: String| format!("{endpoint}{}", query(&[("filter", &filter)]));
        match self {
            Self::Users(page) => format!("/Users{}", page.query()),
            Self::Groups(page) => format!("/Groups{}", page.query()),
            Self::UserName(name) => filter("/Users", format!("userName eq {}", json!(name))),
            Self::ExternalId(id) => filter("/Users", format!("externalId eq {}", json!(id))),
            Self::Email(email) => filter("/Users", format!("emails.value eq {}", json!(email))),
            Self::Active(active) => filter("/Users", format!("active eq {active}")),
            Self::HasTitle => filter("/Users", "title pr".into()),
            Self::InGroup(id) => filter("/Users", format!("groups.value eq {}", json!(id))),
            Self::Approver(email) => {
                filter("/Users", format!("{MUSTER}:approvers eq {}", json!(email)))
            }
            Self::ActiveWithEmail(email) => {
                filter("/Users", format!("active eq true and emails[value eq {}]", json!(email)))
            }
            Self::Sorted => "/Users?sortBy=userName".into(),
            Self::GroupName(name) => filter("/Groups", format!("displayName eq {}", json!(name))),
            Self::Unreadable => filter("/Users", "userName eq".into()),
        }
    }
}

impl Page {
    const ALL: Self = Self { start_index: 1, count: 100 };

    fn query(self) -> String {
        format!("?startIndex={}&count={}", self.start_index, self.count)
    }
}

impl Model {
    pub(super) fn list(&self, query: &Query) -> Expected {
        let users = |meets: &dyn Fn(&User) -> bool| {
            let met = self.users.iter().filter(|user| meets(user));
            met.map(|user| user.id.clone()).collect::<Vec<String>>()
        };
        let has_email = |user: &User, email: &str| {
            user.doc.emails.iter().any(|own| own.value.as_deref().is_some_and(|v| same(v, email)))
        };
        match query {
            Query::Users(page) => self.page(users(&|_| true), *page, true),
            Query::UserName(name) => {
                let meets = |u: &User| u.doc.user_name.as_deref().is_some_and(|n| same(n, name));
                self.page(users(&meets), Page::ALL, true)
            }
            Query::ExternalId(id) => {
                self.page(users(&|user| user.doc.external_id() == Some(id)), Page::ALL, true)
            }
            Query::Email(email) => self.page(users(&|u| has_email(u, email)), Page::ALL, true),
            Query::Active(true) => self.page(users(&|u| u.doc.is_active()), Page::ALL, true),
            // Who has no value at all is found by neither.
            Query::Active(false) => {
                self.page(users(&|user| user.doc.active == Some(false)), Page::ALL, true)
            }
            Query::HasTitle => {
                self.page(users(&|user| user.doc.text("title").is_some()), Page::ALL, true)
            }
            Query::InGroup(id) => {
                let members = self.group(id).map(|group| group.members.clone());
                let members = members.unwrap_or_default();
                self.page(users(&|user| members.contains(&user.id)), Page::ALL, true)
            }
            Query::Approver(email) => {
                let meets =
                    |user: &User| self.approvers_in_force(user).iter().any(|own| same(own, email));
                self.page(users(&meets), Page::ALL, true)
            }
            Query::ActiveWithEmail(email) => {
                let meets = |user: &User| user.doc.is_active() && has_email(user, email);
                self.page(users(&meets), Page::ALL, true)
            }
            Query::Sorted => {
                let mut sorted: Vec<&User> = self.users.iter().collect();
                sorted.sort_by_key(|user| key(user.doc.user_name.as_deref().unwrap_or_default()));
                let ids = sorted.into_iter().map(|user| user.id.clone()).collect();
                self.paged(ids, Page::ALL, true)
            }
            Query::Groups(page) => {
                let ids = self.groups.iter().map(|group| group.id.clone()).collect();
                self.page(ids, *page, false)
            }
            Query::GroupName(name) => {
                let met = self.groups.iter().filter(|group| same(&group.name, name));
                self.page(met.map(|group| group.id.clone()).collect(), Page::ALL, false)
            }
            Query::Unreadable => {
                super::Refusal { status: 400, scim_type: Some("invalidFilter"), names: "" }.into()
            }
        }
    }

    /// By id, so in order of creation.
    fn page(&self, mut ids: Vec<String>, page: Page, users: bool) -> Expected {
        ids.sort();
        self.paged(ids, page, users)
    }

    fn paged(&self, ids: Vec<String>, page: Page, users: bool) -> Expected {
        let start = usize::try_from(page.start_index).unwrap_or_default().max(1);
        let shown = ids.iter().skip(start - 1).take(page.count);
        let resources: Vec<Value> = shown
            .filter_map(|id| if users { self.user_json(id) } else { self.group_json(id) })
            .collect();
        let body = json!({
            "schemas": [LIST],
            "totalResults": ids.len(),
            "startIndex": start,
            "itemsPerPage": resources.len(),
            "Resources": resources,
        });
        Expected::of(200, Some(body), false)
    }
}
