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

/// What of tables that are cards on a phone is wider than its card, and the badges as wide as one.
const CLIPPED: &str = "
    const wide = [...document.querySelectorAll('table.cards')].flatMap(table => {
        const edge = table.getBoundingClientRect().right + 1;
        const cells = [...table.querySelectorAll('tbody td, tbody th, tbody td *, tbody th *')];
        const clipped = cells.filter(cell => {
            const text = document.createRange();
            text.selectNodeContents(cell);
            return text.getBoundingClientRect().right > edge;
        });
        const badges = [...table.querySelectorAll('td > .badge')];
        return clipped.concat(badges.filter(badge => {
            const text = document.createRange();
            text.selectNodeContents(badge);
            return badge.offsetWidth > text.getBoundingClientRect().width + 48;
        }));
    });
    return wide.map(element => element.textContent.trim());";

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
        if look == Look::Phone {
            let clipped = browser.run(CLIPPED, vec![]).await;
            let clipped = clipped.as_array().unwrap().iter();
            wrong.extend(
                clipped.map(|text| format!("{name} {look:?}: clipped or stretched: {text}")),
            );
        }
    }
    browser.look(Look::Light).await;
    // A form that is refused, and a page that is not there, answer 4xx, and the browser notes it.
    let complaints = browser.complaints().await.into_iter().filter(|c| !c.contains("status of 4"));
    wrong.extend(complaints.map(|complaint| format!("{name}: {complaint}")));
}
