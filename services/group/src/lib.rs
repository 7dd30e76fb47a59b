//! The group service: groups, memberships, and the feed of their changes. It follows identity, so
//! that a deleted user leaves every group; it knows nothing of SCIM JSON and HTTP.

mod error;
mod group;
mod grpc;
mod store;

use muster_proto::group::v1::group_service_server::GroupServiceServer;
use muster_proto::identity::v1::user_service_client::UserServiceClient;
use muster_proto::identity::v1::{UserChange, WatchChangesRequest};
use muster_runtime::BoxFuture;
use muster_runtime::feed::{self, Feed};
use muster_runtime::follower::{Followed, follow};
use muster_runtime::grpc::MAX_MESSAGE_BYTES;
use muster_runtime::life::Life;
use muster_runtime::postgres::{Database, Settings};
use muster_runtime::transport::Transport;
use tokio_stream::{Stream, StreamExt as _};
use tonic::Status;
use tonic::service::Routes;

pub use error::Error;

/// The Postgres schema that the service owns.
pub const SCHEMA: &str = "groups";
/// The role that it logs in as.
pub const ROLE: &str = "muster_group";
/// Its tables.
pub static MIGRATOR: sqlx::migrate::Migrator = sqlx::migrate!();
/// The names that its health is reported under.
pub const SERVICES: &[&str] = &["muster.group.v1.GroupService"];

type Users = UserServiceClient<Transport>;

/// What the service's RPCs share.
#[derive(Debug, Clone)]
struct Groups {
    database: Database,
    feed: Feed,
    users: Users,
}

/// Connects to the database, begins to follow identity and returns the service to serve.
pub async fn start(
    database: &Settings,
    feed: feed::Settings,
    identity: Transport,
    life: &Life,
) -> Result<Routes, sqlx::Error> {
    let database = Database::connect(database, life).await?;
    let feed = Feed::open("group", database.clone(), life.clone(), feed).await?;
    let users = Users::new(identity).max_decoding_message_size(MAX_MESSAGE_BYTES);
    let watched = users.clone();
    life.spawn(follow(
        database.clone(),
        feed.clone(),
        life.clone(),
        move |tokens| Box::pin(watch(watched.clone(), tokens)) as BoxFuture<'static, _>,
        |connection, user: group::Person| {
            Box::pin(async move { Ok(store::person::apply(connection, user).await?) })
        },
    ));
    let groups = Groups { database, feed, users };
    Ok(Routes::new(GroupServiceServer::new(groups).max_decoding_message_size(MAX_MESSAGE_BYTES)))
}

/// Identity's feed, of every organisation, as far as groups are concerned.
async fn watch(
    mut users: Users,
    resume_tokens: Vec<String>,
) -> Result<impl Stream<Item = Result<Followed<group::Person>, Status>> + Send + Unpin, Status> {
    let request = WatchChangesRequest { resume_tokens, ..WatchChangesRequest::default() };
    let stream = users.watch_changes(request).await?.into_inner();
    Ok(stream.filter_map(|message| match message {
        Ok(message) => Some(followed(message.resume_token, &message.change?)),
        Err(status) => Some(Err(status)),
    }))
}

fn followed(resume_token: String, change: &UserChange) -> Result<Followed<group::Person>, Status> {
    let person = group::Person::of_change(change)
        .map_err(|_| Status::internal("identity sent a change without ids"))?;
    Ok(Followed {
        organisation: person.organisation,
        sequence: change.metadata.as_ref().map_or(0, |metadata| metadata.sequence),
        resume_token,
        change: person,
    })
}
