//! `ProvisioningLogService`.

use std::collections::BTreeMap;

use muster_proto::identity::v1::provisioning_log_service_server::ProvisioningLogService;
use muster_proto::identity::v1::{
    AppendProvisioningLogRequest, AppendProvisioningLogResponse, GetProvisioningLogEntryRequest,
    ListProvisioningLogRequest, ListProvisioningLogResponse, ProvisioningLogEntry,
    ProvisioningOutcome, SummariseProvisioningRequest, SummariseProvisioningResponse,
};
use muster_runtime::grpc::cut_page;
use muster_runtime::id::OrganisationId;
use muster_scim::caseless;
use tonic::{Request, Response, Status};
use uuid::Uuid;

use super::{organisation_id, page_size, time};
use crate::provisioning_log::Entry;
use crate::store::provisioning_log as store;
use crate::{Error, Identity};

/// The most entries in one batch.
const LARGEST_BATCH: usize = 1_000;

#[tonic::async_trait]
impl ProvisioningLogService for Identity {
    async fn append_provisioning_log(
        &self,
        request: Request<AppendProvisioningLogRequest>,
    ) -> Result<Response<AppendProvisioningLogResponse>, Status> {
        let entries = request.into_inner().entries;
        if entries.len() > LARGEST_BATCH {
            let description = format!("has {} entries; at most {LARGEST_BATCH}", entries.len());
            return Err(Error::Invalid { field: "entries", description }.into());
        }
        let mut organisations: BTreeMap<OrganisationId, Vec<Entry>> = BTreeMap::new();
        for entry in entries {
            let entry = Entry::try_from(entry)?;
            organisations.entry(entry.organisation).or_default().push(entry);
        }
        let mut failure = None;
        for (organisation, entries) in organisations {
            let appended: Result<(), Error> = self
                .database
                .write(organisation, move |c| {
                    Box::pin(async move { Ok(store::append(c, organisation, entries).await?) })
                })
                .await;
            // One organisation's failure is not another's.
            failure = failure.or(appended.err());
        }
        match failure {
            Some(error) => Err(error.into()),
            None => Ok(Response::new(AppendProvisioningLogResponse {})),
        }
    }

    async fn get_provisioning_log_entry(
        &self,
        request: Request<GetProvisioningLogEntryRequest>,
    ) -> Result<Response<ProvisioningLogEntry>, Status> {
        let request = request.into_inner();
        let organisation = organisation_id(&request.organisation_id)?;
        let id =
            request.id.parse().map_err(|_| Error::NotFound("entry of the provisioning log"))?;
        let entry = self
            .database
            .read(organisation, move |c| Box::pin(store::get(c, organisation, id)))
            .await?;
        Ok(Response::new(entry))
    }

    async fn list_provisioning_log(
        &self,
        request: Request<ListProvisioningLogRequest>,
    ) -> Result<Response<ListProvisioningLogResponse>, Status> {
        let request = request.into_inner();
        let organisation = organisation_id(&request.organisation_id)?;
        let size = page_size(request.page_size);
        let Some(listing) = listing(&request, size)? else {
            return Ok(Response::new(ListProvisioningLogResponse::default()));
        };
        let mut entries = self
            .database
            .read(organisation, move |c| Box::pin(store::list(c, organisation, listing)))
            .await
            .map_err(Error::Database)?;
        let next_page_token =
            cut_page(&mut entries, size).map(|last| last.id.clone()).unwrap_or_default();
        Ok(Response::new(ListProvisioningLogResponse { entries, next_page_token }))
    }

    async fn summarise_provisioning(
        &self,
        request: Request<SummariseProvisioningRequest>,
    ) -> Result<Response<SummariseProvisioningResponse>, Status> {
        let organisation = organisation_id(&request.into_inner().organisation_id)?;
        let counts = self
            .database
            .read(organisation, move |c| Box::pin(store::counts(c, organisation)))
            .await
            .map_err(Error::Database)?;
        Ok(Response::new(SummariseProvisioningResponse { counts }))
    }
}

/// What is asked for; none where it names what cannot be: what is no id is nobody's.
fn listing(
    request: &ListProvisioningLogRequest,
    size: i64,
) -> Result<Option<store::Listing>, Error> {
    let before = match request.page_token.as_str() {
        "" => None,
        token => Some(token.parse().map_err(|_| Error::Invalid {
            field: "page_token",
            description: "is not one of an earlier answer".into(),
        })?),
    };
    let subject_id = Uuid::try_parse(&request.subject_id).ok();
    let api_key = request.api_key_id.parse().ok();
    let nobody = (subject_id.is_none() && !request.subject_id.is_empty())
        || (api_key.is_none() && !request.api_key_id.is_empty());
    let prefix = caseless::key(&request.subject_name_prefix);
    Ok((!nobody).then_some(store::Listing {
        outcome: Some(request.outcome()).filter(|o| *o != ProvisioningOutcome::Unspecified),
        subject_id,
        subject_name_prefix: Some(prefix).filter(|prefix| !prefix.is_empty()),
        api_key,
        changes_only: request.changes_only,
        since: time("since", request.since)?,
        until: time("until", request.until)?,
        before,
        limit: size + 1,
    }))
}
