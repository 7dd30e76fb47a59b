//! The provisioning log: every SCIM request, who it was about and what came of it.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use muster::scim_client::ScimClient;
use muster_identity::secret;
use muster_proto::identity::v1::api_key_service_client::ApiKeyServiceClient;
use muster_proto::identity::v1::provisioning_log_service_client::ProvisioningLogServiceClient;
use muster_proto::identity::v1::{
    AppendProvisioningLogRequest, GetProvisioningLogEntryRequest, ListApiKeysRequest,
    ListProvisioningLogRequest, ProvisioningAction as Action, ProvisioningCount,
    ProvisioningLogEntry, ProvisioningOutcome as Outcome, RevokeApiKeyRequest,
    SummariseProvisioningRequest,
};
use muster_runtime::clock::timestamp;
use muster_runtime::id::LogEntryId;
use muster_runtime::transport::Transport;
use serde_json::json;
use sqlx::{Connection as _, Executor as _, PgConnection, Row as _};
use time::OffsetDateTime;
use tonic::Code;

use crate::support::system::{System, Tenant, both, together};

/// How long the log may take to show what has happened.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn log_of(system: &System) -> ProvisioningLogServiceClient<Transport> {
    ProvisioningLogServiceClient::new(system.identity())
}

fn everything(tenant: &Tenant) -> ListProvisioningLogRequest {
    ListProvisioningLogRequest { organisation_id: tenant.id.clone(), ..Default::default() }
}

async fn list(system: &System, request: ListProvisioningLogRequest) -> Vec<ProvisioningLogEntry> {
    log_of(system).list_provisioning_log(request).await.unwrap().into_inner().entries
}

/// The log once it has so many entries, the oldest first.
pub(crate) async fn logged(
    system: &System,
    tenant: &Tenant,
    count: usize,
) -> Vec<ProvisioningLogEntry> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let request = ListProvisioningLogRequest { page_size: 1_000, ..everything(tenant) };
        let mut entries = list(system, request).await;
        if entries.len() >= count {
            assert_eq!(entries.len(), count, "{entries:#?}");
            entries.reverse();
            return entries;
        }
        assert!(Instant::now() < deadline, "{} of {count} came", entries.len());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn counts(system: &System, organisation_id: &str) -> Vec<ProvisioningCount> {
    let request = SummariseProvisioningRequest { organisation_id: organisation_id.to_owned() };
    log_of(system).summarise_provisioning(request).await.unwrap().into_inner().counts
}

#[tokio::test]
async fn every_scim_request_is_in_the_log_with_who_it_was_about_and_the_error_as_it_was_sent() {
    for system in both() {
        let tenant = system.tenant().await;
        let client = &tenant.client;
        let before = OffsetDateTime::now_utc();
        client.get("/Users?startIndex=1&count=2").await.unwrap();
        let ann = client.post("/Users", &json!({"userName": "Ann@a.example"})).await.unwrap();
        let again = client.post("/Users", &json!({"userName": "ann@A.example"})).await.unwrap();
        let id = ann.at("/id").as_str().unwrap();
        let wrong = json!({"userName": "ann@a.example", "active": "perhaps"});
        let refused = client.put(&format!("/Users/{id}"), &wrong).await.unwrap();
        let members =
            json!({"displayName": "Blue", "members": [{"value": id}, {"value": "nobody"}]});
        let group = client.post("/Groups", &members).await.unwrap();
        let group_id = group.at("/id").as_str().unwrap();
        let rename = json!({"Operations": [{"op": "replace", "value": {"displayName": "Red"}}]});
        assert_eq!(
            client.patch(&format!("/Groups/{group_id}"), &rename).await.unwrap().status,
            204
        );
        client.delete(&format!("/Groups/{group_id}")).await.unwrap();
        client.get("/Users?startIndex=1&count=100").await.unwrap();
        client.get("/nowhere").await.unwrap();

        let entries = logged(system, &tenant, 9).await;
        let told: Vec<_> = entries
            .iter()
            .map(|e| (e.action(), e.outcome(), e.status, e.subject_name.as_str()))
            .collect();
        let expected = [
            (Action::Test, Outcome::Applied, 200, ""),
            (Action::CreateUser, Outcome::Applied, 201, "Ann@a.example"),
            (Action::CreateUser, Outcome::Failed, 409, "ann@A.example"),
            (Action::ReplaceUser, Outcome::Failed, 400, "Ann@a.example"),
            (Action::CreateGroup, Outcome::AppliedInPart, 201, "Blue"),
            (Action::PatchGroup, Outcome::Applied, 204, "Red"),
            (Action::DeleteGroup, Outcome::Applied, 204, "Red"),
            (Action::ImportUsers, Outcome::Applied, 200, ""),
            (Action::Unspecified, Outcome::Failed, 404, ""),
        ];
        assert_eq!(told, expected, "{}", system.name);
        for (entry, answer) in [(&entries[2], &again), (&entries[3], &refused)] {
            assert_eq!(answer.at("/detail"), entry.detail.as_str(), "{}", answer.text);
            assert_eq!(answer.at("/scimType"), entry.scim_type.as_str());
            assert!(entry.detail.contains(&entry.trace_id), "{}", entry.detail);
        }
        assert_eq!(entries[0].path, "/Users?startIndex=1&count=2");
        assert_eq!((entries[1].subject_id.as_str(), entries[3].subject_id.as_str()), (id, id));
        assert_eq!(entries[4].unknown_member_ids, ["nobody"]);
        assert_eq!(entries[4].unknown_member_count, 1);
        let keys: BTreeSet<_> = entries.iter().map(|entry| entry.api_key_id.as_str()).collect();
        assert!(keys.len() == 1 && !keys.contains(""), "{keys:?}");
        let traces: BTreeSet<_> = entries.iter().map(|entry| entry.trace_id.as_str()).collect();
        assert!(traces.iter().all(|trace| trace.len() == 32) && traces.len() == 9, "{traces:?}");
        for entry in &entries {
            let at = entry.request_time.unwrap();
            assert!(at.seconds >= before.unix_timestamp(), "{entry:?}");
            assert!(entry.duration.unwrap().nanos > 0 || entry.duration.unwrap().seconds > 0);
            assert!(!entry.user_agent.is_empty());
            let request = GetProvisioningLogEntryRequest {
                organisation_id: tenant.id.clone(),
                id: entry.id.clone(),
            };
            let got = log_of(system).get_provisioning_log_entry(request).await.unwrap();
            assert_eq!(&got.into_inner(), entry);
        }
        // What is counted is what is there.
        let counted: Vec<_> = counts(system, &tenant.id)
            .await
            .iter()
            .map(|c| (c.action(), c.outcome(), c.count))
            .collect();
        let mut sorted: Vec<_> =
            expected.iter().map(|(action, outcome, ..)| (*action, *outcome, 1)).collect();
        sorted.sort_by_key(|(action, outcome, _)| (*action as i32, *outcome as i32));
        assert_eq!(counted, sorted);
    }
}

#[tokio::test]
async fn each_operation_of_a_bulk_request_has_an_entry_of_its_own() {
    let system = together();
    let tenant = system.tenant().await;
    let schemas = ["urn:ietf:params:scim:api:messages:2.0:BulkRequest"];
    let operations = json!({"schemas": schemas, "Operations": [
        {"method": "POST", "path": "/Users", "bulkId": "a", "data": {"userName": "a"}},
        {"method": "POST", "path": "/Users", "bulkId": "b", "data": {"userName": "A"}},
    ]});
    tenant.client.post("/Bulk", &operations).await.unwrap();
    let entries = logged(system, &tenant, 3).await;
    let mut told: Vec<_> = entries.iter().map(|e| (e.action(), e.status)).collect();
    told.sort_by_key(|(action, status)| (*action as i32, *status));
    let expected = [(Action::CreateUser, 201), (Action::CreateUser, 409), (Action::Bulk, 200)];
    assert_eq!(told, expected);
    let traces: BTreeSet<_> = entries.iter().map(|entry| &entry.trace_id).collect();
    assert_eq!(traces.len(), 1);
}

#[tokio::test]
async fn a_request_with_a_revoked_key_is_in_the_log_and_one_with_an_unknown_key_in_none() {
    for system in both() {
        let tenant = system.tenant().await;
        let mut keys = ApiKeyServiceClient::new(system.identity());
        let organisation_id = tenant.id.clone();
        let request = ListApiKeysRequest { organisation_id: organisation_id.clone() };
        let key = keys.list_api_keys(request).await.unwrap().into_inner().api_keys.remove(0);
        let request =
            RevokeApiKeyRequest { organisation_id, id: key.id.clone(), ..Default::default() };
        keys.revoke_api_key(request).await.unwrap();
        let other = system.tenant().await;
        let revoked = tenant.client.get("/Users").await.unwrap();
        // Of the right form, with its checksum, and nobody's.
        let wrong = secret::generate(secret::Kind::ApiKey, other.id.parse().unwrap());
        let wrong = format!("Static {wrong}");
        let unknown =
            ScimClient::new(&system.scim_url, wrong).unwrap().get("/Users").await.unwrap();
        assert_eq!((revoked.status, unknown.status), (401, 401));
        // The client learns nothing of the difference.
        let without_trace = |text: &str| text.split(" (trace ").next().unwrap().to_owned();
        assert_eq!(without_trace(&revoked.text), without_trace(&unknown.text));

        other.client.get("/Users").await.unwrap();
        let entries = logged(system, &tenant, 1).await;
        assert_eq!(entries[0].action(), Action::RefusedKey);
        assert_eq!((entries[0].status, &entries[0].api_key_id), (401, &key.id));
        assert_eq!(revoked.at("/detail"), entries[0].detail.as_str());
        let others = logged(system, &other, 1).await;
        assert_eq!(others[0].status, 200);
    }
}

/// An entry for tests, made at that time.
fn entry(organisation_id: &str, n: usize, at: OffsetDateTime) -> ProvisioningLogEntry {
    let base: u128 = LogEntryId::first_at(at).uuid().as_u128();
    let odd = n % 2 == 1;
    ProvisioningLogEntry {
        id: LogEntryId::from(uuid::Uuid::from_u128(base + n as u128)).to_string(),
        organisation_id: organisation_id.to_owned(),
        request_time: Some(timestamp(at)),
        method: "POST".into(),
        path: "/Users".into(),
        action: Action::CreateUser.into(),
        outcome: if odd { Outcome::Failed } else { Outcome::Applied }.into(),
        status: if odd { 409 } else { 201 },
        subject: 1,
        subject_name: format!("Élise{}@a.example", n % 10),
        ..ProvisioningLogEntry::default()
    }
}

async fn append(system: &System, entries: Vec<ProvisioningLogEntry>) {
    let request = AppendProvisioningLogRequest { entries };
    log_of(system).append_provisioning_log(request).await.unwrap();
}

#[tokio::test]
async fn a_batch_that_is_sent_again_changes_nothing() {
    let system = together();
    let (one, other) = (system.tenant().await, system.tenant().await);
    let now = OffsetDateTime::now_utc();
    let mut entries: Vec<_> = (0..20).map(|n| entry(&one.id, n, now)).collect();
    append(system, entries.clone()).await;
    // The same, with more, some of another organisation and some of one that does not exist.
    entries.extend((20..25).map(|n| entry(&one.id, n, now)));
    entries.extend((0..5).map(|n| entry(&other.id, n, now)));
    entries.extend((0..5).map(|n| entry("01a20dd5-057c-7370-95bc-182bcdb7607e", n, now)));
    append(system, entries.clone()).await;
    append(system, entries).await;
    for (tenant, count) in [(&one, 25), (&other, 5)] {
        assert_eq!(logged(system, tenant, count).await.len(), count);
        let counted: i64 = counts(system, &tenant.id).await.iter().map(|c| c.count).sum();
        assert_eq!(counted, i64::try_from(count).unwrap());
    }
}

#[tokio::test]
async fn the_log_is_listed_page_by_page_and_by_what_one_looks_for() {
    let system = together();
    let tenant = system.tenant().await;
    let start = OffsetDateTime::now_utc() - time::Duration::hours(2);
    let at = |n: usize| start + time::Duration::seconds(i64::try_from(n).unwrap());
    append(system, (0..250).map(|n| entry(&tenant.id, n, at(n))).collect()).await;

    let mut ids = Vec::new();
    let mut request = everything(&tenant);
    loop {
        let page =
            log_of(system).list_provisioning_log(request.clone()).await.unwrap().into_inner();
        ids.extend(page.entries.into_iter().map(|entry| entry.id));
        if page.next_page_token.is_empty() {
            break;
        }
        assert_eq!(ids.len() % 100, 0);
        // What comes meanwhile moves nothing.
        append(system, vec![entry(&tenant.id, 0, OffsetDateTime::now_utc())]).await;
        request.page_token = page.next_page_token;
    }
    assert_eq!(ids.len(), 250);
    assert!(ids.is_sorted_by(|a, b| a > b));

    let until = Some(timestamp(at(250)));
    let base = || ListProvisioningLogRequest { page_size: 1_000, until, ..everything(&tenant) };
    let failed = ListProvisioningLogRequest { outcome: Outcome::Failed.into(), ..base() };
    assert_eq!(list(system, failed).await.len(), 125);
    let named =
        |prefix: &str| ListProvisioningLogRequest { subject_name_prefix: prefix.into(), ..base() };
    assert_eq!(list(system, named("éLISE3")).await.len(), 25);
    assert_eq!(list(system, named("éLISE")).await.len(), 250);
    assert_eq!(list(system, named("%")).await.len(), 0);
    let since = Some(timestamp(at(240)));
    let lately = ListProvisioningLogRequest { since, ..base() };
    assert_eq!(list(system, lately).await.len(), 10);
    let changes = ListProvisioningLogRequest { changes_only: true, ..base() };
    assert_eq!(list(system, changes).await.len(), 250);
    for nobody in ["nobody", "01a20dd5-057c-7370-95bc-182bcdb7607e"] {
        let of = ListProvisioningLogRequest { subject_id: nobody.into(), ..base() };
        assert_eq!(list(system, of).await.len(), 0);
        let with = ListProvisioningLogRequest { api_key_id: nobody.into(), ..base() };
        assert_eq!(list(system, with).await.len(), 0);
    }
    let wrong = ListProvisioningLogRequest { page_token: "x".into(), ..base() };
    let refused = log_of(system).list_provisioning_log(wrong).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn the_log_of_another_organisation_is_as_if_it_were_not_there() {
    let system = together();
    let (ours, theirs) = (system.tenant().await, system.tenant().await);
    append(system, vec![entry(&theirs.id, 0, OffsetDateTime::now_utc())]).await;
    let entry = logged(system, &theirs, 1).await.remove(0);
    assert!(list(system, everything(&ours)).await.is_empty());
    for id in [entry.id.as_str(), "01a20dd5-057c-7370-95bc-182bcdb7607e", "../x"] {
        let request =
            GetProvisioningLogEntryRequest { organisation_id: ours.id.clone(), id: id.into() };
        let refused = log_of(system).get_provisioning_log_entry(request).await.unwrap_err();
        assert_eq!(refused.code(), Code::NotFound);
        assert_eq!(refused.message(), "there is no such entry of the provisioning log");
    }
}

#[tokio::test]
async fn each_way_to_look_at_the_log_reads_no_more_of_it_than_it_shows() {
    let system = System::start_apart("log_plans");
    let tenant = system.tenant().await;
    let now = OffsetDateTime::now_utc();
    for batch in 0..20 {
        let range = batch * 1_000..(batch + 1) * 1_000;
        let entries = range.map(|n| {
            let mut entry = entry(&tenant.id, n, now);
            // One in a thousand is worth looking for.
            let rare = n % 1_000 == 7;
            entry.outcome = if rare { Outcome::Failed } else { Outcome::Applied }.into();
            entry.method = if rare { "PUT" } else { "GET" }.into();
            entry.subject_name = format!("{}-{n}", if rare { "rare" } else { "often" });
            entry.subject_id = uuid::Uuid::from_u128(u128::from(rare)).to_string();
            entry
        });
        append(&system, entries.collect()).await;
    }
    let mut connection = PgConnection::connect(&system.database_url("postgres")).await.unwrap();
    connection.execute("ANALYZE identity.provisioning_log").await.unwrap();
    connection.close().await.unwrap();
    let url = system.database_url("muster_identity");
    let mut connection = PgConnection::connect(&url).await.unwrap();
    let set = format!("SET muster.organisation_id = '{}'", tenant.id);
    connection.execute(sqlx::AssertSqlSafe(set)).await.unwrap();
    let id = &tenant.id;
    let one = uuid::Uuid::from_u128(1);
    for condition in [
        "true".to_owned(),
        "outcome = 3".to_owned(),
        format!("subject_id = '{one}'"),
        "subject_name_key ^@ 'rare'".to_owned(),
        "method <> 'GET'".to_owned(),
    ] {
        let explain = format!(
            "EXPLAIN (ANALYZE, FORMAT TEXT) SELECT entry_id FROM identity.provisioning_log
              WHERE organisation_id = '{id}' AND {condition} ORDER BY entry_id DESC LIMIT 20"
        );
        let rows = connection.fetch_all(sqlx::AssertSqlSafe(explain)).await.unwrap();
        let plan: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        let plan = plan.join("\n");
        let removed = plan.contains("Rows Removed") || plan.contains("Seq Scan");
        assert!(!removed && plan.contains("Index"), "{condition}\n{plan}");
    }
}

#[tokio::test]
async fn a_request_neither_waits_for_the_log_nor_fails_by_it_and_is_in_it_later() {
    let system = System::start_apart("log_locked");
    let tenant = system.tenant().await;
    let url = system.database_url("postgres");
    let mut holder = PgConnection::connect(&url).await.unwrap();
    holder.execute("BEGIN; LOCK TABLE identity.provisioning_log").await.unwrap();
    for n in 0..20 {
        let user = json!({"userName": format!("u{n}")});
        assert_eq!(tenant.client.post("/Users", &user).await.unwrap().status, 201);
    }
    // Identity gives up a batch, which is sent again.
    let deadline = Instant::now() + PATIENCE;
    while !system.logs().contains("a database call failed") {
        assert!(Instant::now() < deadline, "{}", system.logs());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    holder.execute("COMMIT").await.unwrap();
    assert_eq!(logged(&system, &tenant, 20).await.len(), 20);
    let counted: i64 = counts(&system, &tenant.id).await.iter().map(|c| c.count).sum();
    assert_eq!(counted, 20);
}

#[tokio::test]
async fn what_is_not_written_yet_is_written_when_the_gateway_is_told_to_stop() {
    let system = System::start_apart("log_stopped");
    let tenant = system.tenant().await;
    let url = system.database_url("postgres");
    let mut holder = PgConnection::connect(&url).await.unwrap();
    holder.execute("BEGIN; LOCK TABLE identity.provisioning_log").await.unwrap();
    assert_eq!(tenant.client.get("/Users").await.unwrap().status, 200);
    let gateway = system.process("gateway");
    gateway.signal("-TERM");
    holder.execute("COMMIT").await.unwrap();
    let deadline = Instant::now() + PATIENCE;
    while gateway.is_running() {
        assert!(Instant::now() < deadline, "{}", gateway.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(logged(&system, &tenant, 1).await[0].status, 200);
}

#[tokio::test]
async fn entries_are_kept_for_as_long_as_is_set_and_their_number_is_remembered() {
    let system = System::start_apart_with("log_kept", &[("MUSTER_LOG_PRUNE", "0.1")]);
    let tenant = system.tenant().await;
    let now = OffsetDateTime::now_utc();
    let old = now - time::Duration::days(31);
    append(&system, (0..500).map(|n| entry(&tenant.id, n, old)).collect()).await;
    append(&system, (0..5).map(|n| entry(&tenant.id, n, now)).collect()).await;
    let deadline = Instant::now() + PATIENCE;
    while list(&system, everything(&tenant)).await.len() > 5 {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(logged(&system, &tenant, 5).await.len(), 5);
    let counted: i64 = counts(&system, &tenant.id).await.iter().map(|c| c.count).sum();
    assert_eq!(counted, 505);
}
