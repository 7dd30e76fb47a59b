//! The checks can fail: each mistake that they are there for, made on purpose, is noticed.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use muster_proto::identity::v1::user_service_client::UserServiceClient;
use muster_proto::identity::v1::{CreateUserRequest, GetUserRequest, ListUsersRequest, User};

use super::SHORT;
use super::clients::Office;
use super::cluster::Cluster;
use super::points::PROGRAM;
use super::run::{Plan, run};
use crate::model::random::seed;

/// Runs clients while a mistake is made, with at least as many faults; what the checks say.
async fn violations(mistake: &str, faults: usize) -> Vec<String> {
    let on = format!("{mistake}=return");
    let cluster = Cluster::start_as(&PROGRAM, 2, &[("FAILPOINTS", &on)]).await;
    if mistake == "mistake-plain-counter" {
        let counter = "CREATE SEQUENCE identity.plain; CREATE SEQUENCE groups.plain;
                       CREATE SEQUENCE approver.plain;
                       GRANT USAGE ON SEQUENCE identity.plain TO muster_identity;
                       GRANT USAGE ON SEQUENCE groups.plain TO muster_group;
                       GRANT USAGE ON SEQUENCE approver.plain TO muster_approver";
        sqlx::raw_sql(counter).execute(&mut cluster.sql().await).await.unwrap();
    }
    let cluster = Arc::new(cluster);
    let plan = Plan { seed: seed(), organisations: 1, operations: 500, faults, ..SHORT };
    let report = run(&cluster, plan).await;
    Arc::into_inner(cluster).unwrap().stop().await;
    println!("{mistake}: {report}");
    report.violations
}

fn names(violations: &[String], promise: &str) -> bool {
    violations.iter().any(|violation| violation.starts_with(promise))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_that_do_not_guard_the_revision_are_noticed() {
    let violations = violations("mistake-no-revision-guard", 0).await;
    assert!(names(&violations, "legal step"), "{violations:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_that_are_written_outside_the_transaction_are_noticed() {
    // A fault must fall between two commits: as often as it takes to see that it does.
    for _ in 0..6 {
        let violations = violations("mistake-change-outside", 12).await;
        if names(&violations, "legal step") || names(&violations, "I1") {
            return;
        }
    }
    panic!("no fault fell between the two commits");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sequences_from_a_plain_counter_are_noticed() {
    // A reader must look between two commits: as often as it takes to see that it does.
    for _ in 0..5 {
        if names(&violations("mistake-plain-counter", 0).await, "I4") {
            return;
        }
    }
    panic!("no reader noticed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transactions_that_a_caller_can_cancel_are_noticed() {
    let mistake = [("FAILPOINTS", "mistake-cancellable=return")];
    for variables in [&[][..], &mistake] {
        let cluster = Cluster::start_as(&PROGRAM, 1, variables).await;
        let organisation = Office::open(&cluster).await.tenant.id;
        let mut lost = 0;
        // The moment to hit is short: as often as it takes to see that it can be hit.
        for round in 0..if variables.is_empty() { 1 } else { 20 } {
            lost += lost_to_hang_ups(&cluster, &organisation, round).await;
            if lost > 0 {
                break;
            }
        }
        cluster.stop().await;
        println!("{lost} writes lost with {variables:?}");
        assert_eq!(lost > 0, !variables.is_empty(), "{lost} lost with {variables:?}");
    }
}

/// How many writes are not done, or not answered well, on connections that others' calls used whose
/// callers hung up, sooner and later.
async fn lost_to_hang_ups(cluster: &Cluster, organisation_id: &str, round: usize) -> usize {
    let client = UserServiceClient::new(cluster.replicas[0].channel("identity"));
    let create = async |name: String| {
        let organisation_id = organisation_id.to_owned();
        let user = User { organisation_id, user_name: Some(name), ..User::default() };
        client.clone().create_user(CreateUserRequest { user: Some(user), actor: None }).await
    };
    let (mut lost, mut written) = (0, Vec::new());
    for attempt in 0..300 {
        // What becomes of these is nobody's concern.
        let hang_up = |caller: u64| {
            let patience = Duration::from_micros(200 + (attempt * 7 + caller * 13) % 100 * 50);
            let (mut reader, create) = (client.clone(), &create);
            let organisation_id = organisation_id.to_owned();
            let read = ListUsersRequest { organisation_id, ..ListUsersRequest::default() };
            let name = format!("gone{round}-{attempt}-{caller}");
            async move {
                if caller < 4 {
                    drop(tokio::time::timeout(patience, reader.list_users(read)).await);
                } else {
                    drop(tokio::time::timeout(patience, create(name)).await);
                }
            }
        };
        join_all((0..6).map(hang_up)).await;
        match create(format!("u{round}-{attempt}")).await {
            Ok(answer) => written.push(answer.into_inner().id),
            Err(_) => lost += 1,
        }
    }
    for id in written {
        let request = GetUserRequest { organisation_id: organisation_id.to_owned(), id };
        lost += usize::from(client.clone().get_user(request).await.is_err());
    }
    lost
}
