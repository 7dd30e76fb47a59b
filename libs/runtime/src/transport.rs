//! One transport for every composition: the same generated client calls the same generated server
//! whether that runs in this process (no HTTP/2 between) or in another.

use std::task::{Context, Poll};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::HeaderValue;
use opentelemetry::metrics::Histogram;
use tonic::Status;
use tonic::body::Body;
use tonic::service::Routes;
use tower::util::BoxCloneSyncService;
use tower::{BoxError, Service};
use tracing::Instrument as _;

use crate::grpc::Call;
use crate::tls::Tls;
use crate::{deadline, grpc, metrics, telemetry};

mod replicas;

pub use replicas::InvalidAddress;
use replicas::Replicas;

/// What a generated client calls through: `UserServiceClient<Transport>`.
///
/// It sends the current deadline and trace context along, and gives up at the deadline.
#[derive(Debug, Clone)]
pub struct Transport(Way);

/// Where the services are.
#[derive(Debug, Clone)]
enum Way {
    /// In this process: a call is made and answered in one, with one span.
    Here(grpc::Served),
    There {
        service: BoxCloneSyncService<http::Request<Body>, http::Response<Body>, BoxError>,
        duration: Histogram<f64>,
    },
}

impl Transport {
    /// Calls a service at `url` in plain text: any of its replicas, where the name in `url` has
    /// several addresses, or several URLs stand there with commas between them. Connections are
    /// made with the first call, and again after they are lost.
    pub fn connect(url: &str) -> Result<Self, InvalidAddress> {
        Ok(Self::over(Replicas::new(url, None)?))
    }

    /// The same over mutual TLS: the other end's certificate must be for the host of its URL.
    pub fn connect_mutual(url: &str, tls: Tls) -> Result<Self, InvalidAddress> {
        Ok(Self::over(Replicas::new(url, Some(tls))?))
    }

    /// Calls services of this process.
    #[must_use]
    pub fn in_process(routes: Routes) -> Self {
        Self(Way::Here(grpc::Served::new(routes)))
    }

    fn over<S>(service: S) -> Self
    where
        S: Service<http::Request<Body>, Response = http::Response<Body>, Error = BoxError>
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send,
    {
        let duration = metrics::RPC_CLIENT_DURATION.histogram();
        Self(Way::There { service: BoxCloneSyncService::new(service), duration })
    }
}

impl Service<http::Request<Body>> for Transport {
    type Response = http::Response<Body>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        match &mut self.0 {
            Way::Here(_) => Poll::Ready(Ok(())),
            Way::There { service, .. } => service.poll_ready(context),
        }
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        let (service, duration) = match &mut self.0 {
            Way::Here(served) => return Box::pin(served.clone().answer(request).map(Ok)),
            Way::There { service, duration } => (service, duration.clone()),
        };
        let call = Call::begin("client", request.uri().path(), duration);
        call.span.in_scope(|| telemetry::inject(request.headers_mut()));
        let limit = deadline::remaining();
        if let Some(limit) = limit
            && let Ok(value) = HeaderValue::from_str(&deadline::to_header(limit))
        {
            request.headers_mut().insert("grpc-timeout", value);
        }
        // The service that was polled ready is the one to call.
        let ready = service.clone();
        let mut service = std::mem::replace(service, ready);
        let span = call.span.clone();
        let answered = async move {
            let answer = service.call(request);
            let answer = match limit {
                Some(limit) => tokio::time::timeout(limit, answer).await.unwrap_or_else(|_| {
                    Err(Status::deadline_exceeded("the call took longer than it may").into())
                }),
                None => answer.await,
            };
            call.ended(answer.as_ref().map(http::Response::headers));
            answer
        };
        Box::pin(answered.instrument(span))
    }
}
