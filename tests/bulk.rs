//! Bulk requests (RFC 7644 §3.7).

use muster::scim_client::{Answer, ScimClient};
use serde_json::{Value, json};

use crate::support::system::{both, together};

const ENTERPRISE: &str = "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User";

async fn bulk(client: &ScimClient, operations: Value) -> Answer {
    bulk_with(client, json!({"Operations": operations})).await
}

async fn bulk_with(client: &ScimClient, mut body: Value) -> Answer {
    body["schemas"] = json!(["urn:ietf:params:scim:api:messages:2.0:BulkRequest"]);
    client.post("/Bulk", &body).await.unwrap()
}

fn statuses(answer: &Answer) -> Vec<&str> {
    assert_eq!(answer.status, 200, "{}", answer.text);
    let operations = answer.at("/Operations").as_array().unwrap().iter();
    operations.map(|operation| operation["status"].as_str().unwrap()).collect()
}

fn post_user(bulk_id: &str, manager: Option<&str>) -> Value {
    let mut data = json!({"userName": bulk_id});
    if let Some(manager) = manager {
        data[ENTERPRISE] = json!({"manager": {"value": manager}});
    }
    json!({"method": "POST", "path": "/Users", "bulkId": bulk_id, "data": data})
}

#[tokio::test]
async fn operations_refer_to_what_others_create_before_and_after_them() {
    for system in both() {
        let client = system.tenant().await.client;
        let answer = bulk(&client, json!([
            {"method": "POST", "path": "/Groups", "bulkId": "g", "data": {
                "displayName": "Sales", "members": [{"value": "bulkId:ann"}, {"value": "bulkId:bo"}],
            }},
            post_user("ann", Some("bulkId:bo")),
            post_user("bo", None),
            {"method": "PATCH", "path": "/Groups/bulkId:g", "data": {"Operations": [
                {"op": "remove", "path": "members[value eq \"bulkId:bo\"]"},
            ]}},
        ]))
        .await;
        assert_eq!(statuses(&answer), ["201", "201", "201", "204"], "{}", answer.text);
        // In the order of the request, each with where it is and its version.
        assert_eq!(answer.at("/Operations/1/bulkId"), "ann");
        assert_eq!(answer.at("/Operations/3/version"), "W/\"2\"");
        let location = |index: usize| {
            let text = answer.at(&format!("/Operations/{index}/location")).as_str().unwrap();
            text.strip_prefix(client.base_url()).unwrap().to_owned()
        };
        let ann = client.get(&location(1)).await.unwrap().body.unwrap();
        let bo = client.get(&location(2)).await.unwrap().body.unwrap();
        assert_eq!(ann[ENTERPRISE]["manager"]["value"], bo["id"]);
        assert_eq!(ann[ENTERPRISE]["manager"]["$ref"], bo["meta"]["location"]);
        let group = client.get(&location(0)).await.unwrap();
        assert_eq!(group.at("/members/0/value"), &ann["id"]);
        assert!(group.at("/members/1").is_null());
        assert_eq!(location(3), location(0));
    }
}

#[tokio::test]
async fn a_circle_of_managers_is_resolved_and_one_that_cannot_be_is_an_error() {
    let client = together().tenant().await.client;
    let answer = bulk(
        &client,
        json!([post_user("ann", Some("bulkId:bo")), post_user("bo", Some("bulkId:ann")),]),
    )
    .await;
    assert_eq!(statuses(&answer), ["201", "201"], "{}", answer.text);
    let users = client.get("/Users?sortBy=userName").await.unwrap();
    let manager =
        |index: usize| users.at("/Resources")[index][ENTERPRISE]["manager"]["value"].clone();
    assert_eq!(&manager(0), users.at("/Resources/1/id"));
    assert_eq!(&manager(1), users.at("/Resources/0/id"));

    let group = |id: &str, member: &str| {
        let data = json!({"displayName": id, "members": [{"value": format!("bulkId:{member}")}]});
        json!({"method": "POST", "path": "/Groups", "bulkId": id, "data": data})
    };
    let answer =
        bulk(&client, json!([group("a", "b"), group("b", "a"), post_user("cy", None)])).await;
    assert_eq!(statuses(&answer), ["400", "400", "201"], "{}", answer.text);
    let detail = answer.at("/Operations/0/response/detail").as_str().unwrap();
    assert!(detail.contains("circle"), "{detail}");
}

#[tokio::test]
async fn each_operation_succeeds_or_fails_on_its_own_until_there_are_too_many_errors() {
    let client = together().tenant().await.client;
    let ann = client.post("/Users", &json!({"userName": "ann"})).await.unwrap();
    let path = format!("/Users/{}", ann.at("/id").as_str().unwrap());
    let operations = json!([
        post_user("ann", None),
        {"method": "PUT", "path": path, "version": "W/\"7\"", "data": {"userName": "ann"}},
        {"method": "PATCH", "path": path, "data": {"Operations": [{"op": "move"}]}},
        {"method": "PATCH", "path": path, "version": "W/\"1\"",
         "data": {"Operations": [{"op": "replace", "path": "title", "value": "Boss"}]}},
        {"method": "DELETE", "path": path},
        {"method": "DELETE", "path": path},
        {"method": "DELETE", "path": "/Users/bulkId:nobody"},
    ]);
    let answer = bulk_with(&client, json!({"failOnErrors": 2, "Operations": operations})).await;
    assert_eq!(statuses(&answer), ["409", "412"]);
    let answer = bulk(&client, operations).await;
    assert_eq!(
        statuses(&answer),
        ["409", "412", "400", "200", "204", "404", "400"],
        "{}",
        answer.text
    );
    assert_eq!(answer.at("/Operations/0/response/scimType"), "uniqueness");
    assert_eq!(answer.at("/Operations/3/version"), "W/\"2\"");
}

#[tokio::test]
async fn a_bulk_request_has_limits_that_are_published_and_kept() {
    let client = together().tenant().await.client;
    let config = client.get("/ServiceProviderConfig").await.unwrap();
    assert_eq!(config.at("/bulk/supported"), true);
    let most = usize::try_from(config.at("/bulk/maxOperations").as_u64().unwrap()).unwrap();
    let delete = json!({"method": "DELETE", "path": "/Users/x"});
    let answer = bulk(&client, json!(vec![delete.clone(); most])).await;
    assert_eq!(statuses(&answer).len(), most);
    assert_eq!(bulk(&client, json!(vec![delete; most + 1])).await.status, 413);
    let most = usize::try_from(config.at("/bulk/maxPayloadSize").as_u64().unwrap()).unwrap();
    let large = json!([{"method": "DELETE", "path": "/Users/x", "data": "x".repeat(most)}]);
    assert_eq!(bulk(&client, large).await.status, 413);
    for wrong in [json!([{"method": "GET", "path": "/Users"}]), json!([1]), json!("x")] {
        assert_eq!(bulk(&client, wrong.clone()).await.status, 400, "{wrong}");
    }
}
