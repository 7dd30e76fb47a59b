//! `/Users`.

use std::collections::HashMap;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, RawQuery, Request, State};
use axum::response::Response;
use http::{HeaderMap, StatusCode};
use muster_proto::approver::v1::Approver;
use muster_proto::filter::v1::comparison::Operand;
use muster_proto::filter::v1::filter::Kind;
use muster_proto::filter::v1::{Filter, Operator};
use muster_proto::group::v1::Membership;
use muster_proto::identity::v1::{
    CreateUserRequest, DeleteUserRequest, ListUsersRequest, UpdateUserRequest, User,
};
use muster_scim::list::Cursors;
use muster_scim::patch::Assignments;
use muster_scim::path::AttributePath;
use muster_scim::projection::Projection;
use muster_scim::schema::{MUSTER_USER, USER_TYPE};
use muster_scim::{caseless, patch, resource};
use prost_types::FieldMask;
use serde_json::Value;
use tonic::{Code, Status};

use super::filter::field;
use super::resource::{Beside, Resource};
use super::search::Found;
use super::user_json::{DeclaredApprovers, ShownUser, from_scim, to_scim};
use super::{Asked, body, id, version};
use crate::Gateway;
use crate::auth::Client;
use crate::failure::Failure;
use crate::provisioning_log::Call;

/// How often a PATCH starts over that lost a race.
const TRIES: u32 = 10;

pub(super) async fn list(
    client: Client,
    State(gateway): State<Gateway>,
    query: RawQuery,
) -> Result<Response, Failure> {
    let asked = Asked::read(query, &gateway, &USER_TYPE)?;
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
            Some(super::filter::to_proto(gateway, organisation, filter, &USER_TYPE).await?)
        }
        None => None,
    };
    let count = asked.count(gateway.limits);
    if count > 0
        && let Some(key) = looked_up(asked, filter.as_ref())
    {
        let user = gateway.parts.user_named.get(&client.organisation.id, &key).await?;
        let mut resources = Vec::new();
        if let Some(user) = user {
            resources.push(render_read(gateway, &asked.projection, user).await?);
        }
        let total = resources.len() as u64;
        return Ok(Found { total, resources, cursors: Cursors::default() });
    }
    let request = ListUsersRequest {
        organisation_id: client.organisation.id.clone(),
        page_size: i32::try_from(count).unwrap_or(i32::MAX),
        skip: asked.skip(),
        page_token: asked.cursor.clone().unwrap_or_default(),
        filter,
        order_by: asked.order_by.clone(),
        total_only: count == 0,
    };
    let _turn = client.place.turn_to_list().await;
    let page = gateway.parts.users.clone().list_users(request).await?.into_inner();
    let cursors = Cursors { next: page.next_page_token, previous: page.previous_page_token };
    let resources = render(gateway, &asked.projection, page.users).await?;
    let total = u64::try_from(page.total_size).unwrap_or_default();
    Ok(Found { total, resources, cursors })
}

/// The key of the `userName` that is all that a list asks for, as clients do before they create.
fn looked_up(asked: &Asked, filter: Option<&Filter>) -> Option<String> {
    let Some(Kind::Comparison(comparison)) = filter?.kind.as_ref() else { return None };
    let Some(Operand::Text(name)) = &comparison.operand else { return None };
    let is_all = asked.cursor.is_none() && asked.skip() == 0;
    let is_name = comparison.attribute == "user_name" && comparison.operator() == Operator::Equal;
    (is_all && is_name).then(|| caseless::key(name))
}

pub(super) async fn get(
    client: Client,
    State(gateway): State<Gateway>,
    path: Result<Path<String>, PathRejection>,
    query: RawQuery,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let asked = Asked::read(query, &gateway, &USER_TYPE)?;
    let user = read(&gateway, &client, id(path, "user")?).await?;
    // Who of the declared approvers is in force changes without the user's version.
    if user.declared_approvers.is_empty() && version::is_known(&headers, user.revision) {
        return Ok(version::not_modified(user.revision));
    }
    let beside = beside(&user);
    let resource = render_read(&gateway, &asked.projection, user).await?;
    Ok(beside.answer(&gateway, StatusCode::OK, &resource))
}

pub(super) async fn create(
    client: Client,
    State(gateway): State<Gateway>,
    query: RawQuery,
    request: Request,
) -> Result<Response, Failure> {
    let asked = Asked::read(query, &gateway, &USER_TYPE)?;
    let call = request.extensions().get::<Call>().cloned();
    let body = body(request, gateway.limits).await?;
    if let Some(call) = call {
        call.creates(&body, "userName");
    }
    let document = resource::read(body, &USER_TYPE)?;
    let user = User { organisation_id: client.organisation.id.clone(), ..from_scim(&document) };
    let request = CreateUserRequest { user: Some(user), actor: Some(client.actor()) };
    let user = gateway.parts.users.clone().create_user(request).await?.into_inner();
    written(&gateway, &asked.projection, StatusCode::CREATED, user).await
}

pub(super) async fn replace(
    client: Client,
    State(gateway): State<Gateway>,
    path: Result<Path<String>, PathRejection>,
    query: RawQuery,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, Failure> {
    let asked = Asked::read(query, &gateway, &USER_TYPE)?;
    let id = id(path, "user")?;
    let revision = expected(&gateway, &client, &id, &headers).await?;
    let document = resource::read(body(request, gateway.limits).await?, &USER_TYPE)?;
    let user = User {
        organisation_id: client.organisation.id.clone(),
        id,
        revision,
        ..from_scim(&document)
    };
    let request = UpdateUserRequest {
        user: Some(user),
        assign_defaults: true,
        actor: Some(client.actor()),
        ..UpdateUserRequest::default()
    };
    let user = gateway.parts.users.clone().update_user(request).await?.into_inner();
    written(&gateway, &asked.projection, StatusCode::OK, user).await
}

pub(super) async fn patch(
    client: Client,
    State(gateway): State<Gateway>,
    path: Result<Path<String>, PathRejection>,
    query: RawQuery,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, Failure> {
    let asked = Asked::read(query, &gateway, &USER_TYPE)?;
    let id = id(path, "user")?;
    let expected = expected(&gateway, &client, &id, &headers).await?;
    let operations = patch::parse(body(request, gateway.limits).await?, &gateway.limits.scim)?;
    if let Some(user) = assign(&gateway, &client, &id, expected, &operations).await? {
        return written(&gateway, &asked.projection, StatusCode::OK, user).await;
    }
    for attempt in 1.. {
        let before = read(&gateway, &client, id.clone()).await?;
        if expected != 0 && expected != before.revision {
            return Err(Status::aborted("").into());
        }
        match patch_once(&gateway, &client, before, operations.clone()).await {
            // Someone else was faster; with If-Match that is the client's to know.
            Err(status) if status.code() == Code::Aborted && expected == 0 && attempt < TRIES => {}
            Err(status) if status.code() == Code::Aborted && expected == 0 => {
                return Err(Status::unavailable("").into());
            }
            Err(status) => return Err(status.into()),
            Ok(Err(failure)) => return Err(failure),
            Ok(Ok(user)) => {
                return written(&gateway, &asked.projection, StatusCode::OK, user).await;
            }
        }
    }
    Err(Status::unavailable("").into())
}

/// Makes operations that only assign single values, whatever the user has: nobody reads them first.
/// None where there are others.
async fn assign(
    gateway: &Gateway,
    client: &Client,
    id: &str,
    expected: i64,
    operations: &[patch::Operation],
) -> Result<Option<User>, Failure> {
    let assignments = patch::assignments(operations, &USER_TYPE, &gateway.limits.scim);
    let Some(Assignments { targets, document }) = assignments else { return Ok(None) };
    let paths: Option<Vec<String>> = targets.iter().map(field_set).collect();
    let Some(paths) = paths else { return Ok(None) };
    let user = User {
        organisation_id: client.organisation.id.clone(),
        id: id.to_owned(),
        revision: expected,
        ..from_scim(&document)
    };
    let request = UpdateUserRequest {
        user: Some(user),
        update_mask: Some(FieldMask { paths }),
        actor: Some(client.actor()),
        ..UpdateUserRequest::default()
    };
    Ok(Some(gateway.parts.users.clone().update_user(request).await?.into_inner()))
}

/// The field of identity's message that keeps what a client sets of an attribute.
fn field_set(path: &AttributePath) -> Option<String> {
    let field = field(path)?;
    // What is answered of it follows from what is set.
    Some(if field == "content_region" { "country_code".to_owned() } else { field })
}

/// Applies operations to the user as read, and writes the whole with the revision that was read.
async fn patch_once(
    gateway: &Gateway,
    client: &Client,
    before: User,
    operations: Vec<patch::Operation>,
) -> Result<Result<User, Failure>, Status> {
    // A client names approvers as it sees them: by their present addresses.
    let names_approvers = operations.iter().any(|operation| {
        let path = operation.path.as_deref().unwrap_or_default();
        let value = operation.value.as_ref().map(Value::to_string).unwrap_or_default();
        (path.to_owned() + &value).to_ascii_lowercase().contains("approvers")
    });
    let approvers =
        if names_approvers { approvers_in_force(gateway, &before).await? } else { Vec::new() };
    let declared = DeclaredApprovers::new(&before, &approvers);
    let mut document = to_scim(&before, &gateway.scim_url);
    declared.show(&mut document);
    if let Err(error) = patch::apply(&mut document, operations, &USER_TYPE, &gateway.limits.scim) {
        return Ok(Err(error.into()));
    }
    let mut user = User {
        organisation_id: client.organisation.id.clone(),
        id: before.id,
        revision: before.revision,
        ..from_scim(&document)
    };
    declared.restore(&mut user.declared_approvers);
    let actor = Some(client.actor());
    let request = UpdateUserRequest { user: Some(user), actor, ..UpdateUserRequest::default() };
    Ok(Ok(gateway.parts.users.clone().update_user(request).await?.into_inner()))
}

pub(super) async fn delete(
    client: Client,
    State(gateway): State<Gateway>,
    path: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<StatusCode, Failure> {
    let id = id(path, "user")?;
    let request = DeleteUserRequest {
        organisation_id: client.organisation.id.clone(),
        id: id.clone(),
        revision: expected(&gateway, &client, &id, &headers).await?,
        actor: Some(client.actor()),
    };
    let deleted = gateway.parts.users.clone().delete_user(request).await?.into_inner();
    gateway.parts.settled_deletion(&client.organisation.id, &id, deleted.revision).await;
    Ok(StatusCode::NO_CONTENT)
}

/// The revision that a write asks for; 0 where any will do.
async fn expected(
    gateway: &Gateway,
    client: &Client,
    id: &str,
    headers: &HeaderMap,
) -> Result<i64, Failure> {
    version::expected(headers, async || Ok(read(gateway, client, id.to_owned()).await?.revision))
        .await
}

async fn read(gateway: &Gateway, client: &Client, id: String) -> Result<User, Failure> {
    let user = gateway.parts.user.get(&client.organisation.id, &id).await?;
    user.ok_or_else(|| Failure::not_found("user"))
}

/// Answers a write, once those who follow have taken it.
async fn written(
    gateway: &Gateway,
    projection: &Projection,
    status: StatusCode,
    user: User,
) -> Result<Response, Failure> {
    let beside = beside(&user);
    let in_force = async {
        match gateway.parts.settled(&user).await {
            Some(approvers) => Ok(approvers),
            None => shown_approvers(gateway, projection, &user).await,
        }
    };
    let is_new = user.revision == 1 && status == StatusCode::CREATED;
    let (groups, in_force) = around(gateway, projection, &user, in_force, !is_new).await?;
    let resource = resource_of(gateway, projection, user, groups, in_force);
    Ok(beside.answer(gateway, status, &resource))
}

fn beside(user: &User) -> Beside {
    let name = user.user_name().to_owned();
    Beside { resource_type: &USER_TYPE, id: user.id.clone(), revision: user.revision, name }
}

/// A user as they are now.
async fn render_read(
    gateway: &Gateway,
    projection: &Projection,
    user: User,
) -> Result<Resource, Failure> {
    let in_force = shown_approvers(gateway, projection, &user);
    let (groups, in_force) = around(gateway, projection, &user, in_force, true).await?;
    Ok(resource_of(gateway, projection, user, groups, in_force))
}

/// The groups of a user, where they may be in any, and their approvers, both waited for at once.
async fn around(
    gateway: &Gateway,
    projection: &Projection,
    user: &User,
    in_force: impl Future<Output = Result<Vec<Approver>, Status>>,
    may_be_member: bool,
) -> Result<(Vec<Membership>, Vec<Approver>), Status> {
    let groups = async {
        if may_be_member && projection.wants("groups") {
            gateway.parts.memberships_of.get(&user.organisation_id, &user.id).await
        } else {
            Ok(None)
        }
    };
    let (groups, in_force) = tokio::try_join!(groups, in_force)?;
    Ok((groups.unwrap_or_default(), in_force))
}

/// The users of a page, each service asked once.
async fn render(
    gateway: &Gateway,
    projection: &Projection,
    users: Vec<User>,
) -> Result<Vec<Resource>, Failure> {
    let groups = async {
        if projection.wants("groups") {
            groups_of(gateway, &users).await
        } else {
            Ok(HashMap::new())
        }
    };
    let in_force = async {
        if wants_approvers(projection) {
            approvers_of(gateway, &users).await
        } else {
            Ok(HashMap::new())
        }
    };
    let (mut groups, mut in_force) = tokio::try_join!(groups, in_force)?;
    let resource = |user: User| {
        let groups = groups.remove(&user.id).unwrap_or_default();
        let approvers = in_force.remove(&user.id).unwrap_or_default();
        resource_of(gateway, projection, user, groups, approvers)
    };
    Ok(users.into_iter().map(resource).collect())
}

/// A user as a GET without parameters answers, whose groups and approvers are these.
pub(crate) fn representation(
    gateway: &Gateway,
    user: User,
    groups: Vec<Membership>,
    approvers: Vec<Approver>,
) -> Value {
    let scim_url = gateway.scim_url.clone();
    Value::Object(ShownUser { user, groups, approvers, scim_url }.document())
}

fn resource_of(
    gateway: &Gateway,
    projection: &Projection,
    user: User,
    groups: Vec<Membership>,
    approvers: Vec<Approver>,
) -> Resource {
    let scim_url = gateway.scim_url.clone();
    let user = ShownUser { user, groups, approvers, scim_url };
    if projection.is_default() {
        return Resource::User(Box::new(user));
    }
    let mut document = user.document();
    projection.apply(&mut document);
    Resource::Part { document, members: None }
}

fn wants_approvers(projection: &Projection) -> bool {
    projection.wants(&format!("{}:approvers", MUSTER_USER.id))
}

/// The memberships of users, by user; the service is asked once.
pub(crate) async fn groups_of(
    gateway: &Gateway,
    users: &[User],
) -> Result<HashMap<String, Vec<Membership>>, Status> {
    let Some(first) = users.first() else { return Ok(HashMap::new()) };
    let ids = users.iter().map(|user| user.id.clone()).collect();
    gateway.parts.memberships_of.get_all(first.organisation_id.clone(), ids).await
}

/// The approvers of a user in force, where the answer has them.
async fn shown_approvers(
    gateway: &Gateway,
    projection: &Projection,
    user: &User,
) -> Result<Vec<Approver>, Status> {
    if wants_approvers(projection) {
        approvers_in_force(gateway, user).await
    } else {
        Ok(Vec::new())
    }
}

/// What has become of the declared approvers of a user. Where there are none, the service is not
/// asked.
async fn approvers_in_force(gateway: &Gateway, user: &User) -> Result<Vec<Approver>, Status> {
    if user.declared_approvers.is_empty() {
        return Ok(Vec::new());
    }
    let approvers = gateway.parts.approvers_of.get(&user.organisation_id, &user.id).await?;
    Ok(approvers.unwrap_or_default())
}

/// What has become of the declared approvers of users, by user. Where nobody declares any, the
/// service is not asked.
pub(crate) async fn approvers_of(
    gateway: &Gateway,
    users: &[User],
) -> Result<HashMap<String, Vec<Approver>>, Status> {
    let declaring = || users.iter().filter(|user| !user.declared_approvers.is_empty());
    let Some(first) = declaring().next() else { return Ok(HashMap::new()) };
    let ids = declaring().map(|user| user.id.clone()).collect();
    gateway.parts.approvers_of.get_all(first.organisation_id.clone(), ids).await
}
