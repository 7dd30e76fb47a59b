//! Every page, looked at in light, in the dark and on a phone: axe-core finds nothing wrong, nothing
//! is wider than the screen, and the page has no complaint. Pictures are left in
//! `target/screenshots`.

use super::chromium::{Chromium, Look};
use crate::support::system::together;

async fn look_at(browser: &Chromium, name: &str, path: &str) -> Vec<String> {
    browser.open(path).await;
    let mut wrong = Vec::new();
    for look in Look::ALL {
        browser.picture(name, look).await;
        let found = browser.violations().await;
        wrong.extend(found.into_iter().map(|w| format!("{path} {look:?}: {w}")));
        let too_wide = "return document.documentElement.scrollWidth - window.innerWidth";
        let too_wide = browser.run(too_wide, vec![]).await.as_i64().unwrap();
        if too_wide > 0 {
            wrong.push(format!("{path} {look:?}: {too_wide} px wider than the screen"));
        }
    }
    wrong.extend(browser.complaints().await.into_iter().map(|c| format!("{path}: {c}")));
    wrong
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_page_can_be_read_by_everybody() {
    let system = together();
    let browser = Chromium::start(system.origin()).await;
    let mut wrong = Vec::new();
    for (name, path) in [("sign-in", "/admin/sign-in"), ("docs", "/docs")] {
        wrong.extend(look_at(&browser, name, path).await);
    }
    browser.end().await;
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
