//! The server's process: start, readiness, stop.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::str::FromStr as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use rustix::process::{Pid, Signal, kill_process};
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _};
use tokio::process::Child;
use tokio::time::{sleep, timeout};

use super::account::Account;
use super::binaries::Binaries;
use super::{LOOK, STOP, socket};

/// How long one attempt to connect may take.
const CONNECT: Duration = Duration::from_secs(5);

/// A server that was started; told to stop when it is dropped.
#[derive(Debug)]
pub(super) struct Server {
    child: Child,
    program: PathBuf,
    log: PathBuf,
}

/// What became of a start.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It answers queries.
    Ready,
    /// It ended, as processes of a killed server still hold the cluster's shared memory.
    MemoryInUse,
}

impl Server {
    pub(super) fn spawn(
        binaries: &Binaries,
        account: &Account,
        cluster: &Path,
        socket_folder: &Path,
        log: &Path,
    ) -> anyhow::Result<Self> {
        let program = binaries.of("postgres");
        let output = OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(log)
            .with_context(|| format!("{} cannot be written", log.display()))?;
        let child = account
            .command(&program)
            .arg("-D")
            .arg(cluster)
            .arg("-k")
            .arg(socket_folder)
            .args(["-p", &socket::PORT.to_string(), "-c", "listen_addresses="])
            .args(["-c", "unix_socket_permissions=0700", "-c", "max_connections=400"])
            .args(["-c", "fsync=on", "-c", "log_destination=stderr", "-c", "logging_collector=off"])
            .stdin(Stdio::null())
            .stdout(output.try_clone().context("the server's log")?)
            .stderr(output)
            // Ctrl-C in the terminal is for Muster, which stops the server last. (A parent-death
            // signal would come when the *thread* that starts the server ends: not used.)
            .process_group(0)
            .spawn()
            .with_context(|| format!("{} cannot be run", program.display()))?;
        Ok(Self { child, program, log: log.to_owned() })
    }

    /// Waits until the server answers a query, or has ended.
    pub(super) async fn wait_ready(
        &mut self,
        url: &str,
        deadline: Instant,
    ) -> anyhow::Result<Outcome> {
        let options = PgConnectOptions::from_str(url)?.disable_statement_logging();
        loop {
            if let Some(status) = self.child.try_wait().context("the server's state")? {
                if self.log_text().contains("is still in use") {
                    return Ok(Outcome::MemoryInUse);
                }
                return Err(self.failure(&format!("it ended with {status}")));
            }
            match timeout(CONNECT, answer(&options)).await {
                Ok(Ok(())) => return Ok(Outcome::Ready),
                Ok(Err(error)) if Instant::now() > deadline => {
                    return Err(self.failure(&error.to_string()));
                }
                Err(_) if Instant::now() > deadline => {
                    return Err(self.failure("it does not answer"));
                }
                _ => sleep(LOOK).await,
            }
        }
    }

    /// A fast shutdown, and where that takes too long an immediate one.
    pub(super) async fn stop(&mut self) -> anyhow::Result<()> {
        for how in [Signal::INT, Signal::QUIT] {
            self.signal(how);
            if let Ok(status) = timeout(STOP, self.child.wait()).await {
                status.context("PostgreSQL's end")?;
                return Ok(());
            }
        }
        self.child.kill().await.context("PostgreSQL does not stop")
    }

    fn signal(&self, signal: Signal) {
        // The child has not been waited for while it has an id, so the number is still its own.
        let id = self.child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        if let Some(id) = id {
            // Fails only where it has ended already.
            let _ = kill_process(id, signal);
        }
    }

    fn failure(&self, reason: &str) -> anyhow::Error {
        let text = self.log_text();
        let lines: Vec<&str> = text.lines().collect();
        let end = lines[lines.len().saturating_sub(10)..].join("\n");
        anyhow!(
            "{} did not start: {reason}; {} ends with:\n{end}",
            self.program.display(),
            self.log.display()
        )
    }

    fn log_text(&self) -> String {
        let bytes = fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.signal(Signal::INT);
    }
}

async fn answer(options: &PgConnectOptions) -> sqlx::Result<()> {
    let mut connection = options.connect().await?;
    sqlx::query("SELECT 1").execute(&mut connection).await?;
    connection.close().await
}
