//! What requests read, in an organisation of a hundred thousand people: every method, every route and
//! every page is asked for while PostgreSQL explains each statement (`auto_explain`), and no plan may
//! read more rows of a table than an answer can need.

use muster::scim_client::query;
use serde_json::Value;

use crate::console_speed::{grown, id, lists, others};
use crate::hang_ups::Here;
use crate::support::system::run_sql;

const MUSTER: &str = "urn:learnerbly:params:scim:schemas:2.0:User";

/// The most rows of a table that a statement may read, a twentieth of the people: those that a search
/// reads in order before it asks an index (`docs/decisions/0010-searching-people.md`), and a page.
const MOST: f64 = 5_000.0;

/// Statements that may read more, by what they hold, and why.
const LARGE: [(&str, &str); 5] = [
    ("grouping(content_region", "a report counts everybody, and its numbers are kept for a while"),
    (
        "count(*) FROM identity.users AS u WHERE u.organisation_id = $1 AND (u.created_at",
        "how many a filter finds is told: here, everybody",
    ),
    (
        "array_agg(user_id ORDER BY user_id) AS users FROM groups.membership",
        "groups are answered with their members",
    ),
    (
        "AS \"users!: Vec<UserId>\"\n             FROM (SELECT user_id FROM groups.membership",
        "members are answered, up to 10,000 a page",
    ),
    ("AS \"inactive_count!\"", "the inactive members of a page of groups are counted"),
];

/// Pages by index, the second without a next one.
const MIDDLE: &str = "/Users?startIndex=90001&count=100";
const LAST: &str = "/Users?startIndex=99901&count=200";

/// What operators ask for that looks at all there is: an erasure at the log, in ranges, and what
/// compares or counts an organisation.
const OPERATORS: [&str; 3] = ["/EraseUser", "/Recount", "/Reconcile"];

/// A part of a plan that reads a table or an index.
#[derive(Debug)]
struct Reading {
    what: String,
    rows: f64,
    statement: String,
}

/// The plans that the server's log holds.
fn plans(log: &str) -> Vec<Value> {
    let mut plans = Vec::new();
    let mut lines = log.lines();
    while let Some(line) = lines.next() {
        if line.ends_with("plan:") {
            // The lines of one entry, but for the first, begin with a tab.
            let text: String = lines
                .by_ref()
                .map_while(|line| line.strip_prefix('\t'))
                .collect::<Vec<_>>()
                .join("\n");
            plans.push(
                serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}")),
            );
        }
    }
    plans
}

/// What a part of a plan and those below it read.
fn readings(statement: &str, part: &Value, found: &mut Vec<Reading>) {
    let number = |name: &str| part[name].as_f64().unwrap_or_default();
    let what = part["Relation Name"].as_str().or(part["Index Name"].as_str());
    if let Some(what) = what {
        let removed = number("Rows Removed by Filter") + number("Rows Removed by Index Recheck");
        let rows = (number("Actual Rows") + removed) * number("Actual Loops");
        let what = format!("{} of {what}", part["Node Type"].as_str().unwrap_or_default());
        found.push(Reading { what, rows, statement: statement.to_owned() });
    }
    for below in part["Plans"].as_array().into_iter().flatten() {
        readings(statement, below, found);
    }
}

/// What is asked for over SCIM.
fn paths(prefix: &str) -> Vec<String> {
    let (person, group) = (id(prefix, 2), id(prefix, 2));
    let filters = [
        "userName eq \"bo1\"".to_owned(),
        "userName sw \"bo77\"".to_owned(),
        "emails.value eq \"bo1@a.example\"".to_owned(),
        "emails[type eq \"work\" and value eq \"bo1@a.example\"]".to_owned(),
        "externalId eq \"x\"".to_owned(),
        "displayName eq \"x\"".to_owned(),
        format!("id eq \"{person}\""),
        format!("{MUSTER}:approvers eq \"eva2@a.example\""),
        "meta.lastModified gt \"2100-01-01T00:00:00Z\"".to_owned(),
        format!("groups.value eq \"{}\"", id(prefix, 3)),
    ];
    let users = filters.iter().map(|filter| format!("/Users{}", query(&[("filter", filter)])));
    let mut paths: Vec<String> = users.collect();
    for filter in ["displayName eq \"Team 7\"", &format!("members.value eq \"{person}\"")] {
        let asked = query(&[("excludedAttributes", "members"), ("filter", filter)]);
        paths.push(format!("/Groups{asked}"));
    }
    paths.extend([
        "/Users?startIndex=1&count=100".to_owned(),
        "/Users?startIndex=90101&count=100".to_owned(),
        MIDDLE.to_owned(),
        LAST.to_owned(),
        "/Users?cursor&count=100".to_owned(),
        format!("/Users/{person}"),
        "/Groups?startIndex=1&count=100&excludedAttributes=members".to_owned(),
        format!("/Groups/{group}?excludedAttributes=members"),
        format!("/Groups/{}", id(prefix, 1)),
    ]);
    paths
}

#[tokio::test]
async fn no_request_reads_a_table_of_an_organisation() {
    let mut here = Here::start("scans").await;
    let (console, prefix, key) = grown(&here.system, &here.tenant).await;
    let postgres = here.system.database_url("postgres");
    // As PostgreSQL does by itself, sooner or later.
    for table in ["identity.users", "identity.listed_user", "groups.membership"] {
        run_sql(&postgres, &format!("VACUUM ANALYZE {table}"));
    }
    // Whoever asks for a page in the middle of nowhere has it counted off; then the next one is not,
    // nor the same once more.
    for page in [MIDDLE, LAST] {
        let page = here.tenant.client.get(page).await.unwrap();
        assert_eq!(page.status, 200, "{}", page.text);
    }
    // New connections explain; those that are open are ended.
    for setting in [
        "session_preload_libraries = 'auto_explain'",
        "auto_explain.log_min_duration = 0",
        "auto_explain.log_analyze = on",
        "auto_explain.log_timing = off",
        "auto_explain.log_format = json",
        "auto_explain.log_nested_statements = on",
    ] {
        run_sql(&postgres, &format!("ALTER DATABASE scans SET {setting}"));
    }
    run_sql(
        &postgres,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
          WHERE datname = 'scans' AND usename <> 'postgres'",
    );

    for path in paths(&prefix) {
        let answer = here.tenant.client.get(&path).await.unwrap();
        assert_eq!(answer.status, 200, "{path}: {}", answer.text);
        assert!(answer.text.len() > 100, "{path}: {}", answer.text);
    }
    for (path, _) in lists(&prefix, &key) {
        assert_eq!(console.get(&path).await.status, 200, "{path}");
    }
    for (what, path) in others(&console, &prefix, &key).await {
        assert_eq!(console.get(&path).await.status, 200, "{what}");
    }
    let calls = here.calls().into_iter();
    let calls = calls.filter(|call| !OPERATORS.iter().any(|method| call.name.ends_with(method)));
    for (number, call) in calls.enumerate() {
        eprintln!("{}", call.name);
        here.make(&call, number).await;
    }

    let plans = plans(&here.system.database_log());
    assert!(plans.len() > 1_000, "{} plans", plans.len());
    let mut found = Vec::new();
    for plan in &plans {
        readings(plan["Query Text"].as_str().unwrap_or_default(), &plan["Plan"], &mut found);
    }
    found.retain(|reading| {
        reading.rows > MOST && !LARGE.iter().any(|(part, _)| reading.statement.contains(part))
    });
    found.sort_by(|a, b| b.rows.total_cmp(&a.rows));
    for Reading { what, rows, statement } in &found {
        eprintln!("{rows} rows, {what}:\n{statement}\n");
    }
    assert!(found.is_empty(), "{} readings of more than {MOST} rows", found.len());
    here.end().await;
}
