//! The statements in `store/` are checked against the tables when they are compiled: against a
//! database where `DATABASE_URL` is set, else against what `.sqlx` remembers of one. This keeps
//! `.sqlx` true.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, ensure};

use crate::{cargo, root, run};

/// Writes `.sqlx` anew.
pub(crate) fn write() -> anyhow::Result<()> {
    run(&mut cargo(&["build"]))?;
    let folder = root().join(".sqlx");
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    prepare(&folder)
}

/// Fails where `.sqlx` is not what the statements and the tables are now.
pub(crate) fn check() -> anyhow::Result<()> {
    let fresh = root().join("target/sqlx");
    if fresh.exists() {
        fs::remove_dir_all(&fresh)?;
    }
    prepare(&fresh)?;
    ensure!(
        read(&fresh)? == read(&root().join(".sqlx"))?,
        ".sqlx is not up to date: run `cargo xtask sqlx` and commit it"
    );
    Ok(())
}

/// Compiles the services against a database with all tables, and keeps what it says in `folder`.
fn prepare(folder: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(folder)?;
    let database = Database::start()?;
    // The statements are compiled again only where their crate is.
    for service in ["identity", "group", "approver"] {
        let file = root().join(format!("services/{service}/src/lib.rs"));
        fs::File::options().append(true).open(&file)?.set_modified(std::time::SystemTime::now())?;
    }
    run(cargo(&[
        "check",
        "--locked",
        "-p",
        "muster-identity",
        "-p",
        "muster-group",
        "-p",
        "muster-approver",
    ])
    .env("DATABASE_URL", &database.url)
    .env("SQLX_OFFLINE_DIR", folder))
}

fn read(folder: &Path) -> anyhow::Result<BTreeMap<PathBuf, String>> {
    let entries = fs::read_dir(folder).with_context(|| format!("{}", folder.display()))?;
    let mut files = BTreeMap::new();
    for entry in entries {
        let path = entry?.path();
        files.insert(path.file_name().unwrap_or_default().into(), fs::read_to_string(&path)?);
    }
    Ok(files)
}

/// A Postgres with all tables: an empty Muster's.
struct Database {
    muster: Child,
    url: String,
    _folder: tempfile::TempDir,
}

impl Database {
    fn start() -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let mut muster = Command::new(root().join("target/debug/muster"))
            .args([
                "--empty",
                "--listen",
                "127.0.0.1:0",
                "--grpc-listen",
                "127.0.0.1:0",
                "--data-dir",
            ])
            .arg(folder.path())
            .env_remove("DATABASE_URL")
            .stdout(Stdio::piped())
            .spawn()
            .context("target/debug/muster does not start")?;
        let output = muster.stdout.take().context("standard output")?;
        let mut output = BufReader::new(output).lines();
        let running = output.any(|line| line.is_ok_and(|line| line.contains("Muster is running")));
        let socket = folder.path().join("socket");
        let host = socket.to_string_lossy().replace('/', "%2F");
        let url = format!("postgres://postgres@localhost/muster?host={host}");
        let this = Self { muster, url, _folder: folder };
        ensure!(running, "muster ended before it was running");
        Ok(this)
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // In order, so that its Postgres ends too.
        drop(Command::new("kill").args(["-INT", &self.muster.id().to_string()]).status());
        drop(self.muster.wait());
    }
}
