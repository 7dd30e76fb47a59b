//! `/Bulk` (RFC 7644 §3.7): each operation goes the way that it would go alone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::extract::State;
use axum::response::Response;
use http::{HeaderMap, Method, StatusCode, header};
use muster_runtime::http_server::read_body;
use muster_scim::bulk::{self, Operation};
use muster_scim::{Error, ScimType};
use serde_json::{Value, json as value};
use tower::ServiceExt as _;

use super::json;
use crate::auth::Client;
use crate::failure::Failure;
use crate::provisioning_log::{Call, Log};
use crate::{Gateway, Limits};

pub(super) async fn bulk(
    client: Client,
    State(gateway): State<Gateway>,
    request: Request,
) -> Result<Response, Failure> {
    let call = request.extensions().get::<Call>().cloned();
    let limits = Limits { body_bytes: gateway.limits.bulk_bytes, ..gateway.limits };
    let body = super::body(request, limits).await?;
    let request = bulk::parse(body, gateway.limits.bulk_operations)?;
    let mut run = Run {
        router: super::routes().with_state(gateway.clone()),
        client,
        call,
        log: gateway.log.clone(),
        limits: gateway.limits,
        scim_url: gateway.scim_url.clone(),
        ids: BTreeMap::new(),
        answers: vec![None; request.operations.len()],
        postponed: Vec::new(),
        errors: 0,
    };
    let most = request.fail_on_errors.unwrap_or(usize::MAX);
    run.all(request.operations, most).await;
    let answers: Vec<Value> = run.answers.into_iter().flatten().collect();
    Ok(json(StatusCode::OK, &value!({"schemas": [bulk::RESPONSE], "Operations": answers})))
}

/// An operation that has not been tried.
struct Waiting {
    /// Its place in the request.
    index: usize,
    /// The `bulkId`s that it refers to.
    references: BTreeSet<String>,
    operation: Operation,
}

/// A bulk request under way.
struct Run {
    router: Router,
    client: Client,
    /// The bulk request, whose operations have entries of their own in the log.
    call: Option<Call>,
    log: Log,
    limits: Limits,
    scim_url: Arc<str>,
    /// What has been created so far, by `bulkId`.
    ids: BTreeMap<String, String>,
    /// In the order of the operations; none where one was not tried.
    answers: Vec<Option<Value>>,
    /// Managers to put in once they are there: the operation, whose (by `bulkId`), and the PATCH.
    postponed: Vec<(usize, String, Value)>,
    errors: usize,
}

impl Run {
    /// Runs the operations in their order, but for those that must wait for what they refer to,
    /// until there have been as many errors as end it.
    async fn all(&mut self, operations: Vec<Operation>, most_errors: usize) {
        let mut to_come: BTreeSet<String> =
            operations.iter().filter_map(|operation| operation.bulk_id.clone()).collect();
        let mut waiting: Vec<Waiting> = operations
            .into_iter()
            .enumerate()
            .map(|(index, operation)| Waiting {
                index,
                references: operation.references(),
                operation,
            })
            .collect();
        while self.errors < most_errors && !waiting.is_empty() {
            // What refers to itself, or in a circle, is never ready.
            let ready = waiting.iter().position(|one| one.references.is_disjoint(&to_come));
            if ready.is_none() && self.break_circle(&mut waiting) {
                continue;
            }
            let Waiting { index, operation, .. } = waiting.remove(ready.unwrap_or(0));
            if let Some(bulk_id) = &operation.bulk_id {
                to_come.remove(bulk_id);
            }
            self.one(index, operation).await;
        }
        for (index, bulk_id, mut patch) in std::mem::take(&mut self.postponed) {
            let Some(id) = self.ids.get(&bulk_id).cloned() else { continue };
            bulk::replace_in(&mut patch, &mut |reference| self.ids.get(reference).cloned());
            let operation = Operation {
                method: "PATCH",
                path: format!("/Users/{id}"),
                bulk_id: None,
                version: None,
                data: Some(patch),
            };
            let (status, headers, body) = self.call(operation).await;
            let Some(answer) = &mut self.answers[index] else { continue };
            if let Some(tag) = text(&headers, header::ETAG) {
                answer["version"] = tag.into();
            }
            if !status.is_success() {
                self.errors += 1;
                answer["status"] = status.as_u16().to_string().into();
                answer["response"] = body;
            }
        }
    }

    /// Lets one user of a circle be created without their manager, who is put in later. False
    /// where none can.
    fn break_circle(&mut self, waiting: &mut [Waiting]) -> bool {
        for one in waiting {
            if let Some(bulk_id) = one.operation.bulk_id.clone()
                && let Some(patch) = one.operation.postpone_manager()
            {
                self.postponed.push((one.index, bulk_id, patch));
                one.references.clear();
                return true;
            }
        }
        false
    }

    async fn one(&mut self, index: usize, mut operation: Operation) {
        let (method, bulk_id) = (operation.method, operation.bulk_id.clone());
        operation.resolve(&self.ids);
        let unresolved: Vec<String> = operation.references().into_iter().collect();
        let location = (method != "POST" && unresolved.is_empty())
            .then(|| format!("{}{}", self.scim_url, operation.path));
        let (status, headers, body) = if unresolved.is_empty() {
            self.call(operation).await
        } else {
            let what = format!(
                "the operation refers to bulkId {}, which nothing has created: it failed, is not \
                 there, or waits for this one in a circle",
                unresolved.join(", ")
            );
            let error = Error::of(ScimType::InvalidValue, what);
            (StatusCode::BAD_REQUEST, HeaderMap::new(), error.to_json())
        };
        let mut answer = value!({"method": method, "status": status.as_u16().to_string()});
        if let Some(bulk_id) = &bulk_id {
            answer["bulkId"] = bulk_id.as_str().into();
        }
        if let Some(location) = text(&headers, header::LOCATION).or(location) {
            answer["location"] = location.into();
        }
        if let Some(tag) = text(&headers, header::ETAG) {
            answer["version"] = tag.into();
        }
        if status.is_success() {
            if let (Some(bulk_id), Some(id)) = (bulk_id, body["id"].as_str()) {
                self.ids.insert(bulk_id, id.to_owned());
            }
        } else {
            self.errors += 1;
            answer["response"] = body;
        }
        self.answers[index] = Some(answer);
    }

    /// The operation as a request of its own, by the same client.
    async fn call(&self, operation: Operation) -> (StatusCode, HeaderMap, Value) {
        let method = Method::from_bytes(operation.method.as_bytes()).unwrap_or_default();
        let call = Call::operation(&method, &operation.path, self.call.as_ref());
        let mut request = http::Request::builder()
            .method(method)
            .uri(operation.path)
            .header(header::CONTENT_TYPE, "application/scim+json");
        if let Some(version) = operation.version {
            request = request.header(header::IF_MATCH, version);
        }
        let body = operation.data.map_or_else(Body::empty, |data| Body::from(data.to_string()));
        let Ok(mut request) = request.body(body) else {
            let what = "the operation has a path or version that no request can have";
            let error = Error::of(ScimType::InvalidValue, what);
            return (StatusCode::BAD_REQUEST, HeaderMap::new(), error.to_json());
        };
        // Authenticated already: not again for each operation.
        request.extensions_mut().insert(self.client.clone());
        request.extensions_mut().insert(call.clone());
        let response = match self.router.clone().oneshot(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        };
        self.log.answered(&call, &response);
        let (parts, body) = response.into_parts();
        let body = read_body(body, usize::MAX / 2, self.limits.request_time).await;
        let body = body.ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        (parts.status, parts.headers, body.unwrap_or_default())
    }
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}
