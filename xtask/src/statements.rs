//! The statements in `store/` are checked against the tables when they are compiled: against a
//! database where `DATABASE_URL` is set, else against what `.sqlx` remembers of one. This keeps
//! `.sqlx` true.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr as _;
use std::time::SystemTime;

use anyhow::{Context as _, ensure};
use sqlx::migrate::Migrator;
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _};

use crate::{cargo, root, run};
use muster_local_postgres::LocalPostgres;

/// Writes `.sqlx` anew.
pub(crate) fn write() -> anyhow::Result<()> {
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

/// The services: folder, schema and role.
const SERVICES: [(&str, &str, &str); 3] = [
    ("identity", "identity", "muster_identity"),
    ("group", "groups", "muster_group"),
    ("approver", "approver", "muster_approver"),
];

/// Compiles the services against a database with all tables, and keeps what it says in `folder`.
/// The tables come from the migrations as they are now, so that statements and tables can change
/// together.
fn prepare(folder: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(folder)?;
    let data = tempfile::tempdir()?;
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let postgres = LocalPostgres::start(data.path()).await?;
        let compiled = match migrate(&postgres).await {
            Ok(()) => compile(folder, &postgres.url("postgres", "muster")),
            Err(error) => Err(error),
        };
        postgres.stop().await?;
        compiled
    })
}

async fn migrate(postgres: &LocalPostgres) -> anyhow::Result<()> {
    let options = PgConnectOptions::from_str(&postgres.url("postgres", "muster"))?;
    let mut connection = options.connect().await?;
    for role in ["muster_feed_reader", "muster_searcher", "muster_sign_in"] {
        connection.execute(AssertSqlSafe(format!("CREATE ROLE {role}"))).await?;
    }
    connection.close().await?;
    for (service, schema, role) in SERVICES {
        let options = PgConnectOptions::from_str(&postgres.url("postgres", "muster"))?;
        let mut connection = options.options([("search_path", schema)]).connect().await?;
        for statement in [format!("CREATE ROLE {role}"), format!("CREATE SCHEMA {schema}")] {
            connection.execute(AssertSqlSafe(statement)).await?;
        }
        let migrations = root().join(format!("services/{service}/migrations"));
        Migrator::new(migrations).await?.run(&mut connection).await?;
        connection.close().await?;
    }
    Ok(())
}

fn compile(folder: &Path, url: &str) -> anyhow::Result<()> {
    let mut check = cargo(&["check", "--locked"]);
    for (service, ..) in SERVICES {
        check.arg("-p").arg(format!("muster-{service}"));
        // The statements are compiled again only where their crate is.
        let file = root().join(format!("services/{service}/src/lib.rs"));
        fs::File::options().append(true).open(&file)?.set_modified(SystemTime::now())?;
    }
    run(check.env("DATABASE_URL", url).env("SQLX_OFFLINE_DIR", folder))
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
