//! The system under test: the real program, as one process and as four, on a real Postgres.

use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{LazyLock, OnceLock};

use muster::scim_client::ScimClient;
use muster_proto::approver::v1::approver_service_client::ApproverServiceClient;
use muster_proto::group::v1::group_service_client::GroupServiceClient;
use muster_proto::identity::v1::api_key_service_client::ApiKeyServiceClient;
use muster_proto::identity::v1::organisation_service_client::OrganisationServiceClient;
use muster_proto::identity::v1::user_service_client::UserServiceClient;
use muster_proto::identity::v1::{
    ApiKey, CreateApiKeyRequest, CreateOrganisationRequest, Organisation, UnknownMembers,
    UpdateOrganisationRequest,
};
use muster_runtime::transport::Transport;

use super::process::{MUSTER, Process};
use super::tls;

/// A running composition of Muster.
pub(crate) struct System {
    /// For messages of failed tests.
    pub(crate) name: &'static str,
    pub(crate) scim_url: String,
    pub(crate) identity_url: String,
    pub(crate) group_url: String,
    pub(crate) approver_url: String,
    /// The folder of the Postgres that everything-in-one brought up.
    data_dir: PathBuf,
    pub(crate) database: String,
    processes: Vec<Process>,
    /// Variables of the parts.
    settings: Vec<(&'static str, &'static str)>,
    /// Whether the parts talk over mutual TLS.
    tls: bool,
}

/// Everything in one process, shared by all tests.
pub(crate) fn together() -> &'static System {
    static TOGETHER: LazyLock<System> = LazyLock::new(System::start_together);
    &TOGETHER
}

/// Four processes over mutual TLS, shared by all tests. Their Postgres is the other system's, another database.
pub(crate) fn apart() -> &'static System {
    static APART: LazyLock<System> = LazyLock::new(|| System::start_mutual("apart", &[]));
    &APART
}

/// Both compositions.
pub(crate) fn both() -> [&'static System; 2] {
    [together(), apart()]
}

/// An organisation of a test's own.
pub(crate) struct Tenant {
    pub(crate) id: String,
    pub(crate) client: ScimClient,
}

impl System {
    fn start_together() -> Self {
        let folder = scratch().join("together");
        let data_dir = folder.to_str().unwrap();
        let mut args = vec!["--empty", "--listen", "127.0.0.1:0", "--grpc-listen", "127.0.0.1:0"];
        args.extend(["--data-dir", data_dir]);
        let process = Process::start("everything", &args, &["SCIM base URL", "gRPC"]);
        let grpc = format!("http://{}", process.told[1]);
        Self {
            name: "one process",
            scim_url: process.told[0].clone(),
            identity_url: grpc.clone(),
            group_url: grpc.clone(),
            approver_url: grpc,
            data_dir: folder,
            database: "muster".into(),
            processes: vec![process],
            settings: Vec::new(),
            tls: false,
        }
    }

    /// Four processes on a database of that name.
    pub(crate) fn start_apart(database: &str) -> Self {
        Self::start_apart_with(database, &[])
    }

    /// Four processes on a database of that name, all with these variables. They talk in
    /// plain text, so that something can stand between them.
    pub(crate) fn start_apart_with(
        database: &str,
        settings: &[(&'static str, &'static str)],
    ) -> Self {
        Self::start_four(database, settings, false)
    }

    /// The same over mutual TLS.
    pub(crate) fn start_mutual(database: &str, settings: &[(&'static str, &'static str)]) -> Self {
        Self::start_four(database, settings, true)
    }

    fn start_four(database: &str, settings: &[(&'static str, &'static str)], tls: bool) -> Self {
        let data_dir = together().data_dir.clone();
        let mut this = Self {
            name: "four processes",
            scim_url: String::new(),
            identity_url: String::new(),
            group_url: String::new(),
            approver_url: String::new(),
            data_dir,
            database: database.to_owned(),
            processes: Vec::new(),
            settings: settings.to_vec(),
            tls,
        };
        let psql_url = this.url_of("postgres", "postgres");
        run_sql(&psql_url, &format!("CREATE DATABASE {database}"));
        let output = Command::new(MUSTER)
            .args(["migrate", "--database-url", &this.database_url("postgres")])
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        this.identity_url = this.start_part("identity", "muster_identity");
        this.group_url = this.start_part("group", "muster_group");
        this.approver_url = this.start_part("approver", "muster_approver");
        let args = [
            "gateway",
            "--listen",
            "127.0.0.1:0",
            "--identity-url",
            &this.identity_url,
            "--group-url",
            &this.group_url,
            "--approver-url",
            &this.approver_url,
        ];
        let mut variables = this.variables("gateway");
        variables.extend(settings);
        let gateway = Process::start_as(MUSTER, "gateway", &args, &["SCIM base URL"], &variables);
        this.scim_url.clone_from(&gateway.told[0]);
        this.processes.push(gateway);
        this
    }

    /// Starts a service on a port of its own choice, or on the one that it had.
    fn start_part(&mut self, part: &'static str, role: &str) -> String {
        let earlier = match part {
            "group" => &self.group_url,
            "approver" => &self.approver_url,
            _ => &self.identity_url,
        };
        let listen = earlier.split_once("://").map_or("127.0.0.1:0", |(_, address)| address);
        let listen = listen.to_owned();
        self.start_service(part, role, &listen, &self.identity_url.clone())
    }

    /// Starts another of a service beside the one that runs; its address.
    pub(crate) fn replica(&mut self, part: &'static str) -> String {
        let identity_url = self.identity_url.clone();
        self.start_service(part, &format!("muster_{part}"), "127.0.0.1:0", &identity_url)
    }

    /// Starts a service in the place of the one that ran, with identity elsewhere.
    pub(crate) fn restart_with_identity(&mut self, part: &'static str, identity_url: &str) {
        let url = if part == "group" { &self.group_url } else { &self.approver_url };
        let listen = url.strip_prefix("http://").unwrap().to_owned();
        self.start_service(part, &format!("muster_{part}"), &listen, identity_url);
    }

    fn start_service(
        &mut self,
        part: &'static str,
        role: &str,
        listen: &str,
        identity_url: &str,
    ) -> String {
        let database_url = self.database_url(role);
        let mut args = vec![part, "--grpc-listen", listen, "--database-url", &database_url];
        if part != "identity" {
            args.extend(["--identity-url", identity_url]);
        }
        let mut variables = self.variables(part);
        variables.extend(&self.settings);
        let process = Process::start_as(MUSTER, part, &args, &["gRPC address"], &variables);
        let scheme = if self.tls { "https" } else { "http" };
        let url = format!("{scheme}://{}", process.told[0]);
        self.processes.push(process);
        url
    }

    /// How a part is to talk with others.
    fn variables(&self, part: &str) -> Vec<(&'static str, &'static str)> {
        if !self.tls {
            return vec![("MUSTER_PLAIN_TEXT", "true")];
        }
        let mut variables = tls::variables(part);
        let policy = tls::certificates().join("policy.toml").to_str().unwrap().to_owned();
        if part != "gateway" {
            variables.push(("MUSTER_POLICY", policy));
        }
        variables.into_iter().map(|(name, value)| (name, &*value.leak())).collect()
    }

    /// Kills a part at once, as a crash would.
    pub(crate) fn kill(&mut self, part: &str) {
        let at = self.processes.iter().position(|process| process.part == part).unwrap();
        self.processes.remove(at).kill();
    }

    /// Starts a part again that was killed.
    pub(crate) fn restart(&mut self, part: &'static str) {
        self.start_part(part, &format!("muster_{part}"));
    }

    /// The process of a part.
    pub(crate) fn process(&self, part: &str) -> &Process {
        self.processes.iter().find(|process| process.part == part).unwrap()
    }

    /// The process id of a part.
    pub(crate) fn pid(&self, part: &str) -> &str {
        &self.process(part).pid
    }

    /// What the database server has written to its log so far.
    pub(crate) fn database_log(&self) -> String {
        let bytes = std::fs::read(self.data_dir.join("postgres.log")).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// How a role reaches the database.
    pub(crate) fn database_url(&self, role: &str) -> String {
        self.url_of(role, &self.database)
    }

    fn url_of(&self, role: &str, database: &str) -> String {
        let socket = self.data_dir.join("socket");
        let host = socket.to_str().unwrap().replace('/', "%2F");
        format!("postgres://{role}@localhost/{database}?host={host}")
    }

    /// A new organisation with a key.
    pub(crate) async fn tenant(&self) -> Tenant {
        self.tenant_that(UnknownMembers::LeaveOut).await
    }

    /// A new organisation that treats unknown members so.
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
        let organisations = OrganisationServiceClient::new(self.identity());
        let id = organisations.clone().create_organisation(request).await.unwrap().into_inner().id;
        let key = ApiKey { organisation_id: id.clone(), label: "test".into(), ..ApiKey::default() };
        let request =
            CreateApiKeyRequest { api_key: Some(key), actor: None, client_address: String::new() };
        let mut keys = ApiKeyServiceClient::new(self.identity());
        let secret = keys.create_api_key(request).await.unwrap().into_inner().secret;
        let client = ScimClient::new(&self.scim_url, format!("Static {secret}")).unwrap();
        Tenant { id, client }
    }

    /// Makes an organisation what is given; what is not set goes back to its default.
    pub(crate) async fn update(&self, organisation: Organisation) {
        let request = UpdateOrganisationRequest {
            organisation: Some(organisation),
            ..UpdateOrganisationRequest::default()
        };
        let mut organisations = OrganisationServiceClient::new(self.identity());
        organisations.update_organisation(request).await.unwrap();
    }

    /// Suspends an organisation.
    pub(crate) async fn suspend(&self, organisation_id: &str) {
        self.update(Organisation {
            id: organisation_id.to_owned(),
            display_name: "Suspended".into(),
            suspended: true,
            ..Organisation::default()
        })
        .await;
    }

    /// Scheme and authority of every page.
    pub(crate) fn origin(&self) -> &str {
        self.scim_url.strip_suffix("/scim/v2").unwrap()
    }

    pub(crate) fn identity(&self) -> Transport {
        tls::connect(&self.identity_url)
    }

    pub(crate) fn users(&self) -> UserServiceClient<Transport> {
        UserServiceClient::new(self.identity())
    }

    pub(crate) fn groups(&self) -> GroupServiceClient<Transport> {
        GroupServiceClient::new(tls::connect(&self.group_url))
    }

    pub(crate) fn approvers(&self) -> ApproverServiceClient<Transport> {
        ApproverServiceClient::new(tls::connect(&self.approver_url))
    }

    /// What the processes have written to their logs so far.
    pub(crate) fn logs(&self) -> String {
        self.processes.iter().map(Process::log).collect()
    }
}

/// Runs a statement in psql's place.
pub(crate) fn run_sql(url: &str, statement: &str) {
    let (url, statement) = (url.to_owned(), statement.to_owned());
    // A runtime of its own: this is called in and outside of tests' runtimes.
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};
            let mut connection = PgConnection::connect(&url).await.unwrap();
            connection.execute(AssertSqlSafe(statement)).await.unwrap();
            connection.close().await.unwrap();
        });
    })
    .join()
    .unwrap();
}

/// The folder that everything is built in.
pub(crate) fn target() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().to_owned()
}

/// A folder for this run's files, made anew. Those of runs that have ended are there for whoever asks
/// why one failed, until the next one begins.
pub(crate) fn scratch() -> PathBuf {
    static SCRATCH: OnceLock<PathBuf> = OnceLock::new();
    SCRATCH
        .get_or_init(|| {
            let runs = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
            for run in std::fs::read_dir(&runs).into_iter().flatten().flatten() {
                if let Some(process) = run.file_name().to_string_lossy().strip_prefix("e2e-")
                    && !PathBuf::from("/proc").join(process).exists()
                {
                    drop(std::fs::remove_dir_all(run.path()));
                }
            }
            let folder = runs.join(format!("e2e-{}", std::process::id()));
            std::fs::create_dir_all(&folder).unwrap();
            folder
        })
        .clone()
}
