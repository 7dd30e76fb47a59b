//! The group service: groups, memberships, and the feed of their changes. It follows identity, so
//! that a deleted user leaves every group; it knows nothing of SCIM JSON and HTTP.

mod error;
mod group;
mod grpc;
mod store;
mod writes;

use muster_follower::{Follower, Users};
use muster_proto::group::v1::group_service_server::GroupServiceServer;
use muster_runtime::feed::{self, Feed};
use muster_runtime::gathering::Writes;
use muster_runtime::grpc::max_message_bytes;
use muster_runtime::life::Life;
use muster_runtime::postgres::{Database, Settings};
use muster_runtime::transport::Transport;
use tonic::service::Routes;

pub use error::Error;
use writes::Writer;

/// The Postgres schema that the service owns.
pub const SCHEMA: &str = "groups";
/// The role that it logs in as.
pub const ROLE: &str = "muster_group";
/// Its tables.
pub static MIGRATOR: sqlx::migrate::Migrator = sqlx::migrate!();
/// The names that its health is reported under.
pub const SERVICES: &[&str] = &["muster.group.v1.GroupService"];

/// What the service's RPCs share.
#[derive(Debug, Clone)]
struct Groups {
    database: Database,
    feed: Feed,
    writer: Writer,
    writes: Writes<Writer>,
    follower: Follower<store::person::People>,
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
    let feed = Feed::open("group", database.clone(), life.clone(), feed).await?;
    let users = Users::new(identity.clone()).max_decoding_message_size(max_message_bytes());
    let follower = Follower::start(database.clone(), feed.clone(), identity, life);
    let writer = Writer { database: database.clone(), feed: feed.clone(), users };
    let writes = Writes::new(writer.clone(), life);
    let groups = Groups { database, feed, writer, writes, follower };
    Ok(Routes::new(GroupServiceServer::new(groups).max_decoding_message_size(max_message_bytes())))
}
