//! Writes of users that meet, of which several share a transaction.

use std::collections::BTreeSet;

use futures::future::join_all;
use http::{HeaderName, HeaderValue, Method, header};
use muster::scim_client::{Answer, ScimClient};
use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection};

use crate::support::system::{System, Tenant, both};

/// How often writes are sent at once until some have met.
const ROUNDS: usize = 20;

/// In how many transactions how many of an organisation's changes were made.
pub(crate) async fn transactions(system: &System, organisation: &str) -> (i64, i64) {
    let url = system.database_url("postgres");
    let mut connection = PgConnection::connect(&url).await.unwrap();
    sqlx::query_as(
        "SELECT count(DISTINCT xmin::text), count(*) FROM identity.change
          WHERE organisation_id = $1::uuid",
    )
    .bind(organisation)
    .fetch_one(&mut connection)
    .await
    .unwrap()
}

/// A write, and which statuses it may be answered with.
struct Sent {
    method: Method,
    path: String,
    body: Value,
    if_match: Option<&'static str>,
    expected: &'static [u16],
}

impl Sent {
    fn post(body: Value, expected: &'static [u16]) -> Self {
        Self { method: Method::POST, path: "/Users".into(), body, if_match: None, expected }
    }

    fn put(id: &str, body: Value) -> Self {
        let path = format!("/Users/{id}");
        Self { method: Method::PUT, path, body, if_match: None, expected: &[200] }
    }

    fn patch(id: &str, value: &Value, expected: &'static [u16]) -> Self {
        let body = json!({"Operations": [{"op": "replace", "value": value}]});
        Self { method: Method::PATCH, expected, ..Self::put(id, body) }
    }

    async fn answer(&self, client: &ScimClient) -> Answer {
        let tag = self.if_match.and_then(|tag| HeaderValue::from_str(tag).ok());
        let headers: Vec<(HeaderName, Option<HeaderValue>)> =
            self.if_match.iter().map(|_| (header::IF_MATCH, tag.clone())).collect();
        let bytes = self.body.to_string().into();
        let answer =
            client.send_bytes(self.method.clone(), &self.path, Some(bytes), &headers).await;
        let answer = answer.unwrap();
        let (method, path) = (&self.method, &self.path);
        assert!(self.expected.contains(&answer.status), "{method} {path}: {}", answer.text);
        answer
    }
}

fn user(name: &str) -> Value {
    json!({"userName": name, "emails": [{"value": name, "type": "work", "primary": true}]})
}

/// Writes at once what depends on each other and what does not, and looks at what became of it.
async fn round(tenant: &Tenant, n: usize) {
    let client = &tenant.client;
    let name = |who: &str| format!("{who}{n}@a.example");
    let new: Vec<Sent> =
        (0..8).map(|i| Sent::post(user(&name(&format!("u{i}-"))), &[201])).collect();
    let created = join_all(new.iter().map(|new| new.answer(client))).await;
    let id = |i: usize| created[i].at("/id").as_str().unwrap().to_owned();
    let ids: BTreeSet<String> = (0..8).map(id).collect();
    assert_eq!(ids.len(), 8);

    let moved = json!({
        "userName": name("moved"),
        "emails": [{"value": name("moved"), "type": "work", "primary": true}],
    });
    let mut writes: Vec<Sent> =
        (0..4).map(|i| Sent::patch(&id(i), &json!({"title": format!("t{i}")}), &[200])).collect();
    writes.extend([
        Sent::put(&id(4), user(&name("u4-"))),
        Sent { if_match: Some("W/\"7\""), ..Sent::patch(&id(5), &json!({"title": "x"}), &[412]) },
        Sent::patch("01a20dd5-057c-7370-95bc-182bcdb7607e", &json!({"title": "x"}), &[404]),
        Sent::patch(&id(6), &moved, &[200]),
        Sent::patch(&id(7), &json!({"title": "both"}), &[200]),
        Sent::patch(&id(7), &json!({"nickName": "both"}), &[200]),
        Sent::patch(&id(5), &json!({"userName": " "}), &[400]),
        Sent::post(user(&name("twin")), &[201, 409]),
        Sent::post(user(&name("twin")), &[201, 409]),
        Sent::post(user(&name("u0-")), &[409]),
        Sent::post(json!({"title": "nobody"}), &[400]),
    ]);
    writes.extend((0..4).map(|i| Sent::post(user(&name(&format!("n{i}-"))), &[201])));
    let answers = join_all(writes.iter().map(|write| write.answer(client))).await;

    for (i, answer) in answers.iter().enumerate().take(4) {
        let read = client.get(&format!("/Users/{}", id(i))).await.unwrap();
        assert_eq!(read.at("/title"), &format!("t{i}"));
        assert_eq!(
            (read.at("/meta/version"), answer.body.as_ref()),
            (&json!("W/\"2\""), read.body.as_ref())
        );
    }
    assert_eq!(answers[4].body, created[4].body, "a write that changes nothing");
    assert_eq!(answers[7].at("/userName"), &name("moved"));
    let seventh = client.get(&format!("/Users/{}", id(7))).await.unwrap();
    assert_eq!((seventh.at("/title"), seventh.at("/nickName")), (&json!("both"), &json!("both")));
    assert_eq!(seventh.at("/meta/version"), "W/\"3\"");
    let mut twins = [answers[11].status, answers[12].status];
    twins.sort_unstable();
    assert_eq!(twins, [201, 409]);
    for who in ["moved", "twin", "n0-", "n3-", "u6-"] {
        let path = format!("/Users?filter=userName%20eq%20%22{}%22", name(who));
        let found = client.get(&path).await.unwrap();
        assert_eq!(found.at("/totalResults"), u64::from(who != "u6-"), "{who}");
    }
}

#[tokio::test]
async fn of_writes_that_meet_each_is_answered_as_if_it_were_alone() {
    for system in both() {
        let tenant = system.tenant().await;
        let mut rounds = 0;
        loop {
            round(&tenant, rounds).await;
            rounds += 1;
            let users = tenant.client.get("/Users?count=0").await.unwrap();
            assert_eq!(users.at("/totalResults"), rounds * (8 + 1 + 4), "{}", system.name);
            let (transactions, changes) = transactions(system, &tenant.id).await;
            // Four are patched once, one twice, and one moves.
            assert_eq!(usize::try_from(changes), Ok(rounds * (8 + 1 + 4 + 4 + 2 + 1)));
            if transactions < changes {
                break;
            }
            assert!(rounds < ROUNDS, "{}: no two writes ever met", system.name);
        }
    }
}
