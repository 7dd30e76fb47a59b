//! The provisioning log in the console.

use http::Method;
use muster_proto::identity::v1::ProvisioningLogEntry;
use serde_json::json;

use crate::log::logged;
use crate::support::browser::{Browser, Page};
use crate::support::system::{System, Tenant, together};

/// An organisation with an admin who is signed in.
pub(crate) async fn signed_in(system: &System) -> (Tenant, Browser) {
    let tenant = system.tenant().await;
    let browser = system.admin(&tenant.id, &format!("admin@{}.example", tenant.id)).await;
    (tenant, browser)
}

/// What htmx asks for, to bring a part of a page up to date.
pub(crate) async fn piece(browser: &Browser, path: &str) -> Page {
    let headers = [("hx-request", "true"), ("x-unattended", "true")];
    browser.send(Method::GET, path, &headers, String::new()).await
}

/// Where a page asks for news.
pub(crate) fn news(page: &Page) -> String {
    unescaped(page.between("hx-get=\"", "\"").unwrap())
}

fn unescaped(html: &str) -> String {
    html.replace("&#34;", "\"").replace("&#39;", "'").replace("&#38;", "&")
}

fn rows(html: &str) -> usize {
    html.matches("<th scope=\"row\"").count()
}

#[tokio::test]
async fn an_admin_sees_each_request_and_a_failure_exactly_as_okta_got_it_with_what_to_do() {
    let system = together();
    let (tenant, console) = signed_in(system).await;
    assert!(console.get("/admin/log").await.text.contains("No requests yet"));
    let client = &tenant.client;
    client.post("/Users", &json!({"userName": "ann@a.example"})).await.unwrap();
    let refused = client.post("/Users", &json!({"userName": "ANN@a.example"})).await.unwrap();
    let members = json!({"displayName": "Blue", "members": [{"value": "nobody-at-all"}]});
    client.post("/Groups", &members).await.unwrap();
    client.get("/Users").await.unwrap();
    let entries: Vec<ProvisioningLogEntry> = logged(system, &tenant, 4).await;

    let page = console.get("/admin/log").await;
    assert_eq!((page.status.as_u16(), rows(&page.text)), (200, 4));
    assert_eq!(rows(&console.get("/admin/log?show=changes").await.text), 3);
    for shown in ["Create a person", "ANN@a.example", "Blue", "Applied in part", "Failed", "409"] {
        assert!(page.text.contains(shown), "{shown}");
    }
    let failed = console.get("/admin/log?show=failed").await;
    assert_eq!(rows(&failed.text), 1);
    assert!(failed.text.contains(&entries[1].id));
    assert_eq!(rows(&console.get("/admin/log?show=in-part").await.text), 1);
    assert_eq!(rows(&console.get("/admin/log?about=ann%40").await.text), 2);
    let of_ann = format!("/admin/log?about={}", entries[0].subject_id);
    assert_eq!(rows(&console.get(&of_ann).await.text), 1);
    assert!(console.get("/admin/log?about=zz").await.text.contains("No request like that"));

    let page = console.get(&format!("/admin/log/{}", entries[1].id)).await;
    let text = unescaped(&page.text);
    assert!(text.contains(refused.at("/detail").as_str().unwrap()), "{text}");
    assert!(text.contains("id=\"trace\"") && text.contains(&entries[1].trace_id));
    assert!(text.contains("What to do") && text.contains("/docs/errors#409-uniqueness"));
    let page = console.get(&format!("/admin/log/{}", entries[2].id)).await;
    assert!(page.text.contains("nobody-at-all") && page.text.contains("Push now"));
}

#[tokio::test]
async fn new_requests_appear_by_themselves_and_nothing_is_sent_where_there_are_none() {
    let system = together();
    let (tenant, console) = signed_in(system).await;
    tenant.client.get("/Users").await.unwrap();
    logged(system, &tenant, 1).await;
    let address = news(&console.get("/admin/log").await);
    let nothing = piece(&console, &address).await;
    assert_eq!((nothing.status.as_u16(), nothing.text.as_str()), (204, ""));
    for _ in 0..2 {
        tenant.client.get("/Groups").await.unwrap();
    }
    logged(system, &tenant, 3).await;
    let brought = piece(&console, &address).await;
    assert_eq!((brought.status.as_u16(), rows(&brought.text)), (200, 3));
    assert!(brought.text.contains("2 new requests") && !brought.text.contains("<html"));
    // The next one asks from there.
    let address = news(&brought);
    assert_eq!(piece(&console, &address).await.status, 204);
}

#[tokio::test]
async fn the_log_is_paged_without_losing_or_repeating_a_request() {
    let system = together();
    let (tenant, console) = signed_in(system).await;
    for n in 0..130 {
        tenant.client.get(&format!("/Users/{n}")).await.unwrap();
    }
    let mut ids: Vec<String> =
        logged(system, &tenant, 130).await.into_iter().map(|e| e.id).collect();
    let first = console.get("/admin/log").await;
    assert_eq!(rows(&first.text), 100);
    let pages = Page {
        text: first.between("aria-label=\"Pages\"", "</nav>").unwrap().into(),
        ..first.clone()
    };
    let older = unescaped(pages.between("class=\"button\" href=\"", "\"").unwrap());
    let first = first.text;
    tenant.client.get("/Users").await.unwrap();
    logged(system, &tenant, 131).await;
    let second = console.get(&older).await.text;
    assert_eq!(rows(&second), 30);
    // Only the first page looks for news.
    assert!(!second.contains("hx-trigger"));
    ids.retain(|id| !first.contains(id.as_str()) && !second.contains(id.as_str()));
    assert!(ids.is_empty(), "{ids:?}");
}

#[tokio::test]
async fn what_a_client_sends_is_shown_as_text_and_begins_no_formula() {
    let system = together();
    let (tenant, console) = signed_in(system).await;
    for name in ["<script>alert(1)</script>", "=cmd|' /C calc'!A0", "+44 20 7946", "a,\"b\""] {
        tenant.client.post("/Users", &json!({"userName": name})).await.unwrap();
    }
    for n in 0..250 {
        tenant.client.get(&format!("/Users/{n}")).await.unwrap();
    }
    let entries = logged(system, &tenant, 254).await;
    for path in ["/admin/log?about=%3Cscript", &format!("/admin/log/{}", entries[0].id), "/admin"] {
        let text = console.get(path).await.text;
        assert!(!text.contains("<script>alert"), "{path}");
    }
    let file = console.get("/admin/log/export.csv").await;
    assert_eq!(
        (file.status.as_u16(), file.header("content-type")),
        (200, "text/csv; charset=utf-8")
    );
    let lines: Vec<&str> = file.text.trim_end().split("\r\n").collect();
    assert_eq!(lines.len(), 255);
    assert!(lines[0].starts_with("\u{feff}Time (UTC),What,Method,Path,Who"), "{}", lines[0]);
    for shown in [",'=cmd|' /C calc'!A0,", ",'+44 20 7946,", ",\"a,\"\"b\"\"\","] {
        assert!(file.text.contains(shown), "{shown}\n{}", lines[254]);
    }
    let activity = console.get("/admin/settings/activity").await.text;
    assert!(activity.contains("exported: the provisioning log"), "{activity}");
    let failed = console.get("/admin/log/export.csv?show=failed").await.text;
    assert_eq!(failed.trim_end().split("\r\n").count(), 251);
}

#[tokio::test]
async fn an_entry_of_another_organisation_is_a_page_that_is_not_there() {
    let system = together();
    let (tenant, _) = signed_in(system).await;
    let (_, other) = signed_in(system).await;
    tenant.client.get("/Users").await.unwrap();
    let entry = logged(system, &tenant, 1).await.remove(0);
    let theirs = other.get(&format!("/admin/log/{}", entry.id)).await;
    let nobodys = other.get("/admin/log/01a20dd5-057c-7370-95bc-182bcdb7607e").await;
    assert_eq!((theirs.status.as_u16(), nobodys.status.as_u16()), (404, 404));
    assert!(other.get("/admin/log").await.text.contains("No requests yet"));
    assert_eq!(other.get("/admin/log?page=x").await.status, 422);
}
