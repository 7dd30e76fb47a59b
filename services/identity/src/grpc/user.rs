//! `UserService`.

use muster_proto::identity::v1::user_service_server::UserService;
use muster_proto::identity::v1::{
    BatchGetUsersRequest, BatchGetUsersResponse, CreateUserRequest, DeleteUserRequest,
    DeleteUserResponse, EraseUserRequest, EraseUserResponse, GetUserRequest, ListChangesRequest,
    ListChangesResponse, ListUnknownCountriesRequest, ListUnknownCountriesResponse,
    ListUsersRequest, ListUsersResponse, Origin, RecountRequest, RecountResponse,
    ReleaseUserNameRequest, SearchUsersRequest, SearchUsersResponse, UpdateUserRequest, User,
    WatchChangesRequest, WatchChangesResponse,
};
use muster_runtime::clock;
use muster_runtime::feed::{Actor, HistoryRequest, Messages, Pages, Read};
use muster_runtime::id::{LogEntryId, Revision, UserId};
use muster_scim::caseless;
use time::OffsetDateTime;
use tonic::{Request, Response, Status};

use super::{actor, organisation_id, page_size, required};
use crate::store::user::together::Write;
use crate::store::user::{self as store, erase};
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
        let actor = create.actor.clone();
        let user = self.writes.make(organisation, actor, Write::Create(create)).await?;
        Ok(Response::new(user))
    }

    async fn get_user(&self, request: Request<GetUserRequest>) -> Result<Response<User>, Status> {
        let request = request.into_inner();
        let organisation = organisation_id(&request.organisation_id)?;
        let id = user_id(&request.id)?;
        let user = self
            .database
            .point(organisation, move |c| Box::pin(store::get(c, organisation, id)))
            .await?;
        Ok(Response::new(user))
    }

    async fn batch_get_users(
        &self,
        request: Request<BatchGetUsersRequest>,
    ) -> Result<Response<BatchGetUsersResponse>, Status> {
        let request = request.into_inner();
        let organisation = organisation_id(&request.organisation_id)?;
        let (ids, user_names) = (request.ids.len(), request.user_names.len());
        for (field, count) in [("ids", ids), ("user_names", user_names)] {
            if count > LARGEST_BATCH {
                let description = format!("has {count} entries; at most {LARGEST_BATCH}");
                return Err(Error::Invalid { field, description }.into());
            }
        }
        if user_names > 0 {
            if ids > 0 || request.ids_only {
                let description = "come with ids or ids_only; expected alone".to_owned();
                return Err(Error::Invalid { field: "user_names", description }.into());
            }
            let keys = request.user_names.iter().map(|name| caseless::key(name)).collect();
            let users = self
                .database
                .point(organisation, move |c| {
                    Box::pin(store::batch_get_named(c, organisation, keys))
                })
                .await?;
            return Ok(Response::new(BatchGetUsersResponse { users }));
        }
        // What is no id is nobody's.
        let ids: Vec<UserId> = request.ids.iter().filter_map(|id| id.parse().ok()).collect();
        let users = self
            .database
            .point(organisation, move |c| {
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
        let query = format!("{:?} {}", request.filter, request.order_by);
        let ordered = !request.order_by.is_empty();
        let token = &request.page_token;
        let pages = Pages::open(&self.feed, organisation, query, ordered, token, request.skip)
            .map_err(Error::from)?;
        let limit = if request.total_only { 0 } else { page_size(request.page_size) };
        let listing = store::Listing {
            filter: request.filter,
            order_by: request.order_by,
            after: pages.after().map(UserId::from),
            before: pages.before().map(UserId::from),
            skip: pages.skip,
            limit,
        };
        let places = self.places.clone();
        let listed = self
            .database
            .read(organisation, move |c| {
                Box::pin(async move { store::list(c, organisation, listing, &places).await })
            })
            .await?;
        let ends = listed.users.first().zip(listed.users.last());
        let ends =
            ends.and_then(|(first, last)| Some((first.id.parse().ok()?, last.id.parse().ok()?)));
        let (count, more, head) = (listed.users.len(), listed.more, listed.head.position);
        let tokens = pages.tokens(&self.feed, Read { ends, count, limit, more, head });
        Ok(Response::new(ListUsersResponse {
            users: listed.users,
            next_page_token: tokens.next,
            total_size: i32::try_from(listed.total).unwrap_or(i32::MAX),
            resume_token: tokens.resume,
            previous_page_token: tokens.previous,
        }))
    }

    async fn search_users(
        &self,
        request: Request<SearchUsersRequest>,
    ) -> Result<Response<SearchUsersResponse>, Status> {
        Ok(Response::new(self.search(request.into_inner()).await?))
    }

    async fn list_unknown_countries(
        &self,
        request: Request<ListUnknownCountriesRequest>,
    ) -> Result<Response<ListUnknownCountriesResponse>, Status> {
        Ok(Response::new(self.unknown_countries(request.into_inner()).await?))
    }

    async fn update_user(
        &self,
        request: Request<UpdateUserRequest>,
    ) -> Result<Response<User>, Status> {
        let request = request.into_inner();
        let user = required("user", request.user)?;
        let organisation = organisation_id(&user.organisation_id)?;
        let mask = request.update_mask.unwrap_or_default().paths;
        if request.assign_defaults && !mask.is_empty() {
            let description = "is true beside an update_mask; send one of them".into();
            return Err(Error::Invalid { field: "assign_defaults", description }.into());
        }
        let update = store::Update {
            organisation,
            id: user_id(&user.id)?,
            expected: Revision::expected(user.revision),
            assign_defaults: request.assign_defaults,
            mask,
            actor: actor(request.actor)?,
            now: clock::now(),
            user,
        };
        let actor = update.actor.clone();
        let user = self.writes.make(organisation, actor, Write::Update(update)).await?;
        Ok(Response::new(user))
    }

    async fn release_user_name(
        &self,
        request: Request<ReleaseUserNameRequest>,
    ) -> Result<Response<User>, Status> {
        let request = request.into_inner();
        let organisation = organisation_id(&request.organisation_id)?;
        let id = user_id(&request.id)?;
        let expected = Revision::expected(request.revision);
        let actor = actor(request.actor)?;
        let user = self
            .database
            .write(organisation, move |c| {
                Box::pin(async move {
                    store::release(c, organisation, id, expected, &actor, clock::now()).await
                })
            })
            .await?;
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

    async fn erase_user(
        &self,
        request: Request<EraseUserRequest>,
    ) -> Result<Response<EraseUserResponse>, Status> {
        let request = request.into_inner();
        let organisation = organisation_id(&request.organisation_id)?;
        let id = user_id(&request.id)?;
        let actor = actor(request.actor)?;
        let names = self
            .database
            .read(organisation, move |c| Box::pin(erase::names(c, organisation, id)))
            .await?;
        // The names are in the changes, so those come last: what breaks off is done again.
        let (mut log_entry_count, mut after) =
            (0, Some(LogEntryId::first_at(OffsetDateTime::UNIX_EPOCH)));
        while let Some(from) = after {
            let names = names.clone();
            let (erased, last) = self
                .database
                .write(organisation, move |c| {
                    Box::pin(erase::log_entries(c, organisation, id, names, from))
                })
                .await?;
            log_entry_count += erased;
            after = last;
        }
        let change_count = self
            .database
            .write(organisation, move |c| {
                Box::pin(erase::changes(c, organisation, id, actor, clock::now()))
            })
            .await?;
        self.feed.wake(organisation);
        Ok(Response::new(EraseUserResponse { change_count, log_entry_count }))
    }

    async fn recount(
        &self,
        request: Request<RecountRequest>,
    ) -> Result<Response<RecountResponse>, Status> {
        let organisation = organisation_id(&request.into_inner().organisation_id)?;
        let mended = self
            .database
            .write(organisation, move |c| Box::pin(store::recount(c, organisation)))
            .await?;
        Ok(Response::new(RecountResponse { mended }))
    }

    type WatchChangesStream = Messages<WatchChangesResponse>;

    async fn watch_changes(
        &self,
        request: Request<WatchChangesRequest>,
    ) -> Result<Response<Self::WatchChangesStream>, Status> {
        let WatchChangesRequest { organisation_id, resume_tokens, start } = request.into_inner();
        self.feed.watch_changes(&organisation_id, resume_tokens, start, store::watched_message)
    }

    async fn list_changes(
        &self,
        request: Request<ListChangesRequest>,
    ) -> Result<Response<ListChangesResponse>, Status> {
        let ListChangesRequest { organisation_id, user_id, page_size, page_token } =
            request.into_inner();
        let request =
            HistoryRequest { organisation_id, subject_id: user_id, page_size, page_token };
        let (changes, next_page_token) =
            self.feed.list_changes(request, store::change_message).await?;
        Ok(Response::new(ListChangesResponse { changes, next_page_token }))
    }
}

fn user_id(text: &str) -> Result<UserId, Error> {
    text.parse().map_err(|_| Error::NotFound("user"))
}
