//! What is kept of one person: handed out whole, and erased so that nothing is left.

use std::process::{Command, Output};
use std::time::{Duration, Instant};

use muster_proto::feed::v1::ChangeKind::{Created, Deleted, Erased, Updated};
use muster_proto::identity::v1::{
    AuditAction, audit_service_client::AuditServiceClient,
    organisation_service_client::OrganisationServiceClient,
};
use muster_proto::identity::v1::{
    EraseUserRequest, GetOrganisationRequest, ListAuditEventsRequest, ListChangesRequest,
    UserChange, WatchChangesRequest, get_organisation_request,
};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tonic::Code;
use uuid::Uuid;

use crate::check::nothing_differs;
use crate::log::logged;
use crate::support::process::MUSTER;
use crate::support::system::{System, Tenant, both};
use crate::support::tls;

const MUSTER_USER: &str = "urn:learnerbly:params:scim:schemas:2.0:User";
const PATIENCE: Duration = Duration::from_secs(30);

fn muster(system: &System, args: &[&str]) -> Output {
    Command::new(MUSTER)
        .args(args)
        .env("MUSTER_IDENTITY_URL", &system.identity_url)
        .env("MUSTER_GROUP_URL", &system.group_url)
        .env("MUSTER_APPROVER_URL", &system.approver_url)
        .envs(tls::variables("operator"))
        .env_remove("DATABASE_URL")
        .output()
        .unwrap()
}

fn said(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// Somebody whose every value holds `mark`.
fn marked(mark: &str) -> Value {
    json!({
        "userName": format!("{mark}+ann@northwind.example"),
        "externalId": format!("{mark}-external"),
        "displayName": format!("Ánn {mark}"),
        "nickName": mark,
        "title": format!("Title {mark}"),
        "name": {"givenName": format!("{mark} given"), "familyName": format!("{mark} family")},
        "emails": [
            {"value": format!("{mark}+ann@northwind.example"), "type": "work", "primary": true},
            {"value": format!("home.{mark}@mail.example"), "type": "home"},
        ],
        "phoneNumbers": [{"value": format!("tel:{mark}"), "type": "work"}],
        "addresses": [{"streetAddress": mark, "type": "work"}],
        "active": true,
        MUSTER_USER: {
            "approvers": [format!("boss.{mark}@northwind.example")],
            "customField1": format!("field {mark}"),
        },
    })
}

async fn slug(system: &System, tenant: &Tenant) -> String {
    let key = Some(get_organisation_request::Key::Id(tenant.id.clone()));
    let mut organisations = OrganisationServiceClient::new(system.identity());
    let organisation = organisations.get_organisation(GetOrganisationRequest { key }).await;
    organisation.unwrap().into_inner().slug
}

/// The tables that hold a row in which `mark` stands, in whatever column.
pub(crate) async fn holding(system: &System, mark: &str) -> Vec<String> {
    let mut connection = PgConnection::connect(&system.database_url("postgres")).await.unwrap();
    let tables: Vec<String> = sqlx::query_scalar(
        "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables
          WHERE schemaname IN ('identity', 'groups', 'approver') ORDER BY 1",
    )
    .fetch_all(&mut connection)
    .await
    .unwrap();
    assert!(tables.len() > 20, "{tables:?}");
    let mut holding = Vec::new();
    for table in tables {
        let rows = format!("SELECT count(*) FROM {table} AS t WHERE t::text ILIKE '%{mark}%'");
        let count: i64 =
            sqlx::query_scalar(AssertSqlSafe(rows)).fetch_one(&mut connection).await.unwrap();
        if count > 0 {
            holding.push(table);
        }
    }
    holding
}

async fn history(system: &System, tenant: &Tenant, id: &str) -> Vec<UserChange> {
    let request = ListChangesRequest {
        organisation_id: tenant.id.clone(),
        user_id: id.to_owned(),
        ..ListChangesRequest::default()
    };
    system.users().list_changes(request).await.unwrap().into_inner().changes
}

/// A user with a history: created, looked for, refused a double, changed, in a group and with an
/// approver.
pub(crate) async fn lived(tenant: &Tenant, mark: &str) -> String {
    let client = &tenant.client;
    let ann = client.post("/Users", &marked(mark)).await.unwrap();
    assert_eq!(ann.status, 201, "{}", ann.text);
    let id = ann.at("/id").as_str().unwrap().to_owned();
    for path in [
        format!("/Users?filter=userName%20eq%20%22{mark}%2bann%40northwind.example%22"),
        format!("/Users?filter=userName+eq+%22{}%2Bann@NORTHWIND.example%22", mark.to_uppercase()),
        format!("/Users?filter=externalId+eq+%22{mark}-external%22"),
        format!("/Users?filter=displayName+eq+%22%C3%81nn%20{mark}%22"),
    ] {
        let found = client.get(&path).await.unwrap();
        assert_eq!(found.at("/totalResults"), 1, "{path}: {}", found.text);
    }
    let double = client.post("/Users", &marked(mark)).await.unwrap();
    assert_eq!(double.status, 409, "{}", double.text);
    let group = json!({"displayName": "People", "members": [{"value": id}]});
    assert_eq!(client.post("/Groups", &group).await.unwrap().status, 201);
    let title = json!({"Operations": [{"op": "replace", "path": "title", "value": "Another"}]});
    let changed = client.patch(&format!("/Users/{id}"), &title).await.unwrap();
    assert_eq!(changed.status, 200, "{}", changed.text);
    id
}

#[tokio::test]
async fn an_export_has_every_part_of_what_is_kept_of_a_person() {
    for system in both() {
        let tenant = system.tenant().await;
        let mark = format!("mark{}", Uuid::new_v4().simple());
        let id = lived(&tenant, &mark).await;
        // Seven of the user, and the group's.
        logged(system, &tenant, 8).await;
        let slug = slug(system, &tenant).await;
        let name = format!("{mark}+ANN@northwind.example");
        let exported = said(&muster(system, &["user", "export", "--organisation", &slug, &name]));
        let exported: Value = serde_json::from_str(&exported).unwrap();
        assert_eq!(exported["user"]["id"], id.as_str());
        assert_eq!(exported["user"]["phoneNumbers"][0]["value"], format!("tel:{mark}"));
        assert_eq!(exported["groups"][0]["groupDisplayName"], "People");
        let approver = &exported["approvers"][0]["approvers"][0];
        assert_eq!(
            approver["declaredEmail"],
            format!("boss.{mark}@northwind.example"),
            "{exported:#}"
        );
        assert_eq!(exported["changes"].as_array().unwrap().len(), 2);
        assert_eq!(exported["changes"][1]["after"]["nickName"], mark.as_str());
        assert_eq!(exported["approverChanges"].as_array().unwrap().len(), 1);
        let log = exported["provisioningLog"].as_array().unwrap();
        assert!(log.iter().all(|entry| entry["subjectId"] == id.as_str()), "{log:#?}");
        assert_eq!(log.len(), 2, "what created and what changed the user: {log:#?}");

        let request =
            ListAuditEventsRequest { organisation_id: tenant.id.clone(), ..Default::default() };
        let mut audit = AuditServiceClient::new(system.identity());
        let events = audit.list_audit_events(request).await.unwrap().into_inner().events;
        let event = events.iter().find(|event| event.action() == AuditAction::Exported).unwrap();
        assert!(event.subject.contains(&id) && !event.subject.contains(&mark), "{event:?}");

        let nobody = muster(system, &["user", "export", "--organisation", &slug, "nobody"]);
        let refusal = String::from_utf8(nobody.stderr).unwrap();
        assert!(!nobody.status.success() && refusal.contains("found by id only"), "{refusal}");
    }
}

#[tokio::test]
async fn of_an_erased_person_no_schema_holds_anything_and_the_feed_goes_on() {
    for system in both() {
        let tenant = system.tenant().await;
        let mark = format!("mark{}", Uuid::new_v4().simple());
        let other = format!("other{}", Uuid::new_v4().simple());
        let id = lived(&tenant, &mark).await;
        let bystander = lived_beside(&tenant, &other).await;
        let entries = logged(system, &tenant, 10).await;
        let slug = slug(system, &tenant).await;
        let erase = |yes: &[&str]| {
            let args = ["user", "erase", "--organisation", &slug, &id];
            muster(system, &[&args, yes].concat())
        };
        assert!(holding(system, &mark).await.len() >= 5, "the mark is found where it is");

        let active = erase(&["--yes"]);
        let refusal = String::from_utf8(active.stderr).unwrap();
        assert!(!active.status.success() && refusal.contains("deactivate"), "{refusal}");
        let erasure =
            EraseUserRequest { organisation_id: tenant.id.clone(), id: id.clone(), actor: None };
        let exists = system.users().erase_user(erasure.clone()).await.unwrap_err();
        assert_eq!(exists.code(), Code::FailedPrecondition);
        let unknown = EraseUserRequest { id: Uuid::new_v4().to_string(), ..erasure.clone() };
        let unknown = system.users().erase_user(unknown).await.unwrap_err();
        assert_eq!(unknown.code(), Code::NotFound);

        let leave = json!({"Operations": [{"op": "replace", "path": "active", "value": false}]});
        tenant.client.patch(&format!("/Users/{id}"), &leave).await.unwrap();
        logged(system, &tenant, entries.len() + 1).await;
        let would = said(&erase(&[]));
        assert!(would.contains("With --yes"), "{would}");
        assert_eq!(tenant.client.get(&format!("/Users/{id}")).await.unwrap().status, 200);
        logged(system, &tenant, entries.len() + 2).await;
        let erased = said(&erase(&["--yes"]));
        assert!(erased.contains("4 changes say nothing any more"), "{erased}");

        let deadline = Instant::now() + PATIENCE;
        loop {
            let holding = holding(system, &mark).await;
            if holding.is_empty() {
                break;
            }
            assert!(Instant::now() < deadline, "{holding:?} hold something of an erased person");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let changes = history(system, &tenant, &id).await;
        let kinds: Vec<_> = changes.iter().map(UserChange::kind).collect();
        assert_eq!(kinds, [Erased, Deleted, Updated, Updated, Created]);
        assert!(changes.iter().all(|change| change.before.is_none() && change.after.is_none()));
        assert!(changes.windows(2).all(|pair| pair[0].revision > pair[1].revision));
        // Who is not meant is as before.
        assert!(holding(system, &other).await.contains(&"identity.change".to_owned()));
        let change = &history(system, &tenant, &bystander).await[0];
        assert!(change.after.is_some());
        let now = logged(system, &tenant, entries.len() + 2).await;
        let paths = |entries: &[muster_proto::identity::v1::ProvisioningLogEntry]| {
            let of_others = entries.iter().filter(|entry| entry.path.contains(&other));
            of_others.map(|entry| entry.path.clone()).collect::<Vec<_>>()
        };
        assert_eq!(paths(&now), paths(&entries));
        assert_eq!(paths(&now).len(), 1);

        // A reader from the start gets every place, and nothing of the erased.
        let request = WatchChangesRequest {
            organisation_id: tenant.id.clone(),
            ..WatchChangesRequest::default()
        };
        let mut watch = system.users().watch_changes(request).await.unwrap().into_inner();
        let mut told = Vec::new();
        while told.last() != Some(&6) {
            let Some(change) = watch.message().await.unwrap().unwrap().change else { continue };
            told.push(change.metadata.as_ref().unwrap().sequence);
            assert!(!format!("{change:?}").contains(&mark), "{change:?}");
        }
        assert_eq!(told, [1, 2, 3, 4, 5, 6]);
        let again = system.users().erase_user(erasure).await;
        assert_eq!(again.unwrap().into_inner().change_count, 0);
        nothing_differs(system, &tenant.id).await;
    }
}

/// Somebody else, who is looked for once.
async fn lived_beside(tenant: &Tenant, mark: &str) -> String {
    let user = json!({"userName": mark, "displayName": "Ánn"});
    let created = tenant.client.post("/Users", &user).await.unwrap();
    let path = format!("/Users?filter=userName+eq+%22{mark}%22");
    assert_eq!(tenant.client.get(&path).await.unwrap().at("/totalResults"), 1);
    created.at("/id").as_str().unwrap().to_owned()
}
