//! Filters: what the database answers is what plain evaluation says (RFC 7644 §3.4.2.2).

use std::collections::BTreeSet;

use muster::scim_client::{ScimClient, query};
use muster_scim::filter::{matches, parse};
use muster_scim::schema::{GROUP_TYPE, ResourceType, USER_TYPE};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};

use crate::support::system::{run_sql, together};

const MUSTER: &str = "urn:learnerbly:params:scim:schemas:2.0:User";
const ENTERPRISE: &str = "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User";

/// Words that differ in letter case, or that a database might take for patterns.
const WORDS: [&str; 9] = ["Ann", "ann", "ANNA", "50%", "a_b", "a\\b", "Straße", "O'Malley", "b c"];

fn word() -> impl Strategy<Value = String> {
    prop::sample::select(WORDS.as_slice()).prop_map(str::to_owned)
}

fn some_user() -> impl Strategy<Value = Value> {
    let maybe = || prop::option::of(word());
    let emails = prop::collection::vec(
        (word(), prop::sample::select(vec!["work", "home", "Work"]), any::<bool>()),
        0..3,
    );
    let region = prop::option::of(prop::sample::select(vec!["GB", "it", "FR", "se"]));
    (maybe(), maybe(), maybe(), maybe(), maybe(), emails, prop::option::of(any::<bool>()), region)
        .prop_map(|(title, given, family, external, department, emails, active, region)| {
            let emails: Vec<Value> = emails
                .into_iter()
                .map(|(value, kind, _)| json!({"value": value, "type": kind}))
                .collect();
            json!({
                "title": title, "name": {"givenName": given, "familyName": family},
                "externalId": external, "displayName": title, "emails": emails, "active": active,
                ENTERPRISE: {"department": department}, MUSTER: {"contentRegion": region},
            })
        })
}

fn leaf() -> impl Strategy<Value = String> {
    let text = prop::sample::select(vec![
        "userName",
        "title",
        "displayName",
        "externalId",
        "name.givenName",
        "name.familyName",
        "emails.value",
        "emails.type",
        "emails",
        "locale",
        "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User:department",
        "urn:learnerbly:params:scim:schemas:2.0:User:contentRegion",
        "id",
    ]);
    let operator = prop::sample::select(vec!["eq", "ne", "co", "sw", "ew", "gt", "ge", "lt", "le"]);
    let value = prop::sample::select(
        ["n", "A", "", " ", "%", "_", "\\", "work", "gb", "ß", "e", "u3"]
            .into_iter()
            .chain(WORDS)
            .collect::<Vec<_>>(),
    );
    let present = prop::sample::select(vec![
        "title pr",
        "emails pr",
        "emails.type pr",
        "name pr",
        "name.givenName pr",
        "active pr",
        "meta.created pr",
        "userName pr",
        "externalId pr",
        "photos pr",
        "title eq null",
        "emails.value eq null",
        "active eq null",
        "emails.display ne null",
    ]);
    let value_path = prop::sample::select(vec![
        "emails[type eq \"work\" and value co \"n\"]",
        "emails[not (type eq \"home\")]",
        "emails[value eq \"ann\"]",
        "emails[type pr or primary eq true]",
        "emails[display pr]",
    ]);
    let other = prop::sample::select(vec![
        "active eq true",
        "active eq false",
        "active ne true",
        "meta.version eq \"W/\\\"1\\\"\"",
        "meta.version ne \"W/\\\"2\\\"\"",
        "meta.resourceType sw \"us\"",
        "meta.resourceType co \"group\"",
        "meta pr",
        "schemas co \"enterprise\"",
        "schemas pr",
        "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User:manager.displayName pr",
        "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User:manager pr",
        "urn:learnerbly:params:scim:schemas:2.0:User:customField1 eq null",
        "meta.resourceType eq \"User\"",
        "meta.created gt \"2020-01-01T00:00:00Z\"",
        "meta.lastModified lt \"2020-01-01T00:00:00Z\"",
        "id eq \"nobody\"",
    ]);
    prop_oneof![
        6 => (text, operator, value)
            .prop_map(|(name, operator, value)| format!("{name} {operator} {}", Value::from(value))),
        1 => present.prop_map(str::to_owned),
        1 => value_path.prop_map(str::to_owned),
        1 => other.prop_map(str::to_owned),
    ]
}

fn some_filter() -> impl Strategy<Value = String> {
    leaf().prop_recursive(3, 8, 3, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a}) and ({b})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a}) or {b}")),
            inner.prop_map(|a| format!("not ({a})")),
        ]
    })
}

/// Every resource of a type, and the ids of those that a filter finds.
async fn found(client: &ScimClient, endpoint: &str, filter: Option<&str>) -> Vec<Value> {
    let mut parameters = vec![("count", "200")];
    parameters.extend(filter.map(|filter| ("filter", filter)));
    let answer = client.get(&format!("{endpoint}{}", query(&parameters))).await.unwrap();
    assert_eq!(answer.status, 200, "{filter:?}: {}", answer.text);
    answer.at("/Resources").as_array().unwrap().clone()
}

fn ids(resources: &[Value]) -> BTreeSet<&str> {
    resources.iter().map(|resource| resource["id"].as_str().unwrap()).collect()
}

async fn agrees(
    client: &ScimClient,
    all: &[Value],
    text: &str,
    resource_type: &'static ResourceType,
) {
    let filter = parse(text, resource_type, &muster_scim::Limits::DEFAULT).unwrap();
    let expected: Vec<Value> =
        all.iter().filter(|r| matches(&filter, r.as_object().unwrap())).cloned().collect();
    let answered = found(client, resource_type.endpoint, Some(text)).await;
    assert_eq!(ids(&answered), ids(&expected), "{text}");
}

#[tokio::test]
async fn the_database_answers_what_plain_evaluation_says() {
    let client = together().tenant().await.client;
    // Always the same users and filters: a failure names the filter.
    let mut runner = TestRunner::deterministic();
    for number in 0..40 {
        let mut user = some_user().new_tree(&mut runner).unwrap().current();
        user["userName"] = format!("{} u{number}", WORDS[number % WORDS.len()]).into();
        // An address is somebody's only.
        if let Some(emails) = user["emails"].as_array_mut() {
            for (index, email) in emails.iter_mut().enumerate() {
                if index == 0 {
                    let value = email["value"].as_str().unwrap().to_owned();
                    email["value"] = format!("{value}{number}").into();
                }
            }
        }
        let answer = client.post("/Users", &user).await.unwrap();
        assert_eq!(answer.status, 201, "{}", answer.text);
        if number % 7 == 0 {
            // An attribute that was removed, not false.
            let path = format!("/Users/{}", answer.at("/id").as_str().unwrap());
            let patch = json!({"Operations": [{"op": "remove", "path": "active"}]});
            assert_eq!(client.patch(&path, &patch).await.unwrap().status, 200);
        }
    }
    let all = found(&client, "/Users", None).await;
    assert_eq!(all.len(), 40);
    let mut sometimes = 0;
    for _ in 0..600 {
        let text = some_filter().new_tree(&mut runner).unwrap().current();
        agrees(&client, &all, &text, &USER_TYPE).await;
        let filter = parse(&text, &USER_TYPE, &muster_scim::Limits::DEFAULT).unwrap();
        let hits = all.iter().filter(|user| matches(&filter, user.as_object().unwrap())).count();
        sometimes += usize::from(hits > 0 && hits < all.len());
    }
    // Filters that find everybody or nobody would show little.
    assert!(sometimes > 200, "{sometimes}");
}

#[tokio::test]
async fn filters_on_groups_memberships_and_approvers_are_answered_by_those_who_own_them() {
    let client = together().tenant().await.client;
    let mut users = Vec::new();
    for name in ["ann", "bo", "cy"] {
        let approvers = if name == "ann" { json!(["bo@a.example"]) } else { json!([]) };
        let user = json!({
            "userName": name, "emails": [{"value": format!("{name}@a.example")}],
            MUSTER: {"approvers": approvers},
        });
        let answer = client.post("/Users", &user).await.unwrap();
        users.push(answer.at("/id").as_str().unwrap().to_owned());
    }
    // The approver of the first came after them.
    for (name, members) in [("Sales", &users[..2]), ("Sales EMEA", &users[2..]), ("Empty", &[])] {
        let members: Vec<Value> = members.iter().map(|id| json!({"value": id})).collect();
        let group = json!({"displayName": name, "members": members});
        assert_eq!(client.post("/Groups", &group).await.unwrap().status, 201);
    }
    let groups = found(&client, "/Groups", None).await;
    let all = found(&client, "/Users", None).await;
    let sales = groups[0]["id"].as_str().unwrap().to_owned();
    for text in [
        format!("members eq \"{}\"", users[0]),
        format!("members[value eq \"{}\"]", users[0]),
        format!("id eq \"{sales}\" and members.value eq \"{}\"", users[0]),
        format!("id eq \"{sales}\" and members eq \"{}\"", users[2]),
        format!("not (members eq \"{}\")", users[0]),
        "members pr".to_owned(),
        "displayName sw \"sales\"".to_owned(),
        "displayName co \"EMEA\"".to_owned(),
        "displayName gt \"sales\"".to_owned(),
        format!("members[value eq \"{}\" and type eq \"User\"]", users[0]),
        format!("members[value eq \"{}\" or value eq \"{}\"]", users[0], users[2]),
        format!("members[value eq \"{}\" and value eq \"{}\"]", users[0], users[1]),
        format!("members[not (value eq \"{}\")]", users[0]),
        format!("members.$ref eq \"{}\"", all[0]["meta"]["location"].as_str().unwrap()),
        "members.type eq \"user\"".to_owned(),
        "members.type eq \"Group\"".to_owned(),
        "members[type eq \"Group\"]".to_owned(),
        "members eq null".to_owned(),
        "members.value co \"-\"".to_owned(),
        format!("meta.location eq \"{}\"", groups[0]["meta"]["location"].as_str().unwrap()),
        "meta.version eq \"W/\\\"1\\\"\"".to_owned(),
    ] {
        agrees(&client, &groups, &text, &GROUP_TYPE).await;
    }
    for text in [
        "groups pr".to_owned(),
        "groups eq null".to_owned(),
        format!("groups ne \"{sales}\""),
        "groups.display sw \"sales\"".to_owned(),
        "groups.display ne \"Sales\"".to_owned(),
        "groups[display co \"emea\" or display eq \"nothing\"]".to_owned(),
        "groups[not (display eq \"sales\")]".to_owned(),
        "groups.type eq \"direct\"".to_owned(),
        "groups.type eq \"indirect\"".to_owned(),
        format!("groups.$ref eq \"{}\"", groups[0]["meta"]["location"].as_str().unwrap()),
        format!("{MUSTER}:approvers pr"),
        format!("not ({MUSTER}:approvers pr)"),
        format!("{MUSTER}:approvers co \"BO\""),
        format!("{MUSTER}:approvers ne \"bo@a.example\""),
        format!("{MUSTER}:approvers[value sw \"bo\" and value ew \".example\"]"),
        format!("groups eq \"{sales}\""),
        format!("groups.value eq \"{sales}\" and userName ne \"bo\""),
        "groups.display eq \"sales emea\"".to_owned(),
        format!("not (groups[value eq \"{sales}\"])"),
        format!("{MUSTER}:approvers eq \"BO@a.example\""),
        format!("{MUSTER}:approvers eq \"nobody@a.example\""),
    ] {
        agrees(&client, &all, &text, &USER_TYPE).await;
    }
}

#[tokio::test]
async fn a_filter_that_cannot_be_answered_is_refused_and_never_all_rows() {
    let client = together().tenant().await.client;
    client.post("/Users", &json!({"userName": "ann"})).await.unwrap();
    for text in [
        "meta.location co \"x\"",
        "meta.version gt \"W/\\\"1\\\"\"",
        "userName",
        "userName eq",
        "nothing eq 1",
        "active gt true",
        "password eq \"x\"",
    ] {
        let answer = client.get(&format!("/Users{}", query(&[("filter", text)]))).await.unwrap();
        assert_eq!(answer.status, 400, "{text}: {}", answer.text);
        assert_eq!(answer.at("/scimType"), "invalidFilter", "{text}");
    }
}

/// Five thousand users, straight into the table, and the planner's statistics of them. They changed
/// in the future, when nobody of other organisations did.
fn crowd(organisation: &str) {
    run_sql(
        &together().database_url("postgres"),
        &format!(
            "INSERT INTO identity.users
                      (organisation_id, user_id, revision, created_at, updated_at, origin, active,
                       user_name_key, primary_email_key, external_id, display_name_key, document,
                       search)
               SELECT '{organisation}', gen_random_uuid(), 1, now(),
                      '2120-01-01'::timestamptz + n * interval '1 hour', 1, n % 100 > 0,
                      'name' || n, 'mail' || n, 'x' || n, 'd' || n,
                      jsonb_build_object('active', n % 100 > 0),
                      jsonb_build_object('content_region', CASE WHEN n % 100 = 0 THEN 'gb' ELSE 'qq' END,
                          'custom_field_1', 'a' || n, 'custom_field_2', 'b' || n, 'custom_field_3', 'c' || n)
                 FROM generate_series(1, 5000) AS n;
               ANALYZE identity.users"
        ),
    );
}

/// The plan of a list with a filter, as the service's own role gets it.
async fn plan(organisation: &str, condition: &str) -> String {
    use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Row as _};
    let url = together().database_url("muster_identity");
    let mut connection = PgConnection::connect(&url).await.unwrap();
    let set = format!("SELECT set_config('muster.organisation_id', '{organisation}', false)");
    sqlx::query(AssertSqlSafe(set)).execute(&mut connection).await.unwrap();
    let explain = format!(
        "EXPLAIN SELECT count(*) FROM identity.users AS u
          WHERE u.organisation_id = '{organisation}' AND {condition}"
    );
    let rows = sqlx::query(AssertSqlSafe(explain)).fetch_all(&mut connection).await.unwrap();
    rows.iter().map(|row| row.get::<String, _>(0) + "\n").collect()
}

/// The conditions are those that `services/identity/src/store/user/filter.rs` writes.
#[tokio::test]
async fn what_clients_look_up_by_has_an_index_under_row_level_security() {
    let tenant = together().tenant().await;
    crowd(&tenant.id);
    for (column, condition, index) in [
        ("user_name_key", "= 'name7'", "users_user_name"),
        ("user_name_key", "^@ 'name77'", "users_user_name"),
        ("primary_email_key", "= 'mail7'", "users_primary_email"),
        ("external_id", "= 'x7'", "users_external_id"),
        ("display_name_key", "= 'd7'", "users_display_name"),
        ("updated_at", ">= '2120-07-25T00:00:00Z'", "users_updated_at"),
        ("content_region", "= 'gb'", "users_content_region"),
        ("custom_field_1_key", "= 'a7'", "users_custom_field_1"),
        ("custom_field_2_key", "= 'b7'", "users_custom_field_2"),
        ("custom_field_3_key", "= 'c7'", "users_custom_field_3"),
        ("user_id", "= 'a0000000-0000-0000-0000-000000000000'", "users_pkey"),
    ] {
        let condition = format!("(u.{column} IS NOT NULL AND u.{column} {condition})");
        let plan = plan(&tenant.id, &condition).await;
        let (_, after) = plan.split_once(index).unwrap_or_else(|| panic!("{condition}:\n{plan}"));
        let used = after.lines().find(|line| line.contains("Index Cond")).unwrap_or_default();
        assert!(used.contains(column), "{condition}:\n{plan}");
    }
    let inactive = "(NOT u.active AND coalesce((u.document->>'active')::boolean = false, false))";
    let plan = plan(&tenant.id, inactive).await;
    assert!(plan.contains("users_inactive"), "{plan}");
}
