//! Nothing secret or personal reaches a log, a trace or a metric: marked values go through
//! everything, and are looked for everywhere.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::response::IntoResponse as _;
use bytes::Bytes;
use futures::stream;
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body_util::StreamBody;
use muster::scim_client::{Method, ScimClient};
use muster_proto::identity::v1::SearchUsersRequest;
use muster_runtime::grpc;
use muster_runtime::life::Life;
use serde_json::json;
use tokio::net::TcpListener;
use tonic::service::Routes;
use uuid::Uuid;

use crate::personal_data::{holding, lived};
use crate::support::browser::Browser;
use crate::support::system::System;

const PATIENCE: Duration = Duration::from_secs(30);

/// Everything that is exported, as it comes.
#[derive(Clone, Default)]
struct Exported(Arc<Mutex<Vec<u8>>>);

impl Exported {
    /// Takes whatever is sent to it by gRPC; its address.
    async fn start(&self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let kept = self.clone();
        let take = move |body: Bytes| async move {
            kept.0.lock().unwrap().extend_from_slice(&body);
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", HeaderValue::from_static("0"));
            // An empty message.
            let frames = [
                hyper::body::Frame::data(Bytes::from_static(&[0; 5])),
                hyper::body::Frame::trailers(trailers),
            ];
            let frames = stream::iter(frames.map(Ok::<_, std::convert::Infallible>));
            let body = axum::body::Body::new(StreamBody::new(frames));
            ([("content-type", "application/grpc")], body).into_response()
        };
        let router = axum::Router::new().fallback(take);
        tokio::spawn(grpc::serve(listener, Routes::from(router), Life::new()));
        url
    }

    fn has(&self, text: &str) -> bool {
        let exported = self.0.lock().unwrap();
        let (exported, text) = (exported.to_ascii_lowercase(), text.to_ascii_lowercase());
        exported.windows(text.len()).any(|part| part == text.as_bytes())
    }

    async fn comes(&self, text: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.has(text) {
            assert!(Instant::now() < deadline, "{text:?} is not exported");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// What is asked with marked values and refused, in many ways.
async fn refused(client: &ScimClient, mark: &str) {
    let muster = "urn:learnerbly:params:scim:schemas:2.0:User";
    for body in [
        json!({"userName": format!("{mark}2"), "emails": [{"value": format!("{mark}+ann@northwind.example"), "type": "work"}]}),
        json!({"userName": format!("{mark}3"), muster: {"contentRegion": mark}}),
        json!({"userName": [mark]}),
        json!({"userName": format!("{mark}\n")}),
        json!({"userName": "x", "password": mark, "active": mark}),
    ] {
        let answer = client.post("/Users", &body).await.unwrap();
        assert!((400..500).contains(&answer.status), "{body}: {}", answer.text);
    }
    for path in [
        format!("/Users?filter=userName%20eq%20{mark}"),
        format!("/Users?filter={mark}%20eq%20%22x%22"),
        format!("/Users/{mark}"),
        format!("/{mark}"),
        format!("/Users?startIndex={mark}"),
        format!("/Users?cursor={mark}"),
    ] {
        let answer = client.get(&path).await.unwrap();
        assert!((400..500).contains(&answer.status), "{path}: {}", answer.text);
    }
    let broken = Bytes::from(format!("{{\"userName\": \"{mark}\""));
    let answer = client.send_bytes(Method::POST, "/Users", Some(broken), &[]).await.unwrap();
    assert_eq!(answer.status, 400);
    for name in ["user-agent", "x-request-id", "traceparent", "cookie", "if-match"] {
        let header = (HeaderName::from_static(name), HeaderValue::from_str(mark).ok());
        client.send_bytes(Method::GET, "/Users", None, &[header]).await.unwrap();
    }
    let key = ScimClient::new(client.base_url(), format!("Static muster_{mark}")).unwrap();
    assert_eq!(key.get("/Users").await.unwrap().status, 401);
}

#[tokio::test]
async fn marked_values_are_in_no_log_no_trace_and_no_metric() {
    let exported = Exported::default();
    let url = &*exported.start().await.leak();
    let settings = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", url),
        ("OTEL_BSP_SCHEDULE_DELAY", "100"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "200"),
        ("MUSTER_LOG", "debug"),
        ("MUSTER_LOG_FORMAT", "json"),
    ];
    let system = System::start_apart_with("canary", &settings);
    let tenant = system.tenant().await;
    let mark = format!("mark{}", Uuid::new_v4().simple());
    let id = lived(&tenant, &mark).await;
    refused(&tenant.client, &mark).await;
    let search = SearchUsersRequest {
        organisation_id: tenant.id.clone(),
        query: mark.clone(),
        ..SearchUsersRequest::default()
    };
    let found = system.users().search_users(search).await.unwrap().into_inner().users;
    assert_eq!(found.len(), 1, "the mark is where it is looked for");
    // Somebody signs in with a password, and then with a wrong one that is marked.
    let (email, password) = (format!("{mark}@admin.example"), format!("{mark} is wrong"));
    let browser = system.admin(&tenant.id, &email).await;
    browser.get(&format!("/admin/people?q={mark}")).await;
    let stranger = Browser::new(&system);
    let fields = [("email", &*email), ("password", &*password)];
    stranger.send_form("/admin/sign-in", &[("origin", &stranger.url)], &fields).await;

    exported.comes("POST /scim/v2/Users").await;
    exported.comes("muster.identity.v1.UserService/CreateUser").await;
    exported.comes("muster.feed.lag").await;
    let deleted = tenant.client.delete(&format!("/Users/{id}")).await.unwrap();
    assert_eq!(deleted.status, 204);
    exported.comes("DELETE /scim/v2/Users/{id}").await;
    let key = tenant.client.key();
    let (_, secret) = key.rsplit_once('_').unwrap();
    let logs = system.logs();
    assert!(logs.len() > 10_000, "there are logs: {} bytes", logs.len());
    for (what, text) in [("what is personal", &*mark), ("the key", secret)] {
        let line = logs.lines().find(|line| line.to_lowercase().contains(&text.to_lowercase()));
        assert_eq!(line, None, "{what} is in a log");
        assert!(!exported.has(text), "{what} is in a trace or a metric");
    }
    assert_eq!(holding(&system, secret).await, Vec::<String>::new(), "the key is in a table");
    let wrong = holding(&system, &password).await;
    assert_eq!(wrong, Vec::<String>::new(), "the password is in a table");
}
