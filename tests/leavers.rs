//! Leavers: rehire, namesakes, and the release of a leaver's name.

use muster_proto::approver::v1::{ApproverState, BatchGetApproversRequest};
use muster_proto::identity::v1::{ListChangesRequest, ReleaseUserNameRequest};
use serde_json::{Value, json};
use tonic::Code;

use crate::check::nothing_differs;
use crate::support::system::{System, Tenant, both};

const MUSTER: &str = "urn:learnerbly:params:scim:schemas:2.0:User";

fn user(external_id: &str, approvers: &[&str]) -> Value {
    let name = if approvers.is_empty() { "bo" } else { "ann" };
    json!({
        "userName": name, "externalId": external_id,
        "emails": [{"value": format!("{name}@a.example"), "type": "work"}],
        MUSTER: {"approvers": approvers},
    })
}

fn release(tenant: &Tenant, id: &str) -> ReleaseUserNameRequest {
    ReleaseUserNameRequest {
        organisation_id: tenant.id.clone(),
        id: id.to_owned(),
        ..ReleaseUserNameRequest::default()
    }
}

/// The state of the one approver of a user, and who it is, once it is as expected.
async fn approver_becomes(
    system: &System,
    tenant: &Tenant,
    user: &str,
    expected: (ApproverState, &str),
) {
    let request = BatchGetApproversRequest {
        organisation_id: tenant.id.clone(),
        user_ids: vec![user.to_owned()],
    };
    for _ in 0..600 {
        let mut approvers = system.approvers();
        let answer = approvers.batch_get_approvers(request.clone()).await.unwrap().into_inner();
        let approver = &answer.users[0].approvers[0];
        if (approver.state(), approver.approver_id.as_str()) == expected {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("the approver did not become {expected:?}");
}

#[tokio::test]
async fn a_namesake_gets_the_name_of_a_leaver_whose_name_was_released() {
    for system in both() {
        let tenant = system.tenant().await;
        let client = &tenant.client;
        let ann = client.post("/Users", &user("1", &["bo@a.example"])).await.unwrap();
        let ann = ann.at("/id").as_str().unwrap();
        let leaver = client.post("/Users", &user("2", &[])).await.unwrap();
        let leaver = leaver.at("/id").as_str().unwrap();
        approver_becomes(system, &tenant, ann, (ApproverState::InForce, leaver)).await;

        // Whoever is here keeps the name.
        let refused = system.users().release_user_name(release(&tenant, leaver)).await;
        assert_eq!(refused.unwrap_err().code(), Code::FailedPrecondition);
        let patch = json!({"Operations": [{"op": "replace", "value": {"active": false}}]});
        client.patch(&format!("/Users/{leaver}"), &patch).await.unwrap();
        approver_becomes(system, &tenant, ann, (ApproverState::Suspended, leaver)).await;
        let namesake = client.post("/Users", &user("3", &[])).await.unwrap();
        assert_eq!(namesake.status, 409);
        let detail = namesake.at("/detail").as_str().unwrap();
        assert!(detail.contains("namesake"), "{detail}");

        let released =
            system.users().release_user_name(release(&tenant, leaver)).await.unwrap().into_inner();
        assert_eq!(released.user_name, Some(format!("released-{leaver}")));
        assert!(released.released && released.emails.is_empty());
        // Nobody means the leaver by the address any more.
        approver_becomes(system, &tenant, ann, (ApproverState::Pending, "")).await;
        let again = system.users().release_user_name(release(&tenant, leaver)).await.unwrap();
        assert_eq!(again.into_inner().revision, released.revision);

        let namesake = client.post("/Users", &user("3", &[])).await.unwrap();
        assert_eq!(namesake.status, 201, "{}", namesake.text);
        let namesake = namesake.at("/id").as_str().unwrap();
        assert_ne!(namesake, leaver);
        approver_becomes(system, &tenant, ann, (ApproverState::InForce, namesake)).await;
        let request = ListChangesRequest {
            organisation_id: tenant.id.clone(),
            user_id: leaver.to_owned(),
            ..ListChangesRequest::default()
        };
        let history = system.users().list_changes(request).await.unwrap().into_inner().changes;
        let names: Vec<_> =
            history.iter().filter_map(|change| change.after.as_ref()?.user_name.clone()).collect();
        assert_eq!(names, [format!("released-{leaver}"), "bo".into(), "bo".into()]);
        nothing_differs(system, &tenant.id).await;
    }
}

#[tokio::test]
async fn an_approver_who_has_no_address_any_more_and_is_deleted_approves_for_nobody() {
    for system in both() {
        let tenant = system.tenant().await;
        let client = &tenant.client;
        let ann = client.post("/Users", &user("1", &["bo@a.example"])).await.unwrap();
        let ann = ann.at("/id").as_str().unwrap();
        let bo = client.post("/Users", &user("2", &[])).await.unwrap();
        let bo = bo.at("/id").as_str().unwrap();
        approver_becomes(system, &tenant, ann, (ApproverState::InForce, bo)).await;
        let patch = json!({"Operations": [
            {"op": "replace", "path": "active", "value": false},
            {"op": "remove", "path": "emails"},
        ]});
        let answer = client.patch(&format!("/Users/{bo}"), &patch).await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text);
        approver_becomes(system, &tenant, ann, (ApproverState::Suspended, bo)).await;
        client.delete(&format!("/Users/{bo}")).await.unwrap();
        approver_becomes(system, &tenant, ann, (ApproverState::Pending, "")).await;
        nothing_differs(system, &tenant.id).await;
    }
}
