//! The commands and settings of `deploy/`, run as processes.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use muster::scim_client::ScimClient;
use tokio::sync::Mutex;

use crate::support::process::{MUSTER, Process};
use crate::support::system::{run_sql, scratch, together};
use crate::support::tls::certificates;

fn deploy(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The arguments of the container in a manifest.
fn arguments(manifest: &str) -> Vec<String> {
    let lines = manifest.lines().skip_while(|line| line.trim() != "args:").skip(1);
    let arguments = lines.map_while(|line| line.trim().strip_prefix("- "));
    arguments.map(str::to_owned).collect()
}

/// The arguments of each part in the compose file.
fn composed() -> BTreeMap<String, Vec<String>> {
    let text = deploy("compose.yaml");
    let commands = text.lines().filter_map(|line| line.trim().strip_prefix("command: ["));
    let parse = |command: &str| {
        let list = command.trim_end_matches(']').split(", ");
        list.map(|argument| argument.trim_matches('"').to_owned()).collect::<Vec<_>>()
    };
    commands.map(parse).map(|arguments| (arguments[0].clone(), arguments)).collect()
}

/// The settings that every part has.
fn settings() -> Vec<(String, String)> {
    let text = deploy("kubernetes/base/kustomization.yaml");
    let lines = text.lines().filter_map(|line| line.trim().strip_prefix("- "));
    let settings = lines.filter_map(|line| line.split_once('='));
    settings.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// Where on this machine what an argument names is.
struct Here {
    folder: PathBuf,
    /// Where each service listens, once it does.
    services: BTreeMap<&'static str, String>,
}

impl Here {
    fn new(database: &str) -> Self {
        let folder = scratch().join(database);
        fs::create_dir_all(&folder).unwrap();
        for (file, text) in [("identity", "one"), ("group", "two"), ("approver", "three")] {
            fs::write(folder.join(file), format!("{text}\n")).unwrap();
        }
        Self { folder, services: BTreeMap::new() }
    }

    /// An argument as it is on this machine; the rest of it is as it stands.
    fn argument(&self, part: &str, argument: &str, database: &str) -> String {
        let certificates = certificates().to_str().unwrap();
        let url = self.folder.join(format!("{part}.url"));
        fs::write(&url, format!("{database}\n")).unwrap();
        let mut argument = argument
            .replace("0.0.0.0:8081", "127.0.0.1:0")
            .replace("0.0.0.0:8080", "127.0.0.1:0")
            .replace("0.0.0.0:50051", "127.0.0.1:0")
            .replace("/run/secrets/tls/tls.crt", &format!("{certificates}/{part}.pem"))
            .replace("/run/secrets/tls/tls.key", &format!("{certificates}/{part}.key"))
            .replace("/run/secrets/tls/ca.crt", &format!("{certificates}/ca.pem"))
            .replace("/etc/muster/policy.toml", &format!("{certificates}/policy.toml"))
            .replace("/run/secrets/database/url", url.to_str().unwrap())
            .replace("/run/secrets/passwords", self.folder.to_str().unwrap())
            .replace("=/certificates/", &format!("={certificates}/"));
        if argument.starts_with("--database-url=") {
            argument = format!("--database-url={database}");
        }
        for (service, address) in &self.services {
            argument = argument.replace(&format!("//{service}:50051"), &format!("//{address}"));
        }
        argument
    }
}

/// The passwords of roles are the whole server's: one migration at a time sets them.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

/// Runs the migration and every part as `arguments` has them, and waits until each is ready.
async fn run(
    database: &str,
    arguments: impl Fn(&str) -> Vec<String>,
    settings: &[(String, String)],
) {
    let _turn = ONE_AT_A_TIME.lock().await;
    let system = together();
    run_sql(&system.database_url("postgres"), &format!("CREATE DATABASE {database}"));
    let url = |role: &str| system.database_url(role).replace("/muster?", &format!("/{database}?"));
    let mut here = Here::new(database);
    let variables: Vec<(&str, &str)> =
        settings.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let on_this_machine = |here: &Here, part: &str, role: &str| -> Vec<String> {
        let asked = arguments(part);
        assert_eq!(asked[0], part, "{asked:?}");
        asked.iter().map(|argument| here.argument(part, argument, &url(role))).collect()
    };
    let migrated = Command::new(MUSTER)
        .args(on_this_machine(&here, "migrate", "postgres"))
        .env_remove("DATABASE_URL")
        .output()
        .unwrap();
    assert!(migrated.status.success(), "{migrated:?}");
    let mut processes = Vec::new();
    for (part, role, tells) in [
        ("identity", "muster_identity", "gRPC address"),
        ("group", "muster_group", "gRPC address"),
        ("approver", "muster_approver", "gRPC address"),
        ("gateway", "", "HTTP address"),
    ] {
        let mut arguments = on_this_machine(&here, part, role);
        if !arguments.iter().any(|argument| argument.starts_with("--health-listen=")) {
            arguments.push("--health-listen=127.0.0.1:0".to_owned());
        }
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let process =
            Process::start_as(MUSTER, part, &arguments, &[tells, "Health address"], &variables);
        here.services.insert(part, process.told[0].clone());
        processes.push(process);
    }
    for process in &processes {
        let client = ScimClient::new(format!("http://{}", process.told[1]), "").unwrap();
        let deadline = Instant::now() + Duration::from_mins(1);
        loop {
            let ready = client.get("/readyz").await.unwrap();
            if ready.status == 200 {
                break;
            }
            assert!(Instant::now() < deadline, "{}: {}", process.part, ready.text);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

#[tokio::test]
async fn the_commands_of_the_manifests_run_and_become_ready() {
    let settings: Vec<(String, String)> = settings()
        .into_iter()
        // No collector listens here.
        .filter(|(name, _)| name != "OTEL_EXPORTER_OTLP_ENDPOINT")
        .collect();
    assert!(settings.len() >= 4, "{settings:?}");
    let arguments = |part: &str| {
        let file = if part == "migrate" { "migration" } else { part };
        arguments(&deploy(&format!("kubernetes/base/{file}.yaml")))
    };
    run("manifests", arguments, &settings).await;
}

#[tokio::test]
async fn the_commands_of_the_compose_file_run_and_become_ready() {
    let composed = composed();
    assert_eq!(composed.len(), 5, "{:?}", composed.keys());
    run("composed", |part| composed[part].clone(), &[]).await;
}
