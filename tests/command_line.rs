//! What operators type.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Output, Stdio};

use muster::scim_client::ScimClient;

use crate::support::system::{System, run_sql, together};

fn muster(system: &System, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_muster"))
        .args(args)
        .env("MUSTER_IDENTITY_URL", &system.identity_url)
        .env_remove("DATABASE_URL")
        .output()
        .unwrap()
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn refusal(output: &Output) -> String {
    assert!(!output.status.success(), "{output:?}");
    assert!(output.stdout.is_empty(), "{output:?}");
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(text.trim_end().lines().count(), 1, "{text}");
    text
}

#[test]
fn an_operator_creates_an_organisation_an_admin_and_a_key_and_rehearses() {
    let system = together();
    let created = stdout(&muster(
        system,
        &["organisation", "create", "--slug", "acme", "--name", "Acme Ltd"],
    ));
    assert!(created.starts_with("Created the organisation acme"), "{created}");
    let again = muster(system, &["organisation", "create", "--slug", "acme", "--name", "Acme Ltd"]);
    assert!(refusal(&again).contains("acme"));

    let admin = [
        "admin",
        "create",
        "--organisation",
        "acme",
        "--email",
        "ann@acme.example",
        "--name",
        "Ann",
    ];
    let link = stdout(&muster(system, &admin));
    assert!(link.contains("/admin/invitation/invitation_"), "{link}");

    let key = stdout(&muster(
        system,
        &["api-key", "create", "--organisation", "acme", "--label", "Okta"],
    ));
    assert_eq!(key.lines().count(), 1, "the key and nothing else");
    let key = key.trim();
    let rehearsed = stdout(&muster(
        system,
        &["rehearse", "--url", &system.scim_url, "--token", key, "--dialect", "put"],
    ));
    assert!(rehearsed.trim_end().ends_with(" passed, 0 failed"), "{rehearsed}");

    let listed = stdout(&muster(system, &["api-key", "list", "--organisation", "acme"]));
    assert!(listed.contains("Okta") && !listed.contains(key), "{listed}");
    let id = listed.lines().nth(1).unwrap().split_whitespace().next().unwrap();
    let revoked = stdout(&muster(system, &["api-key", "revoke", "--organisation", "acme", id]));
    assert!(revoked.contains("Okta"), "{revoked}");
    let refused = muster(system, &["rehearse", "--url", &system.scim_url, "--token", key]);
    assert!(!refused.status.success());
}

#[test]
fn an_operator_watches_what_is_committed_across_a_restart_of_the_service() {
    let mut system = System::start_apart("watched");
    stdout(&muster(&system, &["organisation", "create", "--slug", "watched", "--name", "Watched"]));
    let key = ["api-key", "create", "--organisation", "watched", "--label", "Okta"];
    let key = stdout(&muster(&system, &key));
    let mut watching = Command::new(env!("CARGO_BIN_EXE_muster"))
        .args(["watch", "--organisation", "watched", "--from-start"])
        .env("MUSTER_IDENTITY_URL", &system.identity_url)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(watching.stdout.take().unwrap()).lines();
    let client = ScimClient::new(&system.scim_url, format!("Static {}", key.trim())).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut next = |name: &str| {
        let user = serde_json::json!({"userName": name});
        let created = runtime.block_on(client.post("/Users", &user)).unwrap();
        let line = lines.next().unwrap().unwrap();
        assert!(line.contains(created.at("/id").as_str().unwrap()), "{line}");
        line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    let line = next("ann");
    assert_eq!((&*line[1], &*line[2], &*line[4]), ("1", "created", "api-key"));
    system.kill("identity");
    system.restart("identity");
    assert_eq!(next("bo")[1], "2");

    let pid = watching.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    let told = watching.wait_with_output().unwrap();
    let told = String::from_utf8(told.stderr).unwrap();
    let token = told.trim().rsplit_once("--resume ").unwrap().1;
    let next = runtime.block_on(client.post("/Users", &serde_json::json!({"userName": "cy"})));
    assert_eq!(next.unwrap().status, 201);
    let mut resumed = Command::new(env!("CARGO_BIN_EXE_muster"))
        .args(["watch", "--organisation", "watched", "--resume", token])
        .env("MUSTER_IDENTITY_URL", &system.identity_url)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(resumed.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap().split_whitespace().nth(1), Some("3"));
    resumed.kill().unwrap();
    resumed.wait().unwrap();
}

#[test]
fn what_fails_says_so_in_one_line() {
    let system = together();
    for (args, says) in [
        (vec!["api-key", "create", "--organisation", "nobody", "--label", "x"], "nobody"),
        (vec!["organisation", "create", "--slug", "No Slug", "--name", "x"], "slug"),
        (vec!["identity", "--plain-text", "--database-url", "nonsense"], "URL"),
        (vec!["migrate", "--database-url", "postgres://x@127.0.0.1:1/x"], "reached"),
    ] {
        let refusal = refusal(&muster(system, &args));
        assert!(refusal.contains(says), "{refusal}");
    }
    let nobody = Command::new(env!("CARGO_BIN_EXE_muster"))
        .args(["api-key", "list", "--organisation", "acme", "--identity-url", "http://127.0.0.1:1"])
        .output()
        .unwrap();
    assert!(refusal(&nobody).contains("identity does not answer"));
}

#[test]
fn every_command_has_help_with_an_example() {
    for command in [
        vec![],
        vec!["gateway"],
        vec!["identity"],
        vec!["group"],
        vec!["approver"],
        vec!["migrate"],
        vec!["organisation", "create"],
        vec!["admin", "create"],
        vec!["admin", "reset"],
        vec!["api-key", "create"],
        vec!["api-key", "list"],
        vec!["api-key", "revoke"],
        vec!["rehearse"],
        vec!["watch"],
    ] {
        let mut args = command.clone();
        args.push("--help");
        let help = stdout(&muster(together(), &args));
        assert!(help.contains("Example:"), "{command:?}: {help}");
    }
}

#[test]
fn migrations_run_again_and_by_two_at_once() {
    let system = together();
    let admin = system.database_url("postgres");
    run_sql(&admin, "CREATE DATABASE migrated_twice");
    let url = admin.replace("/muster?", "/migrated_twice?");
    let args = ["migrate", "--database-url", &url];
    std::thread::scope(|scope| {
        let runs: Vec<_> = (0..3).map(|_| scope.spawn(|| muster(system, &args))).collect();
        for run in runs {
            stdout(&run.join().unwrap());
        }
    });
    stdout(&muster(system, &args));
}

#[test]
fn a_service_without_its_tables_says_what_to_do() {
    let system = together();
    let admin = system.database_url("postgres");
    run_sql(&admin, "CREATE DATABASE bare");
    let url = system.database_url("muster_identity").replace("/muster?", "/bare?");
    let refused = muster(
        system,
        &["identity", "--plain-text", "--grpc-listen", "127.0.0.1:0", "--database-url", &url],
    );
    assert!(refusal(&refused).contains("muster migrate"));
}

#[test]
fn a_service_refuses_a_role_that_row_level_security_does_not_bind() {
    let system = together();
    let url = system.database_url("postgres");
    let refused = muster(
        system,
        &["identity", "--plain-text", "--grpc-listen", "127.0.0.1:0", "--database-url", &url],
    );
    assert!(refusal(&refused).contains("row-level security"));
}

#[test]
fn plain_grpc_is_refused_on_an_address_that_others_reach() {
    let system = together();
    let url = system.database_url("muster_identity");
    let refused = muster(
        system,
        &["identity", "--plain-text", "--grpc-listen", "0.0.0.0:0", "--database-url", &url],
    );
    assert!(refusal(&refused).contains("loopback"));
}

#[tokio::test]
async fn a_migration_does_not_wait_in_front_of_requests_and_is_tried_again() {
    use sqlx::{Connection as _, Executor as _, PgConnection};
    let system = System::start_apart("migrated_again");
    let mut user = PgConnection::connect(&system.database_url("postgres")).await.unwrap();
    user.execute("BEGIN; LOCK TABLE identity._sqlx_migrations").await.unwrap();
    let mut migration = Command::new(env!("CARGO_BIN_EXE_muster"))
        .args(["migrate", "--database-url", &system.database_url("postgres")])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut told = BufReader::new(migration.stderr.take().unwrap()).lines();
    // It has waited as long as it may, and said so.
    let says = |line: &str| line.contains("The tables of identity are in use");
    assert!(told.any(|line| says(&line.unwrap())), "it said nothing");
    assert!(migration.try_wait().unwrap().is_none(), "it gave up");
    user.execute("ROLLBACK").await.unwrap();
    assert!(migration.wait().unwrap().success());
}
