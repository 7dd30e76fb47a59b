//! The customers' guide, played as Okta would, and its table of content regions.

use futures::{StreamExt as _, stream};
use muster::rehearsal::{self, Dialect};
use serde_json::json;

use crate::check::nothing_differs;
use crate::support::system::{both, together};

async fn rehearse(dialect: Dialect) {
    for system in both() {
        let tenant = system.tenant().await;
        let client = &tenant.client;
        // Once into an empty organisation, and again into the same.
        for _ in 0..2 {
            let report = rehearsal::play(client, dialect, |_| {}).await;
            let failed: Vec<_> = report.steps.iter().filter(|step| !step.passed()).collect();
            assert!(failed.is_empty(), "{}: {failed:#?}", system.name);
            assert!(report.passed() > 90, "{}", report.passed());
        }
        nothing_differs(system, &tenant.id).await;
    }
}

#[tokio::test]
async fn the_guide_works_in_the_dialect_of_the_wizard() {
    rehearse(Dialect::Put).await;
}

#[tokio::test]
async fn the_guide_works_in_the_dialect_of_the_catalog() {
    rehearse(Dialect::Patch).await;
}

#[tokio::test]
async fn every_country_code_has_the_content_region_of_the_guides_table() {
    const MUSTER: &str = "urn:learnerbly:params:scim:schemas:2.0:User";
    let client = together().tenant().await.client;
    let codes = rust_iso3166::ALL.iter().map(|country| country.alpha2);
    let wrong: Vec<String> = stream::iter(codes)
        .map(|code| {
            let client = client.clone();
            async move {
                let expected = match code {
                    "GB" => "GB",
                    "ES" | "IT" | "MT" => "ES",
                    "DE" | "BE" | "CH" | "DK" | "RO" | "SI" => "DE",
                    "US" | "CA" => "US",
                    "SE" | "NO" => "SE",
                    _ => "QQ",
                };
                let user = json!({"userName": code, MUSTER: {"contentRegion": code}});
                let id = client.post("/Users", &user).await.unwrap().at("/id").clone();
                let read = client.get(&format!("/Users/{}", id.as_str().unwrap())).await.unwrap();
                let came = read.body.unwrap()[MUSTER]["contentRegion"].clone();
                (came != expected).then(|| format!("{code}: {came}, not {expected}"))
            }
        })
        .buffer_unordered(8)
        .filter_map(|wrong| async { wrong })
        .collect()
        .await;
    assert!(rust_iso3166::ALL.len() > 240);
    assert!(wrong.is_empty(), "{wrong:?}");
}
