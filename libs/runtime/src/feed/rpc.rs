//! `WatchChanges` and `ListChanges`, which are alike in every service but for the messages.

use futures::StreamExt as _;
use futures::stream::BoxStream;
use muster_proto::feed::v1::WatchStart;
use tonic::{Code, Response, Status};
use tonic_types::{ErrorDetails, StatusExt as _};
use uuid::Uuid;

use super::{Change, Feed, Watch, Watched, read};
use crate::grpc::database_status;
use crate::id::OrganisationId;

/// How many changes a page has that names no size, and at most.
const PAGE: (i32, i32) = (100, 1_000);

/// The stream of `WatchChanges`.
pub type Messages<M> = BoxStream<'static, Result<M, Status>>;

/// What a `ListChanges` asks for, as its request has it.
#[derive(Debug, Clone)]
pub struct HistoryRequest {
    /// The organisation.
    pub organisation_id: String,
    /// The user or group; may have been deleted.
    pub subject_id: String,
    /// See [`PAGE`].
    pub page_size: i32,
    /// From the previous answer; empty for the first page.
    pub page_token: String,
}

impl Feed {
    /// Answers `WatchChanges`; `message` makes the service's message of what is told. `start` is
    /// the number of a [`WatchStart`].
    pub fn watch_changes<M: 'static>(
        &self,
        organisation_id: &str,
        resume_tokens: Vec<String>,
        start: i32,
        message: fn(&Watched) -> M,
    ) -> Result<Response<Messages<M>>, Status> {
        let organisation = match organisation_id {
            "" => None,
            id => Some(parse_organisation(id)?),
        };
        let from_now = WatchStart::try_from(start) == Ok(WatchStart::Now);
        let watched = self.watch(Watch { organisation, resume_tokens, from_now })?;
        Ok(Response::new(watched.map(move |told| told.map(|told| message(&told))).boxed()))
    }

    /// Answers `ListChanges`: the changes of one subject, the newest first, and the token of the
    /// next page, empty on the last.
    pub async fn list_changes<M>(
        &self,
        request: HistoryRequest,
        message: fn(&Change) -> M,
    ) -> Result<(Vec<M>, String), Status> {
        let organisation = parse_organisation(&request.organisation_id)?;
        // What is no id is nobody's.
        let Ok(subject) = Uuid::try_parse(&request.subject_id) else {
            return Ok((Vec::new(), String::new()));
        };
        let before = match request.page_token.as_str() {
            "" => i64::MAX,
            token => token
                .parse()
                .map_err(|_| invalid("page_token", "is not one of an earlier answer"))?,
        };
        let (default, largest) = PAGE;
        let asked = request.page_size;
        let size = i64::from(if asked <= 0 { default } else { asked.min(largest) });
        let changes = self
            .database
            .read(organisation, move |c| {
                Box::pin(read::history(c, organisation, subject, before, size))
            })
            .await
            .map_err(|error| database_status(&error))?;
        let full = i64::try_from(changes.len()).is_ok_and(|len| len == size);
        let next_page_token = match changes.last() {
            Some(last) if full => last.sequence.to_string(),
            _ => String::new(),
        };
        Ok((changes.iter().map(message).collect(), next_page_token))
    }
}

fn parse_organisation(text: &str) -> Result<OrganisationId, Status> {
    text.parse()
        .map_err(|_| invalid("organisation_id", "is not a UUID; expected an organisation's id"))
}

fn invalid(field: &str, description: &str) -> Status {
    Status::with_error_details(
        Code::InvalidArgument,
        format!("{field} {description}"),
        ErrorDetails::with_bad_request_violation(field, description),
    )
}
