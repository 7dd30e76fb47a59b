//! What every gRPC server does around its services: deadlines, traces, health, reflection.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::OnceLock;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use opentelemetry::metrics::Histogram;
use tokio::net::TcpListener;
use tonic::body::Body;
use tonic::service::Routes;
use tonic::transport::server::TcpIncoming;
use tonic::{Code, Status};
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;
use tower::Service;
use tracing::Instrument as _;

use crate::caller::{Guarded, Policy};
use crate::life::Life;
use crate::tls::Tls;
use crate::{deadline, metrics, telemetry};

mod call;
mod connection;

pub(crate) use call::Call;

/// How long a call may take that sets no deadline of its own.
const DEFAULT_DEADLINE: Duration = Duration::from_secs(10);

/// How often the services' health is looked at.
const HEALTH: Duration = Duration::from_secs(2);

/// The largest message a part takes from another, unless it is told otherwise: a page of groups with
/// 200,000 members.
pub const MAX_MESSAGE_BYTES: usize = 32 * 1024 * 1024;

static MAX_MESSAGE: OnceLock<usize> = OnceLock::new();

/// Sets the largest message that this process takes; before it makes servers and clients.
pub fn limit_messages(bytes: usize) {
    MAX_MESSAGE.get_or_init(|| bytes);
}

/// The largest message that this process takes, in bytes.
#[must_use]
pub fn max_message_bytes() -> usize {
    MAX_MESSAGE.get().copied().unwrap_or(MAX_MESSAGE_BYTES)
}

/// Services, served: each call within its deadline and in its caller's trace.
#[derive(Debug, Clone)]
pub struct Served {
    routes: Routes,
    duration: Histogram<f64>,
}

impl Served {
    /// Serves `routes`.
    #[must_use]
    pub fn new(routes: Routes) -> Self {
        Self { routes: routes.prepare(), duration: metrics::RPC_SERVER_DURATION.histogram() }
    }

    /// Answers a call, of this process or another. One of this process is in its caller's trace and
    /// deadline already.
    pub(crate) fn answer(
        mut self,
        request: http::Request<Body>,
    ) -> impl Future<Output = http::Response<Body>> + Send {
        let limit = request
            .headers()
            .get("grpc-timeout")
            .and_then(|value| deadline::from_header(value.to_str().ok()?))
            .or_else(deadline::remaining)
            .unwrap_or(DEFAULT_DEADLINE);
        let call = Call::begin("server", request.uri().path(), self.duration);
        telemetry::continue_trace(&call.span, request.headers());
        let span = call.span.clone();
        let answered = async move {
            let answer = deadline::within(limit, Service::call(&mut self.routes, request));
            let answer = match tokio::time::timeout(limit, answer).await {
                Ok(answer) => answer.unwrap_or_else(|never| match never {}),
                Err(_) => Status::deadline_exceeded("the call took longer than it may").into_http(),
            };
            call.ended(Ok(answer.headers()));
            answer
        };
        answered.instrument(span)
    }
}

impl Service<http::Request<Body>> for Served {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(self.clone().answer(request).map(Ok))
    }
}

/// Whether a call failed because who should answer it is away, or too slow: it may work later.
#[must_use]
pub fn is_away(code: Code) -> bool {
    // No service says UNKNOWN: that is a connection that was lost during the call.
    matches!(code, Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown)
}

/// Cuts a page that was read with one item more than its size; the last that stays, where there are
/// more.
pub fn cut_page<T>(page: &mut Vec<T>, size: i64) -> Option<&T> {
    let size = usize::try_from(size).unwrap_or(usize::MAX);
    let more = page.len() > size;
    page.truncate(size);
    page.last().filter(|_| more)
}

/// The two parts of a gRPC path, `/muster.identity.v1.UserService/GetUser`.
pub(crate) fn service_and_method(path: &str) -> (&str, &str) {
    path.trim_start_matches('/').split_once('/').unwrap_or((path, ""))
}

/// Adds what every gRPC address offers beside its services: health of each named service and
/// reflection of `descriptors`.
pub async fn with_health_and_reflection(
    routes: Routes,
    services: &[&'static str],
    descriptors: &'static [u8],
    life: &Life,
) -> Result<Routes, tonic_reflection::server::Error> {
    let (reporter, health) = tonic_health::server::health_reporter();
    let services: Vec<&'static str> = services.iter().copied().chain([""]).collect();
    report(&reporter, &services, life).await;
    let reporting = life.clone();
    life.spawn(async move {
        while !reporting.is_leaving() {
            tokio::select! {
                () = tokio::time::sleep(HEALTH) => {}
                () = reporting.left() => {}
            }
            report(&reporter, &services, &reporting).await;
        }
    });
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(descriptors)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()?;
    Ok(routes.add_service(health).add_service(reflection))
}

/// Tells whether the process is ready, as each of its services.
async fn report(reporter: &HealthReporter, services: &[&'static str], life: &Life) {
    let status = match life.readiness().await {
        Ok(()) => ServingStatus::Serving,
        Err(_) => ServingStatus::NotServing,
    };
    for service in services {
        reporter.set_service_status(service, status).await;
    }
}

/// Binds an address for plain text, which only this machine may reach: gRPC callers are not
/// authenticated there.
pub async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    plain_text_at(address)?;
    TcpListener::bind(address).await
}

/// Refuses an address that other machines reach, where gRPC would be plain text.
pub fn plain_text_at(address: SocketAddr) -> std::io::Result<()> {
    if address.ip().is_loopback() {
        return Ok(());
    }
    Err(std::io::Error::new(
        std::io::ErrorKind::InvalidInput,
        format!(
            "{address} is reachable from other machines, and gRPC is plain text: use a loopback \
             address, or certificates"
        ),
    ))
}

/// Serves in plain text until the life ends, then lets calls under way finish.
pub async fn serve(
    listener: TcpListener,
    routes: Routes,
    life: Life,
) -> Result<(), tonic::transport::Error> {
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    server()
        .serve_with_incoming_shutdown(Served::new(routes), incoming, async move {
            life.stopped().await;
        })
        .await
}

/// Serves whom the policy lets, over mutual TLS, until the life ends, then lets calls under way
/// finish.
pub async fn serve_mutual(
    listener: TcpListener,
    routes: Routes,
    tls: Tls,
    policy: Policy,
    life: Life,
) -> Result<(), tonic::transport::Error> {
    let guarded = Guarded::new(Served::new(routes), policy);
    let incoming = connection::incoming(listener, tls);
    server()
        .serve_with_incoming_shutdown(guarded, incoming, async move {
            life.stopped().await;
        })
        .await
}

fn server() -> tonic::transport::Server {
    tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(Duration::from_secs(30)))
        .max_concurrent_streams(1_000)
        .http2_max_header_list_size(16 * 1024)
}

/// The status for a failure of the database: what went wrong goes to the log, by code and
/// constraint only, since Postgres' messages quote values.
#[must_use]
pub fn database_status(error: &sqlx::Error) -> Status {
    let code = error.as_database_error().and_then(|e| e.code().map(std::borrow::Cow::into_owned));
    let constraint = error.as_database_error().and_then(|e| e.constraint().map(str::to_owned));
    let (status, what) = match (error, code.as_deref()) {
        (sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed | sqlx::Error::Io(_), _)
        | (_, Some("57P01" | "57P02" | "57P03" | "53300" | "53100")) => {
            (Status::unavailable("the database is not available; try again"), "unavailable")
        }
        (_, Some("40001" | "40P01" | "55P03")) => {
            (Status::unavailable("the database was busy with the same rows; try again"), "busy")
        }
        (_, Some("57014")) => {
            (Status::deadline_exceeded("the database took longer than it may"), "slow")
        }
        // A value that no column takes, such as text with a NUL in it.
        (_, Some(code)) if code.starts_with("22") => (
            Status::invalid_argument(
                "a value is none that can be kept or compared; is there a NUL?",
            ),
            "refused",
        ),
        _ => (Status::internal("an error of the service; its log has the details"), "failed"),
    };
    let kind = match error {
        sqlx::Error::Database(_) => "database",
        sqlx::Error::Io(_) => "io",
        sqlx::Error::PoolTimedOut => "pool timed out",
        sqlx::Error::PoolClosed => "pool closed",
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => "decode",
        sqlx::Error::ColumnNotFound(_) => "column not found",
        sqlx::Error::RowNotFound => "row not found",
        sqlx::Error::Protocol(_) => "protocol",
        _ => "other",
    };
    tracing::error!(what, kind, code, constraint, "a database call failed");
    status
}
