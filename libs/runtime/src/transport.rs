//! One transport for every composition: the same generated client calls the same generated server
//! whether that runs in this process (no HTTP/2 between) or in another.

use std::task::{Context, Poll};

use futures::future::BoxFuture;
use http::HeaderValue;
use tonic::Status;
use tonic::body::Body;
use tonic::service::Routes;
use tower::util::BoxCloneSyncService;
use tower::{BoxError, Service, ServiceExt as _};
use tracing::{Instrument as _, info_span};

use crate::tls::Tls;
use crate::{deadline, grpc, telemetry};

mod replicas;

pub use replicas::InvalidAddress;
use replicas::Replicas;

/// What a generated client calls through: `UserServiceClient<Transport>`.
///
/// It sends the current deadline and trace context along, and gives up at the deadline.
#[derive(Debug, Clone)]
pub struct Transport(BoxCloneSyncService<http::Request<Body>, http::Response<Body>, BoxError>);

impl Transport {
    /// Calls a service at `url` in plain text: any of its replicas, where the name in `url` has
    /// several addresses, or several URLs stand there with commas between them. Connections are
    /// made with the first call, and again after they are lost.
    pub fn connect(url: &str) -> Result<Self, InvalidAddress> {
        Ok(Self(BoxCloneSyncService::new(Replicas::new(url, None)?)))
    }

    /// The same over mutual TLS: the other end's certificate must be for the host of its URL.
    pub fn connect_mutual(url: &str, tls: Tls) -> Result<Self, InvalidAddress> {
        Ok(Self(BoxCloneSyncService::new(Replicas::new(url, Some(tls))?)))
    }

    /// Calls services of this process.
    #[must_use]
    pub fn in_process(routes: Routes) -> Self {
        Self(BoxCloneSyncService::new(grpc::Served::new(routes).map_err(|never| match never {})))
    }
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
