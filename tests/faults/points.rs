//! A crash at each named point of every write: once each, whatever was done by then.

use std::process::Command;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::StreamExt as _;

use super::clients::Office;
use super::cluster::Cluster;
use super::kinds::{self, Round};
use super::watchers::open;
use crate::model::random::{Random, seed};
use crate::support::process::MUSTER;

/// The program with its fail points, built where it is not there.
pub(crate) static PROGRAM: LazyLock<String> = LazyLock::new(|| {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // What cargo says of this test would make it build everything again.
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|n| n.starts_with("CARGO_") && n != "CARGO_HOME") {
            cargo.env_remove(name);
        }
    }
    cargo.args(["build", "--locked", "--features", "failpoints", "--bin", "muster-failpoints"]);
    let status = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).status();
    assert!(status.unwrap().success(), "the program with fail points cannot be built");
    let program = std::path::Path::new(MUSTER).with_file_name("muster-failpoints");
    program.to_str().unwrap().to_owned()
});

/// Which part crashes where, and at which kinds of write it comes by.
const POINTS: [(&str, &[&str], &[usize]); 6] = [
    (
        "identity",
        &[
            "feed-before-lock",
            "feed-after-lock",
            "commit-before",
            "commit-after",
            "feed-before-send",
        ],
        &[0, 1, 2, 3, 4, 11],
    ),
    (
        "group",
        &[
            "feed-before-lock",
            "feed-after-lock",
            "commit-before",
            "commit-after",
            "feed-before-send",
        ],
        &[5, 6, 7, 8, 9, 10],
    ),
    // What follows users.
    ("group", &["follow-before-commit"], &[0, 1, 2, 3, 4, 11]),
    ("approver", &["commit-before", "commit-after", "follow-before-commit"], &[0, 1, 3, 4, 11]),
    // Where approvers come and go.
    ("approver", &["feed-before-lock", "feed-after-lock", "feed-before-send"], &[0, 11]),
    ("gateway", &["settle-before"], &[0, 1, 2, 3, 4, 11]),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_at_any_point_of_any_write_leaves_it_whole_or_not_at_all() {
    let seed = seed();
    println!("MUSTER_SEED={seed}");
    let mut random = Random::part(seed, 3);
    let cluster = Cluster::start_as(&PROGRAM, 1, &[]).await;
    let office = Office::open(&cluster).await;
    let (rounds, armed, crashes) = tokio::select! {
        () = async { tokio::join!(read_on(&cluster, &office, "group"), read_on(&cluster, &office, "approver")); } => {
            unreachable!("readers read on")
        }
        done = crash(&cluster, &office, &mut random) => done,
    };
    kinds::check(&cluster, &office, rounds).await;
    println!("{crashes} crashes at {armed} points");
    assert!(crashes * 10 > armed * 9, "{crashes} crashes only at {armed} points");
    cluster.stop().await;
}

/// Crashes once at each point of each write; how many writes, points and crashes there were.
async fn crash(cluster: &Cluster, office: &Office, random: &mut Random) -> (usize, usize, usize) {
    let replica = &cluster.replicas[0];
    let (mut rounds, mut armed, crashes) = (0, 0, AtomicUsize::new(0));
    for (part, points, kinds) in POINTS {
        for point in points {
            let mut round = Round::new(office, rounds);
            for kind in 0..kinds::COUNT {
                if kinds.contains(&kind) {
                    let on = format!("{point}=return");
                    // What is still to be followed would crash it before it is up.
                    cluster.drain().await.unwrap();
                    restart(cluster, part, &[("FAILPOINTS", &on)]).await;
                    armed += 1;
                }
                let recover = async || {
                    if replica.is_dead(part).await {
                        crashes.fetch_add(1, Ordering::Relaxed);
                        restart(cluster, part, &[]).await;
                    }
                };
                let before = crashes.load(Ordering::Relaxed);
                round.ask(kind, random, recover).await;
                if kinds.contains(&kind) {
                    // A follower, or a feed, may crash after the client has its answer.
                    for _ in 0..20 {
                        recover().await;
                        if crashes.load(Ordering::Relaxed) > before {
                            break;
                        }
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                    if crashes.load(Ordering::Relaxed) == before {
                        println!("{part} does not come by {point} at {}", round.op(kind).request());
                        restart(cluster, part, &[]).await;
                    }
                }
            }
            rounds += 1;
        }
    }
    (rounds, armed, crashes.into_inner())
}

/// Watches a feed that no service follows, so that its changes are sent to somebody.
async fn read_on(cluster: &Cluster, office: &Office, feed: &str) {
    let mut token = None;
    loop {
        if let Ok(mut messages) = open(cluster, 0, feed, &office.tenant.id, token.as_ref()).await {
            while let Some(Ok((next, _))) = messages.next().await {
                token = Some(next);
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn restart(cluster: &Cluster, part: &'static str, variables: &[(&str, &str)]) {
    let replica = &cluster.replicas[0];
    replica.kill(part).await;
    cluster.start_part(replica, part, variables).await;
}
