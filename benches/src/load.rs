//! A closed loop: each connection sends its next request when it has the answer to the last.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use futures::future::join_all;
use http::{Method, Request, header};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::Value;
use tokio::net::TcpStream;

use crate::operation::Operation;
use crate::seed::Seed;
use crate::system::System;

/// How many connections do a thing for each of many.
const CONNECTIONS: usize = 32;

/// A connection that is kept.
pub(crate) struct Connection {
    sender: SendRequest<Full<Bytes>>,
    authorisation: String,
    host: String,
}

/// What came of a load.
pub(crate) struct Outcome {
    /// How long each request took, in order of that.
    pub(crate) times: Vec<Duration>,
    /// How many were answered otherwise than they should be.
    pub(crate) errors: usize,
    pub(crate) elapsed: Duration,
}

impl Connection {
    pub(crate) async fn open(address: &str, key: &str) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        tokio::spawn(async move { drop(connection.await) });
        Ok(Self { sender, authorisation: format!("Static {key}"), host: address.to_owned() })
    }

    /// Sends a request; the status and the body of its answer.
    pub(crate) async fn send(
        &mut self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> anyhow::Result<(u16, Bytes)> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, &self.host)
            .header(header::AUTHORIZATION, &self.authorisation);
        if !body.is_empty() {
            request = request.header(header::CONTENT_TYPE, "application/scim+json");
        }
        self.sender.ready().await?;
        let answer = self.sender.send_request(request.body(Full::new(body))?).await?;
        let status = answer.status().as_u16();
        Ok((status, answer.into_body().collect().await?.to_bytes()))
    }

    /// Sends a request; the answer, whose status must be this.
    pub(crate) async fn expect(
        &mut self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        expected: u16,
    ) -> anyhow::Result<Value> {
        let body = body.map(ToString::to_string).unwrap_or_default();
        let (status, answer) = self.send(method, path, body.into()).await?;
        let told = || String::from_utf8_lossy(&answer[..answer.len().min(300)]).into_owned();
        ensure!(status == expected, "{status}: {}", told());
        serde_json::from_slice(&answer).with_context(told)
    }

    /// Creates a resource below an endpoint; its id.
    pub(crate) async fn create(&mut self, endpoint: &str, body: &Value) -> anyhow::Result<String> {
        let path = format!("/scim/v2/{endpoint}");
        let made = self.expect(Method::POST, &path, Some(body), 201).await?;
        Ok(made["id"].as_str().context("a resource has an id")?.to_owned())
    }
}

/// Does something `count` times, over as many connections as Okta is thought to have.
pub(crate) async fn each<F>(system: &System, key: &str, count: usize, work: F) -> anyhow::Result<()>
where
    F: AsyncFn(&mut Connection, usize) -> anyhow::Result<()>,
{
    let next = AtomicUsize::new(0);
    let workers = (0..CONNECTIONS).map(|_| async {
        let mut connection = Connection::open(&system.address, key).await?;
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            if at >= count {
                return anyhow::Ok(());
            }
            work(&mut connection, at).await?;
        }
    });
    join_all(workers).await.into_iter().collect()
}

/// Loads a system with one operation on organisations, each connection on one.
pub(crate) async fn run(
    system: &System,
    operation: Operation,
    seeds: &[Seed],
    connections: usize,
    length: Duration,
) -> anyhow::Result<Outcome> {
    let mut open = Vec::new();
    for seed in seeds.iter().cycle().take(connections) {
        open.push((Connection::open(&system.address, &seed.key).await?, seed));
    }
    let begun = Instant::now();
    let until = begun + length;
    let tasks = open.into_iter().map(async |(mut connection, seed)| {
        let (mut times, mut errors, mut random) =
            (Vec::new(), 0, SmallRng::from_rng(&mut rand::rng()));
        let first = random.random_range(0..u64::from(u32::MAX));
        // An even turn first: what one adds, the next removes.
        for turn in first * 2.. {
            let request = operation.request(seed, turn, &mut random);
            let sent = Instant::now();
            if sent >= until {
                break;
            }
            let (status, body) =
                connection.send(request.method, &request.path, request.body).await?;
            times.push(sent.elapsed());
            if !(200..300).contains(&status) {
                if errors == 0 {
                    eprintln!("{status}: {}", String::from_utf8_lossy(&body));
                }
                errors += 1;
            }
        }
        anyhow::Ok((times, errors))
    });
    let mut outcome = Outcome { times: Vec::new(), errors: 0, elapsed: Duration::ZERO };
    for done in join_all(tasks).await {
        let (times, errors) = done?;
        outcome.times.extend(times);
        outcome.errors += errors;
    }
    outcome.elapsed = begun.elapsed();
    outcome.times.sort();
    ensure!(!outcome.times.is_empty(), "nothing was answered");
    Ok(outcome)
}

impl Outcome {
    /// Requests a second.
    pub(crate) fn rate(&self) -> f64 {
        self.count() / self.elapsed.as_secs_f64()
    }

    /// How many there were.
    pub(crate) fn count(&self) -> f64 {
        f64::from(u32::try_from(self.times.len()).unwrap_or(u32::MAX))
    }

    /// The time that so many of a hundred are faster than.
    pub(crate) fn percentile(&self, percent: usize) -> Duration {
        let at = (self.times.len() * percent / 100).min(self.times.len() - 1);
        self.times[at]
    }
}
