//! Writes that meet, of which several share a transaction.

use std::collections::BTreeSet;
use std::sync::LazyLock;
use std::time::Duration;

use futures::future::join_all;
use http::{HeaderName, HeaderValue, Method, header};
use muster::scim_client::{Answer, ScimClient};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};

use crate::support::system::{System, Tenant};

/// How often writes are sent at once until some have met.
const ROUNDS: usize = 20;

/// Four processes that let an organisation's requests meet also beside another's.
fn meeting() -> &'static System {
    static MEETING: LazyLock<System> = LazyLock::new(|| {
        let setting = ("MUSTER_ORGANISATION_IN_FLIGHT_BESIDE", "16");
        System::start_apart_with("meeting", &[setting])
    });
    &MEETING
}

/// How much later than the first of several writes the others come at most; where they do not, there
/// is another round.
const LATER: Duration = Duration::from_millis(200);

/// In how many transactions how many of an organisation's changes were made, of those of a schema.
pub(crate) async fn transactions(system: &System, schema: &str, organisation: &str) -> (i64, i64) {
    let url = system.database_url("postgres");
    let mut connection = PgConnection::connect(&url).await.unwrap();
    let statement = format!(
        "SELECT count(DISTINCT xmin::text), count(*) FROM {schema}.change
          WHERE organisation_id = $1::uuid"
    );
    sqlx::query_as(AssertSqlSafe(statement))
        .bind(organisation)
        .fetch_one(&mut connection)
        .await
        .unwrap()
}

/// A lock that is held.
struct Held {
    holder: PgConnection,
    looker: PgConnection,
    pid: i32,
}

impl Held {
    /// Holds what a statement locks.
    async fn by(system: &System, statement: &str) -> Self {
        let url = system.database_url("postgres");
        let mut holder = PgConnection::connect(&url).await.unwrap();
        holder.execute(AssertSqlSafe(format!("BEGIN; {statement}"))).await.unwrap();
        let pid = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut holder).await;
        let looker = PgConnection::connect(&url).await.unwrap();
        Self { holder, looker, pid: pid.unwrap() }
    }

    async fn until_somebody_waits(&mut self) {
        let waits = "SELECT EXISTS (SELECT FROM pg_stat_activity
                                     WHERE $1 = ANY (pg_blocking_pids(pid)))";
        let mut look = async || {
            sqlx::query_scalar(waits).bind(self.pid).fetch_one(&mut self.looker).await.unwrap()
        };
        while !look().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn let_go(mut self) {
        self.holder.execute("ROLLBACK").await.unwrap();
    }
}

/// Sends writes at once, and has the first of them wait at the organisation's feed until the others
/// have had the time to come.
async fn meet(system: &System, schema: &str, tenant: &Tenant, writes: &[Sent]) -> Vec<Answer> {
    let lock = format!(
        "SELECT FROM {schema}.feed_lock WHERE organisation_id = '{}' FOR NO KEY UPDATE",
        tenant.id
    );
    let mut feed = Held::by(system, &lock).await;
    let let_go = async {
        feed.until_somebody_waits().await;
        tokio::time::sleep(LATER).await;
        feed.let_go().await;
    };
    let answers = join_all(writes.iter().map(|write| write.answer(&tenant.client)));
    tokio::join!(answers, let_go).0
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

    fn patch_group(path: &str, operation: &Value) -> Self {
        let body = json!({"Operations": [operation]});
        let (method, path) = (Method::PATCH, path.to_owned());
        Self { method, path, body, if_match: None, expected: &[200, 204] }
    }

    fn add(path: &str, member: &str) -> Self {
        let value = json!([{"value": member}]);
        Self::patch_group(path, &json!({"op": "add", "path": "members", "value": value}))
    }

    fn remove(path: &str, member: &str) -> Self {
        let members = format!("members[value eq \"{member}\"]");
        Self::patch_group(path, &json!({"op": "remove", "path": members}))
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
async fn round(system: &System, tenant: &Tenant, n: usize) {
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
    let answers = meet(system, "identity", tenant, &writes).await;

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
    let system = meeting();
    let tenant = system.tenant().await;
    for n in 1..=ROUNDS {
        round(system, &tenant, n).await;
        let users = tenant.client.get("/Users?count=0").await.unwrap();
        assert_eq!(users.at("/totalResults"), n * (8 + 1 + 4));
        let (transactions, changes) = transactions(system, "identity", &tenant.id).await;
        // Four are patched once, one twice, and one moves.
        assert_eq!(usize::try_from(changes), Ok(n * (8 + 1 + 4 + 4 + 2 + 1)));
        if transactions < changes {
            return;
        }
    }
    panic!("no two writes ever met");
}

/// Moves members at once between what depends on each other and what does not.
async fn round_of_members(system: &System, tenant: &Tenant, n: usize) {
    let client = &tenant.client;
    let mut ids = Vec::new();
    for i in 0..10 {
        let created = Sent::post(user(&format!("m{n}-{i}@a.example")), &[201]).answer(client).await;
        ids.push(created.at("/id").as_str().unwrap().to_owned());
    }
    let mut paths = Vec::new();
    for name in ["a", "b"] {
        let group = json!({"displayName": format!("{name}{n}"), "members": [{"value": ids[9]}]});
        let created = client.post("/Groups", &group).await.unwrap();
        paths.push(format!("/Groups/{}", created.at("/id").as_str().unwrap()));
    }
    let [a, b] = &paths[..] else { unreachable!() };
    let renamed = format!("renamed{n}");
    let mut writes: Vec<Sent> = ids[..5].iter().map(|id| Sent::add(a, id)).collect();
    writes.extend([
        Sent::add(a, &ids[4]),
        Sent::remove(a, &ids[9]),
        Sent::add(a, "01a20dd5-057c-7370-95bc-182bcdb7607e"),
        Sent::remove(b, &ids[8]),
        Sent::patch_group(b, &json!({"op": "replace", "value": {"displayName": renamed}})),
        Sent { if_match: Some("W/\"99\""), expected: &[412], ..Sent::add(b, &ids[7]) },
        Sent {
            expected: &[404],
            ..Sent::add("/Groups/01a20dd5-057c-7370-95bc-182bcdb7607e", &ids[6])
        },
    ]);
    writes.extend(ids[..3].iter().map(|id| Sent::add(b, id)));
    meet(system, "groups", tenant, &writes).await;

    for (path, name, members, version) in [
        (a, &format!("a{n}"), &[0, 1, 2, 3, 4][..], "W/\"7\""),
        (b, &renamed, &[0, 1, 2, 9], "W/\"5\""),
    ] {
        let read = client.get(path).await.unwrap();
        let there: BTreeSet<&str> = read
            .at("/members")
            .as_array()
            .unwrap()
            .iter()
            .map(|member| member["value"].as_str().unwrap())
            .collect();
        assert_eq!(there, members.iter().map(|i| ids[*i].as_str()).collect());
        assert_eq!(
            (read.at("/displayName"), read.at("/meta/version")),
            (&json!(name), &json!(version))
        );
    }
}

#[tokio::test]
async fn of_members_who_come_and_go_at_once_each_does() {
    let system = meeting();
    let tenant = system.tenant().await;
    for n in 1..=ROUNDS {
        round_of_members(system, &tenant, n).await;
        let (transactions, changes) = transactions(system, "groups", &tenant.id).await;
        // Two come into being; five come to one and one goes; three come to the other, renamed.
        assert_eq!(usize::try_from(changes), Ok(n * (2 + 6 + 4)));
        if transactions < changes {
            return;
        }
    }
    panic!("no two writes ever met");
}

#[tokio::test]
async fn a_write_that_waits_for_a_lock_keeps_no_other_waiting() {
    let system = meeting();
    let tenant = system.tenant().await;
    let client = &tenant.client;
    let mut ids = Vec::new();
    for name in ["locked@a.example", "free@a.example"] {
        let created = Sent::post(user(name), &[201]).answer(client).await;
        ids.push(created.at("/id").as_str().unwrap().to_owned());
    }
    let lock = format!("SELECT FROM identity.users WHERE user_id = '{}' FOR UPDATE", ids[0]);
    let mut held = Held::by(system, &lock).await;
    let title = json!({"title": "x"});
    let [locked, free] = [&ids[0], &ids[1]].map(|id| Sent::patch(id, &title, &[200]));
    let locked = locked.answer(client);
    tokio::pin!(locked);
    let free = async {
        held.until_somebody_waits().await;
        free.answer(client).await
    };
    tokio::select! {
        biased;
        _ = &mut locked => panic!("the other waited for the one that waits"),
        _ = free => {}
    }
    held.let_go().await;
    locked.await;
}
