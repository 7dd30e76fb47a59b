//! The approver service: who approves for whom, by the six rules of `docs/approvers.md`. It follows
//! identity, and knows nothing of SCIM JSON and HTTP.

mod declaration;
mod error;
mod grpc;
mod store;

use std::hash::Hash;
use std::time::Duration;

use muster_follower::Follower;
use muster_proto::approver::v1::approver_service_server::ApproverServiceServer;
use muster_runtime::BoxFuture;
use muster_runtime::feed::{self, Feed};
use muster_runtime::gathering::Reads;
use muster_runtime::grpc::max_message_bytes;
use muster_runtime::id::{OrganisationId, UserId};
use muster_runtime::life::Life;
use muster_runtime::postgres::{Database, Settings};
use muster_runtime::transport::Transport;
use sqlx::PgConnection;
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
    let states = reads(database.clone(), |c, organisation, users| {
        Box::pin(store::approver::states(c, organisation, users, Vec::new(), true))
    });
    let declared = reads(database.clone(), |c, organisation, keys| {
        Box::pin(async move {
            let declared = store::declaration::declared(c, organisation, keys).await?;
            Ok(declared.into_iter().map(|key| (key, ())).collect())
        })
    });
    let approvers = Approvers { database, feed, follower, states, declared };
    Ok(Routes::new(
        ApproverServiceServer::new(approvers).max_decoding_message_size(max_message_bytes()),
    ))
}

/// A statement that reads a `T` of each of several `I`: what there is.
type Statement<I, T> = for<'c> fn(
    &'c mut PgConnection,
    OrganisationId,
    Vec<I>,
) -> BoxFuture<'c, Result<Vec<(I, T)>, sqlx::Error>>;

/// Reads that are made together, a hundred at most, and waited for as long as a statement may take.
fn reads<I, T>(
    database: Database,
    statement: Statement<I, T>,
) -> Reads<OrganisationId, I, T, sqlx::Error>
where
    I: Clone + Eq + Hash + Send + 'static,
    T: Clone + Send + 'static,
{
    Reads::new(100, Duration::from_secs(5), move |organisation, ids| {
        let database = database.clone();
        async move {
            let found = database.point(organisation, move |c| statement(c, organisation, ids));
            Ok(found.await?.into_iter().collect())
        }
    })
}
