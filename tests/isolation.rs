//! What keeps organisations and services apart.

use muster::scim_client::ScimClient;
use muster_proto::identity::v1::api_key_service_client::ApiKeyServiceClient;
use muster_proto::identity::v1::{
    ApiKey, CreateApiKeyRequest, ListApiKeysRequest, RevokeApiKeyRequest, UnknownMembers,
};
use serde_json::json;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection, Row as _};

use crate::support::feed::sql;
use crate::support::system::{System, Tenant, both, together};

const SERVICES: [(&str, &str); 3] =
    [("identity", "muster_identity"), ("groups", "muster_group"), ("approver", "muster_approver")];

/// The detail of an error without its trace id, which differs.
fn without_trace(text: &str) -> String {
    text.split(" (trace ").next().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn a_resource_of_another_organisation_is_answered_like_one_that_does_not_exist() {
    for system in both() {
        let (ours, theirs) = (system.tenant().await.client, system.tenant().await.client);
        let user = theirs.post("/Users", &json!({"userName": "ann"})).await.unwrap();
        let group = theirs.post("/Groups", &json!({"displayName": "g"})).await.unwrap();
        let nobody = "01a20dd5-057c-7370-95bc-182bcdb7607e";
        let patch = json!({"Operations": [{"op": "replace", "value": {"displayName": "x"}}]});
        for (kind, id, body) in [
            ("Users", user.at("/id").as_str().unwrap(), json!({"userName": "x"})),
            ("Groups", group.at("/id").as_str().unwrap(), json!({"displayName": "x"})),
        ] {
            let [real, unknown] = [id, nobody].map(|id| format!("/{kind}/{id}"));
            for (a, b) in [
                (ours.get(&real).await, ours.get(&unknown).await),
                (ours.put(&real, &body).await, ours.put(&unknown, &body).await),
                (ours.patch(&real, &patch).await, ours.patch(&unknown, &patch).await),
                (ours.delete(&real).await, ours.delete(&unknown).await),
            ] {
                let (a, b) = (a.unwrap(), b.unwrap());
                assert_eq!((a.status, b.status), (404, 404), "{}", a.text);
                assert_eq!(without_trace(&a.text), without_trace(&b.text));
            }
            assert_eq!(theirs.get(&real).await.unwrap().status, 200);
            let listed = ours.get(&format!("/{kind}")).await.unwrap();
            assert_eq!(listed.at("/totalResults"), 0);
        }
        // A member of another organisation is an unknown one.
        let members = json!({"displayName": "g", "members": [{"value": user.at("/id")}]});
        let created = ours.post("/Groups", &members).await.unwrap();
        assert_eq!(created.status, 201);
        assert!(created.at("/members").is_null(), "{}", created.text);
    }
}

async fn status(system: &System, authorization: &str) -> u16 {
    let client = ScimClient::new(&system.scim_url, authorization).unwrap();
    client.get("/Users").await.unwrap().status
}

async fn new_key(system: &System, tenant: &Tenant, expire_seconds: Option<i64>) -> String {
    let key = ApiKey {
        organisation_id: tenant.id.clone(),
        label: "another".into(),
        expire_time: expire_seconds.map(|seconds| prost_types::Timestamp { seconds, nanos: 0 }),
        ..ApiKey::default()
    };
    let request =
        CreateApiKeyRequest { api_key: Some(key), actor: None, client_address: String::new() };
    let mut keys = ApiKeyServiceClient::new(system.identity());
    keys.create_api_key(request).await.unwrap().into_inner().secret
}

#[tokio::test]
async fn a_key_is_accepted_in_every_form_until_it_is_revoked_or_expired() {
    for system in both() {
        let tenant = system.tenant().await;
        let key = tenant.client.key().to_owned();
        for form in ["Static ", "Bearer ", "Bearer Static ", "static ", "BEARER static "] {
            assert_eq!(status(system, &format!("{form}{key}")).await, 200, "{form}");
        }
        for wrong in ["", "Basic ", "Static Static "] {
            assert_eq!(status(system, &format!("{wrong}{key}")).await, 401, "{wrong}");
        }
        assert_eq!(status(system, &format!("Static {}", &key[..key.len() - 1])).await, 401);
        let expired = new_key(system, &tenant, Some(1)).await;
        assert_eq!(status(system, &format!("Static {expired}")).await, 401);

        let mut keys = ApiKeyServiceClient::new(system.identity());
        let organisation_id = tenant.id.clone();
        let request = ListApiKeysRequest { organisation_id: organisation_id.clone() };
        let listed = keys.list_api_keys(request).await.unwrap().into_inner().api_keys;
        let used = listed.iter().find(|k| k.last_use_time.is_some()).unwrap();
        assert!(key.starts_with(&used.prefix));
        let request = RevokeApiKeyRequest {
            organisation_id,
            id: used.id.clone(),
            actor: None,
            client_address: String::new(),
        };
        keys.revoke_api_key(request).await.unwrap();
        assert_eq!(status(system, &format!("Static {key}")).await, 401);
    }
}

#[tokio::test]
async fn a_suspended_organisation_is_refused() {
    let system = together();
    let tenant = system.tenant().await;
    system.suspend(&tenant.id).await;
    assert_eq!(tenant.client.get("/Users").await.unwrap().status, 401);
}

#[tokio::test]
async fn an_organisation_can_ask_for_unknown_members_to_be_refused() {
    let tenant = together().tenant_that(UnknownMembers::Refuse).await;
    let client = &tenant.client;
    let ann = client.post("/Users", &json!({"userName": "ann"})).await.unwrap();
    let nobody = "01a20dd5-057c-7370-95bc-182bcdb7607e";
    let members = json!([{"value": ann.at("/id")}, {"value": nobody}]);
    let refused =
        client.post("/Groups", &json!({"displayName": "g", "members": members})).await.unwrap();
    assert_eq!(refused.status, 400);
    assert_eq!(refused.at("/scimType"), "invalidValue");
    assert!(refused.at("/detail").as_str().unwrap().contains(nobody), "{}", refused.text);
    assert_eq!(client.get("/Groups").await.unwrap().at("/totalResults"), 0);
    let group = client.post("/Groups", &json!({"displayName": "g"})).await.unwrap();
    let path = format!("/Groups/{}", group.at("/id").as_str().unwrap());
    let patch = json!({"Operations": [{"op": "add", "path": "members", "value": members}]});
    assert_eq!(client.patch(&path, &patch).await.unwrap().status, 400);
    assert!(client.get(&path).await.unwrap().at("/members").is_null());
}

#[tokio::test]
async fn a_services_role_can_touch_nothing_of_another_and_make_nothing_of_its_own() {
    for system in both() {
        for (schema, role) in SERVICES {
            let url = system.database_url(role);
            let mut connection = PgConnection::connect(&url).await.unwrap();
            for (other, _) in SERVICES.iter().filter(|(other, _)| *other != schema) {
                let statement = format!("SELECT FROM {other}.change");
                let refused = connection.execute(AssertSqlSafe(statement)).await.unwrap_err();
                assert!(
                    refused.to_string().contains("permission denied"),
                    "{role} on {other}: {refused}"
                );
            }
            for statement in [
                format!("CREATE TABLE {schema}.mine (id int)"),
                format!("DROP TABLE {schema}.change"),
                format!("ALTER TABLE {schema}.change DISABLE ROW LEVEL SECURITY"),
                format!("UPDATE {schema}.change SET total = 0"),
                "SET ROLE postgres".to_owned(),
                "CREATE SCHEMA mine".to_owned(),
            ] {
                let result = connection.execute(AssertSqlSafe(statement.clone())).await;
                assert!(result.is_err(), "{role}: {statement}");
            }
        }
    }
}

#[tokio::test]
async fn without_an_organisation_a_statement_finds_nothing() {
    let system = together();
    let tenant = system.tenant().await;
    tenant.client.post("/Users", &json!({"userName": "ann"})).await.unwrap();
    tenant.client.post("/Groups", &json!({"displayName": "g"})).await.unwrap();
    // Which organisations there are, how far each is followed, the key of resume tokens.
    let shared = ["organisation", "feed_lock", "feed_key", "cursor", "_sqlx_migrations"];
    for (schema, role) in SERVICES {
        let mut connection = PgConnection::connect(&system.database_url(role)).await.unwrap();
        let tables = sqlx::query("SELECT tablename FROM pg_tables WHERE schemaname = $1")
            .bind(schema)
            .fetch_all(&mut connection)
            .await
            .unwrap();
        assert!(tables.len() >= 5);
        for table in tables {
            let table: String = table.get(0);
            // Not even readable: tests/accounts.rs.
            if shared.contains(&table.as_str()) || table == "admin_login" {
                continue;
            }
            let count = format!("SELECT count(*) FROM {schema}.{table}");
            let unset = sqlx::query(AssertSqlSafe(count.clone())).fetch_one(&mut connection).await;
            assert!(unset.is_err(), "{count} without an organisation");
            let other = "SET muster.organisation_id = '00000000-0000-0000-0000-000000000001'";
            connection.execute(other).await.unwrap();
            let row =
                sqlx::query(AssertSqlSafe(count.clone())).fetch_one(&mut connection).await.unwrap();
            assert_eq!(row.get::<i64, _>(0), 0, "{count} of another organisation");
            connection.execute("RESET muster.organisation_id").await.unwrap();
        }
    }
}

#[tokio::test]
async fn every_table_has_row_level_security_and_every_key_begins_with_the_organisation() {
    let mut connection = sql(together()).await;
    let open: Vec<String> = sqlx::query_scalar(
        "SELECT c.oid::regclass::text FROM pg_class AS c
          WHERE c.relkind = 'r' AND c.relnamespace IN ('identity'::regnamespace, 'groups'::regnamespace, 'approver'::regnamespace)
            AND NOT (c.relrowsecurity AND c.relforcerowsecurity
                     AND EXISTS (SELECT FROM pg_policy AS p WHERE p.polrelid = c.oid))
            -- Which migrations have run: no organisation's.
            AND c.relname <> '_sqlx_migrations'",
    )
    .fetch_all(&mut connection)
    .await
    .unwrap();
    assert!(open.is_empty(), "{open:?}");
    let keys: Vec<String> = sqlx::query_scalar(
        "SELECT i.indexrelid::regclass::text
           FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indrelid
          WHERE i.indisunique AND c.relnamespace IN ('identity'::regnamespace, 'groups'::regnamespace, 'approver'::regnamespace)
            AND c.relname <> '_sqlx_migrations'
            AND (SELECT a.attname FROM pg_attribute AS a
                  WHERE a.attrelid = c.oid AND a.attnum = i.indkey[0]) <> 'organisation_id'
         UNION ALL
         SELECT k.conname::text FROM pg_constraint AS k
          WHERE k.contype = 'f'
            AND (SELECT a.attname FROM pg_attribute AS a
                  WHERE a.attrelid = k.conrelid AND a.attnum = k.conkey[1]) <> 'organisation_id'",
    )
    .fetch_all(&mut connection)
    .await
    .unwrap();
    // A slug finds its organisation, so it is looked up without one.
    assert_eq!(keys, ["identity.organisation_slug_key"]);
}

/// PostgreSQL checks a foreign key row by row, by a plan that may be older than the rows: in an import
/// of many thousands each check could read all of them.
#[tokio::test]
async fn no_foreign_key_is_checked_for_rows_that_come_by_the_thousand() {
    let mut connection = sql(together()).await;
    let checked: Vec<String> = sqlx::query_scalar(
        "SELECT DISTINCT conrelid::regclass::text FROM pg_constraint
          WHERE contype = 'f' AND connamespace IN
                ('identity'::regnamespace, 'groups'::regnamespace, 'approver'::regnamespace)
          ORDER BY 1",
    )
    .fetch_all(&mut connection)
    .await
    .unwrap();
    assert!(checked.contains(&"identity.api_key".to_owned()), "{checked:?}");
    for table in [
        "identity.user_email",
        "identity.listed_user",
        "identity.provisioning_log",
        "identity.change",
        "groups.membership",
        "groups.person",
        "groups.change",
        "approver.declaration",
        "approver.person",
        "approver.change",
    ] {
        assert!(!checked.iter().any(|checked| checked == table), "{table}");
    }
}

/// What the planner knows of organisations is what they were when a table was last analysed: so it is
/// told that there is one.
#[tokio::test]
async fn no_plan_depends_on_how_large_organisations_were() {
    let mut connection = sql(together()).await;
    let told: Vec<(String, Option<String>)> = sqlx::query_as(
        "SELECT attrelid::regclass::text, attoptions[1] FROM pg_attribute AS a
           JOIN pg_class AS c ON c.oid = a.attrelid AND c.relkind = 'r'
          WHERE a.attname = 'organisation_id' AND c.relnamespace IN
                ('identity'::regnamespace, 'groups'::regnamespace, 'approver'::regnamespace)",
    )
    .fetch_all(&mut connection)
    .await
    .unwrap();
    assert!(told.len() > 20, "{told:?}");
    let one = |option: &Option<String>| option.as_deref() == Some("n_distinct=1");
    assert!(told.iter().all(|(_, option)| one(option)), "{told:?}");
}

/// The script for Citus distributes every table of an organisation, those that others refer to
/// before them, and leaves only what belongs to none.
#[tokio::test]
async fn the_script_for_citus_distributes_every_table_of_an_organisation() {
    let script = include_str!("../deploy/citus/distribute.sql");
    let named = |line: &str, function: &str| {
        let rest = line.strip_prefix(&format!("SELECT {function}('"))?;
        rest.split('\'').next().map(str::to_owned)
    };
    let distributed: Vec<String> =
        script.lines().filter_map(|line| named(line, "create_distributed_table")).collect();
    let everywhere: Vec<String> =
        script.lines().filter_map(|line| named(line, "create_reference_table")).collect();
    assert_eq!(everywhere, ["identity.organisation"]);

    let mut connection = sql(together()).await;
    let tables: Vec<String> = sqlx::query_scalar(
        "SELECT schemaname || '.' || tablename FROM pg_tables
          WHERE schemaname IN ('identity', 'groups', 'approver')",
    )
    .fetch_all(&mut connection)
    .await
    .unwrap();
    let stays = |table: &String| table.ends_with(".feed_key") || table.contains("._sqlx_");
    let mut expected: Vec<&String> =
        tables.iter().filter(|table| !stays(table) && !everywhere.contains(table)).collect();
    let mut found: Vec<&String> = distributed.iter().collect();
    expected.sort();
    found.sort();
    assert_eq!(found, expected);

    let references: Vec<(String, String)> = sqlx::query_as(
        "SELECT k.conrelid::regclass::text, k.confrelid::regclass::text FROM pg_constraint AS k
          WHERE k.contype = 'f' AND k.connamespace IN
                ('identity'::regnamespace, 'groups'::regnamespace, 'approver'::regnamespace)",
    )
    .fetch_all(&mut connection)
    .await
    .unwrap();
    assert!(references.len() > 5, "{references:?}");
    for (from, to) in references {
        let place = |table: &str| distributed.iter().position(|name| name == table);
        assert!(place(&to) < place(&from), "{from} refers to {to}");
    }
}
