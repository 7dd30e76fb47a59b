//! The whole database restored from a base backup while everything runs: as after a fail-over to a
//! replica that lagged behind, nobody is told, and every process remembers what has not been.

use std::time::Duration;

use futures::StreamExt as _;
use serde_json::{Value, json};
use tonic::Code;

use super::clients::Office;
use super::cluster::Cluster;
use super::watchers::{FEEDS, open};
use crate::check::check_at;
use crate::model::MUSTER_URN;

/// The schema of each of [`FEEDS`].
const SCHEMAS: [&str; 3] = ["identity", "groups", "approver"];

/// How many people come, and then more of them who will not have come.
const PEOPLE: usize = 10;

/// Somebody who declares the one before, in the group.
async fn come(office: &Office, group: &str, name: &str, approver: &str) -> String {
    let body = json!({
        "userName": name,
        "emails": [{"value": name, "primary": true}],
        MUSTER_URN: {"approvers": [approver]},
    });
    let answer = office.client(0).post("/Users", &body).await.unwrap();
    assert_eq!(answer.status, 201, "{}", answer.text);
    let id = answer.at("/id").as_str().unwrap().to_owned();
    let add = json!({"op": "add", "path": "members", "value": [{"value": id}]});
    let answer = office.client(1).patch(group, &json!({"Operations": [add]})).await.unwrap();
    assert_eq!(answer.status, 204, "{}", answer.text);
    id
}

/// All that SCIM says of the organisation, by either gateway.
async fn state(office: &Office) -> Vec<Value> {
    let mut state = Vec::new();
    for path in ["/Users?count=200&sortBy=id", "/Groups?count=200&sortBy=id"] {
        let answers = [office.client(0).get(path).await, office.client(1).get(path).await];
        let [one, other] = answers.map(|answer| answer.unwrap().body.unwrap());
        assert_eq!(one, other);
        state.push(one);
    }
    state
}

/// The newest token of every feed, once the followers are there.
async fn tokens(cluster: &Cluster, organisation: &str) -> Vec<String> {
    cluster.drain().await.unwrap();
    let mut tokens = Vec::new();
    for (feed, schema) in FEEDS.into_iter().zip(SCHEMAS) {
        let head = i64::try_from(cluster.head(schema, organisation).await).unwrap();
        let mut messages = open(cluster, 0, feed, organisation, None).await.unwrap();
        tokens.push(loop {
            let (token, change) = messages.next().await.unwrap().unwrap();
            if change.is_some_and(|change| change.sequence == head) {
                break token;
            }
        });
    }
    tokens
}

/// How every replica takes the tokens: none where it takes them.
async fn refusals(cluster: &Cluster, organisation: &str, tokens: &[String]) -> Vec<Option<Code>> {
    let mut refusals = Vec::new();
    for replica in 0..2 {
        for (feed, token) in FEEDS.into_iter().zip(tokens) {
            let opened = open(cluster, replica, feed, organisation, Some(token)).await;
            let refusal = match opened {
                Err(status) => Some(status.code()),
                // The first message says where it stands.
                Ok(mut messages) => messages.next().await.unwrap().err().map(|s| s.code()),
            };
            refusals.push(refusal);
        }
    }
    refusals
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_restored_from_a_backup_takes_everybody_back_with_it() {
    let cluster = Cluster::start(2).await;
    let office = Office::open(&cluster).await;
    let organisation = office.tenant.id.clone();
    let group = office.client(0).post("/Groups", &json!({"displayName": "All"})).await.unwrap();
    let group = format!("/Groups/{}", group.at("/id").as_str().unwrap());
    let mut people = Vec::new();
    for n in 0..PEOPLE {
        let (name, approver) = (format!("u{n}@a.example"), format!("u{}@a.example", n + 1));
        people.push(come(&office, &group, &name, &approver).await);
    }
    let (kept, before) = (tokens(&cluster, &organisation).await, state(&office).await);
    let backup = cluster.back_up().await;

    // What will not have been: people, memberships, approvers, and that two have left.
    for n in PEOPLE..2 * PEOPLE {
        come(&office, &group, &format!("u{n}@a.example"), "u0@a.example").await;
    }
    for id in &people[..2] {
        let answer = office.client(0).delete(&format!("/Users/{id}")).await.unwrap();
        assert_eq!(answer.status, 204, "{}", answer.text);
    }
    let stale = tokens(&cluster, &organisation).await;
    assert_eq!(refusals(&cluster, &organisation, &stale).await, [None; 6]);
    cluster.restore(&backup).await;

    // A pool finds its connections dead first, one after the other.
    while office.client(0).get("/Users").await.unwrap().status != 200
        || office.client(1).get("/Users").await.unwrap().status != 200
    {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(refusals(&cluster, &organisation, &stale).await, [Some(Code::OutOfRange); 6]);
    assert_eq!(refusals(&cluster, &organisation, &kept).await, [None; 6]);
    assert_eq!(state(&office).await, before);

    // As many changes as were lost, and more: the same sequences, and others' changes.
    for n in PEOPLE..3 * PEOPLE {
        come(&office, &group, &format!("n{n}@a.example"), "u0@a.example").await;
    }
    let answer = office.client(0).delete(&format!("/Users/{}", people[5])).await.unwrap();
    assert_eq!(answer.status, 204, "{}", answer.text);
    assert_eq!(refusals(&cluster, &organisation, &stale).await, [Some(Code::OutOfRange); 6]);
    assert_eq!(refusals(&cluster, &organisation, &kept).await, [None; 6]);
    cluster.drain().await.unwrap();
    let users = &state(&office).await[0];
    assert_eq!(users["totalResults"], 3 * PEOPLE - 1);
    for user in users["Resources"].as_array().unwrap() {
        assert_eq!(user["groups"].as_array().map(Vec::len), Some(1), "{user}");
    }
    let urls = ["identity", "group", "approver"].map(|part| cluster.replicas[1].url(part));
    let output = check_at(urls.each_ref().map(String::as_str), &organisation, &[]).await;
    assert!(output.status.success(), "{output:?}");
    cluster.stop().await;
}
