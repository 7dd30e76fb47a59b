//! The life of processes: health, restarts one after the other under load, a database that goes away
//! and comes back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures::future::join_all;
use http::StatusCode;
use muster::scim_client::ScimClient;
use muster_proto::identity::v1::UnknownMembers;
use muster_runtime::grpc;
use muster_runtime::life::Life;
use muster_runtime::transport::Transport;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tonic::service::Routes;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use crate::check::nothing_differs;
use crate::faults::cluster::{Cluster, PARTS};
use crate::faults::proxy::Target;
use crate::support::process::{MUSTER, Process};
use crate::support::system::System;

const PATIENCE: Duration = Duration::from_mins(1);

/// Status and text of a page of a process' health.
async fn health(address: &str, page: &str) -> (StatusCode, String) {
    let client = ScimClient::new(format!("http://{address}"), "").unwrap();
    match client.get(page).await {
        Ok(answer) => (StatusCode::from_u16(answer.status).unwrap(), answer.text),
        // It has ended, or not begun.
        Err(error) => (StatusCode::BAD_GATEWAY, format!("{error:#}")),
    }
}

async fn becomes(address: &str, expected: &str) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (status, text) = health(address, "/readyz").await;
        if text.trim() == expected {
            assert_eq!(status.is_success(), expected == "ok");
            return;
        }
        assert!(Instant::now() < deadline, "{address} says {text:?}, not {expected:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A client of several gateways, as there is behind a load balancer that takes out one which does
/// not accept connections, and that follows `Retry-After`.
#[derive(Clone)]
struct Balanced {
    gateways: Arc<Vec<ScimClient>>,
    next: Arc<AtomicUsize>,
    waited: Arc<AtomicUsize>,
}

impl Balanced {
    async fn ask(&self, method: &str, path: &str, body: &Value) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let at = self.next.fetch_add(1, Ordering::Relaxed);
            let gateway = &self.gateways[at % self.gateways.len()];
            let answer = match method {
                "POST" => gateway.post(path, body).await,
                "PATCH" => gateway.patch(path, body).await,
                _ => gateway.get(path).await,
            };
            let answer = match answer {
                Ok(answer) => answer,
                // Whoever does not accept is not asked; one that accepted answers.
                Err(error) if format!("{error:#}").contains("Connection refused") => continue,
                Err(error) => panic!("{method} {path}: {error:#}"),
            };
            if answer.status == 503 {
                assert!(Instant::now() < deadline, "{method} {path}: {}", answer.text);
                assert!(answer.headers.contains_key("retry-after"), "{}", answer.text);
                self.waited.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            }
            assert!((200..300).contains(&answer.status), "{method} {path}: {}", answer.text);
            return answer.body.unwrap_or_default();
        }
    }

    /// Creates users, changes them and puts them into a group until `stop`; how many.
    async fn work(self, name: usize, stop: Arc<AtomicBool>) -> usize {
        let group = json!({"displayName": format!("group {name}")});
        let group = self.ask("POST", "/Groups", &group).await;
        let group = format!("/Groups/{}", group["id"].as_str().unwrap());
        let mut count = 0;
        while !stop.load(Ordering::Relaxed) {
            let user = json!({"userName": format!("user-{name}-{count}")});
            let user = self.ask("POST", "/Users", &user).await;
            let path = format!("/Users/{}", user["id"].as_str().unwrap());
            let title = json!({"Operations": [{"op": "add", "path": "title", "value": "Title"}]});
            self.ask("PATCH", &path, &title).await;
            let member = json!({"Operations": [
                {"op": "add", "path": "members", "value": [{"value": user["id"]}]}
            ]});
            self.ask("PATCH", &group, &member).await;
            assert_eq!(self.ask("GET", &path, &Value::Null).await["title"], "Title");
            count += 1;
        }
        let members = self.ask("GET", &group, &Value::Null).await;
        assert_eq!(members["members"].as_array().map_or(0, Vec::len), count);
        count
    }
}

/// A process, where it listens, and how it was started.
struct Replica {
    part: &'static str,
    process: Option<Process>,
    args: Vec<String>,
    listen: String,
    health: String,
}

impl Replica {
    fn start(part: &'static str, listen: &str, args: &[String]) -> Self {
        let flag = if part == "gateway" { "--listen" } else { "--grpc-listen" };
        let name = if part == "gateway" { "HTTP address" } else { "gRPC address" };
        let mut all = vec![part, "--plain-text", "--health-listen", "127.0.0.1:0", flag, listen];
        all.extend(args.iter().map(String::as_str));
        // Half a second for whoever balances to hear of it.
        let variables = [("MUSTER_DRAIN_DELAY", "1")];
        let process = Process::start_as(MUSTER, part, &all, &[name, "Health address"], &variables);
        let (listen, health) = (process.told[0].clone(), process.told[1].clone());
        Self { part, process: Some(process), args: args.to_vec(), listen, health }
    }

    /// Tells it to stop, waits until it has, and starts it again at the same address.
    async fn restart(&mut self) {
        let process = self.process.take().unwrap();
        process.signal("-TERM");
        becomes(&self.health, "shutting down").await;
        assert_eq!(health(&self.health, "/livez").await.0, StatusCode::OK);
        let deadline = Instant::now() + PATIENCE;
        while process.is_running() {
            assert!(Instant::now() < deadline, "{} does not stop", self.part);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let log = process.log();
        assert!(!log.contains("was ended") && !log.contains("panicked"), "{}: {log}", self.part);
        let (part, listen, args) = (self.part, self.listen.clone(), self.args.clone());
        let start = move || Self::start(part, &listen, &args);
        *self = tokio::task::spawn_blocking(start).await.unwrap();
        becomes(&self.health, "ok").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_of_every_part_under_load_fails_no_request() {
    let system = System::start_apart("rolling");
    let tenant = system.tenant().await;
    let url = |role: &str| vec!["--database-url".to_owned(), system.database_url(role)];
    let two = |part, args: &[String]| [(); 2].map(|()| Replica::start(part, "127.0.0.1:0", args));
    let urls = |replicas: &[Replica]| {
        let urls = replicas.iter().map(|replica| format!("http://{}", replica.listen));
        urls.collect::<Vec<_>>().join(",")
    };
    let identity = two("identity", &url("muster_identity"));
    let to_identity = ["--identity-url".to_owned(), urls(&identity)];
    let group = two("group", &[&url("muster_group")[..], &to_identity].concat());
    let approver = two("approver", &[&url("muster_approver")[..], &to_identity].concat());
    let to_others =
        ["--group-url".to_owned(), urls(&group), "--approver-url".to_owned(), urls(&approver)];
    let public = ["--public-url".to_owned(), "http://muster.test".to_owned()];
    let gateway = two("gateway", &[&to_identity[..], &to_others, &public].concat());
    let key = tenant.client.key();
    let clients = gateway.iter().map(|replica| {
        let url = format!("http://{}/scim/v2", replica.listen);
        ScimClient::new(&url, format!("Static {key}")).unwrap()
    });
    let balanced = Balanced {
        gateways: Arc::new(clients.collect()),
        next: Arc::default(),
        waited: Arc::default(),
    };
    let stop = Arc::new(AtomicBool::new(false));
    let load: Vec<_> =
        (0..4).map(|name| tokio::spawn(balanced.clone().work(name, stop.clone()))).collect();
    for mut replica in identity.into_iter().chain(group).chain(approver).chain(gateway) {
        replica.restart().await;
        // It goes on until the end of the test.
        std::mem::forget(replica.process.take());
    }
    stop.store(true, Ordering::Relaxed);
    let done: usize = join_all(load).await.into_iter().map(Result::unwrap).sum();
    println!("{done} rounds, {} answers to try again", balanced.waited.load(Ordering::Relaxed));
    assert!(done > 20, "{done}: there was no load");
    nothing_differs(&system, &tenant.id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_goes_away_takes_nothing_down_and_all_are_ready_when_it_is_back() {
    let addresses: Vec<String> = PARTS
        .iter()
        .map(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap())
        .map(|address| address.to_string())
        .collect();
    let cluster = Cluster::start_with_health(&addresses).await;
    let tenant = cluster.tenant_that(UnknownMembers::LeaveOut).await;
    let replica = &cluster.replicas[0];
    for address in &addresses {
        becomes(address, "ok").await;
    }
    let client = ScimClient::new(&replica.scim_url, format!("Static {}", tenant.key)).unwrap();
    let database = replica.to_database.target();
    replica.to_database.lead_to(Target::Nowhere);
    for (part, address) in PARTS.iter().zip(&addresses) {
        let without = if *part == "gateway" { "without identity" } else { "without the database" };
        becomes(address, without).await;
        assert_eq!(health(address, "/livez").await.0, StatusCode::OK, "{part}");
    }
    let away = client.post("/Users", &json!({"userName": "ann"})).await.unwrap();
    assert_eq!(away.status, 503, "{}", away.text);
    assert!(away.headers.contains_key("retry-after"));

    // A part that starts meanwhile waits.
    assert!(replica.kill("group").await);
    let variables = [("MUSTER_HEALTH_LISTEN", &*addresses[1])];
    let starting = cluster.start_part(replica, "group", &variables);
    let comes_back = async {
        becomes(&addresses[1], "starting").await;
        replica.to_database.lead_to(database);
    };
    tokio::join!(starting, comes_back);
    for address in &addresses {
        becomes(address, "ok").await;
    }
    let created = client.post("/Users", &json!({"userName": "ann"})).await.unwrap();
    assert_eq!(created.status, 201, "{}", created.text);
    cluster.stop().await;
}

/// A service that counts its calls.
struct Counting(Arc<AtomicUsize>);

#[tonic::async_trait]
impl Health for Counting {
    async fn check(
        &self,
        _: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Ok(Response::new(HealthCheckResponse::default()))
    }

    type WatchStream = tokio_stream::Empty<Result<HealthCheckResponse, Status>>;

    async fn watch(
        &self,
        _: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        Err(Status::unimplemented("not here"))
    }
}

#[tokio::test]
async fn replicas_that_come_later_get_their_share() {
    let mut addresses = Vec::new();
    for _ in 0..3 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        addresses.push(listener.local_addr().unwrap());
    }
    let urls: Vec<String> = addresses.iter().map(|address| format!("http://{address}")).collect();
    let transport = Transport::connect(&urls.join(",")).unwrap();
    let life = Life::new();
    let counts: Vec<Arc<AtomicUsize>> = (0..3).map(|_| Arc::default()).collect();
    let start = async |at: usize| {
        let listener = TcpListener::bind(addresses[at]).await.unwrap();
        let routes = Routes::new(HealthServer::new(Counting(counts[at].clone())));
        tokio::spawn(grpc::serve(listener, routes, life.clone()));
    };
    let call = async || {
        let mut health = HealthClient::new(transport.clone());
        health.check(HealthCheckRequest::default()).await.map(drop)
    };
    start(0).await;
    for _ in 0..30 {
        call().await.unwrap();
    }
    assert_eq!(counts[0].load(Ordering::Relaxed), 30, "the only one there is");
    start(1).await;
    start(2).await;
    let deadline = Instant::now() + PATIENCE;
    while counts.iter().any(|count| count.load(Ordering::Relaxed) == 0) {
        assert!(Instant::now() < deadline, "a replica that came later gets nothing: {counts:?}");
        call().await.unwrap();
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let before: Vec<usize> = counts.iter().map(|count| count.load(Ordering::Relaxed)).collect();
    for _ in 0..300 {
        call().await.unwrap();
    }
    for (count, before) in counts.iter().zip(before) {
        let share = count.load(Ordering::Relaxed) - before;
        assert!(share >= 60, "{share} of 300 calls");
    }
    life.stop();
}
