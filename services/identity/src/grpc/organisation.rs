//! `OrganisationService`.

use muster_proto::identity::v1::get_organisation_request::Key;
use muster_proto::identity::v1::organisation_service_server::OrganisationService;
use muster_proto::identity::v1::{
    AuditAction, CreateOrganisationRequest, GetOrganisationRequest, ListOrganisationsRequest,
    ListOrganisationsResponse, Organisation, UpdateOrganisationRequest,
};
use muster_runtime::clock;
use muster_runtime::grpc::cut_page;
use muster_runtime::id::OrganisationId;
use tonic::{Request, Response, Status};

use super::{actor, organisation_id, page_size, required};
use crate::store::audit::{self, Event};
use crate::store::organisation as store;
use crate::{Error, Identity, organisation};

#[tonic::async_trait]
impl OrganisationService for Identity {
    async fn create_organisation(
        &self,
        request: Request<CreateOrganisationRequest>,
    ) -> Result<Response<Organisation>, Status> {
        let organisation = required("organisation", request.into_inner().organisation)?;
        organisation::slug(&organisation.slug)?;
        let organisation = organisation::checked(organisation)?;
        let (id, now) = (OrganisationId::new(), clock::now());
        let created = self
            .database
            .write(id, move |c| Box::pin(store::create(c, id, organisation, now)))
            .await?;
        self.feed.wake(id);
        Ok(Response::new(created))
    }

    async fn get_organisation(
        &self,
        request: Request<GetOrganisationRequest>,
    ) -> Result<Response<Organisation>, Status> {
        let organisation = match required("key", request.into_inner().key)? {
            Key::Id(id) => {
                let id = organisation_id(&id)?;
                self.database.read_shared(move |c| Box::pin(store::get(c, id))).await?
            }
            Key::Slug(slug) => {
                self.database.read_shared(move |c| Box::pin(store::get_by_slug(c, slug))).await?
            }
        };
        Ok(Response::new(organisation))
    }

    async fn list_organisations(
        &self,
        request: Request<ListOrganisationsRequest>,
    ) -> Result<Response<ListOrganisationsResponse>, Status> {
        let request = request.into_inner();
        let size = page_size(request.page_size);
        let after = match request.page_token.as_str() {
            "" => None,
            token => Some(token.parse().map_err(|_| Error::Invalid {
                field: "page_token",
                description: "is not one of an earlier answer".into(),
            })?),
        };
        let mut organisations =
            self.database.read_shared(move |c| Box::pin(store::list(c, after, size + 1))).await?;
        let next_page_token =
            cut_page(&mut organisations, size).map(|last| last.id.clone()).unwrap_or_default();
        Ok(Response::new(ListOrganisationsResponse { organisations, next_page_token }))
    }

    async fn update_organisation(
        &self,
        request: Request<UpdateOrganisationRequest>,
    ) -> Result<Response<Organisation>, Status> {
        let request = request.into_inner();
        let organisation = required("organisation", request.organisation)?;
        let id = organisation_id(&organisation.id)?;
        let organisation = organisation::checked(organisation)?;
        let event = Event {
            actor: actor(request.actor)?,
            action: AuditAction::SettingsChanged,
            subject: organisation.display_name.clone(),
            client_address: request.client_address,
        };
        let updated = self
            .database
            .write(id, move |c| {
                Box::pin(async move {
                    let updated = store::update(c, id, organisation).await?;
                    audit::add(c, id, event, clock::now()).await?;
                    Ok::<_, Error>(updated)
                })
            })
            .await?;
        Ok(Response::new(updated))
    }
}
