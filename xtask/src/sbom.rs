//! What the program is made of, as `CycloneDX` 1.6.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use crate::cargo;

/// Prints the bill of materials of `muster`: what is compiled into it, by the lock file.
pub(crate) fn print() -> anyhow::Result<()> {
    let bill = bill(&metadata()?)?;
    writeln!(std::io::stdout(), "{bill:#}").context("the bill cannot be printed")
}

fn metadata() -> anyhow::Result<Value> {
    let output = cargo(&["metadata", "--locked", "--format-version", "1"]).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn bill(metadata: &Value) -> anyhow::Result<Value> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let packages: BTreeMap<String, Value> =
        list(&metadata["packages"]).into_iter().map(|p| (text(&p["id"]), p)).collect();
    let nodes: BTreeMap<String, Value> =
        list(&metadata["resolve"]["nodes"]).into_iter().map(|n| (text(&n["id"]), n)).collect();
    let root = packages.values().find(|package| package["name"] == "muster");
    let root = text(&root.context("there is no package muster")?["id"]);
    // Neither what builds it nor what tests it is in it.
    let needs = |id: &str| -> Vec<String> {
        let dependencies = list(&nodes[id]["deps"]).into_iter();
        let is_in_it = |kinds: &Value| list(kinds).iter().any(|kind| kind["kind"].is_null());
        dependencies.filter(|d| is_in_it(&d["dep_kinds"])).map(|d| text(&d["pkg"])).collect()
    };
    let (mut found, mut left) = (BTreeSet::new(), vec![root.clone()]);
    while let Some(id) = left.pop() {
        if found.insert(id.clone()) {
            left.extend(needs(&id));
        }
    }
    let purl = |id: &str| {
        let package = &packages[id];
        format!("pkg:cargo/{}@{}", text(&package["name"]), text(&package["version"]))
    };
    let component = |id: &str, kind: &str| {
        let package = &packages[id];
        json!({
            "type": kind,
            "bom-ref": purl(id),
            "name": package["name"],
            "version": package["version"],
            "purl": purl(id),
            "licenses": [{"expression": package["license"]}],
        })
    };
    let others = || found.iter().filter(|id| **id != root);
    let dependencies = found.iter().map(|id| {
        let needs: BTreeSet<String> = needs(id).iter().map(|id| purl(id)).collect();
        json!({"ref": purl(id), "dependsOn": needs})
    });
    Ok(json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": component(&root, "application")},
        "components": others().map(|id| component(id, "library")).collect::<Vec<_>>(),
        "dependencies": dependencies.collect::<Vec<_>>(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bill_has_what_is_in_the_program_and_not_what_tests_it() {
        let bill = bill(&metadata().unwrap()).unwrap();
        let components = bill["components"].as_array().unwrap();
        let has = |name: &str| components.iter().any(|component| component["name"] == name);
        assert!(has("sqlx") && has("axum") && has("muster-gateway") && has("rustls"));
        assert!(!has("proptest") && !has("fantoccini") && !has("muster"));
        let unlicensed: Vec<&Value> =
            components.iter().filter(|c| c["licenses"][0]["expression"].is_null()).collect();
        assert!(unlicensed.is_empty(), "{unlicensed:?}");
    }
}
