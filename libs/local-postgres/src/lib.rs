//! A PostgreSQL of Muster's own, for a laptop and for the tests: found on the machine, run below a
//! data folder, on a Unix socket that only its user can reach.
//!
//! Below the data folder: `lock`, held by the process that uses it; `postgres/`, the cluster;
//! `postgres.log`, what the server said since its last start; `socket/`; `postgresql/`, the programs
//! where they had to be fetched.

mod account;
mod binaries;
mod left_over;
mod server;
mod socket;

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::str::FromStr as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _};
use tokio::time::sleep;

use account::Account;
use binaries::Binaries;
use server::{Outcome, Server};
use socket::SocketFolder;

/// How long the server may take to start; recovery after a crash is part of it.
const START: Duration = Duration::from_mins(2);
/// How long it may take to stop.
const STOP: Duration = Duration::from_secs(30);
/// How often a condition is looked at that is waited for.
const LOOK: Duration = Duration::from_millis(20);

/// A running server. End it with [`LocalPostgres::stop`]; where it is dropped instead, it is told
/// to stop and not waited for. Where our process is killed, the next start recovers.
#[derive(Debug)]
pub struct LocalPostgres {
    server: Server,
    socket: SocketFolder,
    /// Held as long as the server runs.
    _lock: Lock,
}

impl LocalPostgres {
    /// Starts a server on `data_dir`, which is made where it is not there, and waits until it
    /// answers and has the database `muster`. A server that a killed process left behind is stopped
    /// first.
    ///
    /// Fails where another process uses the folder, where no PostgreSQL suits, and where the server
    /// does not start: then with the end of its log.
    pub async fn start(data_dir: &Path) -> anyhow::Result<Self> {
        let (data_dir, lock) = claim(data_dir)?;
        let account = Account::choose(&data_dir, &data_dir.join("postgres")).await?;
        Self::start_as(&account, &data_dir, lock).await
    }

    async fn start_as(account: &Account, data_dir: &Path, lock: Lock) -> anyhow::Result<Self> {
        let cluster = data_dir.join("postgres");
        let fetched = data_dir.join("postgresql");
        let binaries = Binaries::find_or_fetch(cluster_version(&cluster)?, &fetched).await?;
        if !cluster.exists() {
            init(&binaries, account, &cluster).await?;
        }
        left_over::stop(&cluster).await?;
        let socket = SocketFolder::make(data_dir)?;
        account.own(socket.path())?;

        let log = data_dir.join("postgres.log");
        let deadline = Instant::now() + START;
        loop {
            let mut server = Server::spawn(&binaries, account, &cluster, socket.path(), &log)?;
            let url = url(socket.path(), "postgres", "postgres");
            match server.wait_ready(&url, deadline).await? {
                Outcome::Ready => {
                    let this = Self { server, socket, _lock: lock };
                    this.create_database().await?;
                    return Ok(this);
                }
                // Processes of a server that was killed end by themselves, at their next wait.
                Outcome::MemoryInUse if Instant::now() < deadline => sleep(LOOK).await,
                Outcome::MemoryInUse => bail!(
                    "processes of an earlier PostgreSQL on {} do not end: end them and try again",
                    cluster.display()
                ),
            }
        }
    }

    /// How `role` reaches `database`: no password, as only our user reaches the socket.
    #[must_use]
    pub fn url(&self, role: &str, database: &str) -> String {
        url(self.socket.path(), role, database)
    }

    async fn create_database(&self) -> anyhow::Result<()> {
        let options = PgConnectOptions::from_str(&self.url("postgres", "postgres"))?;
        let mut connection = options.connect().await.context("PostgreSQL refuses its owner")?;
        let name = "SELECT 1 FROM pg_database WHERE datname = 'muster'";
        let there: Option<i32> = sqlx::query_scalar(name).fetch_optional(&mut connection).await?;
        if there.is_none() {
            sqlx::query("CREATE DATABASE muster").execute(&mut connection).await?;
        }
        connection.close().await.context("PostgreSQL")
    }

    /// Ends the sessions, writes everything and stops the server; waits until it is gone.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        self.server.stop().await
    }
}

/// The locked file that makes a data folder ours. The system unlocks it when our process ends.
#[derive(Debug)]
struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // To close it is not enough: a process that is being started by another thread has a copy
        // until it executes its program. A failure leaves what closing does.
        drop(self.0.unlock());
    }
}

/// Port and TLS are spelt out, as sqlx takes them from `PGPORT` and `PGSSLMODE` otherwise.
fn url(socket_folder: &Path, role: &str, database: &str) -> String {
    let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let (role, database) = (encode(role), encode(database));
    let host = encode(&socket_folder.to_string_lossy());
    let port = socket::PORT;
    format!("postgres://{role}@localhost:{port}/{database}?host={host}&sslmode=disable")
}

/// Makes the data folder ours: its absolute path, and the lock that says so.
fn claim(data_dir: &Path) -> anyhow::Result<(PathBuf, Lock)> {
    private_folder(data_dir)?;
    let data_dir = data_dir
        .canonicalize()
        .with_context(|| format!("the folder {} cannot be used", data_dir.display()))?;
    ensure!(data_dir.to_str().is_some(), "the path {} is not UTF-8", data_dir.display());
    let path = data_dir.join("lock");
    let lock = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&path)
        .with_context(|| format!("{} cannot be written", path.display()))?;
    match lock.try_lock() {
        Ok(()) => Ok((data_dir, Lock(lock))),
        Err(TryLockError::WouldBlock) => bail!(
            "another muster is running on {}: stop it, or use another data folder",
            data_dir.display()
        ),
        Err(TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("{} cannot be locked", path.display()))
        }
    }
}

/// The major version that made the cluster; none where there is no cluster.
fn cluster_version(cluster: &Path) -> anyhow::Result<Option<u32>> {
    let file = cluster.join("PG_VERSION");
    match fs::read_to_string(&file) {
        Ok(text) => {
            let version = text.trim().parse();
            version.map(Some).with_context(|| format!("{} names no version", file.display()))
        }
        Err(error) if error.kind() == ErrorKind::NotFound && !cluster.exists() => Ok(None),
        Err(error) => Err(error).with_context(|| {
            format!("{} is no PostgreSQL cluster: move it away", cluster.display())
        }),
    }
}

/// Makes a cluster. It gets its name only when it is whole, so that a process killed half-way leaves
/// nothing that looks like one.
async fn init(binaries: &Binaries, account: &Account, cluster: &Path) -> anyhow::Result<()> {
    let new = cluster.with_extension("new");
    remove_folder(&new)?;
    private_folder(&new)?;
    account.own(&new)?;
    let initdb = binaries.of("initdb");
    let output = account
        .command(&initdb)
        .args(["-A", "trust", "-U", "postgres", "--locale=C", "--encoding=UTF8", "--no-sync", "-D"])
        .arg(&new)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .with_context(|| format!("{} cannot be run", initdb.display()))?;
    ensure!(
        output.status.success(),
        "{} failed: {}",
        initdb.display(),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    fs::rename(&new, cluster).with_context(|| format!("{} cannot be made", cluster.display()))
}

/// Makes a folder that is its owner's alone, and the folders above it as any.
fn private_folder(folder: &Path) -> anyhow::Result<()> {
    let above = folder.parent().map_or(Ok(()), fs::create_dir_all);
    above
        .and_then(|()| DirBuilder::new().recursive(true).mode(0o700).create(folder))
        .with_context(|| format!("the folder {} cannot be made", folder.display()))
}

fn remove_folder(folder: &Path) -> anyhow::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("{} cannot be removed", folder.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[tokio::test]
    async fn root_without_user_namespaces_runs_it_as_nobody() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        // As a home folder of root is.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let (data_dir, _lock) = claim(&folder.path().join("data")).unwrap();
        let refused = Account::nobody().admit(&data_dir).await.unwrap_err().to_string();
        assert!(refused.contains("/var/lib/muster"), "{refused}");
        let folder = tempfile::tempdir().unwrap();
        for _ in 0..2 {
            let (data_dir, lock) = claim(folder.path()).unwrap();
            let account = Account::nobody();
            account.admit(&data_dir).await.unwrap();
            let postgres = LocalPostgres::start_as(&account, &data_dir, lock).await.unwrap();
            postgres.stop().await.unwrap();
        }
        // A cluster stays with its owner, where namespaces have come to work in the meantime too.
        LocalPostgres::start(folder.path()).await.unwrap().stop().await.unwrap();
    }

    #[test]
    fn a_url_survives_any_folder() {
        let url = url(Path::new("/tmp/a b/ü?&"), "postgres", "muster");
        let options: sqlx::postgres::PgConnectOptions = url.parse().unwrap();
        assert_eq!(options.get_socket().unwrap(), Path::new("/tmp/a b/ü?&"));
        assert_eq!(options.get_database(), Some("muster"));
    }
}
