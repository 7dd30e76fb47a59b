//! The accept loop in front of axum: header and body time limits, a connection limit, graceful
//! shutdown. `axum::serve` sets no timer, so a client that sends a header slowly could hold a
//! connection for ever.

use std::convert::Infallible;
use std::io;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::FutureExt as _;
use http::{HeaderValue, Version, header};
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tower::{BoxError, Service, ServiceExt as _};

use crate::life::Life;

/// Limits of the connections, not of the requests.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// How long a client may take to send a request's header.
    pub header_time: Duration,
    /// The most bytes of a request's header.
    pub header_bytes: usize,
    /// The most connections at once; more wait to be accepted.
    pub connections: usize,
    /// How long requests under way may go on after shutdown began.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            header_time: Duration::from_secs(10),
            header_bytes: 64 * 1024,
            connections: 4_096,
            drain: Duration::from_secs(20),
        }
    }
}

/// How long idle connections are kept when the process ends: long enough for a client on a busy
/// machine to send what it had begun, and be told to close.
const LINGER: Duration = Duration::from_secs(1);

/// Serves HTTP/1.1 and HTTP/2 until the life ends, then lets requests under way finish.
#[expect(clippy::missing_panics_doc, reason = "the semaphore is never closed")]
pub async fn serve<S, B>(
    listener: TcpListener,
    service: S,
    limits: Limits,
    life: Life,
) -> io::Result<()>
where
    S: Service<http::Request<Incoming>, Response = http::Response<B>, Error = Infallible>
        + Clone
        + Send
        + Sync
        + 'static,
    S::Future: Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_time)
        .max_buf_size(limits.header_bytes)
        .max_headers(100);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(100)
        .max_header_list_size(16 * 1024)
        .keep_alive_interval(Some(Duration::from_secs(30)));
    let places = Arc::new(Semaphore::new(limits.connections));
    let graceful = GracefulShutdown::new();
    loop {
        let place = tokio::select! {
            place = places.clone().acquire_owned() => place.expect("the semaphore is never closed"),
            () = life.stopped() => break,
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            // Whoever the system has let in already would be cut off with the listener.
            () = life.stopped() => match listener.accept().now_or_never() {
                Some(accepted) => accepted,
                None => break,
            },
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            // Out of file descriptors, or a client that has gone already: the listener lives.
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        drop(stream.set_nodelay(true));
        let begun = Arc::new(AtomicBool::new(false));
        let begins = begun.clone();
        let (service, leaving) = (service.clone(), life.clone());
        let service = service_fn(move |mut request: http::Request<Incoming>| {
            begins.store(true, Ordering::Relaxed);
            request.extensions_mut().insert(Peer(peer.ip()));
            let is_http1 = request.version() < Version::HTTP_2;
            let (answer, leaving) = (service.clone().oneshot(request), leaving.clone());
            async move {
                let mut answer = answer.await?;
                // So nobody sends the next request on a connection that is about to be closed.
                if is_http1 && leaving.is_leaving() {
                    let close = HeaderValue::from_static("close");
                    answer.headers_mut().insert(header::CONNECTION, close);
                }
                Ok::<_, Infallible>(answer)
            }
        });
        let connection = builder.serve_connection(TokioIo::new(stream), service).into_owned();
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            let mut connection = pin!(connection);
            // hyper's own timer begins with the first byte that tells HTTP/1 from HTTP/2.
            let ended = match tokio::time::timeout(limits.header_time, &mut connection).await {
                Ok(ended) => ended,
                Err(_) if begun.load(Ordering::Relaxed) => connection.await,
                Err(_) => Ok(()),
            };
            if let Err(error) = ended {
                tracing::debug!(error, "a connection ended badly");
            }
            drop(place);
        });
    }
    drop(listener);
    // A request may be on its way on a connection that looks idle.
    tokio::time::sleep(LINGER).await;
    if tokio::time::timeout(limits.drain, graceful.shutdown()).await.is_err() {
        tracing::warn!("connections were still open at the end of the drain, and were cut");
    }
    Ok(())
}

/// Goes with every request: the address at the other end of the connection, which may be a proxy's.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub IpAddr);

/// Why a body was not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyError {
    /// It is longer than allowed.
    TooLarge,
    /// It took longer to arrive than allowed.
    TooSlow,
    /// The client broke off, or its framing was wrong.
    Broken,
}

/// A request's body that can be read on when its handler has dropped it.
///
/// A request that is refused by its head (405, 401, 415) is answered before its body has arrived.
/// The connection could then not go on, and a client that sends its next request on it finds it
/// closed.
#[derive(Debug)]
pub struct Kept<B>(Arc<Mutex<B>>);

impl<B> Clone for Kept<B> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<B: Body<Data = Bytes> + Unpin> Kept<B> {
    /// Keeps a body.
    pub fn new(body: B) -> Self {
        Self(Arc::new(Mutex::new(body)))
    }

    /// Reads what the handler has left, but no more than `limit` bytes and for no longer than
    /// `time`: then the connection closes.
    pub async fn drain(mut self, limit: usize, time: Duration) {
        let read = async {
            let mut left = limit;
            while let Some(Ok(frame)) = self.frame().await {
                let Some(rest) = left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) else {
                    return;
                };
                left = rest;
            }
        };
        // Whether all of it came is no matter.
        drop(tokio::time::timeout(time, read).await);
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Kept<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let mut body = crate::lock(&self.0);
        Pin::new(&mut *body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        crate::lock(&self.0).is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        crate::lock(&self.0).size_hint()
    }
}

/// How much more than allowed is read and dropped, so that the client reads the refusal: a
/// connection that is closed on unread bytes is reset, and the answer lost with it.
const DRAINED: usize = 16 * 1024 * 1024;

/// Reads a whole body: at most `limit` bytes, whatever its length header says, within `time`.
pub async fn read_body<B>(body: B, limit: usize, time: Duration) -> Result<Bytes, BodyError>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let read = async {
        let mut body = std::pin::pin!(body);
        let mut bytes = BytesMut::new();
        let mut total = 0;
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| BodyError::Broken)?;
            let Ok(data) = frame.into_data() else { continue };
            total += data.len();
            if total <= limit {
                bytes.extend_from_slice(&data);
            } else if total > limit + DRAINED {
                return Err(BodyError::TooLarge);
            } else {
                bytes = BytesMut::new();
            }
        }
        if total > limit { Err(BodyError::TooLarge) } else { Ok(bytes.freeze()) }
    };
    tokio::time::timeout(time, read).await.unwrap_or(Err(BodyError::TooSlow))
}
