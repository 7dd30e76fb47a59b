//! Every route of the SCIM surface that asks a service.

use axum::body::Body;
use http::{Method, Request, header};
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::{Call, Here, Subject};

pub(super) fn all(here: &Here) -> Vec<Call> {
    let call = |method: Method, path: &'static str, body: fn(&Subject) -> Value| {
        let (router, method_too) = (here.router.clone(), method.clone());
        let authorization = format!("Static {}", here.tenant.client.key());
        let make = move |subject: Subject| {
            let path = path.replace("{user}", &subject.user.id);
            let path = path.replace("{group}", &subject.group.id);
            let body = body(&subject);
            let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
            let request = Request::builder()
                .method(method.clone())
                .uri(format!("/scim/v2{path}"))
                .header(header::AUTHORIZATION, &authorization)
                .header(header::CONTENT_TYPE, "application/scim+json")
                .body(body)
                .unwrap();
            let answer = router.clone().oneshot(request);
            let answer = async move {
                let (answer, body) = answer.await.unwrap().into_parts();
                let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
                assert!(answer.status.is_success(), "{}", String::from_utf8_lossy(&body));
            };
            Box::pin(answer) as _
        };
        Call { name: format!("{method_too} {path}"), make: Box::new(make) }
    };
    let nothing = |_: &Subject| Value::Null;
    vec![
        call(Method::POST, "/Users", |subject| person(&format!("new{}@a.example", subject.number))),
        call(Method::GET, "/Users", nothing),
        call(
            Method::GET,
            "/Users?filter=urn:learnerbly:params:scim:schemas:2.0:User:approvers%20sw%20%22u%22&count=5",
            nothing,
        ),
        call(Method::GET, "/Users?filter=groups.value%20eq%20%22{group}%22", nothing),
        call(Method::GET, "/Users/{user}", nothing),
        call(Method::PUT, "/Users/{user}", |subject| {
            person(&format!("put{}@a.example", subject.number))
        }),
        call(Method::PATCH, "/Users/{user}", |subject| {
            let name = format!("patched{}@a.example", subject.number);
            patch(json!([
                {"op": "replace", "path": "emails[primary eq true].value", "value": name},
                {"op": "replace", "path": "active", "value": false},
            ]))
        }),
        call(Method::DELETE, "/Users/{user}", nothing),
        call(Method::POST, "/Groups", |subject| group("new", subject)),
        call(Method::GET, "/Groups", nothing),
        call(Method::GET, "/Groups/{group}", nothing),
        call(Method::PUT, "/Groups/{group}", |subject| group("put", subject)),
        call(Method::PATCH, "/Groups/{group}", |subject| {
            patch(json!([
                {"op": "remove", "path": format!("members[value eq \"{}\"]", subject.user.id)},
                {"op": "replace", "path": "displayName", "value": format!("p{}", subject.number)},
            ]))
        }),
        call(Method::DELETE, "/Groups/{group}", nothing),
        call(Method::POST, "/Bulk", |subject| {
            let name = format!("bulk{}@a.example", subject.number);
            let members = json!([{"value": "bulkId:p"}, {"value": subject.user.id}]);
            let group = json!({"displayName": name, "members": members});
            json!({"schemas": ["urn:ietf:params:scim:api:messages:2.0:BulkRequest"], "Operations": [
                {"method": "POST", "path": "/Users", "bulkId": "p", "data": person(&name)},
                {"method": "POST", "path": "/Groups", "bulkId": "g", "data": group},
                {"method": "DELETE", "path": format!("/Users/{}", subject.user.id)},
            ]})
        }),
        call(Method::POST, "/.search", |_| search()),
        call(Method::POST, "/Users/.search", |_| search()),
        call(Method::POST, "/Groups/.search", |_| search()),
    ]
}

fn person(name: &str) -> Value {
    json!({"userName": name, "emails": [{"value": name, "primary": true}]})
}

fn group(what: &str, subject: &Subject) -> Value {
    let name = format!("{what}{}", subject.number);
    json!({"displayName": name, "members": [{"value": subject.user.id}]})
}

fn patch(operations: Value) -> Value {
    json!({
        "schemas": ["urn:ietf:params:scim:api:messages:2.0:PatchOp"], "Operations": operations,
    })
}

fn search() -> Value {
    json!({
        "schemas": ["urn:ietf:params:scim:api:messages:2.0:SearchRequest"],
        "filter": "meta.created gt \"2020-01-01T00:00:00Z\"",
        "count": 3,
    })
}
