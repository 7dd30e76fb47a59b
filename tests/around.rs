//! What is around Muster is not as it should be: clocks that differ, a full disk, tables of the next
//! release.

use muster::scim_client::ScimClient;
use muster_proto::identity::v1::api_key_service_client::ApiKeyServiceClient;
use muster_proto::identity::v1::{ApiKey, CreateApiKeyRequest, UnknownMembers};
use muster_runtime::clock;
use serde_json::{Value, json};
use sqlx::{Connection as _, Executor as _, PgConnection};

use crate::check::nothing_differs;
use crate::faults::cluster::{Cluster, PARTS, Replica, Tenant};
use crate::faults::points::PROGRAM;
use crate::support::session::play;
use crate::support::system::System;

fn client(replica: &Replica, key: &str) -> ScimClient {
    ScimClient::new(&replica.scim_url, format!("Static {key}")).unwrap()
}

/// Another key, which is good for five minutes.
async fn short_key(replica: &Replica, tenant: &Tenant) -> String {
    let seconds = (clock::now() + time::Duration::minutes(5)).unix_timestamp();
    let key = ApiKey {
        organisation_id: tenant.id.clone(),
        label: "short".into(),
        expire_time: Some(prost_types::Timestamp { seconds, nanos: 0 }),
        ..ApiKey::default()
    };
    let request =
        CreateApiKeyRequest { api_key: Some(key), actor: None, client_address: String::new() };
    let mut keys = ApiKeyServiceClient::new(replica.channel("identity"));
    keys.create_api_key(request).await.unwrap().into_inner().secret
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clocks_that_differ_change_no_order_and_keys_expire_by_the_clock_of_who_is_asked() {
    let cluster = Cluster::start_as(&PROGRAM, 2, &[]).await;
    let tenant = cluster.tenant_that(UnknownMembers::LeaveOut).await;
    let short = short_key(&cluster.replicas[0], &tenant).await;
    for (replica, offset) in cluster.replicas.iter().zip(["600", "-600"]) {
        for part in PARTS {
            replica.kill(part).await;
            let offset = [("MUSTER_CLOCK_OFFSET_SECONDS", offset)];
            cluster.start_part(replica, part, &offset).await;
        }
    }
    let clients = [0, 1].map(|at| client(&cluster.replicas[at], &tenant.key));
    let mut version = String::new();
    let boss = json!({"userName": "boss@x.example",
        "emails": [{"value": "boss@x.example", "type": "work"}]});
    assert_eq!(clients[1].post("/Users", &boss).await.unwrap().status, 201);
    let ann = json!({"userName": "ann",
        "urn:learnerbly:params:scim:schemas:2.0:User": {"approvers": ["boss@x.example"]}});
    let created = clients[0].post("/Users", &ann).await.unwrap();
    assert_eq!(created.status, 201, "{}", created.text);
    let path = format!("/Users/{}", created.at("/id").as_str().unwrap());
    let group = json!({"displayName": "All", "members": [{"value": created.at("/id")}]});
    assert_eq!(clients[1].post("/Groups", &group).await.unwrap().status, 201);
    for round in 0..20 {
        // Each is written where the clock is twenty minutes away from the one before.
        let client = &clients[(round + 1) % 2];
        let mut new = ann.clone();
        new["title"] = Value::from(format!("round {round}"));
        let put = client.put(&path, &new).await.unwrap();
        assert_eq!(put.status, 200, "{}", put.text);
        let etag = put.etag().unwrap().to_owned();
        assert_ne!(etag, version, "a new version");
        for client in &clients {
            let read = client.get(&path).await.unwrap();
            assert_eq!(read.etag(), Some(&*etag));
            assert_eq!(read.at("/title"), &json!(format!("round {round}")));
        }
        version = etag;
    }
    cluster.drain().await.unwrap();
    for client in &clients {
        let read = client.get(&path).await.unwrap();
        assert_eq!(read.at("/groups/0/display"), "All");
        let muster = &read.body.as_ref().unwrap()["urn:learnerbly:params:scim:schemas:2.0:User"];
        assert_eq!(muster["approvers"], json!(["boss@x.example"]), "{}", read.text);
    }
    let order = "SELECT count(*) = max(sequence) AND bool_and(revision_grows) FROM (
                     SELECT sequence, revision > coalesce(lag(revision) OVER (
                         PARTITION BY subject_id ORDER BY sequence), 0) AS revision_grows
                       FROM identity.change WHERE organisation_id = $1::uuid) AS change";
    let in_order: bool = sqlx::query_scalar(order)
        .bind(&tenant.id)
        .fetch_one(&mut cluster.sql().await)
        .await
        .unwrap();
    assert!(in_order, "sequences have gaps, or a revision fell");
    // It expires in five minutes; for one of them it has, for the other it will in a quarter hour.
    for (replica, expected) in cluster.replicas.iter().zip([401, 200]) {
        assert_eq!(client(replica, &short).get("/Users").await.unwrap().status, expected);
    }
    cluster.stop().await;
}

#[tokio::test]
async fn a_full_disk_refuses_writes_whole_and_takes_them_again_when_there_is_room() {
    let system = System::start_apart("full_disk");
    let tenant = system.tenant().await;
    let client = &tenant.client;
    let ann = client.post("/Users", &json!({"userName": "ann"})).await.unwrap();
    let path = format!("/Users/{}", ann.at("/id").as_str().unwrap());
    let mut sql = PgConnection::connect(&system.database_url("postgres")).await.unwrap();
    // What Postgres says when a file cannot grow: 53100, disk_full.
    sql.execute(
        "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS
           $$ BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = '53100'; END $$",
    )
    .await
    .unwrap();
    for schema in ["identity", "groups", "approver"] {
        let trigger = format!(
            "CREATE TRIGGER full_disk BEFORE INSERT ON {schema}.change
                 FOR EACH ROW EXECUTE FUNCTION public.full_disk()"
        );
        sql.execute(sqlx::AssertSqlSafe(trigger)).await.unwrap();
    }
    let group = json!({"displayName": "All", "members": [{"value": ann.at("/id")}]});
    for (what, answer) in [
        ("create", client.post("/Users", &json!({"userName": "bo"})).await),
        ("replace", client.put(&path, &json!({"userName": "ann", "title": "x"})).await),
        ("delete", client.delete(&path).await),
        ("group", client.post("/Groups", &group).await),
    ] {
        let answer = answer.unwrap();
        assert_eq!(answer.status, 503, "{what}: {}", answer.text);
        assert!(answer.headers.contains_key("retry-after"), "{what}");
    }
    // Nothing is half done, and reading goes on.
    let listed = client.get("/Users").await.unwrap();
    assert_eq!((listed.status, listed.at("/totalResults")), (200, &json!(1)));
    assert_eq!(client.get(&path).await.unwrap().at("/title"), &Value::Null);
    assert_eq!(client.get("/Groups").await.unwrap().at("/totalResults"), 0);
    for schema in ["identity", "groups", "approver"] {
        let drop = format!("DROP TRIGGER full_disk ON {schema}.change");
        sql.execute(sqlx::AssertSqlSafe(drop)).await.unwrap();
    }
    assert_eq!(client.post("/Users", &json!({"userName": "bo"})).await.unwrap().status, 201);
    assert_eq!(client.post("/Groups", &group).await.unwrap().status, 201);
    nothing_differs(&system, &tenant.id).await;
    assert!(!system.logs().contains("panicked"), "{}", system.logs());
}

#[tokio::test]
async fn the_tables_of_the_next_release_are_taken() {
    let mut system = System::start_apart("next_release");
    let mut sql = PgConnection::connect(&system.database_url("postgres")).await.unwrap();
    // What a release that expands does: columns and tables come, nothing goes.
    let tables: Vec<String> = sqlx::query_scalar(
        "SELECT quote_ident(schemaname) || '.' || quote_ident(tablename) FROM pg_tables
          WHERE schemaname IN ('identity', 'groups', 'approver')",
    )
    .fetch_all(&mut sql)
    .await
    .unwrap();
    assert!(tables.len() > 15, "{tables:?}");
    for table in tables {
        if table.ends_with("_sqlx_migrations") {
            let next = format!(
                "INSERT INTO {table} (version, description, success, checksum, execution_time)
                 VALUES (9999, 'next', true, '', 0)"
            );
            sql.execute(sqlx::AssertSqlSafe(next)).await.unwrap();
        } else {
            let expand = format!("ALTER TABLE {table} ADD COLUMN next text NOT NULL DEFAULT ''");
            sql.execute(sqlx::AssertSqlSafe(expand)).await.unwrap();
        }
    }
    for part in ["identity", "group", "approver"] {
        system.kill(part);
        system.restart(part);
    }
    for session in ["okta-put.json", "okta-patch.json", "entra.json", "bad-input.json"] {
        let tenant = system.tenant().await;
        play(&tenant.client, session).await;
        nothing_differs(&system, &tenant.id).await;
    }
}
