//! Follows the users of one organisation, and resumes after whatever breaks off.

use std::time::Duration;

use muster_proto::identity::v1::user_service_client::UserServiceClient;
use muster_proto::identity::v1::{ListUsersRequest, WatchChangesRequest};
use tonic::transport::Endpoint;
use tonic::{Code, Status};

type Users = UserServiceClient<tonic::transport::Channel>;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let organisation_id = std::env::args().nth(1).ok_or("which organisation, by its id?")?;
    let channel = Endpoint::from_static("http://127.0.0.1:50051").connect_lazy();
    let users = Users::new(channel).max_decoding_message_size(32 * 1024 * 1024);
    // Kept with what was made of the changes; empty at first.
    let mut token = String::new();
    loop {
        if let Err(status) = follow(users.clone(), &organisation_id, &mut token).await {
            match status.code() {
                // The feed does not go on from there: list afresh.
                Code::OutOfRange => token.clear(),
                Code::InvalidArgument | Code::PermissionDenied => return Err(status.into()),
                _ => tokio::time::sleep(Duration::from_millis(500)).await,
            }
        }
    }
}

async fn follow(mut users: Users, organisation_id: &str, token: &mut String) -> Result<(), Status> {
    if token.is_empty() {
        *token = list(users.clone(), organisation_id).await?;
    }
    let request = WatchChangesRequest {
        organisation_id: organisation_id.into(),
        resume_tokens: vec![token.clone()],
        ..Default::default()
    };
    let mut changes = users.watch_changes(request).await?.into_inner();
    while let Some(message) = changes.message().await? {
        if let Some(change) = message.change {
            // A change may come again: one whose revision is not newer is nothing new.
            println!("{} revision {}: {:?}", change.user_id, change.revision, change.kind());
        }
        // In the transaction that keeps what was made of the change.
        *token = message.resume_token;
    }
    Ok(())
}

/// Takes all users, and where to watch from.
async fn list(mut users: Users, organisation_id: &str) -> Result<String, Status> {
    let mut page_token = String::new();
    loop {
        let organisation_id = organisation_id.into();
        let request = ListUsersRequest { organisation_id, page_token, ..Default::default() };
        let page = users.list_users(request).await?.into_inner();
        for user in page.users {
            println!("{} revision {}", user.id, user.revision);
        }
        if page.next_page_token.is_empty() {
            return Ok(page.resume_token);
        }
        page_token = page.next_page_token;
    }
}
