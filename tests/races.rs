//! Requests that meet, and parts that are away.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use futures::future::join_all;
use muster::scim_client::{Answer, ScimClient};
use muster_proto::approver::v1::{Approver, ApproverState};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::support::system::{System, both, together};

const MUSTER: &str = "urn:learnerbly:params:scim:schemas:2.0:User";

async fn create(client: &ScimClient, user: Value) -> String {
    let answer = client.post("/Users", &user).await.unwrap();
    assert_eq!(answer.status, 201, "{}", answer.text);
    answer.at("/id").as_str().unwrap().to_owned()
}

fn user(name: &str) -> Value {
    json!({"userName": name, "emails": [{"value": name, "type": "work", "primary": true}]})
}

/// Waits until what is read is as expected.
async fn eventually<F: Future<Output = Answer>>(
    read: impl Fn() -> F,
    expected: impl Fn(&Answer) -> bool,
) {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let answer = read().await;
        if expected(&answer) {
            return;
        }
        assert!(Instant::now() < deadline, "still {}", answer.text);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn of_twenty_simultaneous_posts_of_one_user_name_one_succeeds() {
    for system in both() {
        let client = system.tenant().await.client;
        let body = user("ann@a.example");
        let answers = join_all((0..20).map(|_| client.post("/Users", &body))).await;
        let mut statuses: Vec<u16> = answers.into_iter().map(|a| a.unwrap().status).collect();
        statuses.sort_unstable();
        assert_eq!(statuses[0], 201, "{}", system.name);
        assert_eq!(statuses[1..], [409; 19], "{}", system.name);
    }
}

#[tokio::test]
async fn clients_that_add_different_members_to_one_group_at_once_all_succeed() {
    for system in both() {
        let client = system.tenant().await.client;
        let names = (0..20).map(|n| user(&format!("u{n}@a.example")));
        let ids = join_all(names.map(|user| create(&client, user))).await;
        let group = client.post("/Groups", &json!({"displayName": "Everybody"})).await.unwrap();
        let path = format!("/Groups/{}", group.at("/id").as_str().unwrap());
        let patches = ids.iter().map(|id| {
            let operation = json!({"op": "add", "path": "members", "value": [{"value": id}]});
            let body = json!({"Operations": [operation]});
            let (client, path) = (client.clone(), path.clone());
            async move { client.patch(&path, &body).await.unwrap() }
        });
        for answer in join_all(patches).await {
            assert_eq!(answer.status, 204, "{}", answer.text);
        }
        let read = client.get(&path).await.unwrap();
        let members = read.at("/members").as_array().unwrap();
        let members: BTreeSet<&str> =
            members.iter().map(|m| m["value"].as_str().unwrap()).collect();
        assert_eq!(members, ids.iter().map(String::as_str).collect(), "{}", system.name);
    }
}

#[tokio::test]
async fn of_reads_that_meet_each_is_answered_with_its_own() {
    for system in both() {
        let mut reads = Vec::new();
        for tenant in [system.tenant().await, system.tenant().await] {
            let client = tenant.client;
            let mut ids = Vec::new();
            for n in 0..12 {
                let mut body = user(&format!("u{n}@a.example"));
                body[MUSTER] = json!({"approvers": [format!("u{}@a.example", (n + 1) % 12)]});
                ids.push(create(&client, body).await);
            }
            for half in ids.chunks(6) {
                let members: Vec<Value> = half.iter().map(|id| json!({"value": id})).collect();
                let group = json!({"displayName": half[0], "members": members});
                assert_eq!(client.post("/Groups", &group).await.unwrap().status, 201);
            }
            let unknown = uuid::Uuid::now_v7();
            let ids = ids.iter().map(|id| format!("/Users/{id}"));
            let names =
                (0..13).map(|n| format!("/Users?filter=userName%20eq%20%22U{n}@a.example%22"));
            let paths = ids.chain(names).chain([format!("/Users/{unknown}"), "/Users/x".into()]);
            reads.extend(paths.map(|path| (client.clone(), path)));
        }
        let read = async |(client, path): &(ScimClient, String)| {
            let answer = client.get(path).await.unwrap();
            // A refusal names its trace.
            let text = answer.text.split(" (trace ").next().unwrap_or_default().to_owned();
            (path.clone(), answer.status, text)
        };
        let mut alone = Vec::new();
        for one in &reads {
            alone.push(read(one).await);
        }
        let found = |(_, status, text): &&(String, u16, String)| {
            *status == 200 && text.contains("\"approvers\"") && text.contains("\"groups\"")
        };
        assert_eq!(alone.iter().filter(found).count(), 2 * (12 + 12), "{}", system.name);
        for _ in 0..5 {
            assert_eq!(join_all(reads.iter().map(read)).await, alone, "{}", system.name);
        }
    }
}

#[tokio::test]
async fn of_two_writers_with_one_version_one_succeeds() {
    let client = together().tenant().await.client;
    let id = create(&client, user("ann@a.example")).await;
    let path = format!("/Users/{id}");
    for round in 0..10 {
        let tag = client.get(&path).await.unwrap().etag().unwrap().to_owned();
        let writes = (0..4).map(|writer| {
            let mut body = user("ann@a.example");
            body["title"] = format!("{round}-{writer}").into();
            let header = (http::header::IF_MATCH, Some(tag.parse().unwrap()));
            let (client, path) = (client.clone(), path.clone());
            let body = body.to_string();
            async move {
                client
                    .send_bytes(http::Method::PUT, &path, Some(body.into()), &[header])
                    .await
                    .unwrap()
            }
        });
        let mut statuses: Vec<u16> = join_all(writes).await.iter().map(|a| a.status).collect();
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 412, 412, 412]);
    }
}

#[tokio::test]
async fn patches_of_different_attributes_of_one_user_are_all_in() {
    let client = together().tenant().await.client;
    let id = create(&client, user("ann@a.example")).await;
    let path = format!("/Users/{id}");
    let names = ["title", "nickName", "userType", "timezone", "displayName", "locale"];
    let patches = names.map(|name| {
        let body = json!({"Operations": [{"op": "replace", "path": name, "value": name}]});
        let (client, path) = (client.clone(), path.clone());
        async move { client.patch(&path, &body).await.unwrap() }
    });
    for answer in join_all(patches).await {
        assert_eq!(answer.status, 200, "{}", answer.text);
    }
    let read = client.get(&path).await.unwrap().body.unwrap();
    for name in names {
        assert_eq!(read[name], name);
    }
}

#[tokio::test]
async fn a_group_is_read_with_the_members_of_its_version() {
    for system in both() {
        let client = system.tenant().await.client;
        let ann = create(&client, user("ann@a.example")).await;
        let group = client.post("/Groups", &json!({"displayName": "Everybody"})).await.unwrap();
        let path = format!("/Groups/{}", group.at("/id").as_str().unwrap());
        // Every even version has her, every odd one has not.
        let write = async {
            for round in 0..200 {
                let members = if round % 2 == 0 { json!([{"value": ann}]) } else { json!([]) };
                let body = json!({"displayName": "Everybody", "members": members});
                assert_eq!(client.put(&path, &body).await.unwrap().status, 200);
            }
        };
        let read = async {
            for _ in 0..100 {
                let read = client.get(&path).await.unwrap();
                let version = read.at("/meta/version").as_str().unwrap();
                let version: u32 = version.trim_matches(['W', '/', '"']).parse().unwrap();
                assert_eq!(read.at("/members/0").is_null(), version % 2 == 1, "{}", read.text);
            }
        };
        tokio::join!(write, read);
    }
}

#[tokio::test]
async fn a_user_who_is_deleted_while_being_added_to_a_group_is_in_none_afterwards() {
    for system in both() {
        let client = system.tenant().await.client;
        let group = client.post("/Groups", &json!({"displayName": "Everybody"})).await.unwrap();
        let path = format!("/Groups/{}", group.at("/id").as_str().unwrap());
        for round in 0..20 {
            let id = create(&client, user(&format!("u{round}@a.example"))).await;
            let body =
                json!({"Operations": [{"op": "add", "path": "members", "value": [{"value": id}]}]});
            let user_path = format!("/Users/{id}");
            let (added, deleted) =
                tokio::join!(client.patch(&path, &body), client.delete(&user_path));
            assert_eq!((added.unwrap().status, deleted.unwrap().status), (204, 204));
        }
        let read = async || client.get(&path).await.unwrap();
        eventually(read, |answer| answer.at("/members").is_null()).await;
    }
}

#[tokio::test]
async fn a_rehire_that_meets_the_deletion_creates_the_user() {
    for system in both() {
        let client = system.tenant().await.client;
        for _ in 0..30 {
            let mut ann = user("ann@a.example");
            ann["active"] = false.into();
            let old = format!("/Users/{}", create(&client, ann).await);
            let body = user("ann@a.example");
            let (posted, deleted) = tokio::join!(client.post("/Users", &body), client.delete(&old));
            let posted = posted.unwrap();
            assert_eq!(posted.status, 201, "{}", posted.text);
            assert_eq!(deleted.unwrap().status, 204);
            let new = format!("/Users/{}", posted.at("/id").as_str().unwrap());
            if new != old {
                assert_eq!(client.delete(&new).await.unwrap().status, 204);
            }
        }
    }
}

#[tokio::test]
async fn a_rehire_that_meets_a_rename_revives_nobody_of_another_name() {
    for system in both() {
        let client = system.tenant().await.client;
        for round in 0..30 {
            let (before, after) = (format!("ann{round}@a.example"), format!("bo{round}@a.example"));
            let mut ann = user(&before);
            ann["active"] = false.into();
            let path = format!("/Users/{}", create(&client, ann).await);
            let rename = json!({"Operations": [
                {"op": "replace", "path": "userName", "value": after},
                {"op": "replace", "path": "emails[type eq \"work\"].value", "value": after},
            ]});
            let body = user(&before);
            let (posted, renamed) =
                tokio::join!(client.post("/Users", &body), client.patch(&path, &rename));
            let (posted, renamed) = (posted.unwrap(), renamed.unwrap());
            assert_eq!(posted.status, 201, "{}", posted.text);
            let revived = path.ends_with(posted.at("/id").as_str().unwrap());
            // Revived first, then renamed; or renamed first, and then there are two.
            let read = client.get(&path).await.unwrap();
            assert_eq!(read.at("/active"), revived, "{} {}", posted.text, renamed.text);
        }
    }
}

#[tokio::test]
async fn the_feed_of_approvers_goes_on_where_it_was_when_several_appear_at_once() {
    for system in both() {
        let tenant = system.tenant().await;
        let client = &tenant.client;
        for round in 0..10 {
            let names: Vec<String> = (0..6).map(|n| format!("u{round}.{n}@a.example")).collect();
            let mut declaring = user(&format!("ann{round}@a.example"));
            declaring[MUSTER] = json!({"approvers": names});
            create(client, declaring).await;
            join_all(names.iter().map(|name| create(client, user(name)))).await;
        }
        let request = muster_proto::approver::v1::WatchChangesRequest {
            organisation_id: tenant.id.clone(),
            ..Default::default()
        };
        let stream = system.approvers().watch_changes(request).await.unwrap().into_inner();
        let mut changes = Box::pin(stream.filter_map(|message| async { message.unwrap().change }));
        let mut told = BTreeMap::new();
        let in_force = |approvers: &Vec<Approver>| {
            approvers.iter().all(|approver| approver.state() == ApproverState::InForce)
        };
        // Whoever appears together is told of together.
        while told.len() < 10 || !told.values().all(in_force) {
            let change = changes.next().await.unwrap();
            let before = told.insert(change.user_id, change.after).unwrap_or_default();
            assert_eq!(before, change.before, "{}", system.name);
        }
    }
}

#[tokio::test]
async fn declared_and_appearing_at_once_an_approver_comes_into_force() {
    for system in both() {
        let client = system.tenant().await.client;
        for round in 0..20 {
            let (ann, bo) = (format!("ann{round}@a.example"), format!("bo{round}@a.example"));
            let mut declaring = user(&ann);
            declaring[MUSTER] = json!({"approvers": [bo]});
            let (id, _) = tokio::join!(create(&client, declaring), create(&client, user(&bo)));
            let path = format!("/Users/{id}");
            let read = async || client.get(&path).await.unwrap();
            eventually(read, |a| a.body.as_ref().unwrap()[MUSTER]["approvers"] == json!([bo]))
                .await;
        }
    }
}

#[tokio::test]
async fn a_write_succeeds_while_the_approver_service_is_away_and_the_feed_delivers_it() {
    let mut system = System::start_apart("away");
    let client = system.tenant().await.client;
    let mut ann = user("ann@a.example");
    ann[MUSTER] = json!({"approvers": ["bo@a.example"]});
    let ann = create(&client, ann).await;

    system.kill("approver");
    let bo = client.post("/Users", &user("bo@a.example")).await.unwrap();
    assert_eq!(bo.status, 201, "{}", bo.text);
    let path = format!("/Users/{ann}");
    assert_eq!(client.get(&path).await.unwrap().status, 503);

    system.restart("approver");
    let read = async || client.get(&path).await.unwrap();
    eventually(read, |answer| {
        answer.status == 200
            && answer.body.as_ref().unwrap()[MUSTER]["approvers"] == json!(["bo@a.example"])
    })
    .await;
}

#[tokio::test]
async fn a_deletion_reaches_a_group_service_that_was_away() {
    let mut system = System::start_apart("deletion");
    let client = system.tenant().await.client;
    let ann = create(&client, user("ann@a.example")).await;
    let group = json!({"displayName": "Everybody", "members": [{"value": ann}]});
    let group = client.post("/Groups", &group).await.unwrap();
    let path = format!("/Groups/{}", group.at("/id").as_str().unwrap());
    assert_eq!(client.get(&path).await.unwrap().at("/members/0/value"), &json!(ann));

    system.kill("group");
    assert_eq!(client.delete(&format!("/Users/{ann}")).await.unwrap().status, 204);
    system.restart("group");
    let read = async || client.get(&path).await.unwrap();
    eventually(read, |answer| answer.status == 200 && answer.at("/members").is_null()).await;
}

#[tokio::test]
async fn clients_that_hang_up_lose_nobody_elses_writes() {
    for system in both() {
        let client = system.tenant().await.client;
        let address = system.scim_url.strip_prefix("http://").unwrap().split('/').next().unwrap();
        let authorization = format!("Static {}", client.key());
        for attempt in 0..200 {
            let body = user(&format!("gone{attempt}@a.example")).to_string();
            let request = format!(
                "POST /scim/v2/Users HTTP/1.1\r\nHost: x\r\nAuthorization: {authorization}\r\n\
                 Content-Type: application/scim+json\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            );
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(request.as_bytes()).await.unwrap();
            // From before the request is read until after it is done.
            tokio::time::sleep(Duration::from_micros(attempt * 25)).await;
            drop(stream);
        }
        let ids =
            join_all((0..40).map(|n| create(&client, user(&format!("u{n}@a.example"))))).await;
        for id in ids {
            assert_eq!(client.get(&format!("/Users/{id}")).await.unwrap().status, 200);
        }
    }
}

#[tokio::test]
async fn a_connection_goes_on_after_a_request_that_was_refused_before_its_body_came() {
    use tokio::io::AsyncReadExt as _;
    for system in both() {
        let client = system.tenant().await.client;
        let address = system.scim_url.strip_prefix("http://").unwrap().split('/').next().unwrap();
        let key = format!("Static {}", client.key());
        let mut stream = TcpStream::connect(address).await.unwrap();
        let head = |method: &str, length: usize| {
            format!(
                "{method} /scim/v2/ResourceTypes HTTP/1.1\r\nHost: x\r\nAuthorization: {key}\r\n\
                 Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
            )
        };
        stream.write_all(head("PUT", 2).as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
        // A packet of its own, after the head has been looked at.
        tokio::time::sleep(Duration::from_millis(200)).await;
        stream.write_all(b"{}").await.unwrap();
        stream.write_all(head("GET", 0).as_bytes()).await.unwrap();
        let mut answers = String::new();
        let mut buffer = [0; 4096];
        while answers.matches("HTTP/1.1 ").count() < 2 {
            let read = stream.read(&mut buffer).await.unwrap();
            assert!(read > 0, "the connection ended after {answers}");
            answers.push_str(&String::from_utf8_lossy(&buffer[..read]));
        }
        assert!(answers.contains("HTTP/1.1 405") && answers.contains("HTTP/1.1 200"), "{answers}");
    }
}
