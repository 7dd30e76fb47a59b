//! One transport for every composition: the same generated client calls the same generated server
//! whether that runs in this process (no HTTP/2 between) or in another.

use std::task::{Context, Poll};

use futures::future::BoxFuture;
use http::HeaderValue;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tonic::Status;
use tonic::body::Body;
use tonic::service::Routes;
use tonic::transport::Endpoint;
use tower::util::BoxCloneSyncService;
use tower::{BoxError, Service, ServiceExt as _};
use tracing::{Instrument as _, info_span};

use crate::tls::Tls;
use crate::{deadline, grpc, telemetry};

/// What a generated client calls through: `UserServiceClient<Transport>`.
///
/// It sends the current deadline and trace context along, and gives up at the deadline.
#[derive(Debug, Clone)]
pub struct Transport(BoxCloneSyncService<http::Request<Body>, http::Response<Body>, BoxError>);

/// An address that cannot be called.
#[derive(Debug, thiserror::Error)]
#[error("{url:?} is no address of a gRPC service, such as http://127.0.0.1:50051: {source}")]
pub struct InvalidAddress {
    url: String,
    source: tonic::transport::Error,
}

impl Transport {
    /// Calls a process at `url` in plain text; the connection is made with the first call and again
    /// after it is lost.
    pub fn connect(url: &str) -> Result<Self, InvalidAddress> {
        let channel = endpoint(url)?.connect_lazy();
        Ok(Self(BoxCloneSyncService::new(channel.map_err(lost))))
    }

    /// The same over mutual TLS: the other end's certificate must be for the host of `url`.
    pub fn connect_mutual(url: &str, tls: Tls) -> Result<Self, InvalidAddress> {
        let connect = tower::service_fn(move |uri: http::Uri| {
            let tls = tls.clone();
            async move {
                let host = uri.host().unwrap_or_default();
                let port = uri.port_u16().unwrap_or(443);
                let stream = TcpStream::connect((host.trim_matches(['[', ']']), port)).await?;
                stream.set_nodelay(true)?;
                tls.connect(host, stream).await.map(TokioIo::new)
            }
        });
        let channel = endpoint(url)?.connect_with_connector_lazy(connect);
        Ok(Self(BoxCloneSyncService::new(channel.map_err(lost))))
    }

    /// Calls services of this process.
    #[must_use]
    pub fn in_process(routes: Routes) -> Self {
        Self(BoxCloneSyncService::new(grpc::Served::new(routes).map_err(|never| match never {})))
    }
}

/// What a caller gets whose connection could not be made, or was lost: tonic says `UNKNOWN` of some.
fn lost(error: tonic::transport::Error) -> BoxError {
    let mut reason: &dyn std::error::Error = &error;
    while let Some(source) = reason.source() {
        reason = source;
    }
    Status::unavailable(format!("the connection failed: {reason}")).into()
}

fn endpoint(url: &str) -> Result<Endpoint, InvalidAddress> {
    let endpoint = Endpoint::from_shared(url.to_owned())
        .map_err(|source| InvalidAddress { url: url.to_owned(), source })?;
    Ok(endpoint
        .connect_timeout(std::time::Duration::from_secs(5))
        .http2_keep_alive_interval(std::time::Duration::from_secs(30))
        .keep_alive_while_idle(true)
        .tcp_nodelay(true))
}

impl Service<http::Request<Body>> for Transport {
    type Response = http::Response<Body>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        let (service, method) = grpc::service_and_method(request.uri().path());
        let span = info_span!(
            "rpc",
            otel.name = format!("{service}/{method}"),
            otel.kind = "client",
            rpc.system = "grpc",
            rpc.service = service,
            rpc.method = method,
        );
        span.in_scope(|| telemetry::inject(request.headers_mut()));
        let limit = deadline::remaining();
        if let Some(limit) = limit
            && let Ok(value) = HeaderValue::from_str(&deadline::to_header(limit))
        {
            request.headers_mut().insert("grpc-timeout", value);
        }
        // The service that was polled ready is the one to call.
        let ready = self.0.clone();
        let mut service = std::mem::replace(&mut self.0, ready);
        let call = async move {
            let answer = service.call(request);
            match limit {
                Some(limit) => tokio::time::timeout(limit, answer).await.unwrap_or_else(|_| {
                    Err(Status::deadline_exceeded("the call took longer than it may").into())
                }),
                None => answer.await,
            }
        };
        Box::pin(call.instrument(span))
    }
}
