//! Filters: what the database answers is what plain evaluation says (RFC 7644 §3.4.2.2).

use std::collections::BTreeSet;

use muster::scim_client::{ScimClient, query};
use muster_scim::filter::{matches, parse};
use muster_scim::schema::{GROUP_TYPE, ResourceType, USER_TYPE};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};

use crate::support::system::together;

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
    let filter = parse(text, resource_type).unwrap();
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
        let filter = parse(&text, &USER_TYPE).unwrap();
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
    ] {
        agrees(&client, &groups, &text, &GROUP_TYPE).await;
    }
    let all = found(&client, "/Users", None).await;
    for text in [
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
        "groups co \"x\"",
        "groups pr",
        "meta.version eq \"W/\\\"1\\\"\"",
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
