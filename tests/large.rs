//! What must not grow with the size of an organisation: ten thousand who wait for one approver,
//! a group of a hundred thousand, a user of a thousand groups.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use muster_proto::approver::v1::{
    ApproverState, BatchGetApproversRequest, WatchChangesRequest as WatchApprovers,
};
use muster_proto::feed::v1::WatchStart;
use muster_proto::group::v1::group_service_client::GroupServiceClient;
use muster_proto::group::v1::update_group_request::Members;
use muster_proto::group::v1::{
    CreateGroupRequest, Group, GroupChange, ListChangesRequest, ListMembersRequest, MemberDelta,
    MemberSet, UpdateGroupRequest,
};
use muster_runtime::grpc::MAX_MESSAGE_BYTES;
use muster_runtime::transport::Transport;
use serde_json::json;
use tonic::Code;

use crate::support::feed::{eventually, number, sql};
use crate::support::system::{System, Tenant, both, run_sql, together};

/// People straight into identity's table, by number: the ids are `…000001` and on. PostgreSQL has not
/// analysed the tables since: what happens to so many must be as quick without.
fn crowd(system: &System, tenant: &Tenant, count: usize) -> Vec<String> {
    let organisation = &tenant.id;
    let prefix = &uuid::Uuid::now_v7().to_string()[..24];
    run_sql(
        &system.database_url("postgres"),
        &format!(
            "INSERT INTO identity.users
                    (organisation_id, user_id, revision, created_at, updated_at, origin, active,
                     user_name_key, document, search)
             SELECT '{organisation}', ('{prefix}' || lpad(n::text, 12, '0'))::uuid, 1, now(), now(),
                    1, true, 'name' || n,
                    jsonb_build_object('user_name', 'name' || n, 'active', true), '{{}}'
               FROM generate_series(1, {count}) AS n"
        ),
    );
    (1..=count).map(|n| format!("{prefix}{n:012}")).collect()
}

#[tokio::test]
async fn ten_thousand_who_declared_one_address_have_an_approver_when_its_owner_appears() {
    for system in both() {
        let tenant = system.tenant().await;
        let (organisation, waiting) = (&tenant.id, crowd(system, &tenant, 10_000));
        let list = waiting.join("','");
        run_sql(
            &system.database_url("postgres"),
            &format!(
                "INSERT INTO approver.person
                        (organisation_id, user_id, revision, active, deleted, email)
                 SELECT '{organisation}', id::uuid, 1, true, false, ''
                   FROM unnest(ARRAY['{list}']) AS id;
                 INSERT INTO approver.declaration
                        (organisation_id, user_id, email_key, position, email)
                 SELECT '{organisation}', id::uuid, 'boss@a.example', 1, 'Boss@a.example'
                   FROM unnest(ARRAY['{list}']) AS id"
            ),
        );
        let watch = WatchApprovers {
            organisation_id: organisation.clone(),
            start: WatchStart::Now.into(),
            ..WatchApprovers::default()
        };
        let told = system.approvers().watch_changes(watch).await.unwrap().into_inner();
        let start = Instant::now();
        let boss = json!({"userName": "boss", "emails": [{"value": "boss@a.example"}]});
        let boss = tenant.client.post("/Users", &boss).await.unwrap();
        assert_eq!(boss.status, 201, "{}", boss.text);
        // The answer waits for it, if not for ever.
        eprintln!("{}: in force after {:?}", system.name, start.elapsed());
        // Everybody is told of in the feed, once.
        let changes = told.filter_map(|message| async { message.unwrap().change });
        let subjects: BTreeSet<String> =
            changes.take(waiting.len()).map(|change| change.user_id).collect().await;
        eprintln!("{}: told of after {:?}", system.name, start.elapsed());
        assert_eq!(subjects, waiting.iter().cloned().collect());
        for users in waiting.chunks(1_000) {
            let request = BatchGetApproversRequest {
                organisation_id: organisation.clone(),
                user_ids: users.to_vec(),
            };
            let mut approvers = system.approvers().max_decoding_message_size(MAX_MESSAGE_BYTES);
            let answer = approvers.batch_get_approvers(request).await.unwrap().into_inner();
            assert_eq!(answer.users.len(), users.len());
            for user in answer.users {
                assert_eq!(user.approvers[0].state(), ApproverState::InForce);
                assert_eq!(user.approvers[0].approver_id.as_str(), boss.at("/id"));
            }
        }
    }
}

/// The newest change of a group.
async fn newest_change(system: &System, tenant: &Tenant, group_id: &str) -> GroupChange {
    let request = ListChangesRequest {
        organisation_id: tenant.id.clone(),
        group_id: group_id.to_owned(),
        page_size: 1,
        ..ListChangesRequest::default()
    };
    let answer = system.groups().list_changes(request).await.unwrap().into_inner();
    answer.changes.into_iter().next().unwrap()
}

/// Updates a group. On a busy machine a statement may meet its time limit: nothing is done then,
/// and the request is sent again.
async fn update(
    groups: &mut GroupServiceClient<Transport>,
    request: UpdateGroupRequest,
) -> muster_proto::group::v1::UpdateGroupResponse {
    for _ in 0..10 {
        match groups.update_group(request.clone()).await {
            Err(status) if status.code() == Code::DeadlineExceeded => {}
            answer => return answer.unwrap().into_inner(),
        }
    }
    panic!("the group cannot be updated in time");
}

#[tokio::test]
async fn a_group_of_a_hundred_thousand_is_touched_only_where_it_changes() {
    let system = together();
    let tenant = system.tenant().await;
    let people = crowd(system, &tenant, 100_004);
    let mut groups = system.groups().max_decoding_message_size(MAX_MESSAGE_BYTES);
    let group = Group {
        organisation_id: tenant.id.clone(),
        display_name: "Everybody".into(),
        member_ids: people[..5_000].to_vec(),
        ..Group::default()
    };
    let request = CreateGroupRequest { group: Some(group), ..CreateGroupRequest::default() };
    let created = groups.create_group(request).await.unwrap().into_inner();
    assert_eq!(created.unknown_member_ids, Vec::<String>::new());
    let id = created.group.unwrap().id;
    let path = format!("/Groups/{id}");
    // In parts, each well within what a statement may take on a busy machine.
    for more in people[5_000..100_000].chunks(5_000) {
        let delta = MemberDelta { add: more.to_vec(), ..MemberDelta::default() };
        let request = UpdateGroupRequest {
            organisation_id: tenant.id.clone(),
            id: id.clone(),
            members: Some(Members::Delta(delta)),
            ..UpdateGroupRequest::default()
        };
        let updated = update(&mut groups, request).await;
        assert_eq!(updated.unknown_member_ids, Vec::<String>::new());
    }

    let add = json!({"Operations": [{"op": "add", "path": "members", "value": [{"value": people[100_000]}]}]});
    let remove = json!({"Operations": [{"op": "remove", "path": format!("members[value eq \"{}\"]", people[0])}]});
    for (patch, added, removed) in
        [(add, vec![&people[100_000]], vec![]), (remove, vec![], vec![&people[0]])]
    {
        let start = Instant::now();
        let answer = tenant.client.patch(&path, &patch).await.unwrap();
        eprintln!("one member: {:?}", start.elapsed());
        assert_eq!(answer.status, 204, "{}", answer.text);
        let change = newest_change(system, &tenant, &id).await;
        assert!(change.added_member_ids.iter().eq(added), "{change:?}");
        assert!(change.removed_member_ids.iter().eq(removed), "{change:?}");
    }
    // A whole list that differs by three: two come, one goes.
    let request = UpdateGroupRequest {
        organisation_id: tenant.id.clone(),
        id: id.clone(),
        members: Some(Members::Set(MemberSet {
            user_ids: people[2..=100_002].to_vec(),
            ..MemberSet::default()
        })),
        ..UpdateGroupRequest::default()
    };
    let start = Instant::now();
    let revision = update(&mut groups, request.clone()).await;
    eprintln!("a list that differs by three: {:?}", start.elapsed());
    let change = newest_change(system, &tenant, &id).await;
    let added: BTreeSet<&String> = change.added_member_ids.iter().collect();
    assert_eq!(added, people[100_001..=100_002].iter().collect());
    assert_eq!(change.removed_member_ids, [people[1].clone()]);
    // The same list again is no change.
    let again = update(&mut groups, request).await;
    assert_eq!(again.group, revision.group);

    let mut page_token = String::new();
    let mut members = Vec::new();
    loop {
        let request = ListMembersRequest {
            organisation_id: tenant.id.clone(),
            group_id: id.clone(),
            page_size: 10_000,
            page_token,
        };
        let page = groups.list_members(request).await.unwrap().into_inner();
        members.extend(page.user_ids);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(members, people[2..=100_002]);
    let light = tenant.client.get(&format!("{path}?excludedAttributes=members")).await.unwrap();
    assert!(light.text.len() < 1_000, "{}", light.text);
}

/// Where there are few groups, a plan for any of them may be one that reads all, in order.
#[tokio::test]
async fn who_reads_a_group_reads_no_others_members() {
    let system = System::start_apart("beside_large");
    let tenant = system.tenant().await;
    let organisation = &tenant.id;
    let person = tenant.client.post("/Users", &json!({"userName": "ann"})).await.unwrap();
    let mut group = String::new();
    for name in ["Large", "Middle"] {
        let made = json!({"displayName": name, "members": [{"value": person.at("/id")}]});
        let made = tenant.client.post("/Groups", &made).await.unwrap();
        assert_eq!(made.status, 201, "{}", made.text);
        made.at("/id").as_str().unwrap().clone_into(&mut group);
    }
    let url = system.database_url("postgres");
    run_sql(
        &url,
        &format!(
            "INSERT INTO groups.membership
             SELECT '{organisation}', group_id, gen_random_uuid()
               FROM groups.groups, generate_series(1, 40000) AS n
              WHERE display_name = 'Large' OR n < 5000;
             UPDATE groups.groups SET member_count = 5000 WHERE display_name = 'Middle'"
        ),
    );
    run_sql(&url, "VACUUM ANALYZE groups.membership");
    let mut connection = sql(&system).await;
    let of_index = "FROM pg_stat_user_indexes WHERE indexrelname = 'membership_pkey'";
    let entries = format!("SELECT idx_tup_read {of_index}");
    let scans = number(&mut connection, &format!("SELECT idx_scan {of_index}")).await;
    let before = number(&mut connection, &entries).await;
    let reads = 20;
    for _ in 0..reads {
        let read = tenant.client.get(&format!("/Groups/{group}")).await.unwrap();
        assert_eq!(read.at("/members").as_array().unwrap().len(), 5_000);
    }
    let counted = format!("SELECT (idx_scan >= {})::integer::bigint {of_index}", scans + reads);
    eventually(&mut connection, &counted, 1).await;
    let read = number(&mut connection, &entries).await - before;
    assert!(read < reads * 6_000, "{read} entries for {reads} × 5,000");
}

#[tokio::test]
async fn a_user_of_a_thousand_groups_leaves_all_of_them_when_deleted() {
    for system in both() {
        let tenant = system.tenant().await;
        let user = tenant.client.post("/Users", &json!({"userName": "ann"})).await.unwrap();
        let user_id = user.at("/id").as_str().unwrap();
        let group = json!({"displayName": "First", "members": [{"value": user_id}]});
        assert_eq!(tenant.client.post("/Groups", &group).await.unwrap().status, 201);
        let organisation = &tenant.id;
        run_sql(
            &system.database_url("postgres"),
            &format!(
                "WITH made AS (
                     INSERT INTO groups.groups
                            (organisation_id, group_id, revision, created_at, updated_at, origin,
                             display_name, display_name_key)
                     SELECT '{organisation}', gen_random_uuid(), 1, now(), now(), 1, 'g' || n, 'g' || n
                       FROM generate_series(2, 1000) AS n
                     RETURNING group_id
                 )
                 INSERT INTO groups.membership
                 SELECT '{organisation}', group_id, '{user_id}' FROM made"
            ),
        );
        let read = tenant.client.get(&format!("/Users/{user_id}")).await.unwrap();
        assert_eq!(read.at("/groups").as_array().unwrap().len(), 1_000);
        let start = Instant::now();
        let deleted = tenant.client.delete(&format!("/Users/{user_id}")).await.unwrap();
        eprintln!("{}: deleted after {:?}", system.name, start.elapsed());
        assert_eq!(deleted.status, 204, "{}", deleted.text);
        let filter = "/Groups?filter=members%20pr&count=0";
        for _ in 0..600 {
            if tenant.client.get(filter).await.unwrap().at("/totalResults") == 0 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(tenant.client.get(filter).await.unwrap().at("/totalResults"), 0);
        let groups = tenant.client.get("/Groups?count=200").await.unwrap();
        let groups = groups.at("/Resources").as_array().unwrap();
        let versions: BTreeSet<&str> =
            groups.iter().map(|group| group["meta"]["version"].as_str().unwrap()).collect();
        assert_eq!(versions, ["W/\"2\""].into());
    }
}
