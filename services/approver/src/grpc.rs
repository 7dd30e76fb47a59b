//! `ApproverService`: decode, call, encode.

use std::pin::Pin;

use muster_proto::approver::v1::approver_service_server::ApproverService;
use muster_proto::approver::v1::{
    ApplyUserRequest, ApplyUserResponse, BatchCheckApprovalsRequest, BatchCheckApprovalsResponse,
    BatchGetApproversRequest, BatchGetApproversResponse, BatchListApproveesRequest,
    BatchListApproveesResponse, ListChangesRequest, ListChangesResponse, WatchChangesRequest,
    WatchChangesResponse,
};
use muster_proto::feed::v1::WatchStart;
use muster_runtime::feed::{Actor, Watch};
use muster_runtime::id::{OrganisationId, UserId};
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status};

use crate::declaration::Person;
use crate::store::{approver as store, person};
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
            .read(organisation, move |c| Box::pin(store::batch_get(c, organisation, users)))
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
            .read(organisation, move |c| Box::pin(store::approvees(c, organisation, approvers)))
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
            .read(organisation, move |c| Box::pin(store::check(c, organisation, approvers, users)))
            .await
            .map_err(Error::Database)?;
        Ok(Response::new(BatchCheckApprovalsResponse { allowed }))
    }

    async fn apply_user(
        &self,
        request: Request<ApplyUserRequest>,
    ) -> Result<Response<ApplyUserResponse>, Status> {
        let user = request
            .into_inner()
            .user
            .ok_or(Error::Invalid { field: "user", description: "is missing".into() })?;
        let person = Person::of_state(&user, Actor::Caller("hand-over".into())).map_err(|_| {
            Error::Invalid { field: "user", description: "has an id that is no UUID".into() }
        })?;
        let (organisation, id) = (person.organisation, person.id);
        let declares = !person.declared.is_empty();
        let (changed, approvers) = self
            .database
            .write(organisation, move |c| {
                Box::pin(async move {
                    let changed = person::hand_over(c, person).await?;
                    let approvers = if declares {
                        store::batch_get(c, organisation, vec![id]).await?
                    } else {
                        Vec::new()
                    };
                    Ok::<_, Error>((changed, approvers))
                })
            })
            .await?;
        if changed {
            self.feed.wake(organisation);
        }
        let approvers = approvers.into_iter().next().map(|(_, list)| list).unwrap_or_default();
        Ok(Response::new(ApplyUserResponse { approvers }))
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
        let Ok(user) = request.user_id.parse::<UserId>() else {
            return Ok(Response::new(ListChangesResponse::default()));
        };
        let before = match request.page_token.as_str() {
            "" => i64::MAX,
            token => token.parse().map_err(|_| Error::Invalid {
                field: "page_token",
                description: "is not one of an earlier answer".into(),
            })?,
        };
        let asked = request.page_size;
        let size: i64 = (if asked <= 0 { 100 } else { asked.min(1_000) }).into();
        let changes = self
            .database
            .read(organisation, move |c| {
                Box::pin(store::changes(c, organisation, user, before, size))
            })
            .await
            .map_err(Error::Database)?;
        let full = i64::try_from(changes.len()).is_ok_and(|len| len == size);
        let next_page_token = match changes.last() {
            Some(last) if full => last.sequence.to_string(),
            _ => String::new(),
        };
        let changes = changes.iter().map(store::change_message).collect();
        Ok(Response::new(ListChangesResponse { changes, next_page_token }))
    }
}

fn organisation_id(text: &str) -> Result<OrganisationId, Error> {
    text.parse().map_err(|_| Error::Invalid {
        field: "organisation_id",
        description: "is not a UUID; expected an organisation's id".into(),
    })
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
