//! Writing to a feed and reading it, straight over gRPC.

use std::time::{Duration, Instant};

use muster_proto::feed::v1::WatchStart;
use muster_proto::identity::v1::user_service_client::UserServiceClient;
use muster_proto::identity::v1::{
    CreateUserRequest, DeleteUserRequest, ListUsersRequest, MultiValue, UpdateUserRequest, User,
    UserChange, WatchChangesRequest, WatchChangesResponse,
};
use muster_runtime::feed::token_position;
use muster_runtime::transport::Transport;
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Row as _};
use tonic::{Status, Streaming};

use super::system::System;
use super::tls;

pub(crate) type Users = UserServiceClient<Transport>;

/// Identity at this address.
pub(crate) fn users_at(url: &str) -> Users {
    Users::new(tls::connect(url)).max_decoding_message_size(32 * 1024 * 1024)
}

/// A seed for this run, printed; `MUSTER_TEST_SEED` plays one again.
pub(crate) fn seed() -> u64 {
    let given = std::env::var("MUSTER_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(rand::random);
    println!("MUSTER_TEST_SEED={seed}");
    seed
}

/// A user as one creates them.
pub(crate) fn user(organisation: &str, name: &str, approvers: &[&str]) -> User {
    let email =
        MultiValue { value: Some(name.into()), primary: Some(true), ..MultiValue::default() };
    User {
        organisation_id: organisation.into(),
        user_name: Some(name.into()),
        emails: vec![email],
        declared_approvers: approvers.iter().map(ToString::to_string).collect(),
        ..User::default()
    }
}

/// Creates a user; the followers hear of it by the feed only.
pub(crate) async fn create(users: &Users, user: User) -> User {
    let request = CreateUserRequest { user: Some(user), actor: None };
    users.clone().create_user(request).await.unwrap().into_inner()
}

/// Gives a user another title.
pub(crate) async fn entitle(users: &Users, user: User, title: &str) -> User {
    let user = User { title: Some(title.into()), revision: 0, ..user };
    let request = UpdateUserRequest { user: Some(user), ..UpdateUserRequest::default() };
    users.clone().update_user(request).await.unwrap().into_inner()
}

pub(crate) async fn delete(users: &Users, user: &User) {
    let request = DeleteUserRequest {
        organisation_id: user.organisation_id.clone(),
        id: user.id.clone(),
        ..DeleteUserRequest::default()
    };
    users.clone().delete_user(request).await.unwrap();
}

/// All users, page by page, and where to watch from.
pub(crate) async fn list(users: &Users, organisation: &str, page_size: i32) -> (Vec<User>, String) {
    let (mut listed, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = ListUsersRequest {
            organisation_id: organisation.into(),
            page_size,
            page_token,
            ..ListUsersRequest::default()
        };
        let page = users.clone().list_users(request).await.unwrap().into_inner();
        listed.extend(page.users);
        if page.next_page_token.is_empty() {
            return (listed, page.resume_token);
        }
        page_token = page.next_page_token;
    }
}

/// The newest sequence of an organisation's feed.
pub(crate) async fn newest(users: &Users, organisation: &str) -> i64 {
    let request = ListUsersRequest {
        organisation_id: organisation.into(),
        total_only: true,
        ..ListUsersRequest::default()
    };
    let token = users.clone().list_users(request).await.unwrap().into_inner().resume_token;
    token_position(&token).unwrap().sequence
}

/// Opens the feed of an organisation, or of all; after a token, or from the start.
pub(crate) async fn watch(
    users: &Users,
    organisation: &str,
    token: Option<String>,
) -> Result<Streaming<WatchChangesResponse>, Status> {
    let request = WatchChangesRequest {
        organisation_id: organisation.into(),
        resume_tokens: token.into_iter().collect(),
        start: WatchStart::Unspecified.into(),
    };
    Ok(users.clone().watch_changes(request).await?.into_inner())
}

/// The next change, and where to resume after it.
pub(crate) async fn next(
    stream: &mut Streaming<WatchChangesResponse>,
) -> Result<(UserChange, String), Status> {
    loop {
        let message = stream.message().await?;
        let message =
            message.ok_or_else(|| Status::unknown("the stream ended as if all was told"))?;
        if let Some(change) = message.change {
            return Ok((change, message.resume_token));
        }
    }
}

/// How a watch from there ends that has nothing to tell.
pub(crate) async fn refusal(users: &Users, organisation: &str, token: Option<String>) -> Status {
    let opened = watch(users, organisation, token).await;
    match opened {
        Ok(mut stream) => next(&mut stream).await.unwrap_err(),
        Err(status) => status,
    }
}

pub(crate) fn sequence(change: &UserChange) -> i64 {
    change.metadata.as_ref().unwrap().sequence
}

/// A connection that sees everything.
pub(crate) async fn sql(system: &System) -> PgConnection {
    PgConnection::connect(&system.database_url("postgres")).await.unwrap()
}

/// What a statement answers, in one row.
pub(crate) async fn row(connection: &mut PgConnection, statement: &str) -> PgRow {
    sqlx::query(AssertSqlSafe(statement)).fetch_one(connection).await.unwrap()
}

/// The number that a statement answers.
pub(crate) async fn number(connection: &mut PgConnection, statement: &str) -> i64 {
    row(connection, statement).await.get(0)
}

/// Waits until a statement answers this number.
pub(crate) async fn eventually(connection: &mut PgConnection, statement: &str, expected: i64) {
    let deadline = Instant::now() + Duration::from_mins(1);
    loop {
        let found = number(connection, statement).await;
        if found == expected {
            return;
        }
        assert!(Instant::now() < deadline, "{statement}: {found}, not {expected}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
