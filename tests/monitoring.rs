//! The alerts and the dashboard of `deploy/monitoring` name what there is, and the documentation
//! says what each alert means. That they are sound, and raised by what they are for:
//! `cargo xtask monitoring`.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use muster_runtime::metrics::{self, Kind, Metric};
use serde_json::Value;

use crate::support::system::{run_sql, together};

fn file(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The series that Prometheus makes of a metric that comes by OTLP.
fn series(metric: &Metric) -> Vec<String> {
    let mut name = metric.name.replace('.', "_");
    if metric.unit == "s" {
        name.push_str("_seconds");
    }
    match metric.kind {
        Kind::Histogram => ["bucket", "count", "sum"].map(|of| format!("{name}_{of}")).into(),
        Kind::Counter => vec![format!("{name}_total")],
        Kind::UpDownCounter | Kind::Gauge => vec![name],
    }
}

/// The names of ours in a query: of series, and of labels.
fn named(query: &str) -> BTreeSet<String> {
    let without_values: String = query.split('"').step_by(2).collect();
    let words = without_values.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let ours = ["http_", "rpc_", "db_", "muster_", "error_"];
    let is_ours = |word: &&str| ours.iter().any(|prefix| word.starts_with(prefix));
    words.filter(is_ours).map(str::to_owned).collect()
}

/// What queries may name.
fn known() -> BTreeSet<String> {
    let labels = metrics::ALL.iter().flat_map(|metric| metric.attributes);
    let labels = labels.map(|attribute| attribute.replace('.', "_"));
    metrics::ALL.iter().flat_map(|metric| series(metric)).chain(labels).collect()
}

/// Each alert of the rules: its name, and everything said of it.
fn alerts(rules: &str) -> Vec<(String, String)> {
    let alerts = rules.split("- alert: ").skip(1);
    alerts.map(|alert| (alert.lines().next().unwrap().to_owned(), alert.to_owned())).collect()
}

#[test]
fn alerts_name_metrics_that_there_are_and_are_explained() {
    let (rules, operations) = (file("deploy/monitoring/alerts.yaml"), file("docs/operations.md"));
    let alerts = alerts(&rules);
    assert!(alerts.len() >= 15, "{}", alerts.len());
    let known = known();
    for (name, alert) in &alerts {
        let query = alert.split("labels:").next().unwrap();
        let named = named(query);
        assert!(!named.is_empty(), "{name} names nothing");
        let unknown: Vec<&String> = named.difference(&known).collect();
        assert_eq!(unknown, Vec::<&String>::new(), "{name}");
        let section = format!("#### {name}\n");
        let section = operations.split_once(&section).map(|(_, after)| after);
        let section = section.unwrap_or_else(|| panic!("docs/operations.md has no #### {name}"));
        let section = section.split("\n#").next().unwrap();
        assert!(section.contains("```"), "{name} is without commands");
        let anchor = format!("runbook: docs/operations.md#{}\n", name.to_lowercase());
        assert!(alert.contains(&anchor), "{name} does not lead to its section");
    }
    let tried = file("deploy/monitoring/alerts_test.yaml");
    for (name, _) in &alerts {
        assert!(tried.contains(&format!("alertname: {name}\n")), "{name} is never raised");
    }
    let headings = operations.lines().filter_map(|line| line.strip_prefix("#### Muster"));
    for heading in headings {
        let name = format!("Muster{heading}");
        assert!(alerts.iter().any(|(alert, _)| *alert == name), "there is no alert {name}");
    }
}

#[test]
fn the_dashboard_names_metrics_that_there_are_and_shows_all() {
    let dashboard: Value = serde_json::from_str(&file("deploy/monitoring/dashboard.json")).unwrap();
    let (mut shown, known) = (BTreeSet::new(), known());
    for panel in dashboard["panels"].as_array().unwrap() {
        if panel["type"] == "row" {
            continue;
        }
        let title = panel["title"].as_str().unwrap();
        assert!(panel["description"].as_str().is_some_and(|text| !text.is_empty()), "{title}");
        assert!(panel.pointer("/fieldConfig/defaults/unit").is_some(), "{title} has no unit");
        for target in panel["targets"].as_array().unwrap() {
            let named = named(target["expr"].as_str().unwrap());
            let unknown: Vec<&String> = named.difference(&known).collect();
            assert_eq!(unknown, Vec::<&String>::new(), "{title}");
            shown.extend(named);
        }
    }
    for metric in metrics::ALL {
        let is_shown = series(metric).iter().any(|series| shown.contains(series));
        assert!(is_shown, "{} is on no panel", metric.name);
    }
}

#[test]
fn what_operators_are_told_to_ask_postgres_can_be_asked() {
    let system = together();
    let url = system.database_url("postgres");
    let operations = file("docs/operations.md");
    let asked: Vec<&str> = operations
        .lines()
        .filter_map(|l| l.strip_prefix("psql -c \"")?.strip_suffix('"'))
        .collect();
    assert!(asked.len() > 10, "{asked:?}");
    for statement in asked {
        run_sql(&url, statement);
    }
}

#[test]
fn the_documentation_lists_every_metric() {
    let documentation = file("docs/telemetry.md");
    for metric in metrics::ALL {
        let row = format!("| `{}` | {} | {}", metric.name, metric.unit, metric.description);
        assert!(documentation.contains(&row), "docs/telemetry.md has no row {row}");
    }
}
