//! The approver service: who approves for whom, by the six rules of `docs/approvers.md`. It follows
//! identity, and knows nothing of SCIM JSON and HTTP.

mod declaration;
mod error;
mod grpc;
mod store;

use muster_proto::approver::v1::approver_service_server::ApproverServiceServer;
use muster_proto::identity::v1::user_service_client::UserServiceClient;
use muster_proto::identity::v1::{UserChange, WatchChangesRequest};
use muster_runtime::BoxFuture;
use muster_runtime::feed::Feed;
use muster_runtime::follower::{Followed, follow};
use muster_runtime::grpc::MAX_MESSAGE_BYTES;
use muster_runtime::life::Life;
use muster_runtime::postgres::{Database, Settings};
use muster_runtime::transport::Transport;
use tokio_stream::{Stream, StreamExt as _};
use tonic::Status;
use tonic::service::Routes;

use declaration::Step;
pub use error::Error;

/// The Postgres schema that the service owns.
pub const SCHEMA: &str = "approver";
/// The role that it logs in as.
pub const ROLE: &str = "muster_approver";
/// Its tables.
pub static MIGRATOR: sqlx::migrate::Migrator = sqlx::migrate!();
/// The names that its health is reported under.
pub const SERVICES: &[&str] = &["muster.approver.v1.ApproverService"];

type Users = UserServiceClient<Transport>;

/// What the service's RPCs share.
#[derive(Debug, Clone)]
struct Approvers {
    database: Database,
    feed: Feed,
}

/// Connects to the database, begins to follow identity and returns the service to serve.
pub async fn start(
    database: &Settings,
    identity: Transport,
    life: &Life,
) -> Result<Routes, sqlx::Error> {
    let database = Database::connect(database, life).await?;
    let feed = Feed::open("approver", database.clone(), life.clone()).await?;
    let users = Users::new(identity).max_decoding_message_size(MAX_MESSAGE_BYTES);
    life.spawn(follow(
        database.clone(),
        feed.clone(),
        life.clone(),
        move |tokens| Box::pin(watch(users.clone(), tokens)) as BoxFuture<'static, _>,
        |connection, step: Step| Box::pin(store::person::follow(connection, step)),
    ));
    let approvers = Approvers { database, feed };
    Ok(Routes::new(
        ApproverServiceServer::new(approvers).max_decoding_message_size(MAX_MESSAGE_BYTES),
    ))
}

/// Identity's feed, of every organisation, as far as approvers are concerned.
async fn watch(
    mut users: Users,
    resume_tokens: Vec<String>,
) -> Result<impl Stream<Item = Result<Followed<Step>, Status>> + Send + Unpin, Status> {
    let request = WatchChangesRequest { resume_tokens, ..WatchChangesRequest::default() };
    let stream = users.watch_changes(request).await?.into_inner();
    Ok(stream.filter_map(|message| match message {
        Ok(message) => Some(followed(message.resume_token, &message.change?)),
        Err(status) => Some(Err(status)),
    }))
}

fn followed(resume_token: String, change: &UserChange) -> Result<Followed<Step>, Status> {
    let step = Step::of_change(change)
        .map_err(|_| Status::internal("identity sent a change without ids"))?;
    Ok(Followed {
        organisation: step.after.organisation,
        sequence: change.metadata.as_ref().map_or(0, |metadata| metadata.sequence),
        resume_token,
        change: step,
    })
}
