//! Hand-overs that arrive late, early and in the wrong order: the feed's order decides.

use muster_proto::approver::v1::approver_service_client::ApproverServiceClient;
use muster_proto::approver::v1::{ApplyUserRequest, ApproverState, BatchGetApproversRequest};
use muster_proto::identity::v1::user_service_client::UserServiceClient;
use muster_proto::identity::v1::{GetUserRequest, UserState};
use serde_json::{Value, json};

use super::clients::Office;
use super::cluster::{Cluster, PARTS, place};
use super::proxy::Target;
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

/// What identity knows of a user now, as it would be handed over.
async fn state(cluster: &Cluster, office: &Office, user: &str) -> UserState {
    let organisation_id = office.tenant.id.clone();
    let request = GetUserRequest { organisation_id, id: user.into() };
    let mut client = UserServiceClient::new(cluster.replicas[0].channel("identity"));
    let user = client.get_user(request).await.unwrap().into_inner();
    UserState {
        organisation_id: user.organisation_id.clone(),
        user_id: user.id.clone(),
        revision: user.revision,
        deleted: false,
        active: user.active(),
        primary_email: user.primary_email.clone(),
        declared_approvers: user.declared_approvers.clone(),
    }
}

/// Starts the approver service where the feed does not reach it, and hands these over; then lets
/// the feed come.
async fn hand_over(cluster: &Cluster, states: Vec<UserState>) {
    let replica = &cluster.replicas[0];
    let identity = &replica.to_service[place("identity")];
    let target = identity.target();
    identity.lead_to(Target::Nowhere);
    cluster.start_part(replica, PARTS[place("approver")], &[]).await;
    for state in states {
        let request = ApplyUserRequest { user: Some(state) };
        let mut client = ApproverServiceClient::new(replica.channel("approver"));
        client.apply_user(request).await.unwrap();
    }
    identity.lead_to(target);
    cluster.drain().await.unwrap();
}

#[tokio::test]
async fn an_address_that_was_passed_on_stands_for_its_new_owner_however_it_is_handed_over() {
    let cluster = Cluster::start(1).await;
    let office = Office::open(&cluster).await;
    let old = create(&office, "old", "x@a.example", &[]).await;
    cluster.drain().await.unwrap();
    cluster.replicas[0].kill("approver").await;
    change_email(&office, &old, "y@a.example").await;
    let new = create(&office, "new", "x@a.example", &[]).await;
    let declaring = create(&office, "declaring", "z@a.example", &["x@a.example"]).await;
    let states =
        vec![state(&cluster, &office, &new).await, state(&cluster, &office, &declaring).await];
    hand_over(&cluster, states).await;
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
    let states = vec![state(&cluster, &office, &bo).await];
    hand_over(&cluster, states).await;
    let is = approver(&cluster, &office, &declaring).await;
    assert_eq!(is, (ApproverState::InForce, "y@a.example".to_owned()));
    cluster.stop().await;
}
