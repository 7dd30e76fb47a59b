//! The machine's PostgreSQL, and Muster on it: as one process, or as four with mutual TLS.

use std::fmt;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use clap::ValueEnum;
use muster_local_postgres::LocalPostgres;

/// What runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Composition {
    /// Everything in one process.
    One,
    /// Four processes that talk over mutual TLS.
    Four,
}

impl fmt::Display for Composition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::One => "one process",
            Self::Four => "four processes",
        })
    }
}

/// A database with everybody in it, which is kept.
pub(crate) struct Machine {
    postgres: LocalPostgres,
    folder: PathBuf,
    program: PathBuf,
}

/// Muster, running.
pub(crate) struct System {
    /// Host and port.
    pub(crate) address: String,
    processes: Vec<Process>,
    program: PathBuf,
    /// How an operator reaches identity.
    variables: Vec<(&'static str, String)>,
}

struct Process {
    part: &'static str,
    child: Child,
}

/// Resident memory of each process, in MiB.
pub(crate) type Memory = Vec<(&'static str, f64)>;

impl Machine {
    /// Starts PostgreSQL, with tables.
    pub(crate) async fn start(folder: &Path) -> anyhow::Result<Self> {
        let program = std::env::var_os("MUSTER").map(PathBuf::from);
        let program = program.context("MUSTER is the program to load: use cargo xtask bench")?;
        std::fs::create_dir_all(folder)?;
        let folder = folder.canonicalize()?;
        let postgres = LocalPostgres::start(&folder.join("data")).await?;
        let this = Self { postgres, folder, program };
        let mut migrate = Command::new(&this.program);
        migrate.args(["migrate", "--database-url", &this.url("postgres")]).stdout(Stdio::null());
        ensure!(migrate.status()?.success(), "the tables cannot be made");
        Ok(this)
    }

    /// How a role reaches the database.
    pub(crate) fn url(&self, role: &str) -> String {
        self.postgres.url(role, "muster")
    }

    /// The folder of PostgreSQL's socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.join("data/socket")
    }

    /// What pgbench runs.
    pub(crate) fn script(&self) -> PathBuf {
        self.folder.join("script.sql")
    }

    /// Where files of a run may be.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Runs the server that does what the last script for pgbench does, on so many users.
    pub(crate) fn floor(&self, users: u32) -> anyhow::Result<System> {
        let mut system = System {
            address: String::new(),
            processes: Vec::new(),
            program: std::env::current_exe()?,
            variables: Vec::new(),
        };
        let (script, url) = (self.script(), self.url("postgres"));
        let script = script.to_str().context("a folder in UTF-8")?;
        let users = users.to_string();
        let args = ["serve", "--script", script, "--database-url", &url, "--users", &users];
        system.address = host(&system.start("floor", &args, &["SCIM base URL"], &[])?[0])?;
        Ok(system)
    }

    /// Runs Muster with these variables.
    pub(crate) fn run(
        &self,
        composition: Composition,
        variables: &[(&str, &str)],
    ) -> anyhow::Result<System> {
        let mut system = System {
            address: String::new(),
            processes: Vec::new(),
            program: self.program.clone(),
            variables: Vec::new(),
        };
        match composition {
            Composition::One => {
                let database = self.url("postgres");
                let data = self.folder.join("one");
                let data = data.to_str().context("a folder in UTF-8")?;
                let args = ["--empty", "--listen", "127.0.0.1:0", "--grpc-listen", "127.0.0.1:0"];
                let more = ["--database-url", &database, "--data-dir", data];
                let args = [&args[..], &more].concat();
                let told =
                    system.start("everything", &args, &["SCIM base URL", "gRPC"], variables)?;
                system.address = host(&told[0])?;
                system.variables.push(("MUSTER_IDENTITY_URL", format!("http://{}", told[1])));
                system.variables.push(("MUSTER_GROUP_URL", format!("http://{}", told[1])));
                system.variables.push(("MUSTER_APPROVER_URL", format!("http://{}", told[1])));
            }
            Composition::Four => {
                let certificates = self.folder.join("certificates");
                if !certificates.exists() {
                    let mut make = Command::new(&self.program);
                    make.args(["certificates", "--out"]).arg(&certificates).stdout(Stdio::null());
                    ensure!(make.status()?.success(), "the certificates cannot be made");
                }
                let file = |name: &str| certificates.join(name).to_string_lossy().into_owned();
                let tls = |name: &str| {
                    [
                        ("MUSTER_TLS_CERTIFICATE", file(&format!("{name}.pem"))),
                        ("MUSTER_TLS_KEY", file(&format!("{name}.key"))),
                        ("MUSTER_TLS_CA", file("ca.pem")),
                    ]
                };
                let mut urls = Vec::new();
                for part in ["identity", "group", "approver"] {
                    let database = self.url(&format!("muster_{part}"));
                    let mut args =
                        vec![part, "--grpc-listen", "127.0.0.1:0", "--database-url", &database];
                    let identity: Option<&String> = urls.first();
                    if let Some(identity) = identity {
                        args.extend(["--identity-url", identity]);
                    }
                    let mut all = tls(part).to_vec();
                    all.push(("MUSTER_POLICY", file("policy.toml")));
                    let all: Vec<(&str, &str)> =
                        all.iter().map(|(n, v)| (*n, v.as_str())).collect();
                    let all = [&all[..], variables].concat();
                    let told = system.start(part, &args, &["gRPC address"], &all)?;
                    urls.push(format!("https://{}", told[0]));
                }
                let args = ["gateway", "--listen", "127.0.0.1:0", "--identity-url", &urls[0]];
                let more = ["--group-url", &urls[1], "--approver-url", &urls[2]];
                let gateway = tls("gateway");
                let all: Vec<(&str, &str)> =
                    gateway.iter().map(|(n, v)| (*n, v.as_str())).collect();
                let all = [&all[..], variables].concat();
                let args = [&args[..], &more].concat();
                let told = system.start("gateway", &args, &["SCIM base URL"], &all)?;
                system.address = host(&told[0])?;
                system.variables.extend(tls("operator"));
                for (name, url) in
                    ["MUSTER_IDENTITY_URL", "MUSTER_GROUP_URL", "MUSTER_APPROVER_URL"]
                        .into_iter()
                        .zip(urls)
                {
                    system.variables.push((name, url));
                }
            }
        }
        Ok(system)
    }

    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        self.postgres.stop().await
    }
}

/// The host and port of a URL.
fn host(url: &str) -> anyhow::Result<String> {
    let rest = url.strip_prefix("http://").context("a gateway speaks HTTP")?;
    Ok(rest.split('/').next().unwrap_or_default().to_owned())
}

impl System {
    /// Starts a process and waits until it has told each of `names`.
    fn start(
        &mut self,
        part: &'static str,
        args: &[&str],
        names: &[&str],
        variables: &[(&str, &str)],
    ) -> anyhow::Result<Vec<String>> {
        let mut child = Command::new(&self.program)
            .args(args)
            .env("MUSTER_DRAIN_DELAY", "0")
            .env_remove("DATABASE_URL")
            .envs(variables.iter().copied())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut lines = BufReader::new(child.stdout.take().context("it has a pipe")?).lines();
        self.processes.push(Process { part, child });
        let mut told = vec![String::new(); names.len()];
        while told.iter().any(String::is_empty) {
            let Some(Ok(line)) = lines.next() else { bail!("{part} ended before it was up") };
            if let Some((name, value)) = line.trim().split_once("  ")
                && let Some(at) = names.iter().position(|wanted| *wanted == name.trim())
            {
                value.trim().clone_into(&mut told[at]);
            }
        }
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        Ok(told)
    }

    /// What an operator's command prints.
    pub(crate) fn operate(&self, args: &[&str]) -> anyhow::Result<String> {
        let mut command = Command::new(&self.program);
        let output = command.args(args).envs(self.variables.iter().cloned()).output()?;
        let wrong = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "muster {}: {wrong}", args.join(" "));
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    }

    /// That what was written is right.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        self.operate(&["check"]).map(|told| eprintln!("muster check: {told}"))
    }

    /// How long the processes have had a core, altogether.
    pub(crate) fn cpu(&self) -> Duration {
        // In hundredths of a second, as Linux counts for everybody.
        let ticks: u64 = self.processes.iter().filter_map(Process::ticks).sum();
        Duration::from_millis(ticks * 10)
    }

    /// How much memory each has.
    pub(crate) fn memory(&self) -> Memory {
        let of = |process: &Process| Some((process.part, process.status("VmRSS:")?));
        self.processes.iter().filter_map(of).collect()
    }

    /// Begins to look anew for the most memory that there was.
    pub(crate) fn forget_peak(&self) -> anyhow::Result<()> {
        for process in &self.processes {
            std::fs::write(format!("/proc/{}/clear_refs", process.child.id()), "5")?;
        }
        Ok(())
    }

    /// The most memory that a process has had, in MiB.
    pub(crate) fn peak(&self) -> Option<f64> {
        self.processes.iter().filter_map(|p| p.status("VmHWM:")).max_by(f64::total_cmp)
    }

    /// The URL of identity's gRPC.
    pub(crate) fn identity(&self) -> &str {
        let identity = self.variables.iter().find(|(name, _)| *name == "MUSTER_IDENTITY_URL");
        identity.map_or("", |(_, url)| url)
    }

    pub(crate) fn stop(mut self) -> anyhow::Result<()> {
        self.processes.reverse();
        for process in &mut self.processes {
            Command::new("kill").arg(process.child.id().to_string()).status()?;
            process.child.wait()?;
        }
        Ok(())
    }
}

impl Drop for System {
    fn drop(&mut self) {
        for process in &mut self.processes {
            drop(process.child.kill());
        }
    }
}

impl Process {
    fn ticks(&self) -> Option<u64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).ok()?;
        // Behind the name, which may hold anything: state is the third field, times the 14th and 15th.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        Some(fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?)
    }

    /// A line of what Linux tells of its memory, in MiB.
    fn status(&self, name: &str) -> Option<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        Some(line.trim().trim_end_matches(" kB").parse::<f64>().ok()? / 1024.0)
    }
}
