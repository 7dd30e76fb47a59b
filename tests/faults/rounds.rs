//! Races played in many rounds: one version, one group, a deletion; and a database that crashes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use http::header::IF_MATCH;
use serde_json::{Value, json};

use super::chaos;
use super::clients::Office;
use super::cluster::Cluster;
use crate::model::random::{Random, seed};
use crate::support::size;

async fn create(office: &Office, name: &str) -> String {
    let user = json!({"userName": name, "emails": [{"value": name, "primary": true}]});
    let answer = office.client(0).post("/Users", &user).await.unwrap();
    assert_eq!(answer.status, 201, "{}", answer.text);
    answer.at("/id").as_str().unwrap().to_owned()
}

async fn create_group(office: &Office, name: &str) -> String {
    let answer = office.client(0).post("/Groups", &json!({"displayName": name})).await.unwrap();
    assert_eq!(answer.status, 201, "{}", answer.text);
    format!("/Groups/{}", answer.at("/id").as_str().unwrap())
}

fn members_patch(op: &str, ids: &[&String]) -> Value {
    let members: Vec<Value> = ids.iter().map(|id| json!({"value": id})).collect();
    json!({"Operations": [{"op": op, "path": "members", "value": members}]})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_writers_with_one_version_at_two_gateways_one_succeeds() {
    let cluster = Cluster::start(2).await;
    let office = Office::open(&cluster).await;
    let path = format!("/Users/{}", create(&office, "ann@a.example").await);
    let group = create_group(&office, "Everybody").await;
    for round in 0..size(500, 2_000) {
        // Users by PUT and by PATCH, and groups.
        let path = if round % 5 == 4 { &group } else { &path };
        let tag = office.client(0).get(path).await.unwrap().etag().unwrap().to_owned();
        let writes = (0..8).map(|writer| {
            let text = format!("{round}-{writer}");
            let (method, body) = match (round % 5, writer % 2) {
                (4, _) => (http::Method::PUT, json!({"displayName": text})),
                (_, 0) => (http::Method::PUT, json!({"userName": "ann@a.example", "title": text})),
                _ => (
                    http::Method::PATCH,
                    json!({"Operations": [{"op": "replace", "path": "title", "value": text}]}),
                ),
            };
            let headers = [(IF_MATCH, Some(tag.parse().unwrap()))];
            let client = office.client(writer);
            async move {
                let body = Some(body.to_string().into());
                client.send_bytes(method, path, body, &headers).await.unwrap()
            }
        });
        let mut statuses: Vec<u16> = join_all(writes).await.iter().map(|a| a.status).collect();
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 412, 412, 412, 412, 412, 412, 412], "round {round}");
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_delta_of_twenty_clients_on_one_group_is_in() {
    let cluster = Cluster::start(2).await;
    let office = Office::open(&cluster).await;
    let ids = join_all((0..40).map(|n| {
        let (office, name) = (&office, format!("u{n}@a.example"));
        async move { create(office, &name).await }
    }))
    .await;
    let path = create_group(&office, "Everybody").await;
    // Each client adds two, removes the second, and adds the first again.
    let clients = ids.chunks(2).enumerate().map(|(n, own)| {
        let (office, path) = (&office, &path);
        async move {
            for (op, ids) in
                [("add", vec![&own[0], &own[1]]), ("remove", vec![&own[1]]), ("add", vec![&own[0]])]
            {
                let answer = office.client(n).patch(path, &members_patch(op, &ids)).await.unwrap();
                assert_eq!(answer.status, 204, "{}", answer.text);
            }
        }
    });
    join_all(clients).await;
    let read = office.client(1).get(&path).await.unwrap();
    let mut members: Vec<&str> = read
        .at("/members")
        .as_array()
        .unwrap()
        .iter()
        .map(|member| member["value"].as_str().unwrap())
        .collect();
    members.sort_unstable();
    let mut wanted: Vec<&str> = ids.chunks(2).map(|own| own[0].as_str()).collect();
    wanted.sort_unstable();
    assert_eq!(members, wanted);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deletion_that_meets_a_member_being_added_leaves_no_dangling_membership() {
    let cluster = Cluster::start(2).await;
    let office = Office::open(&cluster).await;
    let path = create_group(&office, "Everybody").await;
    for round in 0..size(100, 1_000) {
        let id = create(&office, &format!("u{round}@a.example")).await;
        let body = members_patch("add", &[&id]);
        let user = format!("/Users/{id}");
        let add = office.client(round).patch(&path, &body);
        let delete = office.client(round + 1).delete(&user);
        let replica = &cluster.replicas[round % 2];
        let kill = async {
            if round % 3 == 0 {
                tokio::time::sleep(Duration::from_millis(u64::try_from(round % 7).unwrap())).await;
                replica.kill("group").await;
                cluster.start_part(replica, "group", &[]).await;
            }
        };
        let (_, deleted, ()) = tokio::join!(add, delete, kill);
        // Identity is always there.
        assert_eq!(deleted.unwrap().status, 204, "round {round}");
    }
    cluster.drain().await.unwrap();
    let read = office.client(0).get(&path).await.unwrap();
    assert!(read.at("/members").is_null(), "{}", read.text);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_answered_before_the_database_crashed_is_there_and_writing_goes_on_soon() {
    let seed = seed();
    println!("MUSTER_SEED={seed}");
    let cluster = Arc::new(Cluster::start(2).await);
    let office = Arc::new(Office::open(&cluster).await);
    let over = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let writers = (0..8_usize).map(|writer| {
        let (office, over) = (office.clone(), over.clone());
        tokio::spawn(async move {
            let (mut written, mut number) = (Vec::new(), 0);
            while !over.load(std::sync::atomic::Ordering::Relaxed) {
                number += 1;
                let name = format!("u{writer}-{number}@a.example");
                let answer = office.client(writer).post("/Users", &json!({"userName": name})).await;
                if let Ok(answer) = answer
                    && answer.status == 201
                {
                    written.push((answer.at("/id").as_str().unwrap().to_owned(), Instant::now()));
                }
            }
            written
        })
    });
    let writers: Vec<_> = writers.collect();
    let mut random = Random::part(seed, 6);
    let mut up_again = Vec::new();
    for _ in 0..size(3, 50) {
        for _ in 0..5 {
            chaos::end_session(&cluster).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        tokio::time::sleep(Duration::from_millis(300 + random.next() % 300)).await;
        cluster.crash_database().await;
        up_again.push(Instant::now());
        tokio::time::sleep(Duration::from_millis(1_500)).await;
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    over.store(true, std::sync::atomic::Ordering::Relaxed);
    let mut written = Vec::new();
    for writer in writers {
        written.extend(writer.await.unwrap());
    }
    for up in up_again {
        let first = written.iter().filter(|(_, when)| *when > up).map(|(_, when)| *when - up).min();
        assert!(
            first.is_some_and(|first| first < Duration::from_secs(5)),
            "seed {seed}: {first:?}"
        );
    }
    assert!(written.len() > 50, "{} users only", written.len());
    for (id, _) in &written {
        let path = format!("/Users/{id}?attributes=userName");
        let read = office.client(0).get(&path).await.unwrap();
        assert_eq!(read.status, 200, "seed {seed}: {path}: {}", read.text);
    }
    println!("{} users were written, and all are there", written.len());
    Arc::into_inner(cluster).unwrap().stop().await;
}
