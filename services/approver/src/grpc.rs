//! `ApproverService`: decode, call, encode.

use muster_follower::AwaitedRevision;
use muster_proto::approver::v1::approver_service_server::ApproverService;
use muster_proto::approver::v1::{
    Approver, AwaitUserRequest, AwaitUserResponse, AwaitedUser, BatchCheckApprovalsRequest,
    BatchCheckApprovalsResponse, BatchGetApproversRequest, BatchGetApproversResponse,
    BatchListApproveesRequest, BatchListApproveesResponse, GetApproverTotalsRequest,
    GetApproverTotalsResponse, ListChangesRequest, ListChangesResponse, ListUsersByApproverRequest,
    ListUsersByApproverResponse, ListUsersWithPendingApproversRequest,
    ListUsersWithPendingApproversResponse, ReconcileRequest, ReconcileResponse,
    WatchChangesRequest, WatchChangesResponse,
};
use muster_runtime::clock;
use muster_runtime::feed::{self, HistoryRequest, Messages};
use muster_runtime::grpc::cut_page;
use muster_runtime::id::{OrganisationId, Revision, UserId};
use muster_scim::caseless;
use tonic::{Request, Response, Status};

use crate::store::{approver as store, list};
use crate::{Approvers, Error};

/// The most users or questions in one batch.
const LARGEST_BATCH: usize = 1_000;

#[tonic::async_trait]
impl ApproverService for Approvers {
    async fn batch_get_approvers(
        &self,
        request: Request<BatchGetApproversRequest>,
    ) -> Result<Response<BatchGetApproversResponse>, Status> {
        let request = request.into_inner();
        let organisation = organisation_id(&request.organisation_id)?;
        let users = user_ids("user_ids", &request.user_ids)?;
        let users = self
            .database
            .point(organisation, move |c| {
                Box::pin(store::batch_get(c, organisation, users, Vec::new()))
            })
            .await
            .map_err(Error::Database)?;
        let users = users.into_iter().map(store::message).collect();
        Ok(Response::new(BatchGetApproversResponse { users }))
    }

    async fn batch_list_approvees(
        &self,
        request: Request<BatchListApproveesRequest>,
    ) -> Result<Response<BatchListApproveesResponse>, Status> {
        let request = request.into_inner();
        let organisation = organisation_id(&request.organisation_id)?;
        let approvers = user_ids("approver_ids", &request.approver_ids)?;
        let approvers = self
            .database
            .point(organisation, move |c| Box::pin(store::approvees(c, organisation, approvers)))
            .await
            .map_err(Error::Database)?;
        Ok(Response::new(BatchListApproveesResponse { approvers }))
    }

    async fn batch_check_approvals(
        &self,
        request: Request<BatchCheckApprovalsRequest>,
    ) -> Result<Response<BatchCheckApprovalsResponse>, Status> {
        let request = request.into_inner();
        let organisation = organisation_id(&request.organisation_id)?;
        at_most("questions", request.questions.len())?;
        // What is no id is nobody, of whom the answer is no.
        let (approvers, users) = request
            .questions
            .iter()
            .map(|question| (question.approver_id.parse().ok(), question.user_id.parse().ok()))
            .unzip();
        let allowed = self
            .database
            .point(organisation, move |c| Box::pin(store::check(c, organisation, approvers, users)))
            .await
            .map_err(Error::Database)?;
        Ok(Response::new(BatchCheckApprovalsResponse { allowed }))
    }

    async fn list_users_by_approver(
        &self,
        request: Request<ListUsersByApproverRequest>,
    ) -> Result<Response<ListUsersByApproverResponse>, Status> {
        let request = request.into_inner();
        let organisation = organisation_id(&request.organisation_id)?;
        let after = after_user(&request.page_token)?;
        let size = page_size(request.page_size);
        let mut users = self
            .database
            .read(organisation, move |c| {
                Box::pin(async move {
                    let filter = request.filter.as_ref();
                    list::users_by_approver(c, organisation, filter, after, size + 1).await
                })
            })
            .await?;
        let next_page_token = cut(&mut users, size);
        let user_ids = users.iter().map(ToString::to_string).collect();
        Ok(Response::new(ListUsersByApproverResponse { user_ids, next_page_token }))
    }

    async fn get_approver_totals(
        &self,
        request: Request<GetApproverTotalsRequest>,
    ) -> Result<Response<GetApproverTotalsResponse>, Status> {
        let organisation = organisation_id(&request.into_inner().organisation_id)?;
        let head = self
            .database
            .point(organisation, move |c| Box::pin(feed::head(c, organisation)))
            .await
            .map_err(Error::Database)?;
        let (declared_count, in_force_count) = (head.total, head.active);
        Ok(Response::new(GetApproverTotalsResponse { declared_count, in_force_count }))
    }

    async fn list_users_with_pending_approvers(
        &self,
        request: Request<ListUsersWithPendingApproversRequest>,
    ) -> Result<Response<ListUsersWithPendingApproversResponse>, Status> {
        let request = request.into_inner();
        let organisation = organisation_id(&request.organisation_id)?;
        let after = after_user(&request.page_token)?;
        let size = page_size(request.page_size);
        let mut users = self
            .database
            .read(organisation, move |c| {
                Box::pin(store::users_waiting(c, organisation, after, size + 1))
            })
            .await
            .map_err(Error::Database)?;
        let next_page_token = cut(&mut users, size);
        let user_ids = users.iter().map(ToString::to_string).collect();
        Ok(Response::new(ListUsersWithPendingApproversResponse { user_ids, next_page_token }))
    }

    async fn await_user(
        &self,
        request: Request<AwaitUserRequest>,
    ) -> Result<Response<AwaitUserResponse>, Status> {
        let request = request.into_inner();
        let organisation = organisation_id(&request.organisation_id)?;
        let user = user_ids("user_id", std::slice::from_ref(&request.user_id))?
            .pop()
            .ok_or(Error::Invalid { field: "user_id", description: "is no UUID".into() })?;
        let revision = Revision(request.revision);
        if let Some(now) = request.user {
            let at_once = self.at_once(organisation, user, revision, &now);
            if let Some(approvers) = at_once.await.map_err(Error::Database)? {
                return Ok(Response::new(AwaitUserResponse { approvers }));
            }
        }
        let written_at = request.update_time.and_then(clock::time_of);
        let awaited = AwaitedRevision { organisation, user, revision, written_at };
        let approvers = self
            .follower
            .until(awaited, || async {
                let state = self.states.get(&organisation, &user).await?;
                Ok(state.filter(|state| state.revision >= revision).map(|state| state.approvers))
            })
            .await
            .map_err(Error::Database)?;
        Ok(Response::new(AwaitUserResponse { approvers }))
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

impl Approvers {
    /// The approvers of a user whom a write made `now`, where they need not be waited for: they are
    /// known from this revision, or nobody's follow from it.
    async fn at_once(
        &self,
        organisation: OrganisationId,
        user: UserId,
        revision: Revision,
        now: &AwaitedUser,
    ) -> Result<Option<Vec<Approver>>, sqlx::Error> {
        if revision == Revision::FIRST {
            if !now.declared_approvers.is_empty() {
                return Ok(None);
            }
            let key = caseless::key(&now.primary_email);
            let declared = self.declared.get(&organisation, &key).await?;
            return Ok(declared.is_none().then(Vec::new));
        }
        let known = self.states.get(&organisation, &user).await?.filter(|known| {
            known.revision >= revision
                || known.revision.next() == revision && known.is_same_to_approvers(now)
        });
        Ok(known.map(|known| known.approvers))
    }
}

fn organisation_id(text: &str) -> Result<OrganisationId, Error> {
    text.parse().map_err(|_| Error::Invalid {
        field: "organisation_id",
        description: "is not a UUID; expected an organisation's id".into(),
    })
}

/// The user after whom a page begins.
fn after_user(page_token: &str) -> Result<Option<UserId>, Error> {
    let invalid = |_| Error::Invalid {
        field: "page_token",
        description: "is not one of an earlier answer".into(),
    };
    match page_token {
        "" => Ok(None),
        token => token.parse().map(Some).map_err(invalid),
    }
}

fn page_size(asked: i32) -> i64 {
    (if asked <= 0 { 1_000 } else { asked.min(10_000) }).into()
}

/// Cuts a page, read with one more than its size, and returns the token of the next.
fn cut(users: &mut Vec<UserId>, size: i64) -> String {
    cut_page(users, size).map(ToString::to_string).unwrap_or_default()
}

/// What is no id is nobody's.
fn user_ids(field: &'static str, ids: &[String]) -> Result<Vec<UserId>, Error> {
    at_most(field, ids.len())?;
    Ok(ids.iter().filter_map(|id| id.parse().ok()).collect())
}

fn at_most(field: &'static str, count: usize) -> Result<(), Error> {
    if count > LARGEST_BATCH {
        let description = format!("has {count} entries; at most {LARGEST_BATCH}");
        return Err(Error::Invalid { field, description });
    }
    Ok(())
}
