//! `AuditService`.

use muster_proto::identity::v1::audit_service_server::AuditService;
use muster_proto::identity::v1::{
    AuditAction, AuditEvent, CreateAuditEventRequest, ListAuditEventsRequest,
    ListAuditEventsResponse,
};
use muster_runtime::clock;
use muster_runtime::grpc::cut_page;
use tonic::{Request, Response, Status};
use uuid::Uuid;

use super::{actor, organisation_id, page_size, required};
use crate::store::audit as store;
use crate::{Error, Identity, organisation};

#[tonic::async_trait]
impl AuditService for Identity {
    async fn create_audit_event(
        &self,
        request: Request<CreateAuditEventRequest>,
    ) -> Result<Response<AuditEvent>, Status> {
        let event = required("event", request.into_inner().event)?;
        let id = organisation_id(&event.organisation_id)?;
        let action = event.action();
        if action == AuditAction::Unspecified {
            let description = "is missing or unknown; expected one of AuditAction".into();
            return Err(Error::Invalid { field: "action", description }.into());
        }
        let event = store::Event {
            actor: actor(event.actor)?,
            action,
            subject: organisation::name("subject", &event.subject)?,
            client_address: event.client_address,
        };
        let event = self
            .database
            .write(id, move |c| Box::pin(store::add(c, id, event, clock::now())))
            .await?;
        Ok(Response::new(event))
    }

    async fn list_audit_events(
        &self,
        request: Request<ListAuditEventsRequest>,
    ) -> Result<Response<ListAuditEventsResponse>, Status> {
        let request = request.into_inner();
        let id = organisation_id(&request.organisation_id)?;
        let size = page_size(request.page_size);
        let before = match request.page_token.as_str() {
            "" => None,
            token => Some(Uuid::try_parse(token).map_err(|_| Error::Invalid {
                field: "page_token",
                description: "is not one of an earlier answer".into(),
            })?),
        };
        let mut events =
            self.database.read(id, move |c| Box::pin(store::list(c, id, before, size + 1))).await?;
        let next_page_token =
            cut_page(&mut events, size).map(|last| last.id.clone()).unwrap_or_default();
        Ok(Response::new(ListAuditEventsResponse { events, next_page_token }))
    }
}
