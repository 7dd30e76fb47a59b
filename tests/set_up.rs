//! Set-up: the guide's steps tick themselves as Okta's requests arrive.

use std::time::{Duration, Instant};

use muster::rehearsal::{self, Dialect};
use muster_proto::approver::v1::GetApproverTotalsRequest;
use muster_proto::identity::v1::api_key_service_client::ApiKeyServiceClient;
use muster_proto::identity::v1::{ListApiKeysRequest, RevokeApiKeyRequest};
use serde_json::json;
use sqlx::PgConnection;

use crate::log_page::{news, piece, signed_in};
use crate::support::browser::Browser;
use crate::support::system::{System, both, together};

const MUSTER: &str = "urn:learnerbly:params:scim:schemas:2.0:User";

/// Which of the five steps are done, and which is to be done now; 6 where none is.
fn steps(page: &str) -> (Vec<usize>, usize) {
    let (_, list) = page.split_once("<ol class=\"steps\">").unwrap();
    let classes: Vec<&str> = list.split("<li class=\"").skip(1).collect();
    assert_eq!(classes.len(), 5);
    let of = |class: &str| {
        let marked = (1..).zip(&classes).filter(move |(_, rest)| rest.starts_with(class));
        marked.map(|(number, _)| number).collect::<Vec<_>>()
    };
    (of("done\""), of("now\"").first().copied().unwrap_or(6))
}

/// The page once it shows what is waited for.
async fn shows(console: &Browser, expected: impl Fn(&str) -> bool) -> String {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let page = console.get("/admin").await;
        assert_eq!(page.status, 200, "{}", page.text);
        if expected(&page.text) {
            return page.text;
        }
        assert!(Instant::now() < deadline, "{}", page.text);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn each_step_ticks_itself_and_says_what_to_do_in_okta() {
    for system in both() {
        let (tenant, console) = signed_in(system).await;
        let client = &tenant.client;
        let page = console.get("/admin").await.text;
        assert_eq!(steps(&page), (vec![], 1));
        assert!(page.contains(&format!(">{}</code>", system.scim_url)), "{page}");
        assert!(page.contains("Test API Credentials"));

        client.get("/Users?startIndex=1&count=2").await.unwrap();
        let page = shows(&console, |page| steps(page).0 == [1]).await;
        assert!(page.contains("Assign to People") && steps(&page).1 == 3, "{page}");

        let ann = json!({
            "userName": "ann@a.example", "name": {"familyName": "A"},
            "emails": [{"value": "ann@a.example", "type": "work"}],
            MUSTER: {"approvers": ["bo@a.example"]},
        });
        let ann = client.post("/Users", &ann).await.unwrap();
        let page = shows(&console, |page| page.contains("Approvers 0 of 1 in force")).await;
        // Nobody came with a country, which the guide only recommends.
        assert_eq!(steps(&page), (vec![1, 2], 3));
        assert!(page.contains("(recommended). Map the person’s country code"), "{page}");

        let bo = json!({
            "userName": "bo@a.example", "name": {"familyName": "B"},
            "emails": [{"value": "bo@a.example", "type": "work"}],
            MUSTER: {"contentRegion": "GB"},
        });
        assert!(page.contains("1 is not in force.") && page.contains("approvers=pending"));
        let bo = client.post("/Users", &bo).await.unwrap();
        shows(&console, |page| page.contains("Approvers 1 of 1 in force")).await;
        shows(&console, |page| page.contains("2 people in Muster; Okta has created 2")).await;
        shows(&console, |page| steps(page) == (vec![1, 2, 3], 4)).await;

        let members = json!({"displayName": "Blue", "members": [{"value": ann.at("/id")}]});
        let blue = client.post("/Groups", &members).await.unwrap();
        let page = shows(&console, |page| steps(page) == (vec![1, 2, 3, 4, 5], 6)).await;
        assert!(page.contains("Everything is set up") && !page.contains("Okta speaks"), "{page}");

        let path = format!("/Groups/{}", blue.at("/id").as_str().unwrap());
        client.put(&path, &members).await.unwrap();
        shows(&console, |page| page.contains("Okta speaks <strong>PUT</strong>")).await;
        let add = json!({"Operations": [
            {"op": "add", "path": "members", "value": [{"value": "nobody"}]},
        ]});
        client.patch(&path, &add).await.unwrap();
        let page = shows(&console, |page| page.contains("<strong>PATCH</strong>")).await;
        assert!(page.contains("1 applied in part"), "{page}");

        // An approver who leaves is no work for the admin.
        let bo = format!("/Users/{}", bo.at("/id").as_str().unwrap());
        let active = |active: bool| {
            json!({"Operations": [
                {"op": "replace", "value": {"active": active}},
            ]})
        };
        assert_eq!(client.patch(&bo, &active(false)).await.unwrap().status, 200);
        let page = shows(&console, |page| page.contains("Approvers 0 of 1 in force")).await;
        assert_eq!(steps(&page), (vec![1, 2, 3, 4, 5], 6));
        assert!(page.contains("The others have left") && !page.contains("approvers=pending"));
        assert_eq!(client.patch(&bo, &active(true)).await.unwrap().status, 200);
        shows(&console, |page| page.contains("Approvers 1 of 1 in force")).await;
    }
}

#[tokio::test]
async fn the_guide_played_by_either_dialect_ends_with_its_name() {
    let system = together();
    for (dialect, name) in [(Dialect::Put, "PUT"), (Dialect::Patch, "PATCH")] {
        let (tenant, console) = signed_in(system).await;
        rehearsal::play(&tenant.client, dialect, |_| {}).await;
        let spoken = format!("<strong>{name}</strong>");
        let page = shows(&console, |page| page.contains(&spoken)).await;
        assert!(steps(&page).0.starts_with(&[1, 2]), "{page}");
        assert!(page.contains("Failed last"), "{page}");
    }
}

#[tokio::test]
async fn a_key_that_was_revoked_is_named_where_okta_still_sends_it() {
    let system = together();
    let (tenant, console) = signed_in(system).await;
    tenant.client.get("/Users").await.unwrap();
    shows(&console, |page| steps(page).0 == [1]).await;
    let organisation_id = tenant.id.clone();
    let mut keys = ApiKeyServiceClient::new(system.identity());
    let request = ListApiKeysRequest { organisation_id: organisation_id.clone() };
    let key = keys.list_api_keys(request).await.unwrap().into_inner().api_keys.remove(0);
    let request = RevokeApiKeyRequest { organisation_id, id: key.id, ..Default::default() };
    keys.revoke_api_key(request).await.unwrap();
    assert!(console.get("/admin").await.text.contains("Generate key"));
    tenant.client.get("/Users").await.unwrap();
    let page = shows(&console, |page| page.contains("revoked or has expired")).await;
    assert_eq!(steps(&page).1, 1);
}

#[tokio::test]
async fn the_checklist_is_sent_again_only_where_it_has_changed() {
    let system = together();
    let (tenant, console) = signed_in(system).await;
    let address = news(&console.get("/admin").await);
    assert_eq!(piece(&console, &address).await.status, 204);
    tenant.client.get("/Users").await.unwrap();
    shows(&console, |page| steps(page).0 == [1]).await;
    let brought = piece(&console, &address).await;
    assert_eq!((brought.status.as_u16(), steps(&brought.text).0), (200, vec![1]));
    assert!(!brought.text.contains("<html"), "{}", brought.text);
    assert!(brought.text.contains("The checklist has changed"), "{}", brought.text);
}

async fn totals(system: &System, organisation_id: &str) -> (i64, i64) {
    let request = GetApproverTotalsRequest { organisation_id: organisation_id.to_owned() };
    let totals = system.approvers().get_approver_totals(request).await.unwrap().into_inner();
    (totals.declared_count, totals.in_force_count)
}

#[tokio::test]
async fn the_totals_of_approvers_are_what_counting_says() {
    use sqlx::Connection as _;
    let system = together();
    let tenant = system.tenant().await;
    assert_eq!(totals(system, &tenant.id).await, (0, 0));
    rehearsal::play(&tenant.client, Dialect::Put, |_| {}).await;
    // And people who leave, by deactivation and by deletion.
    for (n, name) in ["a", "b", "c"].into_iter().enumerate() {
        let email = format!("{name}@x.example");
        let user = json!({
            "userName": email, "emails": [{"value": email, "type": "work"}],
            MUSTER: {"approvers": ["a@x.example", "b@x.example", "nobody@x.example"]},
        });
        let user = tenant.client.post("/Users", &user).await.unwrap();
        let path = format!("/Users/{}", user.at("/id").as_str().unwrap());
        if n == 1 {
            let off = json!({"Operations": [{"op": "replace", "value": {"active": false}}]});
            assert_eq!(tenant.client.patch(&path, &off).await.unwrap().status, 200);
        }
        if n == 2 {
            assert_eq!(tenant.client.delete(&path).await.unwrap().status, 204);
        }
    }
    let mut connection = PgConnection::connect(&system.database_url("postgres")).await.unwrap();
    let counted: (i64, i64) = sqlx::query_as(
        "SELECT count(*), count(*) FILTER (WHERE p.active AND NOT p.deleted
                                             AND p.user_id <> d.user_id)
           FROM approver.declaration AS d
           LEFT JOIN approver.person AS p
             ON p.organisation_id = d.organisation_id AND p.user_id = d.approver_id
          WHERE d.organisation_id = $1::uuid",
    )
    .bind(&tenant.id)
    .fetch_one(&mut connection)
    .await
    .unwrap();
    assert!(counted.0 > 6 && counted.1 > 0, "{counted:?}");
    assert_eq!(totals(system, &tenant.id).await, counted);
}
