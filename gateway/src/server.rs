//! What is around every request: a trace, a deadline; and what operators ask.

use std::time::Duration;

use axum::Router;
use axum::body::{Body, HttpBody as _};
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Redirect, Response};
use axum::routing::get;
use http::{StatusCode, header};
use muster_runtime::http_server::Kept;
use muster_runtime::life::Life;
use muster_runtime::transport::Transport;
use muster_runtime::{deadline, telemetry};
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tracing::{Instrument as _, field, info_span};

use crate::failure::Failure;
use crate::provisioning_log::Call;
use crate::{Gateway, console};

pub(crate) fn routes() -> Router<Gateway> {
    Router::new()
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/", get(async || Redirect::to(console::HOME)))
}

/// Ready means that identity is. The others may be away: reads say so, route by route.
pub(crate) fn needs_identity(life: &Life, identity: &Transport) {
    let health = HealthClient::new(identity.clone());
    life.needs("identity", move || {
        let mut health = health.clone();
        async move {
            match health.check(HealthCheckRequest::default()).await {
                Ok(answer) => answer.into_inner().status() == ServingStatus::Serving,
                // In one process, whose life has identity's needs as well.
                Err(status) => status.code() == Code::Unimplemented,
            }
        }
    });
}

async fn ready(State(gateway): State<Gateway>) -> Response {
    match gateway.life.readiness().await {
        Ok(()) => "ok\n".into_response(),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response(),
    }
}

/// How much of a body that no handler wanted is read for the sake of the connection, and how long.
const LEFT_OVER: (usize, Duration) = (1024 * 1024, Duration::from_secs(2));

/// Goes with the answer to a request that was not applied as a whole.
#[derive(Debug, Clone)]
pub(crate) struct AppliedInPart {
    /// The members asked for who are no users, and were left out.
    pub unknown_member_ids: Vec<String>,
}

/// Gives each request a trace of its own and a deadline, and notes how it ended. The route is
/// recorded, never the path or the query: they hold names and addresses.
pub(crate) async fn observe(
    State(gateway): State<Gateway>,
    request: Request,
    next: Next,
) -> Response {
    let route = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    let measured = gateway.requests.begin(request.method(), route);
    let span = info_span!(
        "http",
        otel.name = format!("{} {}", request.method(), route.unwrap_or_default()).trim_end(),
        otel.kind = "server",
        otel.status_code = field::Empty,
        http.request.method = %request.method(),
        http.route = route,
        http.response.status_code = field::Empty,
        error.type = field::Empty,
        muster.members.unknown = field::Empty,
    );
    if gateway.trusts_traceparent {
        telemetry::continue_trace(&span, request.headers());
    } else {
        // A client outside cannot choose our trace ids; its own trace is linked.
        telemetry::link_trace(&span, request.headers());
    }
    let limit = gateway.limits.request_time;
    // Who waits to be told to send the body is answered before.
    let waits = request.headers().contains_key(header::EXPECT);
    let (mut head, body) = request.into_parts();
    let call = Call::begin(&head);
    if let Some(call) = call.clone() {
        head.extensions.insert(call);
    }
    let body = Kept::new(body);
    let request = Request::from_parts(head, Body::new(body.clone()));
    let answer = async {
        let answer = deadline::within(limit, next.run(request));
        tokio::time::timeout(limit, answer).await.unwrap_or_else(|_| {
            Failure::new(StatusCode::SERVICE_UNAVAILABLE, "the request took longer than it may")
                .into_response()
        })
    };
    let response = answer.instrument(span.clone()).await;
    if let Some(call) = call {
        span.in_scope(|| gateway.log.answered(&call, &response));
    }
    if !waits && !body.is_end_stream() {
        body.drain(LEFT_OVER.0, LEFT_OVER.1).await;
    }
    let status = response.status();
    span.record("http.response.status_code", status.as_u16());
    if status.is_server_error() {
        span.record("error.type", status.as_str());
        span.record("otel.status_code", "error");
    }
    measured.answered(status);
    if let Some(AppliedInPart { unknown_member_ids }) = response.extensions().get() {
        let count = unknown_member_ids.len();
        span.record("muster.members.unknown", count);
        // Not who: what a client sends as an id may be a name or an address.
        span.in_scope(|| {
            tracing::info!(count, "applied in part: members who are no users were left out");
        });
    }
    response
}
