//! Settings: keys, the organisation, its admins, and the record of what they do.

use http::StatusCode;
use muster::scim_client::ScimClient;
use muster_proto::identity::v1::audit_service_client::AuditServiceClient;
use muster_proto::identity::v1::{AuditAction, AuditEvent, CreateAuditEventRequest};
use serde_json::json;
use uuid::Uuid;

use crate::support::browser::{Browser, PASSWORD, Page, email};
use crate::support::system::{System, Tenant, run_sql, together};

/// What a browser would run, were it not shown as text.
const PAYLOAD: &str = "\"><script>alert(1)</script><img src=x onerror=alert(2)>'{{7*7}}";

async fn generate(browser: &Browser, label: &str) -> String {
    let page = browser.post("/admin/settings/api-keys", &[("label", label)]).await;
    assert_eq!(page.status, StatusCode::OK, "{}", page.text);
    page.between("<code id=\"secret\">", "</code>").unwrap().to_owned()
}

fn client(system: &System, token: &str) -> ScimClient {
    ScimClient::new(&system.scim_url, token).unwrap()
}

/// The row of the settings page that holds a text.
fn row<'a>(page: &'a Page, text: &str) -> &'a str {
    page.text.split("<tr>").find(|row| row.contains(text)).unwrap()
}

fn id_in<'a>(row: &'a str, before: &str) -> &'a str {
    row.split_once(before).unwrap().1.split('/').next().unwrap()
}

async fn signed_in(system: &System) -> (Tenant, Browser) {
    let tenant = system.tenant().await;
    let browser = system.admin(&tenant.id, &email("ann")).await;
    (tenant, browser)
}

#[tokio::test]
async fn generate_key_shows_the_token_once_in_the_form_that_okta_wants() {
    let system = together();
    let (_, browser) = signed_in(system).await;
    // Without a script the button leads to a page; with one it opens a dialog.
    let settings = browser.get("/admin/settings").await;
    assert!(settings.text.contains("data-opens=\"new-key\">Generate key</a>"));
    assert!(settings.text.contains("<dialog id=\"new-key\""));
    assert!(
        browser.get("/admin/settings/api-keys/new").await.text.contains("Generate key</button>")
    );

    let token = generate(&browser, "Okta").await;
    assert!(token.starts_with("Static muster_"), "{token}");
    assert_eq!(client(system, &token).get("/Users").await.unwrap().status, 200);
    let settings = browser.get("/admin/settings").await;
    assert!(!settings.text.contains(&token[7..]), "it is shown once");
    let row = row(&settings, &token[7..41]);
    assert!(row.contains("Okta") && row.contains("by Admin ann-"), "{row}");
    assert!(row.contains("In use"), "{row}");
    // Nor is it anywhere else.
    assert!(!browser.get("/admin/settings/activity").await.text.contains(&token[7..]));
    assert!(!system.logs().contains(&token[7..]));
}

#[tokio::test]
async fn a_key_is_revoked_after_a_question_and_a_used_one_says_when() {
    let system = together();
    let (_, browser) = signed_in(system).await;
    let token = generate(&browser, "Okta").await;
    let scim = client(system, &token);
    assert_eq!(scim.get("/Users").await.unwrap().status, 200);
    let settings = browser.get("/admin/settings").await;
    let path = format!(
        "/admin/settings/api-keys/{}/revoke",
        id_in(row(&settings, &token[7..41]), "/admin/settings/api-keys/")
    );
    let question = browser.get(&path).await;
    assert!(question.text.contains("It was last used on"), "{}", question.text);
    assert_eq!(scim.get("/Users").await.unwrap().status, 200, "asking changes nothing");
    let revoked = browser.post(&path, &[]).await;
    assert_eq!(revoked.location(), "/admin/settings?done=key-revoked");
    assert!(browser.visit("/admin/settings?done=key-revoked").await.text.contains("is revoked"));
    assert_eq!(scim.get("/Users").await.unwrap().status, 401);
    assert_eq!(browser.get(&path).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn two_keys_overlap_and_the_list_says_when_the_old_one_has_gone_unused() {
    let system = together();
    let (tenant, browser) = signed_in(system).await;
    let old = generate(&browser, "Okta 2025").await;
    client(system, &old).get("/Users").await.unwrap();
    let new = generate(&browser, "Okta 2026").await;
    let says = "Not used since “Okta 2026” works";
    assert!(!browser.get("/admin/settings").await.text.contains(says));
    for token in [&old, &new] {
        assert_eq!(client(system, token).get("/Users").await.unwrap().status, 200);
    }
    assert!(!browser.get("/admin/settings").await.text.contains(says), "it is used still");
    // Hours go by; only the new one is used.
    run_sql(
        &system.database_url("postgres"),
        &format!(
            "UPDATE identity.api_key SET last_used_at = now() - interval '3 hours'
              WHERE organisation_id = '{0}' AND label = 'Okta 2025';
             UPDATE identity.api_key SET first_used_at = now() - interval '2 hours'
              WHERE organisation_id = '{0}' AND label = 'Okta 2026'",
            tenant.id
        ),
    );
    let settings = browser.get("/admin/settings").await;
    assert!(row(&settings, "Okta 2025").contains(says), "{}", settings.text);
    assert!(!row(&settings, &new[7..41]).contains("Not used since"));
}

#[tokio::test]
async fn a_key_that_cannot_be_made_is_asked_for_again_with_what_was_typed() {
    let (_, browser) = signed_in(together()).await;
    for (label, expires, why) in [
        ("  ", "", "Label is empty"),
        ("Okta", "2020-01-01", "The day is over"),
        ("Okta", "soon", "expected one such as"),
    ] {
        let fields = [("label", label), ("expires", expires)];
        let page = browser.post("/admin/settings/api-keys", &fields).await;
        assert_eq!(page.status, StatusCode::UNPROCESSABLE_ENTITY);
        assert!(page.text.contains(why), "{}", page.text);
        assert!(page.text.contains(&format!("value=\"{label}\"")));
        assert!(page.text.contains(&format!("value=\"{expires}\"")));
    }
    let fields = [("label", "Okta"), ("expires", "2999-12-31")];
    assert_eq!(browser.post("/admin/settings/api-keys", &fields).await.status, StatusCode::OK);
    assert!(browser.get("/admin/settings").await.text.contains("1 Jan 3000, 00:00 UTC"));
}

#[tokio::test]
async fn the_organisations_settings_are_saved_and_take_effect_and_a_mistake_loses_nothing() {
    let system = together();
    let (tenant, browser) = signed_in(system).await;
    let post = async |locale: &str, unknown: &str| {
        let fields = [
            ("default_locale", locale),
            ("unknown_members", unknown),
            ("custom_field_1_name", "Job function"),
            ("custom_field_2_name", "Cost centre"),
        ];
        browser.post("/admin/settings/organisation", &fields).await
    };
    let wrong = post("english please", "refuse").await;
    assert_eq!(wrong.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(wrong.text.contains("expected a BCP 47 tag such as en-GB"), "{}", wrong.text);
    for typed in ["english please", "Job function", "Cost centre"] {
        assert!(wrong.text.contains(&format!("value=\"{typed}\"")), "{typed}");
    }
    assert!(wrong.text.contains("value=\"refuse\" checked"));
    assert_eq!(post("de", "refuse").await.location(), "/admin/settings?done=saved");
    let settings = browser.visit("/admin/settings?done=saved").await;
    assert!(settings.text.contains("value=\"de\"") && settings.text.contains("Cost centre"));
    let nobody = json!({"displayName": "g", "members": [{"value": Uuid::new_v4().to_string()}]});
    assert_eq!(tenant.client.post("/Groups", &nobody).await.unwrap().status, 400);
    post("de", "leave-out").await;
    assert_eq!(tenant.client.post("/Groups", &nobody).await.unwrap().status, 201);
}

#[tokio::test]
async fn an_admin_invites_another_signs_them_out_makes_them_a_new_link_and_removes_them() {
    let system = together();
    let (_, ann) = signed_in(system).await;
    let bo = email("bo");
    let invite = [("name", "Bo Lind"), ("email", &*bo)];
    let link = |page: &Page| {
        let link = page.between("<code id=\"secret\">", "</code>").unwrap();
        link.strip_prefix(&ann.url).unwrap().to_owned()
    };
    let invited = ann.post("/admin/settings/admins", &invite).await;
    assert!(invited.text.contains("It works once, within 7 days"), "{}", invited.text);
    let browser = Browser::new(system);
    browser.post(&link(&invited), &[("password", PASSWORD)]).await;
    assert_eq!(browser.get("/admin/settings").await.status, StatusCode::OK);

    let again = ann.post("/admin/settings/admins", &invite).await;
    assert_eq!(again.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(again.text.contains("Somebody has this e-mail address already"));
    assert!(again.text.contains(&format!("value=\"{bo}\"")), "what was typed is kept");

    let settings = ann.get("/admin/settings").await;
    let id = id_in(row(&settings, &bo), "/admin/settings/admins/").to_owned();
    let at = |what: &str| format!("/admin/settings/admins/{id}/{what}");
    ann.post(&at("sign-out"), &[]).await;
    assert!(browser.get("/admin").await.status.is_redirection());

    browser.sign_in(&bo, PASSWORD).await;
    let reset = ann.post(&at("link"), &[]).await;
    assert_eq!(browser.get("/admin").await.status, StatusCode::OK);
    browser.post(&link(&reset), &[("password", "violet anchor maple")]).await;
    assert_eq!(browser.get("/admin").await.status, StatusCode::OK);

    assert!(ann.get(&at("remove")).await.text.contains(&bo));
    assert_eq!(ann.post(&at("remove"), &[]).await.location(), "/admin/settings?done=admin-removed");
    assert!(browser.get("/admin").await.status.is_redirection());
    assert!(browser.sign_in(&bo, "violet anchor maple").await.status.is_client_error());
    assert_eq!(ann.post(&at("remove"), &[]).await.status, StatusCode::NOT_FOUND);
    // The address is free again.
    assert_eq!(ann.post("/admin/settings/admins", &invite).await.status, StatusCode::OK);
}

#[tokio::test]
async fn nobody_removes_themselves() {
    let (_, browser) = signed_in(together()).await;
    let settings = browser.get("/admin/settings").await;
    let id = id_in(row(&settings, "(you)"), "/admin/settings/admins/").to_owned();
    let path = format!("/admin/settings/admins/{id}/remove");
    assert_eq!(browser.get(&path).await.status, StatusCode::NOT_FOUND);
    let refused = browser.post(&path, &[]).await;
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(refused.text.contains("Nobody removes themselves"), "{}", refused.text);
    assert_eq!(browser.get("/admin").await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_password_is_changed_with_the_one_before_and_ends_every_other_session() {
    let system = together();
    let (tenant, ann) = (system.tenant().await, email("ann"));
    let (browser, other) = (system.admin(&tenant.id, &ann).await, Browser::new(system));
    other.sign_in(&ann, PASSWORD).await;
    let path = "/admin/settings/password";
    let short = browser.post(path, &[("current", PASSWORD), ("new", "short")]).await;
    assert!(short.text.contains("New password has 5 characters"), "{}", short.text);
    let wrong = [("current", "not the password"), ("new", "violet anchor maple")];
    let refused = browser.post(path, &wrong).await;
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(refused.text.contains("Current password is not right"), "{}", refused.text);
    let soon = browser.post(path, &wrong).await;
    assert_eq!(soon.status, StatusCode::TOO_MANY_REQUESTS, "a session found open is no oracle");
    run_sql(
        &system.database_url("postgres"),
        &format!("DELETE FROM identity.sign_in_attempt WHERE organisation_id = '{}'", tenant.id),
    );
    let before = browser.cookie();
    let changed =
        browser.post(path, &[("current", PASSWORD), ("new", "violet anchor maple")]).await;
    assert_eq!(changed.location(), "/admin/settings?done=password");
    assert_ne!(browser.cookie(), before);
    assert_eq!(browser.get("/admin").await.status, StatusCode::OK);
    assert!(other.get("/admin").await.status.is_redirection());
    assert!(other.sign_in(&ann, "violet anchor maple").await.status.is_redirection());
}

#[tokio::test]
async fn what_admins_do_is_recorded_with_who_from_where_and_the_trace() {
    let system = together();
    let (tenant, ann) = (system.tenant().await, email("ann"));
    system.admin(&tenant.id, &ann).await;
    let browser = Browser::new(system);
    browser.sign_in(&ann, PASSWORD).await;
    generate(&browser, "Okta").await;
    browser.post("/admin/settings/organisation", &[("default_locale", "de")]).await;
    let activity = browser.get("/admin/settings/activity").await;
    for what in
        ["signed in", "generated an API key: Okta", "changed the settings", "set a password"]
    {
        assert!(activity.text.contains(what), "{what}: {}", activity.text);
    }
    let key = row(&activity, "generated an API key: Okta");
    assert!(key.contains(&format!("Admin {ann}")), "{key}");
    assert!(key.contains(&browser.address.to_string()), "{key}");
    let trace = key.split_once("<code class=\"small\">").unwrap().1;
    assert!(trace[..32].bytes().all(|b| b.is_ascii_hexdigit()), "{key}");
}

#[tokio::test]
async fn ids_of_another_organisation_are_answered_like_those_that_do_not_exist() {
    let system = together();
    let ((_, ours), (_, theirs)) = (signed_in(system).await, signed_in(system).await);
    let token = generate(&theirs, "Theirs").await;
    let settings = theirs.get("/admin/settings").await;
    let key = id_in(row(&settings, &token[7..41]), "/admin/settings/api-keys/").to_owned();
    let admin = id_in(row(&settings, "(you)"), "/admin/settings/admins/").to_owned();
    let nobody = Uuid::now_v7().to_string();
    let without_trace =
        |page: &Page| page.text.split("Trace id").next().unwrap_or_default().to_owned();
    for (id, path) in [
        (&key, "/admin/settings/api-keys/ID/revoke"),
        (&admin, "/admin/settings/admins/ID/remove"),
        (&admin, "/admin/settings/admins/ID/link"),
        (&admin, "/admin/settings/admins/ID/sign-out"),
    ] {
        let [real, unknown, no_id] =
            [id, &nobody, &"x".to_owned()].map(|id| path.replace("ID", id));
        let expected = ours.post(&unknown, &[]).await;
        assert_eq!(expected.status, StatusCode::NOT_FOUND, "{path}");
        for path in [real, no_id] {
            let page = ours.post(&path, &[]).await;
            assert_eq!(page.status, StatusCode::NOT_FOUND, "{path}");
            assert_eq!(without_trace(&page), without_trace(&expected), "{path}");
        }
    }
    assert_eq!(theirs.get("/admin").await.status, StatusCode::OK);
    assert_eq!(client(system, &token).get("/Users").await.unwrap().status, 200);
}

#[tokio::test]
async fn whatever_is_typed_is_shown_as_text() {
    let system = together();
    let (_, browser) = signed_in(system).await;
    generate(&browser, PAYLOAD).await;
    let invite = [("name", PAYLOAD), ("email", &*format!("{PAYLOAD}{}", email("x")))];
    browser.post("/admin/settings/admins", &invite).await;
    let fields = [("default_locale", "en"), ("custom_field_1_name", PAYLOAD)];
    browser.post("/admin/settings/organisation", &fields).await;
    let refused = [("default_locale", PAYLOAD), ("custom_field_1_name", PAYLOAD)];
    let pages = [
        browser.get("/admin").await,
        browser.get("/admin/settings").await,
        browser.get("/admin/settings/activity").await,
        browser.post("/admin/settings/organisation", &refused).await,
        browser.post("/admin/settings/admins", &invite).await,
        Browser::new(system).sign_in(PAYLOAD, PASSWORD).await,
        browser
            .get("/admin/sign-in?next=%2Fadmin%2F%22%3E%3Cscript%3Ealert(1)%3C%2Fscript%3E")
            .await,
        browser.get("/admin/settings?done=%3Cscript%3Ealert(1)%3C%2Fscript%3E").await,
        browser.get("/admin/%3Cscript%3Ealert(1)%3C%2Fscript%3E").await,
    ];
    let mut shown = 0;
    for page in pages {
        assert!(!page.text.contains("<script>alert"), "{}", page.text);
        assert!(!page.text.contains("<img src=x"), "{}", page.text);
        shown += page.text.matches("&#60;script&#62;alert(1)").count();
    }
    assert!(shown >= 6, "{shown}");
}

#[tokio::test]
async fn what_was_done_is_paged_through_to_its_beginning() {
    let system = together();
    let (tenant, browser) = signed_in(system).await;
    let mut audit = AuditServiceClient::new(system.identity());
    for number in 0..150 {
        let event = AuditEvent {
            organisation_id: tenant.id.clone(),
            action: AuditAction::Exported.into(),
            subject: format!("report {number}."),
            ..AuditEvent::default()
        };
        audit.create_audit_event(CreateAuditEventRequest { event: Some(event) }).await.unwrap();
    }
    let newest = browser.get("/admin/settings/activity").await;
    assert!(newest.text.contains("exported: report 149.") && newest.text.contains("report 50."));
    assert!(!newest.text.contains("report 49."));
    let older = newest.between("<a class=\"button\" href=\"", "\">Older").unwrap();
    let oldest = browser.get(older).await;
    assert!(oldest.text.contains("report 49.") && oldest.text.contains("set a password"));
    assert!(!oldest.text.contains("report 50.") && !oldest.text.contains(">Older"));
    let made_up = browser.get("/admin/settings/activity?page=made-up").await;
    assert_eq!(made_up.status, StatusCode::NOT_FOUND);
}
