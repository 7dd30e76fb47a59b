//! What four processes tell a collector of OpenTelemetry: one trace from the HTTP request to each
//! SQL statement, what followers do linked to what caused it, logs with the ids of their trace, and
//! the metrics that there are.

use std::collections::{BTreeMap, BTreeSet};

use futures::future::join_all;
use http::{HeaderName, HeaderValue};
use muster_proto::identity::v1::ListChangesRequest;
use muster_runtime::metrics::{self, Kind};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use serde_json::{Value, json};

use crate::support::collector::{Collector, Span};
use crate::support::system::{System, Tenant};
use crate::writes_together::transactions;

/// The trace and the span of whoever calls.
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";

fn settings(collector: &Collector) -> Vec<(&'static str, &'static str)> {
    vec![
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &*collector.url.clone().leak()),
        ("OTEL_BSP_SCHEDULE_DELAY", "100"),
        ("OTEL_BLRP_SCHEDULE_DELAY", "100"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "200"),
        ("MUSTER_TRUST_TRACEPARENT", "true"),
        ("MUSTER_LOG", "info"),
        ("MUSTER_LOG_FORMAT", "json"),
    ]
}

/// A request in the trace of `TRACE`; its answer.
async fn traced(tenant: &Tenant, method: http::Method, path: &str, body: &Value) -> Value {
    traced_in(TRACE, tenant, method, path, body).await
}

async fn traced_in(
    trace: &str,
    tenant: &Tenant,
    method: http::Method,
    path: &str,
    body: &Value,
) -> Value {
    let header = (
        HeaderName::from_static("traceparent"),
        HeaderValue::from_str(&format!("00-{trace}-{CALLER}-01")).ok(),
    );
    let bytes = bytes::Bytes::from(body.to_string());
    let answer = tenant.client.send_bytes(method, path, Some(bytes), &[header]).await.unwrap();
    assert!(answer.status < 300, "{}", answer.text);
    answer.body.unwrap_or_default()
}

/// Spans of one trace, and who is below whom.
struct Tree {
    spans: Vec<Span>,
    children: BTreeMap<String, Vec<usize>>,
}

impl Tree {
    fn of(spans: Vec<Span>) -> Self {
        let mut children = BTreeMap::<String, Vec<usize>>::new();
        for (i, span) in spans.iter().enumerate() {
            children.entry(span.parent.clone()).or_default().push(i);
        }
        Self { spans, children }
    }

    fn below<'a>(&'a self, id: &str) -> Vec<&'a Span> {
        let mut below: Vec<&Span> =
            self.children.get(id).into_iter().flatten().map(|i| &self.spans[*i]).collect();
        below.sort_by_key(|span| span.nanoseconds);
        below
    }

    /// Whether everything is there that the spans speak of: what is above each, and what each
    /// call of another process led to.
    fn is_whole(&self) -> bool {
        let ids: BTreeSet<&str> = self.spans.iter().map(|span| &*span.id).collect();
        let is_call = |span: &Span| {
            span.kind == SpanKind::Client && span.attributes.contains_key("rpc.method")
        };
        self.spans.iter().all(|span| {
            let is_below = span.parent == CALLER || ids.contains(&*span.parent);
            is_below && (!is_call(span) || self.children.contains_key(&span.id))
        })
    }

    fn lines(&self, id: &str, depth: usize, lines: &mut Vec<String>) {
        for span in self.below(id) {
            let service = span.service.strip_prefix("muster-").unwrap();
            let kind = format!("{:?}", span.kind).to_lowercase();
            lines.push(format!("{}{service} {kind} {}", "  ".repeat(depth), span.name));
            self.lines(&span.id, depth + 1, lines);
        }
    }
}

#[tokio::test]
async fn one_trace_leads_from_the_request_through_four_processes_to_each_statement() {
    let collector = Collector::start().await;
    let system = System::start_mutual("traced", &settings(&collector));
    let tenant = system.tenant().await;
    let user = json!({
        "userName": "ann@northwind.example",
        "emails": [{"value": "ann@northwind.example", "type": "work", "primary": true}],
        "urn:learnerbly:params:scim:schemas:2.0:User": {"approvers": ["bo@northwind.example"]},
    });
    traced(&tenant, http::Method::POST, "/Users", &user).await;

    // Each process tells what it did in the order of its ends, but not in step with the others.
    let tree = collector
        .until("the trace of the request", |collector| {
            let spans = collector.spans().into_iter().filter(|s| s.trace_id == TRACE);
            let tree = Tree::of(spans.collect());
            (tree.below(CALLER).len() == 1 && tree.is_whole()).then_some(tree)
        })
        .await;
    let mut lines = Vec::new();
    tree.lines(CALLER, 0, &mut lines);
    assert_eq!(lines.len(), tree.spans.len(), "spans without a parent: {:#?}", tree.spans);
    let lines = lines.join("\n");
    println!("{lines}");

    let root = tree.below(CALLER)[0];
    assert_eq!((&*root.name, root.kind), ("POST /scim/v2/Users", SpanKind::Server));
    assert_eq!(root.attributes["http.response.status_code"], "201");
    assert_eq!(root.attributes["http.route"], "/scim/v2/Users");
    for (caller, callee, method) in [
        ("gateway", "identity", "muster.identity.v1.UserService/CreateUser"),
        ("gateway", "approver", "muster.approver.v1.ApproverService/AwaitUser"),
    ] {
        let expected = format!(
            "  {caller} client {method}\n    {callee} server {method}\n      {callee} client "
        );
        assert!(lines.contains(&expected), "{expected}in\n{lines}");
    }
    for line in ["      identity client INSERT identity.users", "      identity client COMMIT"] {
        assert!(lines.contains(line), "{line:?} in\n{lines}");
    }
    let services: BTreeSet<&str> = tree.spans.iter().map(|span| &*span.service).collect();
    assert_eq!(services.len(), 3, "{services:?}");
    for span in &tree.spans {
        let attributes = &span.attributes;
        if let Some(system) = attributes.get("db.system.name") {
            assert_eq!(system, "postgresql");
            assert_eq!(attributes["db.query.summary"], span.name);
            assert!(!format!("{span:?}").contains(&tenant.id), "{span:?}");
            assert_eq!(span.name.split(' ').next(), Some(&*attributes["db.operation.name"]));
        }
        if let Some(method) = attributes.get("rpc.method") {
            assert_eq!((method, &*attributes["rpc.system.name"]), (&span.name, "grpc"));
            assert_eq!(attributes["rpc.response.status_code"], "OK", "{}", span.name);
        }
        assert!(!format!("{span:?}").contains("northwind"), "{span:?}");
        let above = tree.spans.iter().find(|above| above.id == span.parent);
        let within = |above: &Span| {
            // Clocks are one; a statement's beginning is computed from its end.
            let slack = 2_000_000;
            above.nanoseconds.0 <= span.nanoseconds.0 + slack
                && span.nanoseconds.1 <= above.nanoseconds.1 + slack
        };
        assert!(above.is_none_or(within), "{span:?} in {above:?}");
    }
}

#[tokio::test]
async fn each_change_says_which_request_made_it_also_where_several_made_theirs_together() {
    let collector = Collector::start().await;
    let system = System::start_apart_with("caused", &settings(&collector));
    let tenant = system.tenant().await;
    let mut rounds = 0;
    loop {
        let posts = (0..16).map(|n| {
            let (trace, tenant) = (format!("{:032x}", 1 + rounds * 16 + n), &tenant);
            async move {
                let user = json!({"userName": trace});
                let user = traced_in(&trace, tenant, http::Method::POST, "/Users", &user).await;
                (user["id"].as_str().unwrap().to_owned(), trace)
            }
        });
        for (user_id, trace) in join_all(posts).await {
            let organisation_id = tenant.id.clone();
            let request =
                ListChangesRequest { organisation_id, user_id, ..ListChangesRequest::default() };
            let listed = system.users().list_changes(request).await.unwrap().into_inner();
            let [change] = &listed.changes[..] else { panic!("{listed:?}") };
            let traceparent = &change.metadata.as_ref().unwrap().traceparent;
            assert_eq!(traceparent.split('-').nth(1), Some(&*trace), "{traceparent}");
        }
        let (transactions, changes) = transactions(&system, "identity", &tenant.id).await;
        if transactions < changes {
            return;
        }
        rounds += 1;
        assert!(rounds < 20, "no two writes ever met");
    }
}

#[tokio::test]
async fn what_a_follower_does_is_linked_to_the_write_that_caused_it() {
    let collector = Collector::start().await;
    let system = System::start_apart_with("linked", &settings(&collector));
    let tenant = system.tenant().await;
    traced(&tenant, http::Method::POST, "/Users", &json!({"userName": "ann"})).await;
    for follower in ["muster-group", "muster-approver"] {
        let (write, follow) = collector
            .until(&format!("what {follower} does"), |collector| {
                let spans = collector.spans();
                let write = spans.iter().find(|span| {
                    span.trace_id == TRACE
                        && span.name == "muster.identity.v1.UserService/CreateUser"
                        && span.kind == SpanKind::Server
                })?;
                let linked = (write.trace_id.clone(), write.id.clone());
                let follow = spans
                    .iter()
                    .find(|span| span.service == follower && span.links.contains(&linked))?;
                Some((write.clone(), follow.clone()))
            })
            .await;
        assert_eq!((&*follow.name, follow.kind), ("follow", SpanKind::Consumer));
        assert_ne!(follow.trace_id, write.trace_id);
        assert_eq!(follow.parent, "");
        assert_eq!(follow.attributes["messaging.batch.message_count"], "1");
        collector
            .until("its statements", |collector| {
                let below = collector.spans().into_iter().filter(|s| s.parent == follow.id);
                let names: Vec<String> = below.map(|span| span.name).collect();
                (names.len() > 1 && names.last()? == "COMMIT").then_some(())
            })
            .await;
    }
}

#[tokio::test]
async fn a_log_has_the_ids_of_its_trace_at_the_collector_and_on_standard_error() {
    let collector = Collector::start().await;
    let system = System::start_apart_with("logged", &settings(&collector));
    let tenant = system.tenant().await;
    let members = json!([{"value": "01a20dd5-057c-7370-95bc-182bcdb7607e"}]);
    let group = json!({"displayName": "Sales", "members": members});
    traced(&tenant, http::Method::POST, "/Groups", &group).await;
    let message = "applied in part: members who are no users were left out";
    let (record, span) = collector
        .until("the line", |collector| {
            let record = collector.records().into_iter().find(|record| record.body == message)?;
            let span = collector.spans().into_iter().find(|span| span.id == record.span_id)?;
            Some((record, span))
        })
        .await;
    assert_eq!((&*record.service, &*record.severity), ("muster-gateway", "INFO"));
    assert_eq!(record.trace_id, TRACE);
    assert_eq!(record.attributes["count"], "1");
    assert_eq!(span.name, "POST /scim/v2/Groups");

    let logs = system.process("gateway").log();
    let line = logs.lines().find(|line| line.contains(message)).unwrap();
    let line: Value = serde_json::from_str(line).unwrap();
    assert_eq!(line.pointer("/openTelemetry/traceId"), Some(&json!(TRACE)), "{line}");
    assert_eq!(line.pointer("/openTelemetry/spanId"), Some(&json!(span.id)), "{line}");
    // Not one line of the log is anything else than an object.
    for line in logs.lines().filter(|line| !line.starts_with("SCIM base URL")) {
        assert!(serde_json::from_str::<Value>(line).is_ok_and(|l| l.is_object()), "{line}");
    }
}

#[tokio::test]
async fn the_metrics_are_those_that_are_listed() {
    let collector = Collector::start().await;
    let system = System::start_mutual("metered", &settings(&collector));
    let tenant = system.tenant().await;
    let ann = tenant.client.post("/Users", &json!({"userName": "ann"})).await.unwrap();
    assert_eq!(ann.status, 201);
    assert_eq!(tenant.client.get("/Users/nobody").await.unwrap().status, 404);
    let listed: BTreeSet<&str> = metrics::ALL.iter().map(|metric| metric.name).collect();
    assert_eq!(listed.len(), metrics::ALL.len(), "a name is there twice");
    let told = collector.until("every metric", |collector| {
        let told = collector.series();
        let names: BTreeSet<&str> = told.iter().map(|series| &*series.name).collect();
        listed.is_subset(&names).then_some(told.clone())
    });
    for series in told.await {
        let metric = metrics::ALL.iter().find(|metric| metric.name == series.name);
        let Some(metric) = metric else { panic!("{series:?} is not listed") };
        assert_eq!((series.unit.as_str(), series.kind), (metric.unit, metric.kind), "{series:?}");
        for name in series.attributes.keys() {
            assert!(metric.attributes.contains(&&**name), "{name} is not listed: {series:?}");
        }
    }
    // Rate, errors and duration of each route and of each method.
    for (name, attributes) in [
        (
            "http.server.request.duration",
            json!({"http.request.method": "POST", "http.route": "/scim/v2/Users", "http.response.status_code": "201"}),
        ),
        (
            "http.server.request.duration",
            json!({"http.request.method": "GET", "http.route": "/scim/v2/Users/{id}", "http.response.status_code": "404"}),
        ),
        (
            "rpc.server.call.duration",
            json!({"rpc.system.name": "grpc", "rpc.method": "muster.identity.v1.UserService/CreateUser", "rpc.response.status_code": "OK"}),
        ),
        (
            "rpc.client.call.duration",
            json!({"rpc.system.name": "grpc", "rpc.method": "muster.identity.v1.UserService/CreateUser", "rpc.response.status_code": "OK"}),
        ),
        ("db.client.connection.max", json!({"db.client.connection.pool.name": "identity"})),
        ("muster.api_key.lookups", json!({"muster.result": "miss"})),
    ] {
        let what = format!("{name} of {attributes}");
        let found = collector.until(&what, |collector| {
            let told = collector.series();
            let is = |a: &BTreeMap<String, String>| json!(a) == attributes;
            told.into_iter().find(|series| series.name == name && is(&series.attributes))
        });
        let found = found.await;
        assert!(found.value >= 1.0, "{found:?}");
        if found.kind == Kind::Histogram && name.starts_with("http") {
            assert!((found.value - 1.0).abs() < 0.5, "{found:?}");
        }
    }
}
