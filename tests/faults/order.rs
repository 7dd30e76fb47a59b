//! Approvers who change addresses while the approver service is away: the feed's order decides.

use muster_proto::approver::v1::approver_service_client::ApproverServiceClient;
use muster_proto::approver::v1::{ApproverState, BatchGetApproversRequest};
use serde_json::{Value, json};

use super::clients::Office;
use super::cluster::{Cluster, PARTS, place};
use crate::model::MUSTER_URN;

/// What came of the one approver that a user declares.
async fn approver(cluster: &Cluster, office: &Office, user: &str) -> (ApproverState, String) {
    let organisation_id = office.tenant.id.clone();
    let request = BatchGetApproversRequest { organisation_id, user_ids: vec![user.into()] };
    let mut client = ApproverServiceClient::new(cluster.replicas[0].channel("approver"));
    let answer = client.batch_get_approvers(request).await.unwrap().into_inner();
    let approver = answer.users[0].approvers[0].clone();
    (approver.state(), approver.email)
}

async fn create(office: &Office, name: &str, email: &str, approvers: &[&str]) -> String {
    let user = json!({
        "userName": name, "emails": [{"value": email, "primary": true}],
        MUSTER_URN: {"approvers": approvers},
    });
    let answer = office.client(0).post("/Users", &user).await.unwrap();
    // Written, though the approver service may be away and the answer without approvers.
    let path = format!("/Users?filter=userName%20eq%20%22{name}%22&attributes=id");
    let written = office.client(0).get(&path).await.unwrap();
    written.at("/Resources/0/id").as_str().expect(&answer.text).to_owned()
}

async fn change_email(office: &Office, user: &str, email: &str) {
    let value: Value = json!([{"value": email, "primary": true}]);
    let patch = json!({"Operations": [{"op": "replace", "path": "emails", "value": value}]});
    let answer = office.client(0).patch(&format!("/Users/{user}"), &patch).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text);
}

/// Starts the approver service again, and lets the feed come: all that was missed in one batch.
async fn come_back(cluster: &Cluster) {
    cluster.start_part(&cluster.replicas[0], PARTS[place("approver")], &[]).await;
    cluster.drain().await.unwrap();
}

#[tokio::test]
async fn an_address_that_was_passed_on_stands_for_its_new_owner() {
    let cluster = Cluster::start(1).await;
    let office = Office::open(&cluster).await;
    let old = create(&office, "old", "x@a.example", &[]).await;
    cluster.drain().await.unwrap();
    cluster.replicas[0].kill("approver").await;
    change_email(&office, &old, "y@a.example").await;
    create(&office, "new", "x@a.example", &[]).await;
    let declaring = create(&office, "declaring", "z@a.example", &["x@a.example"]).await;
    come_back(&cluster).await;
    let is = approver(&cluster, &office, &declaring).await;
    assert_eq!(is, (ApproverState::InForce, "x@a.example".to_owned()));
    cluster.stop().await;
}

#[tokio::test]
async fn a_declaration_follows_whoever_had_the_address_when_it_was_made() {
    let cluster = Cluster::start(1).await;
    let office = Office::open(&cluster).await;
    let bo = create(&office, "bo", "x@a.example", &[]).await;
    cluster.drain().await.unwrap();
    cluster.replicas[0].kill("approver").await;
    let declaring = create(&office, "declaring", "z@a.example", &["x@a.example"]).await;
    change_email(&office, &bo, "y@a.example").await;
    come_back(&cluster).await;
    let is = approver(&cluster, &office, &declaring).await;
    assert_eq!(is, (ApproverState::InForce, "y@a.example".to_owned()));
    cluster.stop().await;
}
