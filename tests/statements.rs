//! Every statement of every store: none finds anything without an organisation, and each keeps to
//! what a cluster distributed by organisation can run.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};

use crate::support::system::{System, Tenant, run_sql};

const MUSTER: &str = "urn:learnerbly:params:scim:schemas:2.0:User";

/// The schemas, who works on them, and where what they share has its statements.
const SERVICES: [(&str, &str); 3] =
    [("identity", "muster_identity"), ("groups", "muster_group"), ("approver", "muster_approver")];

/// What every service has in its own schema.
const SHARED: [&str; 2] = ["libs/runtime/src/feed", "libs/follower/src"];

/// Tables that a role may read without an organisation (`docs/decisions/0018-one-organisation.md`):
/// which organisations there are, how far each is followed, the keys of tokens.
const OPEN: [&str; 5] = ["organisation", "cursor", "feed_lock", "feed_key", "feed_position"];

/// A statement of one service.
#[derive(Debug, Clone)]
struct Statement {
    schema: &'static str,
    text: String,
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Those that are checked against the tables when they are compiled, by the schema they name.
fn checked() -> Vec<Statement> {
    let mut statements = Vec::new();
    for entry in fs::read_dir(root().join(".sqlx")).unwrap() {
        let text = fs::read_to_string(entry.unwrap().path()).unwrap();
        let description: Value = serde_json::from_str(&text).unwrap();
        let text = description["query"].as_str().unwrap().to_owned();
        let names = |schema: &str| text.contains(&format!("{schema}."));
        let (schema, _) = SERVICES
            .into_iter()
            .find(|(schema, _)| names(schema))
            .unwrap_or_else(|| panic!("{text}"));
        statements.push(Statement { schema, text });
    }
    statements
}

/// Those that stand as one text in what the services share, for each of them that has it.
fn shared() -> Vec<Statement> {
    let mut texts = BTreeSet::new();
    for folder in SHARED {
        sources(&root().join(folder), &mut |source| texts.extend(literals(source)));
    }
    sources(&root().join("libs/runtime/src/feed.rs"), &mut |source| texts.extend(literals(source)));
    let of_all = |text: String| {
        let followers_only = text.contains("cursor");
        SERVICES
            .into_iter()
            .filter(move |(schema, _)| !(followers_only && *schema == "identity"))
            .map(move |(schema, _)| Statement { schema, text: text.clone() })
    };
    texts.into_iter().flat_map(of_all).collect()
}

fn sources(path: &Path, each: &mut dyn FnMut(&str)) {
    if path.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            sources(&entry.unwrap().path(), each);
        }
    } else {
        each(&fs::read_to_string(path).unwrap());
    }
}

/// The texts that are given to sqlx, as PostgreSQL gets them.
fn literals(source: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = source;
    while let Some(at) = rest.find('"') {
        let text = &rest[at + 1..];
        let mut end = 0;
        while !text[end..].starts_with('"') {
            end += if text[end..].starts_with('\\') {
                2
            } else {
                text[end..].chars().next().map_or(1, char::len_utf8)
            };
            if end >= text.len() {
                return found;
            }
        }
        let literal = text[..end].replace("\\\n", "");
        rest = &text[end + 1..];
        let verb = literal.split_whitespace().next().unwrap_or_default();
        // One with a hole is put together elsewhere.
        if ["SELECT", "INSERT", "UPDATE", "DELETE", "WITH"].contains(&verb)
            && literal.contains("organisation_id")
            && !literal.contains("{}")
            && !literal.contains("{id}")
        {
            found.push(literal);
        }
    }
    found
}

fn all() -> Vec<Statement> {
    let (checked, shared) = (checked(), shared());
    assert!(checked.len() > 100 && shared.len() > 40, "{} and {}", checked.len(), shared.len());
    checked.into_iter().chain(shared).collect()
}

/// An organisation with something in every table that a client fills.
async fn lived_in(system: &System) -> (Tenant, String, String) {
    let tenant = system.tenant().await;
    let client = &tenant.client;
    let user = json!({
        "userName": "ann", "externalId": "ann", "displayName": "ann",
        "emails": [{"value": "ann", "type": "work"}],
        MUSTER: {"approvers": ["bo"], "contentRegion": "ZZ"},
    });
    let user = client.post("/Users", &user).await.unwrap();
    assert_eq!(user.status, 201, "{}", user.text);
    let user = user.at("/id").as_str().unwrap().to_owned();
    let group = json!({"displayName": "ann", "externalId": "ann", "members": [{"value": user}]});
    let group = client.post("/Groups", &group).await.unwrap();
    assert_eq!(group.status, 201, "{}", group.text);
    let group = group.at("/id").as_str().unwrap().to_owned();
    crate::log::logged(system, &tenant, 2).await;
    (tenant, user, group)
}

/// What a statement's parameters are given, so that it finds what there is to find.
fn value(kind: &str, position: usize, organisation: &str, [user, group]: [&str; 2]) -> String {
    let text = match kind {
        "uuid" if position == 0 => format!("'{organisation}'"),
        "uuid" => format!("'{user}'"),
        "uuid[]" => format!("ARRAY['{user}', '{group}']"),
        "text" => "'ann'".to_owned(),
        "text[]" => "ARRAY['ann', 'bo']".to_owned(),
        "smallint" | "integer" | "bigint" => "1".to_owned(),
        "smallint[]" | "integer[]" | "bigint[]" => "ARRAY[1, 2]".to_owned(),
        "boolean" => "true".to_owned(),
        "boolean[]" => "ARRAY[true, true]".to_owned(),
        "timestamp with time zone" => "'2100-01-01'".to_owned(),
        "timestamp with time zone[]" => "ARRAY['2100-01-01', '2100-01-01']".to_owned(),
        "jsonb" => "'[]'".to_owned(),
        "jsonb[]" => "ARRAY['{}', '{}']".to_owned(),
        "bytea" => "'ann'".to_owned(),
        "bytea[]" => "ARRAY['ann']".to_owned(),
        "interval" => "'1 day'".to_owned(),
        _ => "NULL".to_owned(),
    };
    format!("{text}::{kind}")
}

/// Runs a statement in a transaction that is undone: how many rows it found or changed. On a
/// connection of its own: a setting that was set once is empty afterwards, not unknown.
async fn run(
    url: &str,
    statement: &Statement,
    begin: &str,
    values: impl Fn(&str, usize) -> String,
) -> Result<u64, sqlx::Error> {
    // Only what the statement itself says is the answer: no connection is no "finds nothing".
    let mut connection = PgConnection::connect(url).await.unwrap();
    let begin = format!("SET search_path = {}; {begin}", statement.schema);
    connection.execute(AssertSqlSafe(begin)).await.unwrap();
    connection.execute(AssertSqlSafe(format!("PREPARE one AS {}", statement.text))).await?;
    let kinds: Vec<String> = sqlx::query_scalar(
        "SELECT unnest(parameter_types)::text FROM pg_prepared_statements WHERE name = 'one'",
    )
    .fetch_all(&mut connection)
    .await?;
    let values: Vec<String> =
        kinds.iter().enumerate().map(|(position, kind)| values(kind, position)).collect();
    let execute = if values.is_empty() {
        "EXECUTE one".to_owned()
    } else {
        format!("EXECUTE one ({})", values.join(", "))
    };
    let done = connection.execute(AssertSqlSafe(execute)).await;
    connection.execute("ROLLBACK").await?;
    connection.close().await?;
    Ok(done?.rows_affected())
}

/// The statements that find or change anything without an organisation set; and how many do with
/// it set, of those that were tried.
async fn finding(system: &System, statements: &[Statement]) -> (Vec<Statement>, usize) {
    let (tenant, user, group) = lived_in(system).await;
    let values = |kind: &str, position: usize| value(kind, position, &tenant.id, [&user, &group]);
    let (mut without, mut with) = (Vec::new(), 0);
    for (schema, role) in SERVICES {
        for statement in statements.iter().filter(|statement| statement.schema == schema) {
            let url = system.database_url(role);
            let set = format!("BEGIN; SET LOCAL muster.organisation_id = '{}'", tenant.id);
            if run(&url, statement, &set, values).await.is_ok_and(|rows| rows > 0) {
                with += 1;
            }
            if run(&url, statement, "BEGIN", values).await.is_ok_and(|rows| rows > 0) {
                without.push(statement.clone());
            }
        }
    }
    (without, with)
}

/// The tables that a statement names.
fn tables(text: &str) -> BTreeSet<String> {
    let words: Vec<&str> = text
        .split(|c: char| !c.is_alphanumeric() && !"_.".contains(c))
        .filter(|word| !word.is_empty())
        .collect();
    let named =
        words.windows(2).filter(|pair| ["FROM", "JOIN", "INTO", "UPDATE"].contains(&pair[0]));
    let named = named.map(|pair| pair[1].rsplit('.').next().unwrap_or_default().to_owned());
    named.filter(|name| name != "SELECT").collect()
}

#[tokio::test]
async fn no_statement_of_any_store_finds_anything_without_its_organisation() {
    let statements = all();
    let system = System::start_apart("statements");
    let (without, with) = finding(&system, &statements).await;
    let open = |statement: &Statement| {
        let tables = tables(&statement.text);
        !tables.is_empty() && tables.iter().all(|table| OPEN.contains(&&**table))
            // It says how many pages of an index it has worked off.
            || statement.text == "SELECT identity.index_words()"
    };
    let closed: Vec<&Statement> = without.iter().filter(|statement| !open(statement)).collect();
    assert!(closed.is_empty(), "{closed:#?}");
    println!("{with} of {} statements found something with it", statements.len());
    assert!(with * 2 > statements.len(), "{with} of {} find anything at all", statements.len());

    // The same without the protection: it would be noticed.
    let url = system.database_url("postgres");
    for (schema, _) in SERVICES {
        run_sql(
            &url,
            &format!(
                "DO $$ DECLARE name text; BEGIN
                     FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = '{schema}' LOOP
                         EXECUTE format('ALTER TABLE {schema}.%I DISABLE ROW LEVEL SECURITY', name);
                     END LOOP;
                 END $$"
            ),
        );
    }
    let (unprotected, _) = finding(&system, &statements).await;
    let noticed = unprotected.iter().filter(|statement| !open(statement)).count();
    println!("{noticed} statements find something where row-level security is off");
    assert!(noticed * 3 > statements.len(), "{noticed}");
}

#[test]
fn every_statement_names_the_organisation_and_keeps_to_what_a_cluster_runs() {
    // By what is known before an organisation is, or of all of them.
    let excused = |statement: &Statement| {
        let tables = tables(&statement.text);
        tables.iter().all(|table| OPEN.contains(&&**table))
            || statement.text.contains("identity.sign_in_account")
            || tables.contains("sign_in_attempt")
    };
    for statement in all() {
        let text = &statement.text;
        assert!(text.contains("organisation_id") || excused(&statement), "{text}");
        for forbidden in ["nextval", "pg_advisory", "setval", "currval", "NOTIFY", "set_config"] {
            assert!(!text.contains(forbidden), "{forbidden} in {text}");
        }
    }
}

#[tokio::test]
async fn login_roles_own_nothing_and_bypass_nothing() {
    let url = crate::support::system::together().database_url("postgres");
    let mut connection = PgConnection::connect(&url).await.unwrap();
    for (_, role) in SERVICES {
        let strong: bool = sqlx::query_scalar(
            "SELECT rolsuper OR rolbypassrls OR rolcreaterole OR rolcreatedb OR rolreplication
               FROM pg_roles WHERE rolname = $1",
        )
        .bind(role)
        .fetch_one(&mut connection)
        .await
        .unwrap();
        assert!(!strong, "{role}");
        let owned: Vec<String> = sqlx::query_scalar(
            "SELECT relname::text FROM pg_class WHERE relowner = $1::regrole
             UNION ALL SELECT proname::text FROM pg_proc WHERE proowner = $1::regrole
             UNION ALL SELECT nspname::text FROM pg_namespace WHERE nspowner = $1::regrole
             UNION ALL SELECT datname::text FROM pg_database WHERE datdba = $1::regrole",
        )
        .bind(role)
        .fetch_all(&mut connection)
        .await
        .unwrap();
        assert!(owned.is_empty(), "{role} owns {owned:?}");
        let member_of: Vec<String> = sqlx::query_scalar(
            "SELECT roleid::regrole::text FROM pg_auth_members WHERE member = $1::regrole",
        )
        .bind(role)
        .fetch_all(&mut connection)
        .await
        .unwrap();
        assert!(member_of.is_empty(), "{role} is a member of {member_of:?}");
    }
    // What has happened has happened, and nobody takes it back.
    let identity = crate::support::system::together().database_url("muster_identity");
    let mut identity = PgConnection::connect(&identity).await.unwrap();
    identity
        .execute("SET muster.organisation_id = '00000000-0000-0000-0000-000000000001'")
        .await
        .unwrap();
    for statement in [
        "UPDATE identity.audit SET subject = ''",
        "DELETE FROM identity.audit",
        "TRUNCATE identity.audit",
    ] {
        let refused = identity.execute(statement).await.unwrap_err().to_string();
        assert!(refused.contains("permission denied"), "{statement}: {refused}");
    }
}
