//! `UserService`.

use std::pin::Pin;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use muster_proto::feed::v1::WatchStart;
use muster_proto::identity::v1::user_service_server::UserService;
use muster_proto::identity::v1::{
    BatchGetUsersRequest, BatchGetUsersResponse, CreateUserRequest, DeleteUserRequest,
    DeleteUserResponse, GetUserRequest, ListChangesRequest, ListChangesResponse, ListUsersRequest,
    ListUsersResponse, Origin, UpdateUserRequest, User, WatchChangesRequest, WatchChangesResponse,
};
use muster_runtime::clock;
use muster_runtime::feed::{Actor, Watch};
use muster_runtime::id::{Revision, UserId};
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status};

use super::{actor, organisation_id, page_size, required};
use crate::store::user as store;
use crate::{Error, Identity};

/// The most users in one batch.
const LARGEST_BATCH: usize = 10_000;

#[tonic::async_trait]
impl UserService for Identity {
    async fn create_user(
        &self,
        request: Request<CreateUserRequest>,
    ) -> Result<Response<User>, Status> {
        let request = request.into_inner();
        let user = required("user", request.user)?;
        let organisation = organisation_id(&user.organisation_id)?;
        let actor = actor(request.actor)?;
        let origin = match actor {
            Actor::Admin(_) => Origin::Console,
            Actor::ApiKey(_) | Actor::Caller(_) => Origin::Scim,
        };
        let create = store::Create { organisation, user, actor, origin, now: clock::now() };
        let user =
            self.database.write(organisation, move |c| Box::pin(store::create(c, create))).await?;
        self.feed.wake(organisation);
        Ok(Response::new(user))
    }

    async fn get_user(&self, request: Request<GetUserRequest>) -> Result<Response<User>, Status> {
        let request = request.into_inner();
        let organisation = organisation_id(&request.organisation_id)?;
        let id = user_id(&request.id)?;
        let user = self
            .database
            .read(organisation, move |c| Box::pin(store::get(c, organisation, id)))
            .await?;
        Ok(Response::new(user))
    }

    async fn batch_get_users(
        &self,
        request: Request<BatchGetUsersRequest>,
    ) -> Result<Response<BatchGetUsersResponse>, Status> {
        let request = request.into_inner();
        let organisation = organisation_id(&request.organisation_id)?;
        if request.ids.len() > LARGEST_BATCH {
            return Err(Error::Invalid {
                field: "ids",
                description: format!("has {} ids; at most {LARGEST_BATCH}", request.ids.len()),
            }
            .into());
        }
        // What is no id is nobody's.
        let ids: Vec<UserId> = request.ids.iter().filter_map(|id| id.parse().ok()).collect();
        let users = self
            .database
            .read(organisation, move |c| {
                if request.ids_only {
                    Box::pin(store::batch_get_revisions(c, organisation, ids))
                } else {
                    Box::pin(store::batch_get(c, organisation, ids))
                }
            })
            .await?;
        Ok(Response::new(BatchGetUsersResponse { users }))
    }

    async fn list_users(
        &self,
        request: Request<ListUsersRequest>,
    ) -> Result<Response<ListUsersResponse>, Status> {
        let request = request.into_inner();
        let organisation = organisation_id(&request.organisation_id)?;
        let token = match request.page_token.as_str() {
            "" => None,
            token => Some(PageToken::decode(token)?),
        };
        if token.is_some() && !request.order_by.is_empty() {
            return Err(Error::Invalid {
                field: "page_token",
                description: "is for lists by id; with order_by, use skip".into(),
            }
            .into());
        }
        let ordered = !request.order_by.is_empty();
        let (after, resume_token) = token.map(|t| (t.after, t.resume_token)).unzip();
        let listing = store::Listing {
            filter: request.filter,
            order_by: request.order_by,
            after,
            skip: request.skip.max(0).into(),
            limit: if request.total_only { 0 } else { page_size(request.page_size) },
        };
        let page = self
            .database
            .read(organisation, move |c| Box::pin(store::list(c, organisation, listing)))
            .await?;
        // Where the first page began, so that nothing is missed that happened between pages.
        let resume_token =
            resume_token.unwrap_or_else(|| self.feed.token(organisation, &page.head));
        let (next_page_token, resume_token) = match page.users.last() {
            Some(last) if page.more && !ordered => {
                (PageToken { after: user_id(&last.id)?, resume_token }.encode(), String::new())
            }
            _ => (String::new(), resume_token),
        };
        Ok(Response::new(ListUsersResponse {
            users: page.users,
            next_page_token,
            total_size: i32::try_from(page.total).unwrap_or(i32::MAX),
            resume_token,
        }))
    }

    async fn update_user(
        &self,
        request: Request<UpdateUserRequest>,
    ) -> Result<Response<User>, Status> {
        let request = request.into_inner();
        let user = required("user", request.user)?;
        let organisation = organisation_id(&user.organisation_id)?;
        let update = store::Update {
            organisation,
            id: user_id(&user.id)?,
            expected: Revision::expected(user.revision),
            assign_defaults: request.assign_defaults,
            actor: actor(request.actor)?,
            now: clock::now(),
            user,
        };
        let user =
            self.database.write(organisation, move |c| Box::pin(store::update(c, update))).await?;
        self.feed.wake(organisation);
        Ok(Response::new(user))
    }

    async fn delete_user(
        &self,
        request: Request<DeleteUserRequest>,
    ) -> Result<Response<DeleteUserResponse>, Status> {
        let request = request.into_inner();
        let organisation = organisation_id(&request.organisation_id)?;
        let id = user_id(&request.id)?;
        let expected = Revision::expected(request.revision);
        let actor = actor(request.actor)?;
        let revision = self
            .database
            .write(organisation, move |c| {
                Box::pin(async move {
                    store::delete(c, organisation, id, expected, &actor, clock::now()).await
                })
            })
            .await?;
        self.feed.wake(organisation);
        Ok(Response::new(DeleteUserResponse { revision: revision.0 }))
    }

    type WatchChangesStream =
        Pin<Box<dyn Stream<Item = Result<WatchChangesResponse, Status>> + Send>>;

    async fn watch_changes(
        &self,
        request: Request<WatchChangesRequest>,
    ) -> Result<Response<Self::WatchChangesStream>, Status> {
        let request = request.into_inner();
        let from_now = request.start() == WatchStart::Now;
        let organisation = match request.organisation_id.as_str() {
            "" => None,
            id => Some(organisation_id(id)?),
        };
        let watch = Watch { organisation, resume_tokens: request.resume_tokens, from_now };
        let stream = self.feed.watch(watch)?.map(|watched| {
            watched.map(|watched| WatchChangesResponse {
                resume_token: watched.resume_token,
                change: watched.change.as_ref().map(store::change_message),
            })
        });
        Ok(Response::new(Box::pin(stream)))
    }

    async fn list_changes(
        &self,
        request: Request<ListChangesRequest>,
    ) -> Result<Response<ListChangesResponse>, Status> {
        let request = request.into_inner();
        let organisation = organisation_id(&request.organisation_id)?;
        let id = user_id(&request.user_id)?;
        let before = match request.page_token.as_str() {
            "" => i64::MAX,
            token => token.parse().map_err(|_| invalid_page_token())?,
        };
        let size = page_size(request.page_size);
        let changes = self
            .database
            .read(organisation, move |c| {
                Box::pin(store::changes(c, organisation, id, before, size))
            })
            .await?;
        let full = i64::try_from(changes.len()).is_ok_and(|len| len == size);
        let next_page_token = match changes.last() {
            Some(last) if full => last.sequence.to_string(),
            _ => String::new(),
        };
        let changes = changes.iter().map(store::change_message).collect();
        Ok(Response::new(ListChangesResponse { changes, next_page_token }))
    }
}

/// Where a page begins, and where to watch from after the last.
struct PageToken {
    after: UserId,
    resume_token: String,
}

impl PageToken {
    fn encode(&self) -> String {
        URL_SAFE_NO_PAD.encode(format!("{}.{}", self.after, self.resume_token))
    }

    fn decode(token: &str) -> Result<Self, Error> {
        let decode = || {
            let text = String::from_utf8(URL_SAFE_NO_PAD.decode(token).ok()?).ok()?;
            let (after, resume_token) = text.split_once('.')?;
            Some(Self { after: after.parse().ok()?, resume_token: resume_token.to_owned() })
        };
        decode().ok_or_else(invalid_page_token)
    }
}

fn invalid_page_token() -> Error {
    Error::Invalid { field: "page_token", description: "is not one of an earlier answer".into() }
}

fn user_id(text: &str) -> Result<UserId, Error> {
    text.parse().map_err(|_| Error::NotFound("user"))
}
