//! `/ServiceProviderConfig`, `/ResourceTypes` and `/Schemas` (RFC 7644 §4).

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, RawQuery, State};
use axum::response::Response;
use http::StatusCode;
use muster_runtime::feed::PAGE_TOKEN_LIFETIME;
use muster_scim::discovery;
use muster_scim::list::ListResponse;
use serde_json::Value;

use super::{DEFAULT_RESULTS, id, json};
use crate::Gateway;
use crate::auth::Client;
use crate::failure::Failure;

pub(super) async fn service_provider_config(
    _: Client,
    State(gateway): State<Gateway>,
    query: RawQuery,
) -> Result<Response, Failure> {
    refuse_filter(query)?;
    let support = discovery::Support {
        max_results: gateway.limits.max_results,
        default_results: DEFAULT_RESULTS,
        bulk_operations: gateway.limits.bulk_operations,
        bulk_bytes: gateway.limits.bulk_bytes,
        cursor_seconds: PAGE_TOKEN_LIFETIME.whole_seconds(),
    };
    Ok(json(StatusCode::OK, &discovery::service_provider_config(&gateway.scim_url, support)))
}

pub(super) async fn resource_types(
    _: Client,
    State(gateway): State<Gateway>,
    query: RawQuery,
) -> Result<Response, Failure> {
    refuse_filter(query)?;
    Ok(all(discovery::resource_types(&gateway.scim_url)))
}

pub(super) async fn resource_type(
    _: Client,
    State(gateway): State<Gateway>,
    path: Result<Path<String>, PathRejection>,
    query: RawQuery,
) -> Result<Response, Failure> {
    refuse_filter(query)?;
    one(discovery::resource_types(&gateway.scim_url), &id(path, "resource type")?, "resource type")
}

pub(super) async fn schemas(
    _: Client,
    State(gateway): State<Gateway>,
    query: RawQuery,
) -> Result<Response, Failure> {
    refuse_filter(query)?;
    Ok(all(discovery::schemas(&gateway.scim_url)))
}

pub(super) async fn schema(
    _: Client,
    State(gateway): State<Gateway>,
    path: Result<Path<String>, PathRejection>,
    query: RawQuery,
) -> Result<Response, Failure> {
    refuse_filter(query)?;
    one(discovery::schemas(&gateway.scim_url), &id(path, "schema")?, "schema")
}

/// A filter on what describes the service is forbidden (RFC 7644 §4), so that nobody takes a part
/// of it for the whole.
fn refuse_filter(RawQuery(query): RawQuery) -> Result<(), Failure> {
    if super::parameters(query.as_deref().unwrap_or_default())?.contains_key("filter") {
        return Err(Failure::new(
            StatusCode::FORBIDDEN,
            "a filter is not possible here; read the whole",
        ));
    }
    Ok(())
}

fn all(resources: Vec<Value>) -> Response {
    json(StatusCode::OK, &ListResponse::by_index(resources.len() as u64, 1, resources))
}

fn one(resources: Vec<Value>, id: &str, what: &str) -> Result<Response, Failure> {
    let mut resources = resources.into_iter();
    let found = resources.find(|r| r["id"].as_str().is_some_and(|i| i.eq_ignore_ascii_case(id)));
    Ok(json(StatusCode::OK, &found.ok_or_else(|| Failure::not_found(what))?))
}
