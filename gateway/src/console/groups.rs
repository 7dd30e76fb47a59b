//! Groups: the list, and making one for *Link Group* to link to.

use askama::Template;
use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse as _, Redirect, Response};
use axum::routing::get;
use http::StatusCode;
use muster_proto::filter::v1::comparison::Operand;
use muster_proto::filter::v1::filter::Kind;
use muster_proto::filter::v1::{Comparison, Filter, Filters, Operator};
use muster_proto::group::v1::{CreateGroupRequest, Group, ListGroupsRequest, ListGroupsResponse};
use muster_proto::identity::v1::Origin;
use serde::{Deserialize, Serialize};
use tonic::{Code, Status};

use super::frame::{Frame, Problem, Section, in_words, page, page_with};
use super::input::{Form, Query};
use super::session::Signed;
use crate::Gateway;

/// How many groups a page has.
pub(super) const PAGE: i32 = 50;

pub(super) fn routes() -> Router<Gateway> {
    Router::new()
        .route("/admin/groups", get(list))
        .route("/admin/groups/new", get(blank).post(create))
}

/// What is asked for.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Asked {
    /// How the name begins.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub search: String,
    /// The name after which the page begins.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub after: String,
    /// What was just done.
    #[serde(skip_serializing)]
    pub done: String,
}

impl Asked {
    pub(super) fn address(&self, path: &str, after: &str) -> String {
        let asked = Self { after: after.to_owned(), ..self.clone() };
        match serde_urlencoded::to_string(&asked) {
            Ok(query) if !query.is_empty() => format!("{path}?{query}"),
            _ => path.to_owned(),
        }
    }

    /// By name, so that a page begins after a name: none costs more than the first.
    fn filter(&self) -> Option<Filter> {
        let compare = |operator: Operator, text: &str| Filter {
            kind: Some(Kind::Comparison(Comparison {
                attribute: "display_name".to_owned(),
                operator: operator.into(),
                operand: Some(Operand::Text(text.to_owned())),
            })),
        };
        let mut filters = Vec::new();
        if !self.search.trim().is_empty() {
            filters.push(compare(Operator::StartsWith, self.search.trim_start()));
        }
        if !self.after.is_empty() {
            filters.push(compare(Operator::Greater, &self.after));
        }
        (!filters.is_empty()).then_some(Filter { kind: Some(Kind::All(Filters { filters })) })
    }
}

/// A page of groups by name.
pub(super) async fn find(
    gateway: &Gateway,
    organisation: &str,
    asked: &Asked,
    page_size: i32,
) -> Result<ListGroupsResponse, Status> {
    let request = ListGroupsRequest {
        organisation_id: organisation.to_owned(),
        page_size,
        filter: asked.filter(),
        order_by: "display_name".to_owned(),
        ..ListGroupsRequest::default()
    };
    Ok(gateway.parts.groups.clone().list_groups(request).await?.into_inner())
}

/// Where a group comes from: the badge's class, and its words.
pub(super) fn source(group: &Group) -> (&'static str, &'static str) {
    match group.origin() {
        Origin::Console | Origin::Csv => ("info", "Added here"),
        Origin::Scim | Origin::Unspecified => ("good", "In sync"),
    }
}

#[derive(Template)]
#[template(path = "groups.html")]
struct Listed {
    frame: Frame,
    asked: Asked,
    groups: Vec<Group>,
    /// Where the next page is.
    next: Option<String>,
    export: String,
}

impl Listed {
    #[expect(clippy::unused_self, reason = "templates call methods of their page")]
    fn source_of(&self, group: &Group) -> (&'static str, &'static str) {
        source(group)
    }
}

async fn list(
    State(gateway): State<Gateway>,
    signed: Signed,
    Query(asked): Query<Asked>,
) -> Result<Response, Problem> {
    let found = find(&gateway, signed.organisation_id(), &asked, PAGE).await?;
    let last = found.groups.last().filter(|_| !found.next_page_token.is_empty());
    let done = (asked.done == "deleted").then_some("The group was deleted.");
    page(&Listed {
        frame: signed.frame("Groups", Section::Groups).with_notice(done),
        next: last.map(|group| asked.address("/admin/groups", &group.display_name)),
        export: asked.address("/admin/groups.csv", ""),
        groups: found.groups,
        asked,
    })
}

#[derive(Template)]
#[template(path = "group_new.html")]
struct NewGroup {
    frame: Frame,
    display_name: String,
    wrong: String,
}

/// A group's name as a form sends it.
#[derive(Debug, Deserialize)]
pub(super) struct Named {
    #[serde(default)]
    pub display_name: String,
    #[serde(default)]
    pub revision: i64,
}

async fn blank(signed: Signed) -> Result<Response, Problem> {
    let frame = signed.frame("Create a group", Section::Groups);
    page(&NewGroup { frame, display_name: String::new(), wrong: String::new() })
}

async fn create(
    State(gateway): State<Gateway>,
    signed: Signed,
    Form(named): Form<Named>,
) -> Result<Response, Problem> {
    let group = Group {
        organisation_id: signed.organisation_id().to_owned(),
        display_name: named.display_name.trim().to_owned(),
        ..Group::default()
    };
    let request = CreateGroupRequest {
        group: Some(group),
        actor: Some(signed.actor()),
        ..CreateGroupRequest::default()
    };
    let refused = match valid_name(&named.display_name) {
        Err(wrong) => wrong,
        Ok(()) => match gateway.parts.groups.clone().create_group(request).await {
            Ok(answer) => {
                let id = answer.into_inner().group.unwrap_or_default().id;
                return Ok(
                    Redirect::to(&format!("/admin/groups/{id}?done=created")).into_response()
                );
            }
            Err(status) => refusal(status)?,
        },
    };
    let frame = signed.frame("Create a group", Section::Groups);
    let again = NewGroup { frame, display_name: named.display_name, wrong: refused };
    page_with(StatusCode::UNPROCESSABLE_ENTITY, &again)
}

/// What a SCIM client may not send an admin may not type.
pub(super) fn valid_name(name: &str) -> Result<(), String> {
    let document = serde_json::json!({"displayName": name.trim()});
    match muster_scim::resource::read(document, &muster_scim::schema::GROUP_TYPE) {
        Ok(_) => Ok(()),
        Err(_) if name.trim().is_empty() => Err("Type a name.".to_owned()),
        Err(error) => Err(error.detail),
    }
}

/// Why a name was refused.
pub(super) fn refusal(status: Status) -> Result<String, Problem> {
    match status.code() {
        Code::AlreadyExists => {
            Ok("There is a group of this name already. Choose another name.".to_owned())
        }
        Code::InvalidArgument => Ok(in_words(&status) + "."),
        _ => Err(status.into()),
    }
}
