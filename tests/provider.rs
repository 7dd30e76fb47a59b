//! Signing in with an identity provider.

use std::time::{Duration, Instant};

use http::StatusCode;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::browser::{Browser, Page, email};
use crate::support::process::Process;
use crate::support::provider::{CLIENT_ID, CLIENT_SECRET, Provider, another_key};
use crate::support::system::{scratch, together};

/// How long a line of the log may take to come.
const PATIENCE: Duration = Duration::from_secs(30);

/// A gateway whose admins may sign in with a provider.
struct Console {
    provider: Provider,
    url: String,
    process: Process,
}

impl Console {
    async fn start() -> Self {
        let (system, provider) = (together(), Provider::start().await);
        let file = scratch().join(format!("client-secret-{}", Uuid::new_v4().simple()));
        std::fs::write(&file, format!("{CLIENT_SECRET}\n")).unwrap();
        let args = [
            "gateway",
            "--plain-text",
            "--listen",
            "127.0.0.1:0",
            "--identity-url",
            &system.identity_url,
            "--group-url",
            &system.group_url,
            "--approver-url",
            &system.approver_url,
            "--oidc-issuer",
            provider.issuer(),
            "--oidc-client-id",
            CLIENT_ID,
            "--oidc-client-secret-file",
            file.to_str().unwrap(),
        ];
        let process = Process::start("gateway", &args, &["SCIM base URL"]);
        let url = process.told[0].strip_suffix("/scim/v2").unwrap().to_owned();
        Self { provider, url, process }
    }

    fn browser(&self) -> Browser {
        Browser::at(&self.url)
    }

    /// Out to the provider and back, as far as the console; nothing is sent there yet.
    async fn out(&self, browser: &Browser, next: &str) -> String {
        let out = browser.get(&format!("/admin/sign-in/provider?next={next}")).await;
        assert_eq!(out.status, StatusCode::SEE_OTHER, "{}", out.text);
        let provider = Browser::at(self.provider.issuer());
        let path = out.location().strip_prefix(self.provider.issuer()).unwrap();
        let back = provider.get(path).await;
        assert_eq!(back.status, StatusCode::SEE_OTHER, "{}", back.text);
        back.location().strip_prefix(&self.url).unwrap().to_owned()
    }

    async fn sign_in(&self, browser: &Browser) -> Page {
        let back = self.out(browser, "%2Fadmin%2Fsettings").await;
        browser.get(&back).await
    }
}

#[tokio::test]
async fn an_admin_signs_in_by_the_address_that_a_provider_has_verified() {
    let (system, console) = (together(), Console::start().await);
    let (tenant, ann) = (system.tenant().await, email("ann"));
    // Without ever having set a password.
    system.invited(&tenant.id, &ann).await;
    let browser = console.browser();
    let form = browser.visit("/admin/settings").await;
    assert!(
        form.text.contains("/admin/sign-in/provider?next=%2Fadmin%2Fsettings"),
        "{}",
        form.text
    );
    console.provider.says(json!({"email": ann.to_uppercase()}));
    let signed = console.sign_in(&browser).await;
    assert_eq!(signed.location(), "/admin/settings", "{}", signed.text);
    assert_eq!(browser.get("/admin/settings").await.status, StatusCode::OK);

    // A provider that keeps the address out of the ID token tells it apart.
    console.provider.says(json!({}));
    let told = |sub: &str| json!({"sub": sub, "email": ann, "email_verified": true});
    console.provider.userinfo_says(told("person-1"));
    assert_eq!(console.sign_in(&console.browser()).await.location(), "/admin/settings");
    console.provider.userinfo_says(told("person-2"));
    assert_eq!(console.sign_in(&console.browser()).await.status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn what_a_provider_does_not_vouch_for_signs_nobody_in() {
    let (system, console) = (together(), Console::start().await);
    let (tenant, ann) = (system.tenant().await, email("ann"));
    system.admin(&tenant.id, &ann).await;
    let refused = async |what: &str, mut claims: Value| {
        if claims.get("email").is_none() {
            claims["email"] = json!(ann);
        }
        console.provider.says(claims);
        let browser = console.browser();
        let page = console.sign_in(&browser).await;
        assert_eq!(page.status, StatusCode::FORBIDDEN, "{what}");
        assert!(browser.get("/admin").await.status.is_redirection(), "{what}");
    };
    refused("somebody who is no admin", json!({"email": email("nobody")})).await;
    refused("an address that is not verified", json!({"email_verified": false})).await;
    refused("an address of which nothing is said", json!({"email_verified": null})).await;
    refused("another issuer", json!({"iss": "https://evil.test"})).await;
    refused("another client", json!({"aud": "another"})).await;
    refused("another sign-in", json!({"nonce": "replayed"})).await;
    refused("a token that has expired", json!({"exp": 1_000})).await;
    console.provider.signs_with(another_key());
    refused("a key that is not the provider's", json!({})).await;
    // The answer may be here before the line that the process has written.
    let deadline = Instant::now() + PATIENCE;
    while !console.process.log().contains("its signature is not right") {
        assert!(Instant::now() < deadline, "{}", console.process.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let log = console.process.log();
    assert!(!log.contains(&ann), "no address is in the log");
}

#[tokio::test]
async fn a_sign_in_is_ended_once_and_only_where_it_was_begun() {
    let (system, console) = (together(), Console::start().await);
    let (tenant, ann) = (system.tenant().await, email("ann"));
    system.invited(&tenant.id, &ann).await;
    console.provider.says(json!({"email": ann}));
    let (browser, other) = (console.browser(), console.browser());
    let back = console.out(&browser, "").await;
    assert_eq!(other.get(&back).await.status, StatusCode::FORBIDDEN, "in another browser");
    console.out(&other, "").await;
    assert_eq!(other.get(&back).await.status, StatusCode::FORBIDDEN, "in one with its own");
    let kept = browser.cookie();
    let wrong = back.replace("state=", "state=x");
    assert_eq!(browser.get(&wrong).await.status, StatusCode::FORBIDDEN);
    assert_eq!(browser.get(&back).await.location(), "/admin");
    browser.set_cookie(kept);
    assert_eq!(browser.get(&back).await.status, StatusCode::FORBIDDEN, "a code is good once");
    // Nor does it lead elsewhere.
    let browser = console.browser();
    let back = console.out(&browser, "https%3A%2F%2Fevil.test").await;
    assert_eq!(browser.get(&back).await.location(), "/admin");
    // Where there is no provider there is no such page.
    let without = Browser::new(system);
    assert_eq!(without.get("/admin/sign-in/provider").await.status, StatusCode::NOT_FOUND);
    assert!(!without.get("/admin/sign-in").await.text.contains("identity provider"));
}
