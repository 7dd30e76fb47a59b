//! A group: its members, its name, its end.

use askama::Template;
use axum::Router;
use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Redirect, Response};
use axum::routing::get;
use http::StatusCode;
use muster_proto::group::v1::{
    DeleteGroupRequest, GetGroupRequest, Group, ListMembersRequest, UpdateGroupRequest,
};
use muster_proto::identity::v1::{BatchGetUsersRequest, User};
use serde::Deserialize;
use tonic::{Code, Status};

use super::frame::{Frame, Problem, Section, page, page_with};
use super::groups::{Named, PAGE, refusal, source, valid_name};
use super::input::{Form, Query};
use super::people::shown;
use super::session::Signed;
use crate::Gateway;

pub(super) fn routes() -> Router<Gateway> {
    Router::new()
        .route("/admin/groups/{id}", get(show).post(rename))
        .route("/admin/groups/{id}/delete", get(confirm).post(delete))
}

#[derive(Template)]
#[template(path = "group.html")]
struct GroupPage {
    frame: Frame,
    group: Group,
    /// What the name's field holds.
    display_name: String,
    wrong: String,
    members: Vec<Member>,
    /// Where the next members are.
    next: Option<String>,
    is_first: bool,
}

impl GroupPage {
    fn source(&self) -> (&'static str, &'static str) {
        source(&self.group)
    }
}

struct Member {
    user: User,
    name: String,
}

/// What the query may say.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Asked {
    done: String,
    /// The member after whom the page begins.
    after: String,
}

async fn show(
    State(gateway): State<Gateway>,
    signed: Signed,
    Path(id): Path<String>,
    Query(asked): Query<Asked>,
) -> Result<Response, Problem> {
    let group = read(&gateway, &signed, id).await?;
    let done = match asked.done.as_str() {
        "created" => Some("The group was created. Link it in Okta: Push Groups → Link Group."),
        "renamed" => Some("The group was renamed."),
        _ => None,
    };
    let name = group.display_name.clone();
    let mut shown = members(&gateway, &signed, group, &asked.after).await?;
    shown.frame = signed.frame(name, Section::Groups).with_notice(done);
    page(&shown)
}

/// The page with a part of the members.
async fn members(
    gateway: &Gateway,
    signed: &Signed,
    group: Group,
    after: &str,
) -> Result<GroupPage, Problem> {
    let request = ListMembersRequest {
        organisation_id: signed.organisation_id().to_owned(),
        group_id: group.id.clone(),
        page_size: PAGE,
        page_token: after.to_owned(),
    };
    let listed = gateway.parts.groups.clone().list_members(request).await?.into_inner();
    let request = BatchGetUsersRequest {
        organisation_id: signed.organisation_id().to_owned(),
        ids: listed.user_ids,
        ..BatchGetUsersRequest::default()
    };
    let users = gateway.parts.users.clone().batch_get_users(request).await?.into_inner().users;
    let members = users.into_iter().map(|user| Member { name: shown::name(&user), user });
    let next = Some(listed.next_page_token).filter(|token| !token.is_empty());
    Ok(GroupPage {
        frame: signed.frame(group.display_name.clone(), Section::Groups),
        display_name: group.display_name.clone(),
        wrong: String::new(),
        members: members.collect(),
        // A token is a user's id.
        next: next.map(|token| format!("/admin/groups/{}?after={token}", group.id)),
        is_first: after.is_empty(),
        group,
    })
}

async fn rename(
    State(gateway): State<Gateway>,
    signed: Signed,
    Path(id): Path<String>,
    Form(named): Form<Named>,
) -> Result<Response, Problem> {
    let group = read(&gateway, &signed, id).await?;
    let request = UpdateGroupRequest {
        organisation_id: signed.organisation_id().to_owned(),
        id: group.id.clone(),
        revision: named.revision,
        display_name: Some(named.display_name.trim().to_owned()),
        actor: Some(signed.actor()),
        ..UpdateGroupRequest::default()
    };
    let (status, wrong) = match valid_name(&named.display_name) {
        Err(wrong) => (StatusCode::UNPROCESSABLE_ENTITY, wrong),
        Ok(()) => match gateway.parts.groups.clone().update_group(request).await {
            Ok(_) => {
                let address = format!("/admin/groups/{}?done=renamed", group.id);
                return Ok(Redirect::to(&address).into_response());
            }
            Err(status) if status.code() == Code::Aborted => {
                let what = format!(
                    "The group has changed since you opened it; its name is “{}”. Check what you \
                     typed and save again.",
                    group.display_name
                );
                (StatusCode::CONFLICT, what)
            }
            Err(status) => (StatusCode::UNPROCESSABLE_ENTITY, refusal(status)?),
        },
    };
    let mut shown = members(&gateway, &signed, group, "").await?;
    shown.display_name = named.display_name;
    shown.wrong = wrong;
    page_with(status, &shown)
}

#[derive(Template)]
#[template(path = "group_delete.html")]
struct Delete {
    frame: Frame,
    group: Group,
}

async fn confirm(
    State(gateway): State<Gateway>,
    signed: Signed,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let group = read(&gateway, &signed, id).await?;
    page(&Delete { frame: signed.frame("Delete a group", Section::Groups), group })
}

async fn delete(
    State(gateway): State<Gateway>,
    signed: Signed,
    Path(id): Path<String>,
    Form(named): Form<Named>,
) -> Result<Response, Problem> {
    let request = DeleteGroupRequest {
        organisation_id: signed.organisation_id().to_owned(),
        id,
        revision: named.revision,
        actor: Some(signed.actor()),
    };
    gateway.parts.groups.clone().delete_group(request).await?;
    Ok(Redirect::to("/admin/groups?done=deleted").into_response())
}

async fn read(gateway: &Gateway, signed: &Signed, id: String) -> Result<Group, Status> {
    let request = GetGroupRequest {
        organisation_id: signed.organisation_id().to_owned(),
        id,
        ..GetGroupRequest::default()
    };
    Ok(gateway.parts.groups.clone().get_group(request).await?.into_inner())
}
