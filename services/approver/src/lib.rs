//! The approver service: who approves for whom, by the six rules of `docs/approvers.md`. It follows
//! identity, and knows nothing of SCIM JSON and HTTP.

mod declaration;
mod error;
mod grpc;
mod store;

use std::time::Duration;

use muster_follower::Follower;
use muster_proto::approver::v1::approver_service_server::ApproverServiceServer;
use muster_runtime::feed::{self, Feed};
use muster_runtime::gathering::Reads;
use muster_runtime::grpc::max_message_bytes;
use muster_runtime::id::{OrganisationId, UserId};
use muster_runtime::life::Life;
use muster_runtime::postgres::{Database, Settings};
use muster_runtime::transport::Transport;
use tonic::service::Routes;

pub use error::Error;
use store::approver::State;

/// The Postgres schema that the service owns.
pub const SCHEMA: &str = "approver";
/// The role that it logs in as.
pub const ROLE: &str = "muster_approver";
/// Its tables.
pub static MIGRATOR: sqlx::migrate::Migrator = sqlx::migrate!();
/// The names that its health is reported under.
pub const SERVICES: &[&str] = &["muster.approver.v1.ApproverService"];

/// What the service's RPCs share.
#[derive(Debug, Clone)]
struct Approvers {
    database: Database,
    feed: Feed,
    follower: Follower<store::person::People>,
    /// How users are known, asked by those who wait for one.
    states: Reads<OrganisationId, UserId, State, sqlx::Error>,
    /// Whether anybody declared an address, by its key, asked by those who wait for a new user.
    declared: Reads<OrganisationId, String, (), sqlx::Error>,
}

/// Connects to the database, begins to follow identity and returns the service to serve.
pub async fn start(
    database: &Settings,
    feed: feed::Settings,
    identity: Transport,
    life: &Life,
) -> Result<Routes, sqlx::Error> {
    let database = Database::connect(database, life).await?;
    database.migrated(MIGRATOR.iter().map(|migration| migration.version).max()).await?;
    let feed = Feed::open("approver", database.clone(), life.clone(), feed).await?;
    let follower = Follower::start(database.clone(), feed.clone(), identity, life);
    let (states, declared) = (states(database.clone()), declared(database.clone()));
    let approvers = Approvers { database, feed, follower, states, declared };
    Ok(Routes::new(
        ApproverServiceServer::new(approvers).max_decoding_message_size(max_message_bytes()),
    ))
}

/// The most users in one statement.
const LARGEST: usize = 100;
/// As long as a statement may take.
const PATIENCE: Duration = Duration::from_secs(5);

fn states(database: Database) -> Reads<OrganisationId, UserId, State, sqlx::Error> {
    Reads::new(LARGEST, PATIENCE, move |organisation, users: Vec<UserId>| {
        let database = database.clone();
        async move {
            let states = database.point(organisation, move |c| {
                Box::pin(store::approver::states(c, organisation, users, Vec::new(), true))
            });
            Ok(states.await?.into_iter().collect())
        }
    })
}

fn declared(database: Database) -> Reads<OrganisationId, String, (), sqlx::Error> {
    Reads::new(LARGEST, PATIENCE, move |organisation, keys: Vec<String>| {
        let database = database.clone();
        async move {
            let declared = database.point(organisation, move |c| {
                Box::pin(store::declaration::declared(c, organisation, keys))
            });
            Ok(declared.await?.into_iter().map(|key| (key, ())).collect())
        }
    })
}
