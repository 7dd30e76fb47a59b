//! `GroupService`: decode, call, encode.

mod field;

use muster_follower::AwaitedRevision;
use muster_proto::group::v1::group_service_server::GroupService;
use muster_proto::group::v1::update_group_request::{ExternalIdChange, Members as MembersChange};
use muster_proto::group::v1::{
    AwaitUserRequest, AwaitUserResponse, BatchCountInactiveMembersRequest,
    BatchCountInactiveMembersResponse, BatchGetGroupsRequest, BatchGetGroupsResponse,
    BatchListGroupsOfUsersRequest, BatchListGroupsOfUsersResponse, CreateGroupRequest,
    CreateGroupResponse, DeleteGroupRequest, DeleteGroupResponse, GetGroupRequest, Group,
    GroupView, ListChangesRequest, ListChangesResponse, ListGroupsRequest, ListGroupsResponse,
    ListMembersRequest, ListMembersResponse, ListUsersInGroupsRequest, ListUsersInGroupsResponse,
    ReconcileRequest, ReconcileResponse, RecountRequest, RecountResponse, UpdateGroupRequest,
    UpdateGroupResponse, WatchChangesRequest, WatchChangesResponse,
};
use muster_runtime::clock;
use muster_runtime::feed::{HistoryRequest, Messages, Pages, Read};
use muster_runtime::id::{GroupId, Revision, UserId};
use tonic::{Request, Response, Status};

use crate::group::{ExternalId, MemberIds, Members, Name, external_id};
use crate::store::group as store;
use crate::store::{change, list, membership, person};
use crate::{Error, Groups};
use field::{actor, after_user, at_most, cut, group_id, organisation_id, page_size, required};

#[tonic::async_trait]
impl GroupService for Groups {
    async fn create_group(
        &self,
        request: Request<CreateGroupRequest>,
    ) -> Result<Response<CreateGroupResponse>, Status> {
        let request = request.into_inner();
        let group = required("group", request.group)?;
        let organisation = organisation_id(&group.organisation_id)?;
        let members = MemberIds::new(group.member_ids);
        let create = store::Create {
            organisation,
            name: Name::new(group.display_name)?,
            external_id: group.external_id.map(external_id).transpose()?,
            members,
            refuse_unknown: request.refuse_unknown_members,
            actor: actor(request.actor)?,
            now: clock::now(),
        };
        let created = self
            .writer
            .write(organisation, move |c, asked| Box::pin(store::create(c, create.clone(), asked)));
        let (group, unknown) = created.await?;
        Ok(Response::new(CreateGroupResponse {
            group: Some(group),
            unknown_member_ids: unknown.into_iter().collect(),
        }))
    }

    async fn get_group(
        &self,
        request: Request<GetGroupRequest>,
    ) -> Result<Response<Group>, Status> {
        let request = request.into_inner();
        let organisation = organisation_id(&request.organisation_id)?;
        let id = group_id(&request.id)?;
        let full = request.view() == GroupView::Full;
        let group = self
            .database
            .read(organisation, move |c| {
                Box::pin(async move {
                    let mut rows = store::batch_get(c, organisation, vec![id]).await?;
                    let group = rows.pop().ok_or(Error::NotFound)?.into_group(organisation);
                    let mut groups = vec![group];
                    if full {
                        list::put_members(c, organisation, &mut groups).await?;
                    }
                    groups.pop().ok_or(Error::NotFound)
                })
            })
            .await?;
        Ok(Response::new(group))
    }

    async fn batch_get_groups(
        &self,
        request: Request<BatchGetGroupsRequest>,
    ) -> Result<Response<BatchGetGroupsResponse>, Status> {
        let request = request.into_inner();
        let organisation = organisation_id(&request.organisation_id)?;
        at_most("ids", request.ids.len(), 1_000)?;
        let ids: Vec<GroupId> = request.ids.iter().filter_map(|id| id.parse().ok()).collect();
        let rows = self
            .database
            .read(organisation, move |c| Box::pin(store::batch_get(c, organisation, ids)))
            .await?;
        let groups = rows.into_iter().map(|row| row.into_group(organisation)).collect();
        Ok(Response::new(BatchGetGroupsResponse { groups }))
    }

    async fn list_groups(
        &self,
        request: Request<ListGroupsRequest>,
    ) -> Result<Response<ListGroupsResponse>, Status> {
        let request = request.into_inner();
        let organisation = organisation_id(&request.organisation_id)?;
        let with_members = request.view() == GroupView::Full;
        let query = format!("{:?} {}", request.filter, request.order_by);
        let ordered = !request.order_by.is_empty();
        let token = &request.page_token;
        let pages = Pages::open(&self.feed, organisation, query, ordered, token, request.skip)
            .map_err(Error::from)?;
        let limit = if request.total_only { 0 } else { page_size(request.page_size, 100, 1_000) };
        let listing = list::Listing {
            filter: request.filter,
            order_by: request.order_by,
            after: pages.after().map(GroupId::from),
            before: pages.before().map(GroupId::from),
            skip: pages.skip,
            limit,
            with_members,
        };
        let listed = self
            .database
            .read(organisation, move |c| Box::pin(list::list(c, organisation, listing)))
            .await?;
        let ends = listed.groups.first().zip(listed.groups.last());
        let ends =
            ends.and_then(|(first, last)| Some((first.id.parse().ok()?, last.id.parse().ok()?)));
        let (count, more, head) = (listed.groups.len(), listed.more, listed.head.position);
        let tokens = pages.tokens(&self.feed, Read { ends, count, limit, more, head });
        Ok(Response::new(ListGroupsResponse {
            groups: listed.groups,
            next_page_token: tokens.next,
            total_size: i32::try_from(listed.total).unwrap_or(i32::MAX),
            resume_token: tokens.resume,
            previous_page_token: tokens.previous,
        }))
    }

    async fn update_group(
        &self,
        request: Request<UpdateGroupRequest>,
    ) -> Result<Response<UpdateGroupResponse>, Status> {
        let request = request.into_inner();
        let organisation = organisation_id(&request.organisation_id)?;
        let members = match request.members {
            None => Members::Keep,
            Some(MembersChange::Delta(delta)) => Members::Delta {
                add: MemberIds::new(delta.add),
                remove: MemberIds::new(delta.remove),
            },
            Some(MembersChange::Set(set)) => Members::Set {
                all: MemberIds::new(set.user_ids),
                retained: MemberIds::new(set.retained_user_ids),
            },
        };
        let update = store::Update {
            organisation,
            id: group_id(&request.id)?,
            expected: Revision::expected(request.revision),
            name: request.display_name.map(Name::new).transpose()?,
            external_id: match request.external_id_change {
                None => ExternalId::Keep,
                Some(ExternalIdChange::ExternalId(id)) => {
                    ExternalId::Become(Some(external_id(id)?))
                }
                Some(ExternalIdChange::ClearExternalId(_)) => ExternalId::Become(None),
            },
            members,
            refuse_unknown: request.refuse_unknown_members,
            actor: actor(request.actor)?,
            now: clock::now(),
        };
        let actor = update.actor.clone();
        let (group, unknown) = self.writes.make(organisation, actor, update).await?;
        Ok(Response::new(UpdateGroupResponse {
            group: Some(group),
            unknown_member_ids: unknown.into_iter().collect(),
        }))
    }

    async fn delete_group(
        &self,
        request: Request<DeleteGroupRequest>,
    ) -> Result<Response<DeleteGroupResponse>, Status> {
        let request = request.into_inner();
        let organisation = organisation_id(&request.organisation_id)?;
        let id = group_id(&request.id)?;
        let expected = Revision::expected(request.revision);
        let actor = actor(request.actor)?;
        self.database
            .write(organisation, move |c| {
                Box::pin(async move {
                    store::delete(c, organisation, id, expected, &actor, clock::now()).await
                })
            })
            .await?;
        self.feed.wake(organisation);
        Ok(Response::new(DeleteGroupResponse {}))
    }

    async fn list_members(
        &self,
        request: Request<ListMembersRequest>,
    ) -> Result<Response<ListMembersResponse>, Status> {
        let request = request.into_inner();
        let organisation = organisation_id(&request.organisation_id)?;
        let id = group_id(&request.group_id)?;
        let after = after_user(&request.page_token)?;
        let size = page_size(request.page_size, 1_000, 10_000);
        let mut users = self
            .database
            .read(organisation, move |c| {
                Box::pin(async move {
                    if store::batch_get(c, organisation, vec![id]).await?.is_empty() {
                        return Err(Error::NotFound);
                    }
                    Ok(membership::list(c, organisation, id, after, size + 1).await?)
                })
            })
            .await?;
        let next_page_token = cut(&mut users, size);
        let user_ids = users.iter().map(ToString::to_string).collect();
        Ok(Response::new(ListMembersResponse { user_ids, next_page_token }))
    }

    async fn batch_count_inactive_members(
        &self,
        request: Request<BatchCountInactiveMembersRequest>,
    ) -> Result<Response<BatchCountInactiveMembersResponse>, Status> {
        let request = request.into_inner();
        let organisation = organisation_id(&request.organisation_id)?;
        at_most("group_ids", request.group_ids.len(), 1_000)?;
        let ids: Vec<GroupId> = request.group_ids.iter().filter_map(|id| id.parse().ok()).collect();
        let groups = self
            .database
            .read(organisation, move |c| Box::pin(membership::inactive(c, organisation, ids)))
            .await
            .map_err(Error::Database)?;
        Ok(Response::new(BatchCountInactiveMembersResponse { groups }))
    }

    async fn batch_list_groups_of_users(
        &self,
        request: Request<BatchListGroupsOfUsersRequest>,
    ) -> Result<Response<BatchListGroupsOfUsersResponse>, Status> {
        let request = request.into_inner();
        let organisation = organisation_id(&request.organisation_id)?;
        at_most("user_ids", request.user_ids.len(), 1_000)?;
        let ids: Vec<UserId> = request.user_ids.iter().filter_map(|id| id.parse().ok()).collect();
        let memberships = self
            .database
            .point(organisation, move |c| Box::pin(membership::of_users(c, organisation, ids)))
            .await
            .map_err(Error::Database)?;
        Ok(Response::new(BatchListGroupsOfUsersResponse { memberships }))
    }

    async fn list_users_in_groups(
        &self,
        request: Request<ListUsersInGroupsRequest>,
    ) -> Result<Response<ListUsersInGroupsResponse>, Status> {
        let request = request.into_inner();
        let organisation = organisation_id(&request.organisation_id)?;
        let after = after_user(&request.page_token)?;
        let size = page_size(request.page_size, 1_000, 10_000);
        let mut users = self
            .database
            .read(organisation, move |c| {
                Box::pin(async move {
                    let filter = request.filter.as_ref();
                    membership::users_in(c, organisation, filter, after, size + 1).await
                })
            })
            .await?;
        let next_page_token = cut(&mut users, size);
        let user_ids = users.iter().map(ToString::to_string).collect();
        Ok(Response::new(ListUsersInGroupsResponse { user_ids, next_page_token }))
    }

    async fn await_user(
        &self,
        request: Request<AwaitUserRequest>,
    ) -> Result<Response<AwaitUserResponse>, Status> {
        let request = request.into_inner();
        let organisation = organisation_id(&request.organisation_id)?;
        let user: UserId = request
            .user_id
            .parse()
            .map_err(|_| Error::Invalid { field: "user_id", description: "is no UUID".into() })?;
        let revision = Revision(request.revision);
        let written_at = request.update_time.and_then(clock::time_of);
        let awaited = AwaitedRevision { organisation, user, revision, written_at };
        self.follower
            .until(awaited, || {
                self.database.point(organisation, move |c| {
                    Box::pin(person::at_revision(c, organisation, user, revision))
                })
            })
            .await
            .map_err(Error::Database)?;
        Ok(Response::new(AwaitUserResponse {}))
    }

    async fn reconcile(
        &self,
        request: Request<ReconcileRequest>,
    ) -> Result<Response<ReconcileResponse>, Status> {
        let ReconcileRequest { organisation_id: id, dry_run } = request.into_inner();
        let organisation = organisation_id(&id)?;
        let reconciled = if dry_run {
            self.follower.differences(organisation).await?
        } else {
            self.follower.reconcile(organisation).await?
        };
        Ok(Response::new(ReconcileResponse {
            difference_count: i32::try_from(reconciled.count).unwrap_or(i32::MAX),
            user_ids: reconciled.users.iter().map(ToString::to_string).collect(),
        }))
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
        self.feed.watch_changes(&organisation_id, resume_tokens, start, change::watched_message)
    }

    async fn list_changes(
        &self,
        request: Request<ListChangesRequest>,
    ) -> Result<Response<ListChangesResponse>, Status> {
        let ListChangesRequest { organisation_id, group_id, page_size, page_token } =
            request.into_inner();
        let request =
            HistoryRequest { organisation_id, subject_id: group_id, page_size, page_token };
        let (changes, next_page_token) =
            self.feed.list_changes(request, change::change_message).await?;
        Ok(Response::new(ListChangesResponse { changes, next_page_token }))
    }
}
