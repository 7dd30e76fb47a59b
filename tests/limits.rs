//! Limits: at the edge, and one past it; and what keys are limited to.

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures::future::join_all;
use http::{HeaderMap, HeaderName, HeaderValue};
use muster::scim_client::{Answer, Method, ScimClient, query};
use muster_proto::identity::v1::api_key_service_client::ApiKeyServiceClient;
use muster_proto::identity::v1::{
    ApiKey, CreateApiKeyRequest, CreateUserRequest, RevokeApiKeyRequest, User,
};
use prost::Message as _;
use serde_json::{Value, json};
use sqlx::{Connection as _, Executor as _, PgConnection};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::Code;

use crate::support::process::{MUSTER, Process};
use crate::support::system::{System, Tenant, together};

/// A gateway of a test's own, in front of the shared services.
fn gateway(system: &System, args: &[&str], variables: &[(&str, &str)]) -> (Process, String) {
    let services = [
        "gateway",
        "--plain-text",
        "--listen",
        "127.0.0.1:0",
        "--identity-url",
        &system.identity_url,
        "--group-url",
        &system.group_url,
        "--approver-url",
        &system.approver_url,
    ];
    let args = [&services[..], args].concat();
    let process = Process::start_as(MUSTER, "gateway", &args, &["SCIM base URL"], variables);
    let url = process.told[0].clone();
    (process, url)
}

fn client(url: &str, key: &str) -> ScimClient {
    ScimClient::new(url, format!("Static {key}")).unwrap()
}

async fn new_key(system: &System, tenant: &Tenant, key: ApiKey) -> Result<(String, String), Code> {
    let key = ApiKey { organisation_id: tenant.id.clone(), label: "more".into(), ..key };
    let request =
        CreateApiKeyRequest { api_key: Some(key), actor: None, client_address: String::new() };
    let mut keys = ApiKeyServiceClient::new(system.identity());
    let created = keys.create_api_key(request).await.map_err(|status| status.code())?.into_inner();
    Ok((created.api_key.unwrap().id, created.secret))
}

fn retries(headers: &HeaderMap) -> bool {
    headers.get("retry-after").is_some_and(|after| after == "1")
}

#[tokio::test]
async fn a_revocation_holds_in_every_gateway_within_two_seconds_and_another_key_goes_on() {
    let system = together();
    let tenant = system.tenant().await;
    let default = [("MUSTER_KEY_CACHE_MILLISECONDS", "1000")];
    let gateways = [gateway(system, &[], &default), gateway(system, &[], &default)];
    let (id, first) = new_key(system, &tenant, ApiKey::default()).await.unwrap();
    let (_, second) = new_key(system, &tenant, ApiKey::default()).await.unwrap();
    for (_, url) in &gateways {
        for key in [&first, &second] {
            assert_eq!(client(url, key).get("/Users").await.unwrap().status, 200, "two at once");
        }
    }
    let request = RevokeApiKeyRequest {
        organisation_id: tenant.id.clone(),
        id,
        actor: None,
        client_address: String::new(),
    };
    ApiKeyServiceClient::new(system.identity()).revoke_api_key(request).await.unwrap();
    let revoked = Instant::now();
    for (_, url) in &gateways {
        let client = client(url, &first);
        // How long the test takes is no matter; what was asked two seconds later must be refused.
        loop {
            let asked = revoked.elapsed();
            let status = client.get("/Users").await.unwrap().status;
            if status == 401 {
                break;
            }
            assert!(status == 200 && asked < Duration::from_secs(2), "{status} after {asked:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    for (_, url) in &gateways {
        assert_eq!(client(url, &second).get("/Users").await.unwrap().status, 200);
    }
}

#[tokio::test]
async fn a_key_is_good_in_its_networks_only() {
    let system = together();
    let tenant = system.tenant().await;
    let networks = |texts: &[&str]| ApiKey {
        source_networks: texts.iter().map(|text| (*text).to_owned()).collect(),
        ..ApiKey::default()
    };
    for wrong in ["203.0.113.0/33", "office", ""] {
        let refused = new_key(system, &tenant, networks(&[wrong])).await;
        assert_eq!(refused, Err(Code::InvalidArgument), "{wrong}");
    }
    let key = networks(&["203.0.113.0/24", "2001:db8::1"]);
    let (_, key) = new_key(system, &tenant, key).await.unwrap();
    let (_process, url) = gateway(system, &["--trust-forwarded-for"], &[]);
    let from = async |address: &'static str| {
        let client = client(&url, &key);
        let told = HeaderValue::from_static(address);
        let headers = [(HeaderName::from_static("x-forwarded-for"), Some(told))];
        let answer = client.send_bytes(Method::GET, "/Users", None, &headers).await.unwrap();
        (answer.status, answer.text)
    };
    for (address, expected) in [
        ("203.0.113.1", 200),
        ("198.51.100.1, 203.0.113.254", 200),
        ("2001:db8::1", 200),
        ("203.0.114.0", 403),
        ("203.0.113.1, 198.51.100.1", 403),
        ("2001:db8::2", 403),
    ] {
        let (status, text) = from(address).await;
        assert_eq!(status, expected, "{address}: {text}");
    }
    // Without a proxy that is trusted it is the connection that counts.
    assert_eq!(client(&system.scim_url, &key).get("/Users").await.unwrap().status, 403);
    let (_, here) = new_key(system, &tenant, networks(&["127.0.0.0/8"])).await.unwrap();
    assert_eq!(client(&system.scim_url, &here).get("/Users").await.unwrap().status, 200);
}

#[tokio::test]
async fn one_request_too_many_in_a_second_is_told_when_to_come_again() {
    let system = together();
    let (busy, other) = (system.tenant().await, system.tenant().await);
    let (_process, url) = gateway(system, &["--organisation-rate", "20"], &[]);
    let (busy, other) = (client(&url, busy.client.key()), client(&url, other.client.key()));
    let answers = join_all((0..60).map(|_| busy.get("/Users"))).await;
    let answers: Vec<Answer> = answers.into_iter().map(Result::unwrap).collect();
    let count = |status: u16| answers.iter().filter(|answer| answer.status == status).count();
    assert!(count(200) >= 20 && count(429) >= 1, "{} and {}", count(200), count(429));
    assert_eq!(count(200) + count(429), 60);
    let refused = answers.iter().find(|answer| answer.status == 429).unwrap();
    assert!(retries(&refused.headers), "{:?}", refused.headers);
    assert_eq!(refused.at("/status"), "429");
    assert!(refused.at("/detail").as_str().unwrap().contains("more than 20 requests a second"));
    assert_eq!(other.get("/Users").await.unwrap().status, 200, "another organisation");
    // Whoever follows Retry-After gets through.
    let deadline = Instant::now() + Duration::from_secs(30);
    while busy.get("/Users").await.unwrap().status == 429 {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

#[tokio::test]
async fn a_flood_of_one_organisation_leaves_the_others_their_turn() {
    let system = together();
    let (flood, quiet) = (system.tenant().await, system.tenant().await);
    let (_process, url) = gateway(system, &[], &[]);
    let quiet = client(&url, quiet.client.key());
    let median = async |requests: usize| {
        let mut times = Vec::new();
        for _ in 0..requests {
            let start = Instant::now();
            assert_eq!(quiet.get("/Users").await.unwrap().status, 200);
            times.push(start.elapsed());
        }
        times.sort();
        (times[times.len() / 2], times[times.len() * 99 / 100])
    };
    let alone = median(100).await;
    let stop = Arc::new(AtomicBool::new(false));
    let flooded = Arc::new(AtomicUsize::new(0));
    let tasks: Vec<_> = (0..64)
        .map(|_| {
            let (client, stop, flooded) =
                (client(&url, flood.client.key()), stop.clone(), flooded.clone());
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    assert_eq!(client.get("/Users").await.unwrap().status, 200);
                    flooded.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    while flooded.load(Ordering::Relaxed) < 200 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let beside = median(100).await;
    stop.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await.unwrap();
    }
    println!(
        "median and 99th percentile alone {alone:?}, beside a flood of 64 connections {beside:?}; \
         the flood and the tests share two cores"
    );
}

#[tokio::test]
async fn sizes_are_taken_up_to_the_limit_and_refused_past_it() {
    let system = together();
    let tenant = system.tenant().await;
    let args = [
        "--max-body-bytes",
        "1000",
        "--max-bulk-bytes",
        "3000",
        "--max-bulk-operations",
        "2",
        "--max-results",
        "3",
    ];
    let (_process, url) = gateway(system, &args, &[]);
    let client = client(&url, tenant.client.key());
    let sized = |name: &str, bytes: usize| {
        let mut user = json!({"userName": name, "displayName": ""});
        let left = bytes - user.to_string().len();
        user["displayName"] = Value::from("x".repeat(left));
        assert_eq!(user.to_string().len(), bytes);
        user
    };
    for (name, bytes, expected) in [("edge", 1_000, 201), ("past", 1_001, 413)] {
        let answer = client.post("/Users", &sized(name, bytes)).await.unwrap();
        assert_eq!(answer.status, expected, "{}", answer.text);
    }
    let bulk = |count: usize| {
        let operations: Vec<Value> = (0..count)
            .map(|at| {
                let data = json!({"userName": format!("bulk-{count}-{at}")});
                json!({"method": "POST", "path": "/Users", "bulkId": at.to_string(), "data": data})
            })
            .collect();
        json!({"schemas": ["urn:ietf:params:scim:api:messages:2.0:BulkRequest"], "Operations": operations})
    };
    for (count, expected) in [(2, 200), (3, 413)] {
        let answer = client.post("/Bulk", &bulk(count)).await.unwrap();
        assert_eq!(answer.status, expected, "{}", answer.text);
    }
    let listed = client.get("/Users?count=50").await.unwrap();
    assert_eq!(listed.at("/Resources").as_array().unwrap().len(), 3, "{}", listed.text);
    assert_eq!(listed.at("/itemsPerPage"), 3);
    let four = client.post("/Users", &json!({"userName": "four"})).await.unwrap();
    assert_eq!(four.status, 201);
    let listed = client.get("/Users?count=50").await.unwrap();
    assert_eq!(listed.at("/Resources").as_array().unwrap().len(), 3, "one past it");
    assert_eq!(listed.at("/totalResults"), 4);
    let config = client.get("/ServiceProviderConfig").await.unwrap();
    assert_eq!(config.at("/bulk/maxOperations"), 2);
    assert_eq!(config.at("/bulk/maxPayloadSize"), 3_000);
    assert_eq!(config.at("/filter/maxResults"), 3);
}

/// A filter of so many comparisons, nested so deep, of so many bytes.
fn filter(comparisons: usize, depth: usize, bytes: usize) -> String {
    let one = "title eq \"x\"";
    let filter = vec![one; comparisons].join(" or ");
    let filter = format!("{}{filter}{}", "(".repeat(depth), ")".repeat(depth));
    let left = bytes.saturating_sub(filter.len());
    filter.replacen("\"x\"", &format!("\"{}x\"", "y".repeat(left)), 1)
}

#[tokio::test]
async fn filters_bodies_and_operations_are_taken_up_to_the_limit_and_refused_past_it() {
    let system = together();
    let tenant = system.tenant().await;
    let args = [
        ["--max-filter-bytes", "300"],
        ["--max-filter-depth", "3"],
        ["--max-filter-comparisons", "4"],
        ["--max-json-depth", "6"],
        ["--max-json-values", "50"],
        ["--max-patch-operations", "2"],
        ["--max-members", "2"],
        ["--max-body-bytes", "1000"],
        ["--max-group-bytes", "2000"],
    ]
    .concat();
    let (_process, url) = gateway(system, &args, &[]);
    let client = client(&url, tenant.client.key());
    for (name, filter, expected) in [
        ("bytes", filter(1, 0, 300), 200),
        ("bytes", filter(1, 0, 301), 400),
        ("depth", filter(1, 3, 0), 200),
        ("depth", filter(1, 4, 0), 400),
        ("comparisons", filter(4, 0, 0), 200),
        ("comparisons", filter(5, 0, 0), 400),
    ] {
        let path = format!("/Users{}", query(&[("filter", &filter)]));
        let answer = client.get(&path).await.unwrap();
        assert_eq!(answer.status, expected, "{name}: {}", answer.text);
        if expected == 400 {
            assert_eq!(answer.at("/scimType"), "invalidFilter");
        }
    }
    // The body itself is the first level.
    let nested = |levels: usize| {
        let value = format!("{}1{}", "[".repeat(levels - 1), "]".repeat(levels - 1));
        format!("{{\"userName\": \"deep\", \"nobodyKnowsThis\": {value}}}")
    };
    for (levels, expected) in [(6, 201), (7, 400)] {
        let body = bytes::Bytes::from(nested(levels));
        let answer = client.send_bytes(Method::POST, "/Users", Some(body), &[]).await.unwrap();
        assert_eq!(answer.status, expected, "{levels}: {}", answer.text);
    }
    // The body, its two attributes, and what is in the second.
    for (values, expected) in [(47, 201), (48, 400)] {
        let body =
            json!({"userName": format!("many-{values}"), "nobodyKnowsThis": vec![1; values]});
        let answer = client.post("/Users", &body).await.unwrap();
        assert_eq!(answer.status, expected, "{values}: {}", answer.text);
    }
    let user = client.get("/Users?count=1").await.unwrap().at("/Resources/0/id").clone();
    let user = user.as_str().unwrap().to_owned();
    let patch = |count: usize, operation: Value| {
        let schema = "urn:ietf:params:scim:api:messages:2.0:PatchOp";
        json!({"schemas": [schema], "Operations": vec![operation; count]})
    };
    for (count, expected) in [(2, 200), (3, 413)] {
        let title = json!({"op": "replace", "path": "title", "value": "x"});
        let answer = client.patch(&format!("/Users/{user}"), &patch(count, title)).await.unwrap();
        assert_eq!(answer.status, expected, "{}", answer.text);
    }
    let members = |count: u32| -> Vec<Value> {
        let id = |at: u32| format!("01a20dd5-057c-7370-95bc-{at:012}");
        (0..count).map(|at| json!({"value": id(at)})).collect()
    };
    let group = json!({"displayName": "Two", "members": members(2)});
    let created = client.post("/Groups", &group).await.unwrap();
    assert_eq!(created.status, 201, "{}", created.text);
    let path = format!("/Groups/{}", created.at("/id").as_str().unwrap());
    let three = json!({"displayName": "Three", "members": members(3)});
    assert_eq!(client.post("/Groups", &three).await.unwrap().status, 413);
    assert_eq!(client.put(&path, &three).await.unwrap().status, 413);
    for (count, expected) in [(2, 204), (3, 413)] {
        let add = json!({"op": "add", "path": "members", "value": members(count)});
        let answer = client.patch(&path, &patch(1, add)).await.unwrap();
        assert_eq!(answer.status, expected, "{}", answer.text);
    }
    assert_eq!(client.get(&path).await.unwrap().at("/displayName"), "Two", "nothing is half done");
    // A group may be larger than a user.
    let sized = |bytes: usize| {
        let mut group = json!({"displayName": "Large", "nobodyKnowsThis": ""});
        let left = bytes - group.to_string().len();
        group["nobodyKnowsThis"] = Value::from("x".repeat(left));
        group
    };
    for (bytes, expected) in [(2_000, 201), (2_001, 413)] {
        let answer = client.post("/Groups", &sized(bytes)).await.unwrap();
        assert_eq!(answer.status, expected, "{}", answer.text);
    }
}

/// A connection to a gateway, and what comes on it until it ends or `until` is there.
struct Raw(TcpStream);

impl Raw {
    async fn connect(url: &str) -> Self {
        let address = url.strip_prefix("http://").unwrap().split('/').next().unwrap();
        Self(TcpStream::connect(address).await.unwrap())
    }

    async fn send(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).await.unwrap();
    }

    async fn answer(&mut self, until: &str) -> String {
        let (mut text, mut part) = (String::new(), [0; 4096]);
        while !text.contains(until) {
            match self.0.read(&mut part).await {
                Ok(0) | Err(_) => break,
                Ok(count) => text.push_str(&String::from_utf8_lossy(&part[..count])),
            }
        }
        text
    }
}

#[tokio::test]
async fn slow_clients_large_headers_and_one_connection_too_many_are_kept_off() {
    let system = together();
    let tenant = system.tenant().await;
    let args = [
        ["--header-seconds", "1"],
        ["--body-seconds", "1"],
        ["--max-header-bytes", "8192"],
        ["--max-connections", "2"],
    ]
    .concat();
    let (_process, url) = gateway(system, &args, &[]);
    let headers = |more: &str| {
        let key = tenant.client.key();
        format!("POST /scim/v2/Users HTTP/1.1\r\nHost: x\r\nAuthorization: Static {key}\r\n{more}")
    };
    // A header that does not end.
    let mut slow = Raw::connect(&url).await;
    slow.send(&headers("")).await;
    let told = slow.answer("never").await;
    assert!(told.is_empty() || told.starts_with("HTTP/1.1 408"), "{told}");
    // A body that does not come.
    let mut slow = Raw::connect(&url).await;
    slow.send(&headers("Content-Length: 20\r\n\r\n{")).await;
    let told = slow.answer("\r\n\r\n").await;
    assert!(told.starts_with("HTTP/1.1 408"), "{told}");
    drop(slow);
    // The whole header at the limit, and past it.
    for (bytes, expected) in [(8_100, "HTTP/1.1 201"), (8_300, "HTTP/1.1 431")] {
        let user = format!("{{\"userName\": \"header-{bytes}\"}}");
        let more = format!("Connection: close\r\nContent-Length: {}\r\nX: ", user.len());
        let text = headers(&more);
        let filled = format!("{text}{}\r\n\r\n", "x".repeat(bytes - text.len() - 4));
        assert_eq!(filled.len(), bytes);
        let mut raw = Raw::connect(&url).await;
        raw.send(&(filled + &user)).await;
        let told = raw.answer("\r\n\r\n").await;
        assert!(told.starts_with(expected), "{bytes}: {told}");
    }
    // Two connections are answered, the third when one of them has gone.
    let ask = "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n";
    let (mut first, mut second) = (Raw::connect(&url).await, Raw::connect(&url).await);
    for raw in [&mut first, &mut second] {
        raw.send(ask).await;
        assert!(raw.answer("ok\n").await.starts_with("HTTP/1.1 200"));
    }
    let mut third = Raw::connect(&url).await;
    third.send(ask).await;
    let mut answer = Box::pin(third.answer("ok\n"));
    // It would be answered at once, as the others were.
    let early = tokio::time::timeout(Duration::from_millis(300), &mut answer).await;
    assert!(early.is_err(), "{early:?}");
    drop(first);
    assert!(answer.await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn a_request_that_takes_too_long_is_told_to_come_again() {
    let system = System::start_apart("slowed");
    let tenant = system.tenant().await;
    let (_process, url) = gateway(&system, &["--request-seconds", "1"], &[]);
    let client = client(&url, tenant.client.key());
    let nobody = "/Users/01a20dd5-057c-7370-95bc-182bcdb7607e";
    assert_eq!(client.get(nobody).await.unwrap().status, 404);
    let mut other = PgConnection::connect(&system.database_url("postgres")).await.unwrap();
    other.execute("BEGIN; LOCK TABLE identity.users").await.unwrap();
    let late = client.get(nobody).await.unwrap();
    assert_eq!(late.status, 503, "{}", late.text);
    assert!(late.headers.contains_key("retry-after"), "{:?}", late.headers);
    // It is the gateway's limit: the database's own, of a statement, is still to come.
    let waits = "SELECT count(*) FROM pg_stat_activity
                  WHERE wait_event_type = 'Lock' AND datname = current_database()";
    let waiting: i64 = sqlx::query_scalar(waits).fetch_one(&mut other).await.unwrap();
    assert!(waiting > 0);
    other.execute("ROLLBACK").await.unwrap();
    assert_eq!(client.get(nobody).await.unwrap().status, 404);
}

#[tokio::test]
async fn a_grpc_message_is_taken_up_to_the_limit_and_refused_past_it() {
    let system = System::start_apart_with("messages", &[("MUSTER_MAX_MESSAGE_BYTES", "65536")]);
    let tenant = system.tenant().await;
    for (bytes, expected) in [(65_536, Code::InvalidArgument), (65_537, Code::OutOfRange)] {
        let mut user = User { organisation_id: tenant.id.clone(), ..User::default() };
        let request = |user: &User| CreateUserRequest {
            user: Some(user.clone()),
            ..CreateUserRequest::default()
        };
        user.user_name = Some("x".repeat(60_000));
        let left = bytes - request(&user).encoded_len();
        user.user_name = Some("x".repeat(60_000 + left));
        let request = request(&user);
        assert_eq!(request.encoded_len(), bytes);
        let refused = system.users().create_user(request).await.unwrap_err();
        // A name of that length is refused as well, but by who has read it.
        assert_eq!(refused.code(), expected, "{bytes}: {refused}");
    }
}

/// The largest body of a group, in bytes.
const LARGEST: usize = 16 * 1024 * 1024;

/// The most memory a process has had, in MiB.
fn peak(process: &Process) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.pid)).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    peak.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
}

#[tokio::test]
async fn a_body_does_not_take_memory_many_times_what_it_weighs() {
    let system = together();
    let tenant = system.tenant().await;
    let (process, url) = gateway(system, &[], &[]);
    let client = client(&url, tenant.client.key());
    let before = peak(&process);
    let filled = |begin: &str, one: &str, end: &str| {
        let count = (LARGEST - begin.len() - end.len()) / one.len();
        format!("{begin}{}{end}", one.repeat(count))
    };
    let keys: Vec<String> = (0..900_000).map(|n| format!("\"k{n}\":1,")).collect();
    let keys = keys.concat();
    for (name, body, expected) in [
        ("numbers", filled(r#"{"displayName":"x","members":["#, "1,", "1]}"), 400),
        ("arrays", filled(r#"{"displayName":"x","members":["#, "[],", "[]]}"), 400),
        ("objects", filled(r#"{"displayName":"x","members":["#, "{},", "{}]}"), 400),
        ("text", filled(r#"{"displayName":"x","nobodyKnowsThis":""#, "x", r#""}"#), 201),
        ("keys", format!("{{\"displayName\":\"y\",{keys}\"z\":1}}"), 201),
        ("brackets", "[".repeat(LARGEST), 400),
        ("too large", "x".repeat(LARGEST + 1), 413),
    ] {
        let body = bytes::Bytes::from(body);
        let answer = client.send_bytes(Method::POST, "/Groups", Some(body), &[]).await.unwrap();
        assert_eq!(answer.status, expected, "{name}: {}", answer.text);
        println!("{name}: {} MiB", peak(&process));
    }
    let grown = peak(&process) - before;
    assert!(grown < 24 * 16, "{grown} MiB more for bodies of 16 MiB");
}

#[test]
fn every_limit_is_documented_with_its_default() {
    let help = Command::new(MUSTER).args(["gateway", "--help"]).output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let documented = include_str!("../docs/limits.md");
    let rows = documented.lines().filter_map(|line| line.strip_prefix("| `--"));
    let mut flags = BTreeSet::new();
    for row in rows {
        let mut cells = row.split(" | ");
        let flag = cells.next().unwrap().trim_end_matches('`');
        let default: String = cells.next().unwrap().chars().filter(|c| *c != ',').collect();
        let default = default.split(|c: char| !c.is_ascii_digit()).next().unwrap();
        let about = help.split(&format!("--{flag} <")).nth(1).unwrap_or_else(|| panic!("--{flag}"));
        let about = about.split("\n      --").next().unwrap();
        // Some depend on the machine.
        let said = about.contains("[default: half of the cores]") || default.is_empty();
        assert!(said || about.contains(&format!("[default: {default}]")), "--{flag}: {about}");
        flags.insert(flag.to_owned());
    }
    let limits = ["max-", "organisation-", "key-", "-seconds", "at-once"];
    for flag in help.lines().filter_map(|line| line.trim().strip_prefix("--")) {
        let flag = flag.split(' ').next().unwrap();
        let is_limit = limits.iter().any(|part| flag.starts_with(part) || flag.ends_with(part));
        assert!(!is_limit || flags.contains(flag), "--{flag} is not in docs/limits.md");
    }
    assert!(flags.len() >= 20, "{flags:?}");
}
