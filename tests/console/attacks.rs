//! What somebody tries on an admin's browser, and gets nowhere with.

use serde_json::json;

use super::chromium::Chromium;
use crate::model::MUSTER_URN;
use crate::support::browser::{PASSWORD, email};
use crate::support::system::{System, Tenant, together};

/// An organisation with an admin who is signed in.
async fn signed_in(system: &System) -> (Tenant, Chromium) {
    let (tenant, ann) = (system.tenant().await, email("ann"));
    system.admin(&tenant.id, &ann).await;
    let browser = Chromium::start(system.origin()).await;
    browser.open("/admin/sign-in").await;
    browser.fill("E-mail address", &ann).await;
    browser.fill("Password", PASSWORD).await;
    browser.click("Sign in").await;
    browser.says("Connect Okta in five steps").await;
    (tenant, browser)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_people_are_called_is_text_on_every_page() {
    let system = together();
    let (tenant, browser) = signed_in(system).await;
    let payload = |n: usize| {
        format!(
            "\"'><script>window.ran={n};alert({n})</script><img src=x onerror=alert({n})>\
             <a href=javascript:alert({n})>"
        )
    };
    let user = json!({
        "userName": payload(1), "externalId": payload(2), "displayName": payload(3),
        "title": payload(4), "locale": "en", "nickName": payload(5),
        "profileUrl": "javascript:alert(6)",
        "name": {"givenName": payload(7), "familyName": payload(8)},
        "emails": [{"value": payload(9), "type": payload(10), "primary": true}],
        MUSTER_URN: {
            "approvers": [payload(11)], "contentRegion": "UK", "customField1": payload(12),
            "customField2": payload(13), "customField3": payload(14),
        },
    });
    let answer = tenant.client.post("/Users", &user).await.unwrap();
    assert_eq!(answer.status, 201, "{}", answer.text);
    let user = answer.at("/id").as_str().unwrap().to_owned();
    let group = json!({"displayName": payload(15), "externalId": payload(16),
                       "members": [{"value": user}, {"value": payload(17)}]});
    let answer = tenant.client.post("/Groups", &group).await.unwrap();
    assert_eq!(answer.status, 201, "{}", answer.text);
    let group = answer.at("/id").as_str().unwrap().to_owned();
    // A refusal that repeats what was sent.
    let filter = muster::scim_client::query(&[("filter", &payload(18))]);
    assert_eq!(tenant.client.get(&format!("/Users{filter}")).await.unwrap().status, 400);

    let search = muster::scim_client::query(&[("search", &payload(19))]);
    let pages = [
        "/admin".to_owned(),
        "/admin/people".into(),
        format!("/admin/people{search}"),
        format!("/admin/people/{user}"),
        format!("/admin/people/{user}/edit"),
        "/admin/groups".into(),
        format!("/admin/groups/{group}"),
        format!("/admin/groups/{group}/delete"),
        "/admin/log".into(),
        "/admin/log?show=failed".into(),
        "/admin/reports".into(),
        "/admin/settings".into(),
        format!("/admin/sign-in{}", muster::scim_client::query(&[("next", &payload(20))])),
    ];
    for page in pages {
        browser.open(&page).await;
        assert!(!browser.has_alert().await, "a script ran on {page}");
        assert!(browser.run("return window.ran", vec![]).await.is_null(), "{page}");
        let made = "return document.querySelectorAll('img[src=x], a[href^=javascript]').length";
        assert_eq!(browser.run(made, vec![]).await, 0, "an element was made on {page}");
        // What the policy had to refuse would have run without it.
        let refused = browser.complaints().await;
        assert!(!refused.iter().any(|c| c.contains("Content Security Policy")), "{refused:?}");
    }
    browser.open(&format!("/admin/people/{user}")).await;
    assert!(browser.text().await.contains("<script>window.ran=7"), "it is shown as it was sent");
    browser.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_site_changes_nothing_and_no_script_reads_the_cookie() {
    let system = together();
    let (_, browser) = signed_in(system).await;
    let cookie = browser.cookie("muster").await.unwrap();
    assert_eq!(cookie.http_only(), Some(true));
    assert_eq!(browser.run("return document.cookie", vec![]).await, "");
    // A page of nowhere, as far as the browser is concerned, that sends a form here.
    let origin = system.origin();
    browser
        .open_address(&format!(
            "data:text/html,<form method=post action={origin}/admin/settings/admins>\
             <input name=name value=Eve><input name=email value=eve@evil.test><button>Go</button>"
        ))
        .await;
    browser.click("Go").await;
    browser.says("Nothing was changed").await;
    browser.open("/admin/settings").await;
    assert!(!browser.text().await.contains("eve@evil.test"));
    browser.end().await;
}
