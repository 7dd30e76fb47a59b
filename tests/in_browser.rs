//! The console in a real browser.

use http::StatusCode;
use muster::scim_client::ScimClient;

use crate::support::browser::{PASSWORD, email};
use crate::support::chromium::Chromium;
use crate::support::system::together;

#[tokio::test]
async fn an_admin_sets_a_password_signs_in_and_generates_a_key_in_a_browser() {
    let system = together();
    let (tenant, ann) = (system.tenant().await, email("ann"));
    let link = format!("/admin/invitation/{}", system.invited(&tenant.id, &ann).await);
    let url = system.scim_url.strip_suffix("/scim/v2").unwrap();
    let browser = Chromium::start(url).await;
    browser.go(&link).await;
    browser.look("invitation").await;
    browser.fill("#password", PASSWORD).await;
    browser.follow("main button").await;
    assert!(browser.shows("details.account summary").await.contains(&ann));

    browser.click("details.account summary").await;
    browser.follow(".menu-in button").await;
    browser.shows("#email").await;
    browser.look("sign-in").await;
    browser.fill("#email", &ann).await;
    browser.fill("#password", "not the password").await;
    browser.follow("main button").await;
    assert!(browser.shows("[role=alert]").await.contains("not right"));
    browser.until("document.activeElement.id === 'password'").await;
    browser.look("sign-in-refused").await;
    // It has to wait a second by then.
    let right = async {
        loop {
            browser.fill("#password", PASSWORD).await;
            browser.follow("main button").await;
            if browser.run("return location.pathname").await == "/admin" {
                break;
            }
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), right).await.unwrap();

    browser.follow("a[href='/admin/settings']").await;
    browser.shows("#api").await;
    browser.look("settings").await;
    browser.click("[data-opens=new-key]").await;
    browser.until("document.querySelector('#new-key').matches(':modal')").await;
    browser.look("generate-key").await;
    browser.follow("#new-key button").await;
    let token = browser.shows("#secret").await;
    assert!(token.starts_with("Static muster_"), "{token}");
    browser.look("token").await;
    browser.click("#shown [data-copy]").await;
    browser.until("document.querySelector('#shown [data-copy]').textContent === 'Copied'").await;
    browser.follow("#shown a").await;
    let scim = ScimClient::new(&system.scim_url, &token).unwrap();
    assert_eq!(scim.get("/Users").await.unwrap().status, StatusCode::OK.as_u16());

    browser.go("/admin/settings/password").await;
    browser.look("password").await;
    browser.go("/admin/settings/activity").await;
    browser.look("activity").await;
    // Refused forms answer 4xx, which the browser notes; what the policy refuses is another matter.
    let complaints = browser.complaints().await;
    assert!(complaints.iter().all(|text| text.contains("status of 4")), "{complaints:?}");
    browser.go("/admin/nothing-here").await;
    browser.look("not-found").await;
    browser.close().await;
}

#[tokio::test]
async fn a_form_on_another_site_changes_nothing_in_a_browser() {
    let system = together();
    let (tenant, ann) = (system.tenant().await, email("ann"));
    system.admin(&tenant.id, &ann).await;
    let url = system.scim_url.strip_suffix("/scim/v2").unwrap();
    let browser = Chromium::start(url).await;
    browser.go("/admin/sign-in").await;
    browser.fill("#email", &ann).await;
    browser.fill("#password", PASSWORD).await;
    browser.follow("main button").await;
    assert!(browser.shows("details.account summary").await.contains(&ann));
    // A page of nowhere, as far as the browser is concerned, that sends a form here.
    let form = format!(
        "data:text/html,<form method=post action={url}/admin/settings/admins>\
         <input name=name value=Eve><input name=email value=eve@evil.test><button>Go</button></form>"
    );
    browser.client.goto(&form).await.unwrap();
    browser.follow("button").await;
    assert_eq!(browser.shows("h1").await, "Nothing was changed");
    browser.go("/admin/settings").await;
    let page = browser.run("return document.body.textContent").await;
    assert!(!page.as_str().unwrap().contains("eve@evil.test"));
    browser.close().await;
}
