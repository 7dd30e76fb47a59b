//! What an orchestrator asks of a process, at an address of its own, since gRPC is for callers with
//! certificates only.

use std::convert::Infallible;
use std::io;

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use tokio::net::TcpListener;

use crate::http_server::{self, Limits};
use crate::life::Life;

/// Answers `/livez` and `/readyz` until the process ends, also while it shuts down.
///
/// A process is alive when it answers: never by its database, whose failure would restart all. It
/// is ready by [`Life::readiness`].
pub async fn serve(listener: TcpListener, life: Life) -> io::Result<()> {
    let service = tower::service_fn(move |request: http::Request<Incoming>| {
        let life = life.clone();
        async move { Ok::<_, Infallible>(answer(request.uri().path(), &life).await) }
    });
    let limits = Limits { connections: 64, ..Limits::default() };
    http_server::serve(listener, service, limits, Life::new()).await
}

async fn answer(path: &str, life: &Life) -> Response<Full<Bytes>> {
    let (status, text) = match path {
        "/livez" => (StatusCode::OK, "ok\n".to_owned()),
        "/readyz" => match life.readiness().await {
            Ok(()) => (StatusCode::OK, "ok\n".to_owned()),
            Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
        },
        _ => (StatusCode::NOT_FOUND, "there is /livez and /readyz\n".to_owned()),
    };
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = status;
    response
}
