//! The identity service: organisations, their admins and API keys, users, the feed of user changes,
//! and the provisioning log. It knows nothing of SCIM JSON, HTTP, groups or approver rules.

pub mod content_region;
mod error;
mod grpc;
pub mod listed;
pub mod organisation;
mod password;
pub mod people_file;
pub mod provisioning_log;
pub mod secret;
pub mod session;
mod store;
pub mod user;
mod words;
mod writes;

use muster_proto::identity::v1::admin_service_server::AdminServiceServer;
use muster_proto::identity::v1::api_key_service_server::ApiKeyServiceServer;
use muster_proto::identity::v1::audit_service_server::AuditServiceServer;
use muster_proto::identity::v1::import_service_server::ImportServiceServer;
use muster_proto::identity::v1::organisation_service_server::OrganisationServiceServer;
use muster_proto::identity::v1::provisioning_log_service_server::ProvisioningLogServiceServer;
use muster_proto::identity::v1::report_service_server::ReportServiceServer;
use muster_proto::identity::v1::session_service_server::SessionServiceServer;
use muster_proto::identity::v1::user_service_server::UserServiceServer;
use muster_runtime::feed::{self, Feed};
use muster_runtime::gathering::Writes;
use muster_runtime::grpc::max_message_bytes;
use muster_runtime::life::Life;
use muster_runtime::postgres::{Database, Settings};
use tonic::service::Routes;

pub use error::Error;
use password::Passwords;
use writes::Writer;

/// The Postgres schema that the service owns.
pub const SCHEMA: &str = "identity";
/// The role that it logs in as.
pub const ROLE: &str = "muster_identity";
/// Its tables.
pub static MIGRATOR: sqlx::migrate::Migrator = sqlx::migrate!();
/// The names that its health is reported under.
pub const SERVICES: &[&str] = &[
    "muster.identity.v1.OrganisationService",
    "muster.identity.v1.AdminService",
    "muster.identity.v1.ApiKeyService",
    "muster.identity.v1.ProvisioningLogService",
    "muster.identity.v1.AuditService",
    "muster.identity.v1.SessionService",
    "muster.identity.v1.UserService",
    "muster.identity.v1.ImportService",
    "muster.identity.v1.ReportService",
];

/// What the service's RPCs share.
#[derive(Debug, Clone)]
struct Identity {
    database: Database,
    feed: Feed,
    passwords: Passwords,
    places: store::user::Places,
    writes: Writes<Writer>,
    life: Life,
}

/// Connects to the database and returns the services to serve. No more passwords are checked at once
/// than are said, or than there are cores.
pub async fn start(
    database: &Settings,
    feed: feed::Settings,
    log: provisioning_log::Settings,
    sign_ins_at_once: Option<usize>,
    life: &Life,
) -> Result<Routes, sqlx::Error> {
    let database = Database::connect(database, life).await?;
    database.migrated(MIGRATOR.iter().map(|migration| migration.version).max()).await?;
    let feed = Feed::open("identity", database.clone(), life.clone(), feed).await?;
    life.spawn(provisioning_log::prune_for_ever(database.clone(), log, life.clone()));
    life.spawn(words::index_for_ever(database.clone(), life.clone()));
    let passwords = Passwords::new(sign_ins_at_once);
    let places = store::user::Places::default();
    let writer = Writer { database: database.clone(), feed: feed.clone() };
    let writes = Writes::new(writer, life);
    let identity = Identity { database, feed, passwords, places, writes, life: life.clone() };
    Ok(Routes::new(OrganisationServiceServer::new(identity.clone()))
        .add_service(AdminServiceServer::new(identity.clone()))
        .add_service(ApiKeyServiceServer::new(identity.clone()))
        .add_service(AuditServiceServer::new(identity.clone()))
        .add_service(
            ProvisioningLogServiceServer::new(identity.clone())
                .max_decoding_message_size(max_message_bytes()),
        )
        .add_service(SessionServiceServer::new(identity.clone()))
        .add_service(ReportServiceServer::new(identity.clone()))
        .add_service(
            ImportServiceServer::new(identity.clone())
                .max_decoding_message_size(max_message_bytes()),
        )
        .add_service(
            UserServiceServer::new(identity).max_decoding_message_size(max_message_bytes()),
        ))
}
