//! From an empty organisation to a connected Okta, by what the screen says and nothing else: an
//! admin in Chromium, the rehearsal as Okta.

use std::process::Command;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use muster::rehearsal::{self, Dialect, Report};
use muster::scim_client::{ScimClient, query};
use serde_json::json;

use super::chromium::{Chromium, Look};
use super::pages::{Pages, look_at};
use crate::support::process::MUSTER;
use crate::support::system::{System, scratch, together};

/// Runs the program as an operator does; what it printed, which is one line.
fn operate(system: &System, args: &[&str]) -> String {
    let mut command = Command::new(MUSTER);
    command.args(args).args(["--identity-url", &system.identity_url]);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Okta, which stops after each part of the guide until it is told to go on.
struct Okta {
    parts: Receiver<String>,
    go_on: SyncSender<()>,
    play: tokio::task::JoinHandle<Report>,
}

impl Okta {
    fn start(system: &System, token: &str, dialect: Dialect) -> Self {
        let client = ScimClient::new(&system.scim_url, token).unwrap();
        let (tell, parts) = sync_channel(0);
        let (go_on, wait) = sync_channel::<()>(0);
        let wait = Mutex::new(wait);
        let play = tokio::spawn(async move {
            let mut last = String::new();
            rehearsal::play(&client, dialect, move |progress| {
                if progress.part != last {
                    progress.part.clone_into(&mut last);
                    // Nobody waits any more where the test has failed.
                    if tell.send(last.clone()).is_ok() {
                        let _told = wait.lock().unwrap().recv();
                    }
                }
            })
            .await
        });
        Self { parts, go_on, play }
    }

    /// Goes on until a part of the guide has begun, and stops there.
    fn plays(&self, part: &str) {
        loop {
            let begun = tokio::task::block_in_place(|| self.parts.recv()).unwrap();
            if begun.starts_with(part) {
                return;
            }
            self.go_on();
        }
    }

    fn go_on(&self) {
        tokio::task::block_in_place(|| self.go_on.send(())).unwrap();
    }

    /// Goes on to the end.
    async fn ends(self) -> Report {
        self.go_on();
        while let Ok(_begun) = tokio::task::block_in_place(|| self.parts.recv()) {
            self.go_on.send(()).unwrap();
        }
        self.play.await.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_admin_connects_okta_by_what_the_screen_says() {
    let system = together();
    let slug = "walk";
    operate(system, &["organisation", "create", "--slug", slug, "--name", "Northwind"]);
    let create = ["admin", "create", "--organisation", slug, "--email", "ada@northwind.example"];
    let console = ["--public-url", system.origin()];
    let link = operate(system, &[&create[..], &["--name", "Ada Quist"], &console].concat());

    let browser = Chromium::start(system.origin()).await;
    browser.open_address(&link).await;
    let mut pages = Pages::default();
    look_at(&browser, &mut pages, "invitation").await;
    browser.fill("New password", "plum torch canvas").await;
    browser.click("Set password and sign in").await;
    browser.says("Connect Okta in five steps").await;
    assert_eq!(browser.path().await, "/admin");
    look_at(&browser, &mut pages, "set-up-empty").await;

    // Signed out and in again, as on the next day.
    browser.click("Account: Ada Quist").await;
    browser.click("Sign out").await;
    look_at(&browser, &mut pages, "sign-in").await;
    browser.fill("E-mail address", "ada@northwind.example").await;
    browser.fill("Password", "plum torch canvas").await;
    browser.click("Sign in").await;
    browser.says("Connect Okta in five steps").await;

    // Settings → API → Generate key.
    browser.click("Settings").await;
    browser.click("Generate key").await;
    browser.find("dialog#new-key[open]").await;
    browser.fill("Name", "Okta").await;
    look_at(&browser, &mut pages, "settings-generate").await;
    browser.click_in("dialog#new-key", "Generate key").await;
    browser.find("dialog#shown[open]").await;
    let token = browser.find("#secret").await.text().await.unwrap();
    assert!(token.starts_with("Static muster_"), "the form that Okta wants");
    look_at(&browser, &mut pages, "settings-key").await;
    browser.click("Copy").await;
    browser.says("Copied").await;
    browser.click("Done").await;
    assert!(!browser.text().await.contains(&token), "it is shown once");
    look_at(&browser, &mut pages, "settings").await;

    // The checklist ticks itself: the page is not loaded again from here on.
    browser.open("/admin").await;
    let okta = Okta::start(system, &token, Dialect::Put);
    okta.plays("Step 1");
    okta.go_on();
    okta.plays("Step 3a");
    browser.says("Okta has reached Muster with your key").await;
    okta.go_on();
    okta.plays("Step 3b");
    browser.says("people in Muster; Okta has created").await;
    look_at(&browser, &mut pages, "set-up").await;
    okta.go_on();
    okta.plays("Step 4");
    browser.says("an import has read everybody").await;
    let report = okta.ends().await;
    let failed: Vec<_> = report.steps.iter().filter(|step| !step.passed()).collect();
    assert!(failed.is_empty(), "{failed:#?}");
    browser.says("Okta speaks PUT").await;
    browser.says("groups in Muster").await;
    look_at(&browser, &mut pages, "set-up-done").await;
    browser.screen("readme-set-up").await;

    person_whose_address_does_not_match(system, &browser, &mut pages, &token).await;
    groups(system, &browser, &mut pages, &token).await;
    log(&browser, &mut pages).await;
    import(&browser, &mut pages).await;
    what_is_asked_before_something_is_lost(&browser, &mut pages).await;
    pages.are_right();
    browser.end().await;
}

/// Step 3b: an e-mail address that does not match is corrected, and the next import matches.
async fn person_whose_address_does_not_match(
    system: &System,
    browser: &Chromium,
    pages: &mut Pages,
    token: &str,
) {
    let okta = ScimClient::new(&system.scim_url, token).unwrap();
    let right = "ivy.moss@northwind.example";
    let import = async || {
        let filter = format!("emails.value eq \"{right}\"");
        okta.get(&format!("/Users{}", query(&[("filter", &filter)]))).await.unwrap()
    };
    browser.click("People").await;
    look_at(browser, pages, "people").await;
    browser.screen("readme-people").await;
    browser.click("Add a person").await;
    browser.fill("First name", "Ivy").await;
    browser.fill("Last name", "Moss").await;
    browser.fill("E-mail", "ivy.mos@northwind.example").await;
    look_at(browser, pages, "person-new").await;
    browser.click("Add").await;
    browser.says("Added here").await;
    assert_eq!(import().await.at("/totalResults"), 0);

    browser.click("Edit").await;
    browser.fill("E-mail", right).await;
    look_at(browser, pages, "person-edit").await;
    browser.click("Save").await;
    browser.says(right).await;
    let matched = import().await;
    assert_eq!(matched.at("/totalResults"), 1, "{}", matched.text);
    // Okta takes them over.
    let id = matched.at("/Resources/0/id").as_str().unwrap();
    let mut user = matched.at("/Resources/0").clone();
    user["title"] = json!("Gardener");
    let put = okta.put(&format!("/Users/{id}"), &user).await.unwrap();
    assert_eq!(put.status, 200, "{}", put.text);
    browser.open(&format!("/admin/people/{id}")).await;
    browser.says("Gardener").await;
    assert!(!browser.text().await.contains("Added here"));
    look_at(browser, pages, "person").await;

    browser.open("/admin/people").await;
    browser.fill("Name, e-mail or userName", "vy.mos").await;
    browser.says("1 shown").await;
    browser.says("Ivy Moss").await;
}

async fn groups(system: &System, browser: &Chromium, pages: &mut Pages, token: &str) {
    browser.click("Groups").await;
    look_at(browser, pages, "groups").await;
    browser.click("Create a group").await;
    browser.fill("Name", "Gardeners").await;
    look_at(browser, pages, "group-new").await;
    browser.click("Create").await;
    browser.says("Gardeners").await;
    look_at(browser, pages, "group").await;
    // What Okta links to.
    let okta = ScimClient::new(&system.scim_url, token).unwrap();
    let path = format!("/Groups{}", query(&[("filter", "displayName eq \"gardeners\"")]));
    assert_eq!(okta.get(&path).await.unwrap().at("/totalResults"), 1);
}

/// A file with a mistake, then without.
async fn import(browser: &Chromium, pages: &mut Pages) {
    let file = scratch().join("people.csv");
    for (name, country) in [("import-problem", "Germany"), ("import-check", "DE")] {
        let text = format!("e-mail;first name;country\nnoa.katz@northwind.example;Noa;{country}\n");
        std::fs::write(&file, text).unwrap();
        browser.open("/admin/people/import").await;
        browser.choose_file("CSV file", &file).await;
        browser.click("Check the file").await;
        browser.says(if country == "DE" { "What this file does" } else { "1 problem" }).await;
        look_at(browser, pages, name).await;
    }
    browser.click("Import").await;
    browser.says("1 added, 0 updated").await;
    look_at(browser, pages, "import-done").await;
}

/// The pages that ask once more.
async fn what_is_asked_before_something_is_lost(browser: &Chromium, pages: &mut Pages) {
    browser.open("/admin/people?search=noa.katz").await;
    browser.click("Noa").await;
    browser.click("Deactivate").await;
    browser.click("Release userName").await;
    browser.says("Do this when somebody else needs").await;
    look_at(browser, pages, "person-release").await;
    browser.open("/admin/groups").await;
    browser.click("Gardeners").await;
    browser.click("Delete").await;
    browser.says("gone for good").await;
    look_at(browser, pages, "group-delete").await;
    browser.open("/admin/settings/api-keys/new").await;
    look_at(browser, pages, "settings-new-key").await;
    browser.open("/admin/settings").await;
    browser.click_on("main a[href$='/revoke']").await;
    browser.says("stops working at once").await;
    look_at(browser, pages, "settings-revoke").await;
    browser.open("/admin/settings").await;
    browser.find("#invite-name").await.send_keys("Bo Lund").await.unwrap();
    browser.find("#invite-email").await.send_keys("bo@northwind.example").await.unwrap();
    browser.click("Invite").await;
    browser.find("dialog#shown[open]").await;
    look_at(browser, pages, "settings-invited").await;
    browser.click("Done").await;
    browser.click_on("main a[href$='/remove']").await;
    browser.says("Bo Lund").await;
    look_at(browser, pages, "settings-remove").await;
}

async fn log(browser: &Chromium, pages: &mut Pages) {
    browser.click("Provisioning log").await;
    browser.says("Okta").await;
    look_at(browser, pages, "log").await;
    browser.look(Look::Dark).await;
    browser.screen("readme-log").await;
    browser.look(Look::Light).await;
    browser.click_on("main table tbody a").await;
    browser.says("Trace").await;
    look_at(browser, pages, "log-entry").await;
    for (name, path) in [
        ("reports", "/admin/reports"),
        ("import", "/admin/people/import"),
        ("activity", "/admin/settings/activity"),
        ("password", "/admin/settings/password"),
        ("nothing", "/admin/nothing"),
        ("docs", "/docs"),
        ("docs-okta", "/docs/okta"),
        ("docs-approvers", "/docs/approvers"),
        ("docs-scim", "/docs/scim"),
        ("docs-errors", "/docs/errors"),
    ] {
        browser.open(path).await;
        look_at(browser, pages, name).await;
    }
}
