//! `muster check`: what does not fit together is found, and mended where it is asked for.

use std::process::{Command, Output};

use muster_proto::identity::v1::GetOrganisationRequest;
use muster_proto::identity::v1::get_organisation_request::Key;
use muster_proto::identity::v1::organisation_service_client::OrganisationServiceClient;
use serde_json::json;

use crate::support::process::MUSTER as MUSTER_PROGRAM;
use crate::support::system::{System, apart, run_sql};
use crate::support::tls;

const MUSTER: &str = "urn:learnerbly:params:scim:schemas:2.0:User";

/// Runs `muster check` on one organisation of the services at these addresses.
pub(crate) async fn check_at(
    [identity, group, approver]: [&str; 3],
    organisation: &str,
    more: &[&str],
) -> Output {
    let request = GetOrganisationRequest { key: Some(Key::Id(organisation.to_owned())) };
    let mut organisations = OrganisationServiceClient::new(tls::connect(identity));
    let slug = organisations.get_organisation(request).await.unwrap().into_inner().slug;
    let mut command = Command::new(MUSTER_PROGRAM);
    command
        .args(["check", "--organisation", &slug, "--identity-url", identity])
        .args(["--group-url", group, "--approver-url", approver])
        .args(more)
        .envs(tls::variables("operator"));
    tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap()
}

async fn check(system: &System, organisation: &str, more: &[&str]) -> Output {
    let urls = [&system.identity_url, &system.group_url, &system.approver_url];
    check_at(urls.map(String::as_str), organisation, more).await
}

/// Nothing differs, whatever a test has done.
pub(crate) async fn nothing_differs(system: &System, organisation: &str) {
    let output = check(system, organisation, &[]).await;
    assert!(output.status.success(), "{output:?}");
}

#[tokio::test]
async fn what_does_not_fit_together_is_found_and_mended() {
    let system = apart();
    let tenant = system.tenant().await;
    let mut ids = Vec::new();
    for (name, approvers) in [("ann", json!(["bo@a.example"])), ("bo", json!([]))] {
        let user = json!({
            "userName": name, "emails": [{"value": format!("{name}@a.example")}],
            MUSTER: {"approvers": approvers},
        });
        let answer = tenant.client.post("/Users", &user).await.unwrap();
        ids.push(answer.at("/id").as_str().unwrap().to_owned());
    }
    let group = json!({"displayName": "Sales", "members": [{"value": ids[0]}]});
    tenant.client.post("/Groups", &group).await.unwrap();
    nothing_differs(system, &tenant.id).await;

    // As no part of Muster would leave it.
    let (organisation, ann, bo) = (&tenant.id, &ids[0], &ids[1]);
    let ghost = "a0000000-0000-0000-0000-000000000001";
    run_sql(
        &system.database_url("postgres"),
        &format!(
            "INSERT INTO groups.person VALUES ('{organisation}', '{ghost}', 1, false);
             INSERT INTO groups.membership
             SELECT organisation_id, group_id, '{ghost}' FROM groups.groups
              WHERE organisation_id = '{organisation}';
             UPDATE approver.person SET active = false, revision = 99
              WHERE organisation_id = '{organisation}' AND user_id = '{bo}';
             DELETE FROM approver.declaration
              WHERE organisation_id = '{organisation}' AND user_id = '{ann}';
             UPDATE identity.change SET total = total + 1 WHERE organisation_id = '{organisation}'"
        ),
    );
    let output = check(system, organisation, &[]).await;
    let told = String::from_utf8(output.stdout).unwrap();
    assert!(!output.status.success(), "{told}");
    assert!(told.contains(&format!("has the member {ghost}, who is no user")), "{told}");
    assert!(told.contains(&format!("the user {ann} has declared approvers")), "{told}");
    assert!(told.contains(&format!("knows something else of the user {bo}")), "{told}");
    assert!(told.contains("has 2 members, but says 1"), "{told}");
    assert!(told.contains("2 users can be listed, but lists say 3"), "{told}");

    let output = check(system, organisation, &["--repair"]).await;
    assert!(output.status.success(), "{output:?}");
    nothing_differs(system, organisation).await;
    let read = tenant.client.get(&format!("/Users/{ann}")).await.unwrap();
    assert_eq!(read.at(&format!("/{MUSTER}/approvers")), &json!(["bo@a.example"]));
    let listed = tenant.client.get("/Users?count=0").await.unwrap();
    assert_eq!(listed.at("/totalResults"), 2);
}
