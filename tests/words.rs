//! What a write costs of the index of words that people are searched by.

use std::time::Duration;

use serde_json::json;
use sqlx::{Connection as _, PgConnection};

use crate::support::system::{System, run_sql};

/// How many people there are.
const PEOPLE: usize = 60;

/// Whoever writes when the list of what the index does not have yet is full works it off, and
/// everybody who writes in that transaction waits. Nobody does where it is worked off beside them,
/// and where nothing is written to it that is there already.
#[tokio::test]
async fn the_index_of_words_is_brought_up_beside_the_writers_and_not_by_who_comes_and_goes() {
    let system = System::start_apart("words");
    let url = system.database_url("postgres");
    run_sql(&url, "CREATE EXTENSION pgstattuple");
    let mut connection = PgConnection::connect(&url).await.unwrap();
    let tenant = system.tenant().await;
    let mut users = Vec::new();
    for at in 0..PEOPLE {
        let user = json!({"userName": format!("ann.bell.{at}@a.example"), "displayName": "Ann"});
        let created = tenant.client.post("/Users", &user).await.unwrap();
        assert_eq!(created.status, 201, "{}", created.text);
        users.push(created.at("/id").as_str().unwrap().to_owned());
    }
    loop {
        let left: i64 = sqlx::query_scalar(
            "SELECT pending_tuples FROM pgstatginindex('identity.listed_user_words')",
        )
        .fetch_one(&mut connection)
        .await
        .unwrap();
        if left == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    for active in [false, true] {
        let patch = json!({
            "schemas": ["urn:ietf:params:scim:api:messages:2.0:PatchOp"],
            "Operations": [{"op": "replace", "path": "active", "value": active}],
        });
        for user in &users {
            let patched = tenant.client.patch(&format!("/Users/{user}"), &patch).await.unwrap();
            assert_eq!(patched.status, 200, "{}", patched.text);
        }
    }
    let all = i64::try_from(2 * PEOPLE).unwrap();
    let within_the_page = loop {
        let (updates, within): (i64, i64) = sqlx::query_as(
            "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_all_tables
              WHERE relid = 'identity.listed_user'::regclass",
        )
        .fetch_one(&mut connection)
        .await
        .unwrap();
        if updates >= all {
            break within;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    // A transaction elsewhere that still sees the old rows keeps their place taken for a while.
    assert!(within_the_page * 10 > all * 8, "{within_the_page} of {all}");
}
