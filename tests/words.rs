//! What a write costs of the index of words that people are searched by.

use serde_json::json;

use crate::support::feed::{eventually, number, sql};
use crate::support::system::{System, run_sql};

/// How many people there are.
const PEOPLE: usize = 60;
/// How many of them become inactive.
const LEAVERS: usize = 4;

/// Whoever writes when the list of what the index does not have yet is full works it off, and
/// everybody who writes in that transaction waits. Nobody does where it is worked off beside them,
/// and where nothing is written to it that is there already.
#[tokio::test]
async fn the_index_of_words_is_brought_up_beside_the_writers_and_not_by_who_comes_and_goes() {
    let system = System::start_apart("words");
    run_sql(&system.database_url("postgres"), "CREATE EXTENSION pgstattuple");
    let mut connection = sql(&system).await;
    let tenant = system.tenant().await;
    let mut users = Vec::new();
    for at in 0..PEOPLE {
        let user = json!({"userName": format!("ann.bell.{at}@a.example"), "displayName": "Ann"});
        let created = tenant.client.post("/Users", &user).await.unwrap();
        assert_eq!(created.status, 201, "{}", created.text);
        users.push(created.at("/id").as_str().unwrap().to_owned());
    }
    let left = "SELECT pending_tuples FROM pgstatginindex('identity.listed_user_words')";
    eventually(&mut connection, left, 0).await;

    // As many as a page has room for, whoever still sees the rows that they replace.
    let patch = json!({
        "schemas": ["urn:ietf:params:scim:api:messages:2.0:PatchOp"],
        "Operations": [{"op": "replace", "path": "active", "value": false}],
    });
    for user in &users[..LEAVERS] {
        let patched = tenant.client.patch(&format!("/Users/{user}"), &patch).await.unwrap();
        assert_eq!(patched.status, 200, "{}", patched.text);
    }
    let of_table = "FROM pg_stat_all_tables WHERE relid = 'identity.listed_user'::regclass";
    let all = i64::try_from(LEAVERS).unwrap();
    eventually(&mut connection, &format!("SELECT n_tup_upd {of_table}"), all).await;
    let within_the_page = format!("SELECT n_tup_hot_upd {of_table}");
    assert_eq!(number(&mut connection, &within_the_page).await, all);
}
