//! `/Groups`.

use std::collections::HashSet;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, RawQuery, Request, State};
use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, StatusCode, header};
use muster_proto::group::v1::update_group_request::{ExternalIdChange, Members};
use muster_proto::group::v1::{
    CreateGroupRequest, DeleteGroupRequest, GetGroupRequest, Group, GroupView, ListGroupsRequest,
    MemberDelta, MemberSet, UpdateGroupRequest,
};
use muster_scim::list::Cursors;
use muster_scim::members::{self, Change, GroupDelta, MembersDelta, group_delta, take_members};
use muster_scim::projection::Projection;
use muster_scim::schema::GROUP_TYPE;
use muster_scim::{Object, patch, resource};
use serde_json::{Value, json as value};

use super::resource::{Beside, MemberList, Meta, Resource};
use super::search::Found;
use super::{Asked, body_bytes, id, version};
use crate::auth::Client;
use crate::failure::Failure;
use crate::provisioning_log::{Call, Called};
use crate::server::AppliedInPart;
use crate::{Gateway, Limits};

pub(super) async fn list(
    client: Client,
    State(gateway): State<Gateway>,
    query: RawQuery,
) -> Result<Response, Failure> {
    let asked = Asked::read(query, &gateway, &GROUP_TYPE)?;
    let found = find(&gateway, &client, &asked).await?;
    Ok(found.answer(&asked))
}

/// The page that is asked for.
pub(super) async fn find(
    gateway: &Gateway,
    client: &Client,
    asked: &Asked,
) -> Result<Found, Failure> {
    let filter = match &asked.filter {
        Some(filter) => {
            let organisation = &client.organisation.id;
            Some(super::filter::to_proto(gateway, organisation, filter, &GROUP_TYPE).await?)
        }
        None => None,
    };
    let count = asked.count(gateway.limits);
    let request = ListGroupsRequest {
        organisation_id: client.organisation.id.clone(),
        page_size: i32::try_from(count).unwrap_or(i32::MAX),
        skip: asked.skip(),
        page_token: asked.cursor.clone().unwrap_or_default(),
        filter,
        order_by: asked.order_by.clone(),
        total_only: count == 0,
        view: view(&asked.projection).into(),
    };
    let _turn = client.place.turn_to_list().await;
    let page = gateway.parts.groups.clone().list_groups(request).await?.into_inner();
    let total = u64::try_from(page.total_size).unwrap_or_default();
    let cursors = Cursors { next: page.next_page_token, previous: page.previous_page_token };
    let resources =
        page.groups.into_iter().map(|group| render(gateway, &asked.projection, group)).collect();
    Ok(Found { total, resources, cursors })
}

pub(super) async fn get(
    client: Client,
    State(gateway): State<Gateway>,
    path: Result<Path<String>, PathRejection>,
    query: RawQuery,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let asked = Asked::read(query, &gateway, &GROUP_TYPE)?;
    let id = id(path, "group")?;
    let group = read(&gateway, &client, id, view(&asked.projection)).await?;
    if version::is_known(&headers, group.revision) {
        return Ok(version::not_modified(group.revision));
    }
    Ok(answer(&gateway, &asked.projection, StatusCode::OK, group))
}

/// Reads a body that may hold all members.
async fn group_body(request: Request, gateway: &Gateway) -> Result<Value, Failure> {
    let limits = Limits { body_bytes: gateway.limits.group_bytes, ..gateway.limits };
    let bytes = body_bytes(request, limits).await?;
    Ok(members::parse_body(&bytes, &limits.scim)?)
}

pub(super) async fn create(
    client: Client,
    State(gateway): State<Gateway>,
    query: RawQuery,
    request: Request,
) -> Result<Response, Failure> {
    let asked = Asked::read(query, &gateway, &GROUP_TYPE)?;
    let call = request.extensions().get::<Call>().cloned();
    let body = group_body(request, &gateway).await?;
    if let Some(call) = call {
        call.creates(&body, "displayName");
    }
    let mut document = resource::read(body, &GROUP_TYPE)?;
    let member_ids: Vec<String> =
        take_members(&mut document, &gateway.limits.scim)?.into_iter().collect();
    let group = Group {
        organisation_id: client.organisation.id.clone(),
        display_name: text(&document, "displayName").unwrap_or_default(),
        external_id: text(&document, "externalId"),
        member_ids: member_ids.clone(),
        ..Group::default()
    };
    let request = CreateGroupRequest {
        group: Some(group),
        refuse_unknown_members: client.refuses_unknown_members(),
        actor: Some(client.actor()),
    };
    let created = gateway.parts.groups.clone().create_group(request).await?.into_inner();
    let unknown = created.unknown_member_ids;
    let group = with_members(created.group.unwrap_or_default(), member_ids, &unknown);
    Ok(in_part(answer(&gateway, &asked.projection, StatusCode::CREATED, group), unknown))
}

pub(super) async fn replace(
    client: Client,
    State(gateway): State<Gateway>,
    path: Result<Path<String>, PathRejection>,
    query: RawQuery,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, Failure> {
    let asked = Asked::read(query, &gateway, &GROUP_TYPE)?;
    let id = id(path, "group")?;
    let revision = expected(&gateway, &client, &id, &headers).await?;
    let mut document = resource::read(group_body(request, &gateway).await?, &GROUP_TYPE)?;
    let member_ids = take_members(&mut document, &gateway.limits.scim)?;
    let delta = GroupDelta {
        display_name: text(&document, "displayName"),
        external_id: Some(text(&document, "externalId")),
        members: MembersDelta::full(member_ids.clone()),
    };
    let request = update(&client, id, revision, delta);
    let updated = gateway.parts.groups.clone().update_group(request).await?.into_inner();
    let group = with_members(
        updated.group.unwrap_or_default(),
        member_ids.into_iter().collect(),
        &updated.unknown_member_ids,
    );
    let answer = answer(&gateway, &asked.projection, StatusCode::OK, group);
    Ok(in_part(answer, updated.unknown_member_ids))
}

/// A PATCH becomes one delta. It is answered 204, unless the client asks for attributes
/// (RFC 7644 §3.5.2): the members of a large group would be read for nobody.
pub(super) async fn patch(
    client: Client,
    State(gateway): State<Gateway>,
    path: Result<Path<String>, PathRejection>,
    query: RawQuery,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, Failure> {
    let asked = Asked::read(query, &gateway, &GROUP_TYPE)?;
    let id = id(path, "group")?;
    let revision = expected(&gateway, &client, &id, &headers).await?;
    let limits = &gateway.limits.scim;
    let delta = group_delta(patch::parse(group_body(request, &gateway).await?, limits)?, limits)?;
    let request = update(&client, id.clone(), revision, delta);
    let updated = gateway.parts.groups.clone().update_group(request).await?.into_inner();
    if !asked.projection.is_default() {
        let group = read(&gateway, &client, id, view(&asked.projection)).await?;
        let answer = answer(&gateway, &asked.projection, StatusCode::OK, group);
        return Ok(in_part(answer, updated.unknown_member_ids));
    }
    let mut response = StatusCode::NO_CONTENT.into_response();
    let Group { revision, display_name, .. } = updated.group.unwrap_or_default();
    response.extensions_mut().insert(Called(display_name));
    response.headers_mut().extend(version::header(revision).map(|tag| (header::ETAG, tag)));
    Ok(in_part(response, updated.unknown_member_ids))
}

pub(super) async fn delete(
    client: Client,
    State(gateway): State<Gateway>,
    path: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<StatusCode, Failure> {
    let id = id(path, "group")?;
    let request = DeleteGroupRequest {
        organisation_id: client.organisation.id.clone(),
        revision: expected(&gateway, &client, &id, &headers).await?,
        id,
        actor: Some(client.actor()),
    };
    gateway.parts.groups.clone().delete_group(request).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Notes the members who were left out, for whoever keeps a log of requests.
fn in_part(mut response: Response, unknown_member_ids: Vec<String>) -> Response {
    if !unknown_member_ids.is_empty() {
        response.extensions_mut().insert(AppliedInPart { unknown_member_ids });
    }
    response
}

/// The revision that a write asks for; 0 where any will do.
async fn expected(
    gateway: &Gateway,
    client: &Client,
    id: &str,
    headers: &HeaderMap,
) -> Result<i64, Failure> {
    let current =
        async || Ok(read(gateway, client, id.to_owned(), GroupView::Basic).await?.revision);
    version::expected(headers, current).await
}

async fn read(
    gateway: &Gateway,
    client: &Client,
    id: String,
    view: GroupView,
) -> Result<Group, Failure> {
    let request =
        GetGroupRequest { organisation_id: client.organisation.id.clone(), id, view: view.into() };
    Ok(gateway.parts.groups.clone().get_group(request).await?.into_inner())
}

fn update(client: &Client, id: String, revision: i64, delta: GroupDelta) -> UpdateGroupRequest {
    let members = match delta.members {
        MembersDelta::Full { all, retained } => Some(Members::Set(MemberSet {
            user_ids: all.into_iter().collect(),
            retained_user_ids: retained.into_iter().collect(),
        })),
        MembersDelta::Changes(changes) if changes.is_empty() => None,
        MembersDelta::Changes(changes) => {
            let mut delta = MemberDelta::default();
            for (id, change) in changes {
                match change {
                    Change::Add => delta.add.push(id),
                    Change::Remove => delta.remove.push(id),
                }
            }
            Some(Members::Delta(delta))
        }
    };
    UpdateGroupRequest {
        organisation_id: client.organisation.id.clone(),
        id,
        revision,
        display_name: delta.display_name,
        external_id_change: delta.external_id.map(|id| match id {
            Some(id) => ExternalIdChange::ExternalId(id),
            None => ExternalIdChange::ClearExternalId(true),
        }),
        members,
        refuse_unknown_members: client.refuses_unknown_members(),
        actor: Some(client.actor()),
    }
}

/// A group that was just given these members, but for the unknown.
fn with_members(group: Group, mut member_ids: Vec<String>, unknown: &[String]) -> Group {
    let unknown: HashSet<&String> = unknown.iter().collect();
    member_ids.retain(|id| !unknown.contains(id));
    Group { member_ids, ..group }
}

fn answer(
    gateway: &Gateway,
    projection: &Projection,
    status: StatusCode,
    group: Group,
) -> Response {
    let beside = Beside {
        resource_type: &GROUP_TYPE,
        id: group.id.clone(),
        revision: group.revision,
        name: group.display_name.clone(),
    };
    beside.answer(gateway, status, &render(gateway, projection, group))
}

fn render(gateway: &Gateway, projection: &Projection, group: Group) -> Resource {
    let scim_url = &gateway.scim_url;
    let mut document = Object::new();
    document.insert("schemas".into(), value!([GROUP_TYPE.schema.id]));
    document.insert("id".into(), group.id.as_str().into());
    if let Some(external_id) = group.external_id {
        document.insert("externalId".into(), external_id.into());
    }
    document.insert("displayName".into(), group.display_name.into());
    let times = (group.create_time, group.update_time);
    let meta = Meta::new(&GROUP_TYPE, scim_url, &group.id, times, group.revision);
    document.insert("meta".into(), value!(meta));
    projection.apply(&mut document);
    let members = MemberList::new(group.member_ids, projection, scim_url);
    Resource::Part { document, members }
}

/// Members are loaded only where an answer can hold them.
fn view(projection: &Projection) -> GroupView {
    if projection.wants("members") { GroupView::Full } else { GroupView::Basic }
}

fn text(document: &Object, name: &str) -> Option<String> {
    document.get(name).and_then(Value::as_str).map(str::to_owned)
}
