//! The alert rules and the dashboard of `deploy/monitoring`, as Prometheus itself reads them.

use std::fmt::Write as _;
use std::fs;
use std::process::Command;

use anyhow::Context as _;
use serde_json::Value;

use crate::{root, run, tools};

/// Checks the rules, plays what they are for into them, and checks the dashboard's queries.
pub(crate) fn check() -> anyhow::Result<()> {
    let promtool = tools::ensure_promtool()?;
    let folder = root().join("deploy/monitoring");
    let queries = root().join("target/tools/dashboard.yaml");
    fs::write(&queries, as_rules(&fs::read_to_string(folder.join("dashboard.json"))?)?)?;
    run(Command::new(&promtool).args(["check", "rules", "alerts.yaml"]).current_dir(&folder))?;
    run(Command::new(&promtool).args(["test", "rules", "alerts_test.yaml"]).current_dir(&folder))?;
    run(Command::new(&promtool).args(["check", "rules"]).arg(&queries))
}

/// The dashboard's queries as rules, which promtool can check.
fn as_rules(dashboard: &str) -> anyhow::Result<String> {
    let dashboard: Value = serde_json::from_str(dashboard).context("dashboard.json")?;
    let mut rules = "groups: [{ name: dashboard, rules: [\n".to_owned();
    let panels = dashboard["panels"].as_array().context("dashboard.json has no panels")?;
    let targets = panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    for (i, target) in targets.enumerate() {
        let query = target["expr"].as_str().context("a target without a query")?;
        let query = Value::from(query.replace("$__rate_interval", "5m"));
        writeln!(rules, "{{ record: query_{i}, expr: {query} }},")?;
    }
    rules.push_str("]}]\n");
    Ok(rules)
}
