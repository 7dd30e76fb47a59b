//! The replicas of a service, called in turn.
//!
//! One HTTP/2 connection stays with one replica, however many there are. So the name is looked up
//! now and then, each address has a connection of its own, and calls go round. A call that no
//! replica got, because its connection could not be made or was closing, goes to the next one; so
//! does a read that was lost on the way. A write that was lost is not sent again: nobody knows
//! whether it was done.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::BoxFuture;
use http::Uri;
use http::uri::{PathAndQuery, Scheme};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpStream, lookup_host};
use tokio_util::either::Either;
use tonic::body::Body;
use tonic::transport::{Channel, Endpoint};
use tonic::{ConnectError, Status, TimeoutExpired};
use tower::{BoxError, Service, ServiceExt as _};

use crate::grpc::service_and_method;
use crate::tls::Tls;

/// How often names are looked up.
const LOOK_UP: Duration = Duration::from_secs(10);
/// For how long a replica that could not be reached is called only where there is no other.
const REST: Duration = Duration::from_secs(1);

/// What reads begin with, as the API Improvement Proposals name them and the contracts have it.
const READS: [&str; 8] =
    ["Get", "List", "Batch", "Search", "Summarise", "Watch", "Await", "Authenticate"];

/// An address that cannot be called.
#[derive(Debug, thiserror::Error)]
#[error("{url:?} is no address of a gRPC service, such as http://127.0.0.1:50051: {reason}")]
pub struct InvalidAddress {
    url: String,
    reason: String,
}

/// A service's replicas. All clones are the same.
#[derive(Debug, Clone)]
pub(super) struct Replicas(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    names: Vec<Name>,
    tls: Option<Tls>,
    members: Mutex<Members>,
    next: AtomicUsize,
    looking_up: AtomicBool,
}

/// What stands in a URL.
#[derive(Debug, Clone)]
struct Name {
    endpoint: Endpoint,
    host: String,
    port: u16,
}

#[derive(Debug, Default)]
struct Members {
    list: Vec<Member>,
    looked_up: Option<Instant>,
}

#[derive(Debug, Clone)]
struct Member {
    address: SocketAddr,
    host: String,
    channel: Channel,
    /// When it could not be reached last.
    failed: Arc<Mutex<Option<Instant>>>,
}

impl Replicas {
    pub(super) fn new(urls: &str, tls: Option<Tls>) -> Result<Self, InvalidAddress> {
        let names: Vec<Name> = urls.split(',').map(name).collect::<Result<_, _>>()?;
        Ok(Self(Arc::new(Shared {
            names,
            tls,
            members: Mutex::default(),
            next: AtomicUsize::new(0),
            looking_up: AtomicBool::new(false),
        })))
    }
}

fn name(url: &str) -> Result<Name, InvalidAddress> {
    let invalid = |reason: String| InvalidAddress { url: url.to_owned(), reason };
    let uri: Uri = url.trim().parse().map_err(|error| invalid(format!("{error}")))?;
    let host = uri.host().ok_or_else(|| invalid("it names no host".to_owned()))?;
    let host = host.trim_matches(['[', ']']).to_owned();
    let default = if uri.scheme_str() == Some("https") { 443 } else { 80 };
    let port = uri.port_u16().unwrap_or(default);
    // Our connector does TLS; tonic must not look for its own.
    let mut parts = uri.into_parts();
    parts.scheme = Some(Scheme::HTTP);
    parts.path_and_query = Some(PathAndQuery::from_static("/"));
    let uri = Uri::from_parts(parts).map_err(|error| invalid(format!("{error}")))?;
    let endpoint = Endpoint::from(uri)
        .connect_timeout(Duration::from_secs(5))
        .http2_keep_alive_interval(Duration::from_secs(30))
        .keep_alive_while_idle(true)
        .tcp_nodelay(true);
    Ok(Name { endpoint, host, port })
}

impl Shared {
    /// The replicas to try, in order: the next in turn first, those that failed just now last.
    async fn turn(self: &Arc<Self>) -> Result<Vec<Member>, io::Error> {
        let (mut members, looked_up) = {
            let members = self.lock();
            (members.list.clone(), members.looked_up)
        };
        if members.is_empty() {
            self.look_up().await?;
            members = self.lock().list.clone();
        } else if looked_up.is_none_or(|at| at.elapsed() > LOOK_UP)
            && !self.looking_up.swap(true, Ordering::Relaxed)
        {
            let this = self.clone();
            tokio::spawn(async move {
                if let Err(error) = this.look_up().await {
                    tracing::warn!(%error, "a service's name could not be looked up");
                }
                this.looking_up.store(false, Ordering::Relaxed);
            });
        }
        let first = self.next.fetch_add(1, Ordering::Relaxed) % members.len().max(1);
        members.rotate_left(first);
        members.sort_by_key(Member::rests);
        Ok(members)
    }

    /// Looks up the addresses of the names. Those that are still there keep their connections.
    async fn look_up(&self) -> Result<(), io::Error> {
        let mut found = BTreeSet::new();
        let mut failure = None;
        for (place, name) in self.names.iter().enumerate() {
            match lookup_host((name.host.as_str(), name.port)).await {
                Ok(addresses) => found.extend(addresses.map(|address| (place, address))),
                Err(error) => failure = Some(error),
            }
        }
        let mut members = self.lock();
        members.looked_up = Some(Instant::now());
        if found.is_empty() {
            return Err(failure.unwrap_or_else(|| io::Error::other("the name has no address")));
        }
        let known = std::mem::take(&mut members.list);
        members.list = found
            .into_iter()
            .map(|(place, address)| {
                let name = &self.names[place];
                let same =
                    |member: &&Member| (member.address, &member.host) == (address, &name.host);
                known.iter().find(same).cloned().unwrap_or_else(|| self.member(name, address))
            })
            .collect();
        Ok(())
    }

    fn member(&self, name: &Name, address: SocketAddr) -> Member {
        let (host, tls) = (name.host.clone(), self.tls.clone());
        let connect = tower::service_fn(move |_: Uri| {
            let (host, tls) = (host.clone(), tls.clone());
            async move {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                Ok::<_, io::Error>(TokioIo::new(match tls {
                    Some(tls) => Either::Left(tls.connect(&host, stream).await?),
                    None => Either::Right(stream),
                }))
            }
        });
        Member {
            address,
            host: name.host.clone(),
            channel: name.endpoint.connect_with_connector_lazy(connect),
            failed: Arc::default(),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Members> {
        crate::lock(&self.members)
    }
}

impl Member {
    /// Whether it could not be reached just now.
    fn rests(&self) -> bool {
        let failed = crate::lock(&self.failed);
        failed.is_some_and(|at| at.elapsed() < REST)
    }

    async fn call(
        &self,
        request: http::Request<Body>,
    ) -> Result<http::Response<Body>, tonic::transport::Error> {
        let mut channel = self.channel.clone();
        let answer = channel.ready().await?.call(request).await;
        let failed = answer.is_err().then(Instant::now);
        *crate::lock(&self.failed) = failed;
        answer
    }
}

impl Service<http::Request<Body>> for Replicas {
    type Response = http::Response<Body>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let shared = self.0.clone();
        Box::pin(async move {
            let (head, body) = request.into_parts();
            // One message: no call of Muster streams to a service.
            let body = body.collect().await?.to_bytes();
            let (_, method) = service_and_method(head.uri.path());
            let is_read = READS.iter().any(|read| method.starts_with(read));
            let away =
                |reason: &str| Status::unavailable(format!("the connection failed: {reason}"));
            let mut members = shared.turn().await.map_err(|error| away(&error.to_string()))?;
            if let [only] = &members[..] {
                // A connection that was lost meanwhile is made anew.
                members.push(only.clone());
            }
            let mut reason = String::new();
            for member in members {
                let error = match member.call(copy(&head, &body)).await {
                    Ok(answer) => return Ok(answer),
                    Err(error) => error,
                };
                let lost = Lost::of(&error);
                if lost.is_late {
                    return Err(
                        Status::deadline_exceeded("the call took longer than it may").into()
                    );
                }
                reason = lost.reason;
                if lost.was_sent && !is_read {
                    break;
                }
            }
            Err(away(&reason).into())
        })
    }
}

fn copy(head: &http::request::Parts, body: &Bytes) -> http::Request<Body> {
    let mut request = http::Request::new(Body::new(Full::new(body.clone())));
    request.method_mut().clone_from(&head.method);
    request.uri_mut().clone_from(&head.uri);
    request.headers_mut().clone_from(&head.headers);
    *request.version_mut() = head.version;
    *request.extensions_mut() = head.extensions.clone();
    request
}

/// What became of a call that got no answer.
struct Lost {
    /// Whether it may have reached the other end.
    was_sent: bool,
    /// Whether its deadline has passed.
    is_late: bool,
    reason: String,
}

impl Lost {
    fn of(error: &tonic::transport::Error) -> Self {
        let (mut was_sent, mut is_late) = (true, false);
        let mut cause: &(dyn std::error::Error + 'static) = error;
        loop {
            // The other end closed the connection before it took the request.
            let refused =
                cause.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_canceled);
            was_sent &= !(refused || cause.is::<ConnectError>());
            is_late |= cause.is::<TimeoutExpired>();
            match cause.source() {
                Some(source) => cause = source,
                None => return Self { was_sent, is_late, reason: cause.to_string() },
            }
        }
    }
}
