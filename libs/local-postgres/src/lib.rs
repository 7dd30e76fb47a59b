//! A PostgreSQL of Muster's own, for a laptop and for the tests: found on the machine, run below a
//! data folder on a Unix socket that only this user can reach.

mod binaries;

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::str::FromStr as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _};
use tokio::process::{Child, Command};

use binaries::Binaries;

/// The longest path of a Unix socket, less than the 107 bytes that Linux takes and the 103 of macOS.
const LONGEST_SOCKET: usize = 100;
/// How long the server may take to start; recovery after a crash is part of it.
const START: Duration = Duration::from_mins(1);
/// How long it may take to stop.
const STOP: Duration = Duration::from_secs(30);
/// How often a condition is looked at that is waited for.
const LOOK: Duration = Duration::from_millis(20);

/// A running server. Stop it with [`LocalPostgres::stop`]; where it is dropped instead, it is told
/// to stop and not waited for.
#[derive(Debug)]
pub struct LocalPostgres {
    server: Option<Child>,
    socket_folder: PathBuf,
    /// Where the data folder's path is too long for a socket.
    _short_folder: Option<tempfile::TempDir>,
    /// Held while the server runs, so that no second one starts on the same folder.
    _lock: File,
}

impl LocalPostgres {
    /// Starts a server on `data_folder`, which is made where it is not there, with the database
    /// `muster`. A server that a killed process left behind is stopped first.
    pub async fn start(data_folder: &Path) -> anyhow::Result<Self> {
        private_folder(data_folder)?;
        let data_folder = data_folder
            .canonicalize()
            .with_context(|| format!("{} cannot be used", data_folder.display()))?;
        let lock = lock(&data_folder)?;
        let cluster = data_folder.join("postgres");
        let version = fs::read_to_string(cluster.join("PG_VERSION")).ok();
        let fetched = data_folder.join("postgresql");
        let binaries = Binaries::find_or_fetch(version.as_deref().map(str::trim), &fetched).await?;
        // Whoever made the lock file is who we are.
        let is_root = lock.metadata().context("the lock file")?.uid() == 0;
        let user = User::choose(is_root, &data_folder).await?;
        if version.is_none() {
            init(&binaries, &user, &data_folder, &cluster).await?;
        }
        stop_left_over(&cluster).await?;

        let (socket_folder, short_folder) = socket_folder(&data_folder)?;
        user.own(&socket_folder).await?;
        let log = data_folder.join("postgres.log");
        let output = File::create(&log).with_context(|| format!("{}", log.display()))?;
        let mut server = user
            .command(&binaries.of("postgres"))
            .arg("-D")
            .arg(&cluster)
            .arg("-k")
            .arg(&socket_folder)
            .args(["-c", "listen_addresses=", "-c", "max_connections=200"])
            .args(["-c", "unix_socket_permissions=0700", "-c", "logging_collector=off"])
            .stdin(Stdio::null())
            .stdout(output.try_clone().context("the server's log")?)
            .stderr(output)
            // Ctrl-C in the terminal is for Muster, which stops the server last.
            .process_group(0)
            .spawn()
            .with_context(|| format!("{} does not start", binaries.of("postgres").display()))?;
        if let Err(error) = wait_ready(&mut server, &socket_folder).await {
            signal("INT", server.id()).await;
            let tail = tail(&log);
            return Err(error.context(format!(
                "PostgreSQL did not start; {} ends with:\n{tail}",
                log.display()
            )));
        }
        let this =
            Self { server: Some(server), socket_folder, _short_folder: short_folder, _lock: lock };
        this.create_database().await?;
        Ok(this)
    }

    /// How `role` reaches the database `muster`.
    #[must_use]
    pub fn url(&self, role: &str) -> String {
        url(&self.socket_folder, role, "muster")
    }

    /// The process id of the server; none once it has been stopped.
    #[must_use]
    pub fn process_id(&self) -> Option<u32> {
        self.server.as_ref().and_then(Child::id)
    }

    /// Stops the server, after its sessions have been closed and everything is written.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        let Some(mut server) = self.server.take() else { return Ok(()) };
        signal("INT", server.id()).await;
        if tokio::time::timeout(STOP, server.wait()).await.is_err() {
            server.kill().await.context("PostgreSQL does not stop")?;
        }
        Ok(())
    }

    async fn create_database(&self) -> anyhow::Result<()> {
        let options =
            PgConnectOptions::from_str(&url(&self.socket_folder, "postgres", "postgres"))?
                .disable_statement_logging();
        let mut connection = options.connect().await.context("PostgreSQL refuses its owner")?;
        let exists: Option<i32> =
            sqlx::query_scalar("SELECT 1 FROM pg_database WHERE datname = 'muster'")
                .fetch_optional(&mut connection)
                .await?;
        if exists.is_none() {
            sqlx::query("CREATE DATABASE muster").execute(&mut connection).await?;
        }
        connection.close().await?;
        Ok(())
    }
}

impl Drop for LocalPostgres {
    fn drop(&mut self) {
        if let Some(id) = self.server.as_ref().and_then(Child::id) {
            let mut kill = std::process::Command::new("kill");
            drop(kill.args(["-INT", &id.to_string()]).stderr(Stdio::null()).status());
        }
    }
}

/// Who the server runs as: it refuses root.
#[derive(Debug)]
enum User {
    /// Ourselves.
    Same,
    /// Root outside, somebody in a user namespace of its own: works below any folder.
    Namespace,
    /// The user and group nobody, who must be able to reach the folder.
    Nobody,
}

/// The user and group nobody.
const NOBODY: u32 = 65_534;

impl User {
    async fn choose(is_root: bool, data_folder: &Path) -> anyhow::Result<Self> {
        if !is_root {
            return Ok(Self::Same);
        }
        let succeeds = |mut command: Command| async move {
            let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            quiet.status().await.is_ok_and(|status| status.success())
        };
        if succeeds(Self::Namespace.command(Path::new("true"))).await {
            return Ok(Self::Namespace);
        }
        let mut reach = Self::Nobody.command(Path::new("ls"));
        reach.arg("-d").arg(data_folder);
        if succeeds(reach).await {
            return Ok(Self::Nobody);
        }
        bail!(
            "PostgreSQL does not run as root: run muster as another user, or let --data-dir name a \
             folder that the user with id {NOBODY} can reach, such as /var/lib/muster"
        )
    }

    fn command(&self, program: &Path) -> Command {
        match self {
            Self::Same => Command::new(program),
            Self::Namespace => {
                let mut command = Command::new("unshare");
                command.args(["--user", "--map-user=1000", "--map-group=1000"]).arg(program);
                command
            }
            Self::Nobody => {
                let mut command = Command::new(program);
                command.uid(NOBODY).gid(NOBODY);
                command
            }
        }
    }

    /// Gives a folder to the user.
    async fn own(&self, folder: &Path) -> anyhow::Result<()> {
        if let Self::Nobody = self {
            let owner = format!("{NOBODY}:{NOBODY}");
            let status = Command::new("chown").arg("-R").arg(owner).arg(folder).status().await?;
            ensure!(status.success(), "{} cannot be given to user {NOBODY}", folder.display());
        }
        Ok(())
    }
}

/// Makes a cluster. It appears under its name only when it is whole, so that a process killed
/// half-way leaves nothing that looks like one.
async fn init(
    binaries: &Binaries,
    user: &User,
    data_folder: &Path,
    cluster: &Path,
) -> anyhow::Result<()> {
    let new = data_folder.join("postgres.new");
    if new.exists() {
        fs::remove_dir_all(&new).with_context(|| format!("{}", new.display()))?;
    }
    private_folder(&new)?;
    user.own(&new).await?;
    let output = user
        .command(&binaries.of("initdb"))
        .arg("-D")
        .arg(&new)
        .args(["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"])
        .stdin(Stdio::null())
        .output()
        .await
        .with_context(|| format!("{} does not start", binaries.of("initdb").display()))?;
    ensure!(
        output.status.success(),
        "initdb failed: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    fs::rename(&new, cluster).with_context(|| format!("{}", cluster.display()))
}

/// Stops the server that a killed process left on this cluster, if there is one.
async fn stop_left_over(cluster: &Path) -> anyhow::Result<()> {
    let file = cluster.join("postmaster.pid");
    let Ok(text) = fs::read_to_string(&file) else { return Ok(()) };
    let mut lines = text.lines();
    let Some(id) = lines.next().and_then(|line| line.trim().parse::<u32>().ok()) else {
        return Ok(());
    };
    let ours = lines.next().is_some_and(|folder| Path::new(folder.trim()) == cluster);
    if ours && is_postgres(id).await {
        signal("INT", Some(id)).await;
        let deadline = Instant::now() + STOP;
        while is_postgres(id).await {
            ensure!(
                Instant::now() < deadline,
                "a PostgreSQL of an earlier run (process {id}) does not stop"
            );
            tokio::time::sleep(LOOK).await;
        }
    }
    // Left by a server that was killed; another process may have its number by now.
    match fs::remove_file(&file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("{}", file.display()))
        }
        _ => Ok(()),
    }
}

/// Whether there is a process of that number that is a PostgreSQL server.
async fn is_postgres(id: u32) -> bool {
    let output = Command::new("ps").args(["-o", "stat=,command=", "-p", &id.to_string()]).output();
    output.await.is_ok_and(|output| {
        let text = String::from_utf8_lossy(&output.stdout);
        let text = text.trim();
        !text.starts_with('Z') && text.contains("postgres")
    })
}

async fn signal(name: &str, id: Option<u32>) {
    if let Some(id) = id {
        let mut kill = Command::new("kill");
        drop(kill.arg(format!("-{name}")).arg(id.to_string()).stderr(Stdio::null()).status().await);
    }
}

async fn wait_ready(server: &mut Child, socket_folder: &Path) -> anyhow::Result<()> {
    let options = PgConnectOptions::from_str(&url(socket_folder, "postgres", "postgres"))?
        .disable_statement_logging();
    let deadline = Instant::now() + START;
    loop {
        if let Some(status) = server.try_wait()? {
            bail!("it ended with {status}");
        }
        match options.connect().await {
            Ok(connection) => return Ok(connection.close().await?),
            Err(error) if Instant::now() > deadline => return Err(error.into()),
            Err(_) => tokio::time::sleep(LOOK).await,
        }
    }
}

fn url(socket_folder: &Path, role: &str, database: &str) -> String {
    let folder = socket_folder.to_string_lossy();
    let host = utf8_percent_encode(&folder, NON_ALPHANUMERIC);
    format!("postgres://{role}@localhost/{database}?host={host}")
}

fn socket_folder(data_folder: &Path) -> anyhow::Result<(PathBuf, Option<tempfile::TempDir>)> {
    let folder = data_folder.join("socket");
    if folder.join(".s.PGSQL.5432.lock").as_os_str().len() <= LONGEST_SOCKET {
        private_folder(&folder)?;
        return Ok((folder, None));
    }
    let short = tempfile::Builder::new().prefix("muster").tempdir_in("/tmp")?;
    Ok((short.path().to_owned(), Some(short)))
}

fn private_folder(folder: &Path) -> anyhow::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .with_context(|| format!("the folder {} cannot be made", folder.display()))
}

fn lock(data_folder: &Path) -> anyhow::Result<File> {
    let path = data_folder.join("lock");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .with_context(|| format!("{} cannot be written", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => bail!(
            "another muster is running on {}: stop it, or let --data-dir name another folder",
            data_folder.display()
        ),
        Err(TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("{} cannot be locked", path.display()))
        }
    }
}

fn tail(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(10)..].join("\n")
}
