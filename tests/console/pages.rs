//! A page, looked at in light, in the dark and on a phone: axe-core finds nothing wrong, nothing is
//! wider than the screen, and the browser has no complaint. Pictures are left in
//! `target/screenshots`.

use super::chromium::{Chromium, Look};

/// What is wrong with the pages that were looked at, a line each.
#[derive(Debug, Default)]
pub(super) struct Pages {
    seen: usize,
    wrong: Vec<String>,
}

impl Pages {
    pub(super) fn are_right(self) {
        println!("{} pages looked at", self.seen);
        assert!(self.wrong.is_empty(), "{}", self.wrong.join("\n"));
    }
}

/// Looks at the page on screen.
pub(super) async fn look_at(browser: &Chromium, pages: &mut Pages, name: &str) {
    pages.seen += 1;
    let wrong = &mut pages.wrong;
    for look in Look::ALL {
        browser.picture(name, look).await;
        let found = browser.violations().await;
        wrong.extend(found.into_iter().map(|w| format!("{name} {look:?}: {w}")));
        let too_wide = "return document.documentElement.scrollWidth - window.innerWidth";
        let too_wide = browser.run(too_wide, vec![]).await.as_i64().unwrap();
        if too_wide > 0 {
            wrong.push(format!("{name} {look:?}: {too_wide} px wider than the screen"));
        }
    }
    browser.look(Look::Light).await;
    wrong.extend(browser.complaints().await.into_iter().map(|c| format!("{name}: {c}")));
}
