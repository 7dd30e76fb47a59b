//! What internal services get over gRPC.

use futures::StreamExt as _;
use muster::scim_client::ScimClient;
use muster_proto::approver::v1::{
    ApprovalQuestion, ApproverState, BatchCheckApprovalsRequest, BatchGetApproversRequest,
    BatchListApproveesRequest,
};
use muster_proto::feed::v1::ChangeKind;
use muster_proto::group::v1::{ListGroupsRequest, ListMembersRequest};
use muster_proto::identity::v1::{
    BatchGetUsersRequest, ContentRegion, GetUserRequest, ListChangesRequest, ListUsersRequest,
    WatchChangesRequest,
};
use serde_json::{Value, json};
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::support::system::{both, together};
use crate::support::tls;

const MUSTER: &str = "urn:learnerbly:params:scim:schemas:2.0:User";

async fn create(client: &ScimClient, name: &str, approvers: &[&str]) -> String {
    let user = json!({
        "userName": name, "emails": [{"value": name, "primary": true}],
        MUSTER: {"approvers": approvers},
    });
    let answer = client.post("/Users", &user).await.unwrap();
    assert_eq!(answer.status, 201, "{}", answer.text);
    answer.at("/id").as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_list_and_the_watch_after_it_join_without_a_gap() {
    for system in both() {
        let tenant = system.tenant().await;
        let ann = create(&tenant.client, "ann@a.example", &[]).await;
        let request = ListUsersRequest { organisation_id: tenant.id.clone(), ..Default::default() };
        let listed = system.users().list_users(request).await.unwrap().into_inner();
        assert_eq!((listed.users.len(), listed.total_size), (1, 1));

        let patch = json!({"Operations": [{"op": "replace", "value": {"active": false}}]});
        tenant.client.patch(&format!("/Users/{ann}"), &patch).await.unwrap();
        tenant.client.delete(&format!("/Users/{ann}")).await.unwrap();
        let request = WatchChangesRequest {
            organisation_id: tenant.id.clone(),
            resume_tokens: vec![listed.resume_token],
            ..Default::default()
        };
        let stream = system.users().watch_changes(request).await.unwrap().into_inner();
        let changes = stream.filter_map(|message| async { message.unwrap().change });
        let changes: Vec<_> = changes.take(2).collect().await;
        let kinds: Vec<_> = changes.iter().map(|c| (c.kind(), c.revision)).collect();
        assert_eq!(kinds, [(ChangeKind::Updated, 2), (ChangeKind::Deleted, 3)]);
        assert!(changes[0].before.as_ref().unwrap().active());
        assert!(!changes[0].after.as_ref().unwrap().active());
        let sequences: Vec<_> =
            changes.iter().map(|c| c.metadata.as_ref().unwrap().sequence).collect();
        assert_eq!(sequences, [2, 3]);
    }
}

#[tokio::test]
async fn a_watch_resumes_after_the_last_token_and_tells_of_one_organisation_only() {
    let system = together();
    let (tenant, other) = (system.tenant().await, system.tenant().await);
    for n in 0..5 {
        create(&tenant.client, &format!("u{n}@a.example"), &[]).await;
        create(&other.client, &format!("u{n}@a.example"), &[]).await;
    }
    let mut seen = Vec::new();
    let mut tokens = Vec::new();
    for _ in 0..5 {
        let request = WatchChangesRequest {
            organisation_id: tenant.id.clone(),
            resume_tokens: tokens.clone(),
            ..Default::default()
        };
        let mut stream = system.users().watch_changes(request).await.unwrap().into_inner();
        let message = loop {
            let message = stream.next().await.unwrap().unwrap();
            if message.change.is_some() {
                break message;
            }
        };
        tokens = vec![message.resume_token];
        let metadata = message.change.unwrap().metadata.unwrap();
        assert_eq!(metadata.organisation_id, tenant.id);
        seen.push(metadata.sequence);
    }
    assert_eq!(seen, [1, 2, 3, 4, 5]);
}

#[tokio::test]
async fn a_token_of_another_feed_or_organisation_is_refused() {
    let system = together();
    let (tenant, other) = (system.tenant().await, system.tenant().await);
    let request = ListUsersRequest { organisation_id: tenant.id.clone(), ..Default::default() };
    let users = system.users().list_users(request).await.unwrap().into_inner();
    let request = ListGroupsRequest { organisation_id: tenant.id.clone(), ..Default::default() };
    let groups = system.groups().list_groups(request).await.unwrap().into_inner();
    for (organisation_id, token) in [
        (&tenant.id, groups.resume_token),
        (&other.id, users.resume_token),
        (&tenant.id, "x".into()),
    ] {
        let request = WatchChangesRequest {
            organisation_id: organisation_id.clone(),
            resume_tokens: vec![token],
            ..Default::default()
        };
        let refusal = system.users().watch_changes(request).await.unwrap_err();
        assert_eq!(refusal.code(), Code::InvalidArgument);
    }
}

#[tokio::test]
async fn the_history_of_a_user_says_what_changed_when_and_by_which_key() {
    let system = together();
    let tenant = system.tenant().await;
    let ann = create(&tenant.client, "ann@a.example", &[]).await;
    let patch = json!({"Operations": [{"op": "replace", "path": "title", "value": "Boss"}]});
    for _ in 0..2 {
        // The second changes nothing, and is not in the history.
        tenant.client.patch(&format!("/Users/{ann}"), &patch).await.unwrap();
    }
    let request = ListChangesRequest {
        organisation_id: tenant.id.clone(),
        user_id: ann,
        ..Default::default()
    };
    let changes = system.users().list_changes(request).await.unwrap().into_inner().changes;
    assert_eq!(changes.len(), 2);
    assert_eq!(changes[0].after.as_ref().unwrap().title(), "Boss");
    let metadata = changes[0].metadata.as_ref().unwrap();
    assert!(metadata.write_time.is_some() && !metadata.traceparent.is_empty());
    assert!(format!("{:?}", metadata.actor).contains("ApiKeyId"));
}

#[tokio::test]
async fn who_approves_for_whom_is_answered_for_many_at_once() {
    for system in both() {
        let tenant = system.tenant().await;
        let ann = create(
            &tenant.client,
            "ann@a.example",
            &["Bo@a.example", "nobody@a.example", "ann@a.example", "cy@a.example"],
        )
        .await;
        let bo = create(&tenant.client, "bo@a.example", &[]).await;
        let cy = create(&tenant.client, "cy@a.example", &[]).await;
        let patch = json!({"Operations": [{"op": "replace", "value": {"active": false}}]});
        tenant.client.patch(&format!("/Users/{cy}"), &patch).await.unwrap();

        let request = BatchGetApproversRequest {
            organisation_id: tenant.id.clone(),
            user_ids: vec![ann.clone(), bo.clone()],
        };
        let answer = system.approvers().batch_get_approvers(request).await.unwrap().into_inner();
        assert_eq!(answer.users.len(), 1);
        let states: Vec<_> =
            answer.users[0].approvers.iter().map(|a| (a.state(), &*a.email)).collect();
        assert_eq!(
            states,
            [
                (ApproverState::InForce, "bo@a.example"),
                (ApproverState::Pending, ""),
                (ApproverState::OwnAddress, "ann@a.example"),
                (ApproverState::Suspended, "cy@a.example"),
            ]
        );
        let request = BatchListApproveesRequest {
            organisation_id: tenant.id.clone(),
            approver_ids: vec![bo.clone(), cy.clone()],
        };
        let answer = system.approvers().batch_list_approvees(request).await.unwrap().into_inner();
        assert_eq!(answer.approvers.len(), 1);
        assert_eq!(answer.approvers[0].user_ids, std::slice::from_ref(&ann));
        let question = |approver: &str, user: &str| ApprovalQuestion {
            approver_id: approver.into(),
            user_id: user.into(),
        };
        let request = BatchCheckApprovalsRequest {
            organisation_id: tenant.id.clone(),
            questions: vec![
                question(&bo, &ann),
                question(&cy, &ann),
                question(&ann, &bo),
                question("x", &bo),
            ],
        };
        let answer = system.approvers().batch_check_approvals(request).await.unwrap().into_inner();
        assert_eq!(answer.allowed, [true, false, false, false]);
    }
}

#[tokio::test]
async fn a_user_over_grpc_has_what_scim_leaves_out() {
    let system = together();
    let tenant = system.tenant().await;
    let ann = create(&tenant.client, "ann@a.example", &["bo@a.example"]).await;
    let operations: Vec<Value> = ["active", "locale", &format!("{MUSTER}:contentRegion")]
        .map(|path| json!({"op": "remove", "path": path}))
        .into();
    let patched = tenant
        .client
        .patch(&format!("/Users/{ann}"), &json!({"Operations": operations}))
        .await
        .unwrap();
    for absent in ["/active", "/locale", "/urn:learnerbly:params:scim:schemas:2.0:User"] {
        assert!(patched.at(absent).is_null(), "{}", patched.text);
    }
    let request = GetUserRequest { organisation_id: tenant.id.clone(), id: ann };
    let user = system.users().get_user(request).await.unwrap().into_inner();
    assert!(!user.active());
    assert_eq!(user.content_region(), ContentRegion::Qq);
    assert_eq!(user.effective_locale, "en-GB");
    assert_eq!(user.primary_email, "ann@a.example");
    assert_eq!(user.declared_approvers, ["bo@a.example"]);
}

#[tokio::test]
async fn users_are_got_by_name_whatever_its_case() {
    let system = together();
    let (tenant, other) = (system.tenant().await, system.tenant().await);
    let ann = create(&tenant.client, "ann@a.example", &[]).await;
    let bo = create(&tenant.client, "Bo@a.example", &[]).await;
    create(&other.client, "cy@a.example", &[]).await;
    let names = ["bO@a.example", "ANN@a.example", "cy@a.example", "ann@a.example", ""];
    let request = BatchGetUsersRequest {
        organisation_id: tenant.id.clone(),
        user_names: names.map(str::to_owned).into(),
        ..Default::default()
    };
    let got = system.users().batch_get_users(request.clone()).await.unwrap().into_inner();
    let got: Vec<&str> = got.users.iter().map(|user| user.id.as_str()).collect();
    assert_eq!(got, [ann.as_str(), bo.as_str()]);
    for request in [
        BatchGetUsersRequest { ids: vec![ann.clone()], ..request.clone() },
        BatchGetUsersRequest { ids_only: true, ..request.clone() },
        BatchGetUsersRequest { user_names: vec![String::new(); 10_001], ..request.clone() },
    ] {
        let refused = system.users().batch_get_users(request).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
    }
}

#[tokio::test]
async fn the_members_of_a_group_are_listed_page_by_page() {
    let system = together();
    let tenant = system.tenant().await;
    let mut ids = Vec::new();
    for n in 0..5 {
        ids.push(create(&tenant.client, &format!("u{n}@a.example"), &[]).await);
    }
    let members: Vec<Value> = ids.iter().map(|id| json!({"value": id})).collect();
    let group = json!({"displayName": "Everybody", "members": members});
    let group = tenant.client.post("/Groups", &group).await.unwrap();
    let mut listed = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = ListMembersRequest {
            organisation_id: tenant.id.clone(),
            group_id: group.at("/id").as_str().unwrap().into(),
            page_size: 2,
            page_token,
        };
        let page = system.groups().list_members(request).await.unwrap().into_inner();
        assert!(page.user_ids.len() <= 2);
        listed.extend(page.user_ids);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    ids.sort();
    assert_eq!(listed, ids);
}

#[tokio::test]
async fn every_service_reports_its_health() {
    for system in both() {
        for (url, service) in [
            (&system.identity_url, "muster.identity.v1.UserService"),
            (&system.group_url, "muster.group.v1.GroupService"),
            (&system.approver_url, "muster.approver.v1.ApproverService"),
        ] {
            let mut health = HealthClient::new(tls::connect(url));
            let request = HealthCheckRequest { service: service.into() };
            let answer = health.check(request).await.unwrap().into_inner();
            assert_eq!(answer.status(), ServingStatus::Serving, "{service}");
        }
    }
}
