//! Two replicas of every part on a Postgres of their own, with proxies on every way between them:
//! what faults are made in.

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use muster_local_postgres::LocalPostgres;
use muster_proto::identity::v1::api_key_service_client::ApiKeyServiceClient;
use muster_proto::identity::v1::organisation_service_client::OrganisationServiceClient;
use muster_proto::identity::v1::{
    ApiKey, CreateApiKeyRequest, CreateOrganisationRequest, Organisation, UnknownMembers,
};
use muster_runtime::transport::Transport;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tokio::sync::Mutex;

use super::proxy::{Proxy, Target};
use crate::support::process::{MUSTER, Process};
use crate::support::system::scratch;

/// What clients take for the address of every gateway.
pub(crate) const PUBLIC_URL: &str = "http://muster.test";

/// The parts, in the order that they start in.
pub(crate) const PARTS: [&str; 4] = ["identity", "group", "approver", "gateway"];

/// Replicas of every part on one Postgres.
pub(crate) struct Cluster {
    pub(crate) replicas: Vec<Replica>,
    database: Mutex<Option<LocalPostgres>>,
    data_dir: PathBuf,
    program: String,
    /// What every process has beside the test's own variables.
    variables: Vec<(String, String)>,
    /// Ends Postgres where this process is killed; held open until then.
    watchdog: Child,
}

/// One of every part. Each talks to its own neighbours only.
pub(crate) struct Replica {
    pub(crate) scim_url: String,
    /// Between the services and Postgres.
    pub(crate) to_database: Proxy,
    /// Between callers and the parts, by place in [`PARTS`].
    pub(crate) to_service: Vec<Proxy>,
    /// By place in [`PARTS`]; none while it is down.
    processes: Vec<Mutex<Option<Process>>>,
}

/// An organisation, and the key of its client.
#[derive(Debug, Clone)]
pub(crate) struct Tenant {
    pub(crate) id: String,
    pub(crate) key: String,
}

impl Cluster {
    /// Starts `count` replicas of a build of the program.
    pub(crate) async fn start(count: usize) -> Self {
        Self::start_as(MUSTER, count, &[]).await
    }

    /// Starts them of another build of the program, with other variables.
    pub(crate) async fn start_as(program: &str, count: usize, variables: &[(&str, &str)]) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let name = format!("cluster-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let data_dir = scratch().join(name);
        let postgres = LocalPostgres::start(&data_dir).await.unwrap();
        let output = Command::new(program)
            .args(["migrate", "--database-url", &postgres.url("postgres", "muster")])
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        let mut this = Self {
            replicas: Vec::new(),
            database: Mutex::new(Some(postgres)),
            watchdog: watchdog(&data_dir),
            data_dir,
            program: program.into(),
            variables: owned(variables),
        };
        for _ in 0..count {
            let replica = this.start_replica(None).await;
            this.replicas.push(replica);
        }
        this
    }

    /// Starts one replica of every part, each of which tells of its health at an address.
    pub(crate) async fn start_with_health(addresses: &[String]) -> Self {
        let mut this = Self::start(0).await;
        let replica = this.start_replica(Some(addresses)).await;
        this.replicas.push(replica);
        this
    }

    async fn start_replica(&self, health: Option<&[String]>) -> Replica {
        let socket = self.data_dir.join("socket").join(".s.PGSQL.5432");
        let mut to_service = Vec::new();
        for _ in PARTS {
            to_service.push(Proxy::start(Target::Nowhere).await);
        }
        let replica = Replica {
            scim_url: format!("http://{}/scim/v2", to_service[place("gateway")].address),
            to_database: Proxy::start(Target::Unix(socket)).await,
            to_service,
            processes: PARTS.iter().map(|_| Mutex::new(None)).collect(),
        };
        for (at, part) in PARTS.into_iter().enumerate() {
            let health = health.map(|health| ("MUSTER_HEALTH_LISTEN", &*health[at]));
            self.start_part(&replica, part, health.as_slice()).await;
        }
        replica
    }

    /// Starts a part that is down, with further variables.
    pub(crate) async fn start_part(
        &self,
        replica: &Replica,
        part: &'static str,
        variables: &[(&str, &str)],
    ) {
        let at = place(part);
        let mut slot = replica.processes[at].lock().await;
        if slot.is_some() {
            return;
        }
        let url = |part: &str| replica.url(part);
        let database = replica.to_database.address;
        let database = format!("postgres://muster_{part}@{database}/muster?sslmode=disable");
        let (identity, group, approver) = (url("identity"), url("group"), url("approver"));
        let mut args = vec![part, "--plain-text"];
        let name = if part == "gateway" {
            args.extend(["--listen", "127.0.0.1:0", "--public-url", PUBLIC_URL]);
            args.extend(["--identity-url", &identity, "--group-url", &group]);
            args.extend(["--approver-url", &approver, "--trust-traceparent"]);
            "HTTP address"
        } else {
            args.extend(["--grpc-listen", "127.0.0.1:0", "--database-url", &database]);
            if part != "identity" {
                args.extend(["--identity-url", &identity]);
            }
            "gRPC address"
        };
        let program = self.program.clone();
        let args: Vec<String> = args.into_iter().map(str::to_owned).collect();
        let mut variables = owned(variables);
        variables.extend(self.variables.clone());
        // It waits for the part, which comes up through the proxies of this runtime.
        let starting = tokio::task::spawn_blocking(move || {
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            let variables: Vec<(&str, &str)> =
                variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            Process::start_as(&program, part, &args, &[name], &variables)
        });
        let started = starting.await.unwrap();
        replica.to_service[at].lead_to(Target::Tcp(started.told[0].clone()));
        *slot = Some(started);
    }

    /// Ends Postgres as a crash does, and starts it again.
    pub(crate) async fn crash_database(&self) {
        let mut database = self.database.lock().await;
        let file = self.data_dir.join("postgres").join("postmaster.pid");
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        if let Some(pid) = text.lines().next() {
            drop(Command::new("kill").args(["-QUIT", pid.trim()]).status());
        }
        if let Some(old) = database.take() {
            // What is left of it is waited for here.
            drop(old.stop().await);
        }
        *database = Some(LocalPostgres::start(&self.data_dir).await.unwrap());
    }

    /// Takes a base backup of the database while it is written to; the folder that it is in.
    ///
    /// PostgreSQL's manual, *Making a Base Backup Using the Low Level API*.
    pub(crate) async fn back_up(&self) -> PathBuf {
        let (from, to) = (self.data_dir.join("postgres"), self.data_dir.join("backup"));
        let mut session = self.sql().await;
        let begin = "SELECT pg_backup_start('test', true)::text";
        sqlx::query(begin).execute(&mut session).await.unwrap();
        // Files that are gone again before they are copied are none of the backup's.
        drop(Command::new("cp").arg("-a").args([&from, &to]).stderr(Stdio::null()).status());
        let end = "SELECT labelfile FROM pg_backup_stop(false)";
        let label: String = sqlx::query_scalar(end).fetch_one(&mut session).await.unwrap();
        std::fs::write(to.join("backup_label"), label).unwrap();
        std::fs::remove_file(to.join("postmaster.pid")).unwrap();
        let mut log = Command::new("cp");
        log.arg("-a").arg(from.join("pg_wal/.")).arg(to.join("pg_wal"));
        assert!(log.status().unwrap().success());
        to
    }

    /// Ends Postgres and starts it from a backup. Nothing else is told.
    pub(crate) async fn restore(&self, backup: &Path) {
        let mut database = self.database.lock().await;
        if let Some(running) = database.take() {
            running.stop().await.unwrap();
        }
        let folder = self.data_dir.join("postgres");
        std::fs::remove_dir_all(&folder).unwrap();
        std::fs::rename(backup, &folder).unwrap();
        *database = Some(LocalPostgres::start(&self.data_dir).await.unwrap());
    }

    /// A connection of the database's owner, past every proxy.
    pub(crate) async fn sql(&self) -> PgConnection {
        let database = self.database.lock().await;
        let url = database.as_ref().unwrap().url("postgres", "muster");
        PgConnection::connect(&url).await.unwrap()
    }

    /// How many changes an organisation's feed has in a schema.
    pub(crate) async fn head(&self, schema: &str, organisation: &str) -> usize {
        let head = format!(
            "SELECT coalesce(max(sequence), 0) FROM {schema}.change
              WHERE organisation_id = '{organisation}'"
        );
        let mut connection = self.sql().await;
        let head: i64 =
            sqlx::query_scalar(AssertSqlSafe(head)).fetch_one(&mut connection).await.unwrap();
        usize::try_from(head).unwrap()
    }

    /// How many rows a table has.
    pub(crate) async fn count(&self, table: &str) -> i64 {
        let count = AssertSqlSafe(format!("SELECT count(*) FROM {table}"));
        sqlx::query_scalar(count).fetch_one(&mut self.sql().await).await.unwrap()
    }

    /// A new organisation that treats unknown members so, with a key.
    pub(crate) async fn tenant_that(&self, unknown_members: UnknownMembers) -> Tenant {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let slug = format!("tenant-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let organisation = Organisation {
            slug: slug.clone(),
            display_name: slug,
            unknown_members: unknown_members.into(),
            ..Organisation::default()
        };
        let request = CreateOrganisationRequest { organisation: Some(organisation) };
        let identity = self.replicas[0].channel("identity");
        let mut organisations = OrganisationServiceClient::new(identity.clone());
        let id = organisations.create_organisation(request).await.unwrap().into_inner().id;
        let key = ApiKey { organisation_id: id.clone(), label: "test".into(), ..ApiKey::default() };
        let request =
            CreateApiKeyRequest { api_key: Some(key), actor: None, client_address: String::new() };
        let mut keys = ApiKeyServiceClient::new(identity);
        let key = keys.create_api_key(request).await.unwrap().into_inner().secret;
        Tenant { id, key }
    }

    /// Waits until the followers have taken every change of identity.
    pub(crate) async fn drain(&self) -> Result<(), String> {
        let deadline = Instant::now() + Duration::from_mins(1);
        let behind = "SELECT count(*) FROM (SELECT organisation_id, max(sequence) AS head
                        FROM identity.change GROUP BY organisation_id) AS feed
                       WHERE head > coalesce((SELECT sequence FROM groups.cursor AS c
                                        WHERE c.organisation_id = feed.organisation_id), 0)
                          OR head > coalesce((SELECT sequence FROM approver.cursor AS c
                                        WHERE c.organisation_id = feed.organisation_id), 0)";
        let mut connection = self.sql().await;
        loop {
            let count: i64 = sqlx::query_scalar(behind).fetch_one(&mut connection).await.unwrap();
            if count == 0 {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(format!(
                    "{count} organisations are not followed to the end after 60 s"
                ));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// What every process has written to its log.
    pub(crate) async fn logs(&self) -> String {
        let mut logs = String::new();
        for replica in &self.replicas {
            for process in &replica.processes {
                if let Some(process) = process.lock().await.as_ref() {
                    logs.push_str(&process.log());
                }
            }
        }
        logs
    }

    /// Stops everything.
    pub(crate) async fn stop(mut self) {
        for replica in &self.replicas {
            for part in PARTS {
                replica.kill(part).await;
            }
        }
        if let Some(postgres) = self.database.lock().await.take() {
            postgres.stop().await.unwrap();
        }
        drop(self.watchdog.stdin.take());
        drop(self.watchdog.wait());
        drop(std::fs::remove_dir_all(&self.data_dir));
    }
}

impl Replica {
    /// Where a service is, through its proxy.
    pub(crate) fn url(&self, part: &str) -> String {
        format!("http://{}", self.to_service[place(part)].address)
    }

    /// Calls to it.
    pub(crate) fn channel(&self, part: &str) -> Transport {
        Transport::connect(&self.url(part)).unwrap()
    }

    /// Ends a part at once; whether it was up.
    pub(crate) async fn kill(&self, part: &str) -> bool {
        let process = self.processes[place(part)].lock().await.take();
        let was_up = process.is_some();
        if let Some(process) = process {
            process.kill();
        }
        was_up
    }

    /// Whether a part ended by itself.
    pub(crate) async fn is_dead(&self, part: &str) -> bool {
        let process = self.processes[place(part)].lock().await;
        process.as_ref().is_some_and(|process| !process.is_running())
    }

    /// Sends a part a signal, where it is up.
    pub(crate) async fn signal(&self, part: &str, signal: &str) {
        if let Some(process) = self.processes[place(part)].lock().await.as_ref() {
            process.signal(signal);
        }
    }
}

fn owned(variables: &[(&str, &str)]) -> Vec<(String, String)> {
    variables.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
}

pub(crate) fn place(part: &str) -> usize {
    PARTS.iter().position(|known| *known == part).expect("a part")
}

/// A shell that ends Postgres when this process is no longer there to do it. It has a process group
/// of its own, so that what ends this one from a terminal does not end it too.
fn watchdog(data_dir: &Path) -> Child {
    let script = "cat > /dev/null; exec 2> /dev/null; kill -QUIT $(head -n 1 \"$0\")";
    let file = data_dir.join("postgres").join("postmaster.pid");
    let mut shell = Command::new("sh");
    shell.args(["-c", script]).arg(file).stdin(Stdio::piped()).process_group(0);
    shell.spawn().unwrap()
}
