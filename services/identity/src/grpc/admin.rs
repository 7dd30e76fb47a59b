//! `AdminService`.

use muster_proto::identity::v1::admin_service_server::AdminService;
use muster_proto::identity::v1::{
    Admin, CreateAdminRequest, CreateAdminResponse, ListAdminsRequest, ListAdminsResponse,
};
use muster_runtime::clock;
use tonic::{Request, Response, Status};

use super::{organisation_id, required};
use crate::store::admin as store;
use crate::{Error, Identity, organisation, secret};

/// How long an invitation lasts.
const INVITATION: time::Duration = time::Duration::minutes(30);

#[tonic::async_trait]
impl AdminService for Identity {
    async fn create_admin(
        &self,
        request: Request<CreateAdminRequest>,
    ) -> Result<Response<CreateAdminResponse>, Status> {
        let admin = required("admin", request.into_inner().admin)?;
        let id = organisation_id(&admin.organisation_id)?;
        let admin = Admin {
            email: email(&admin.email)?,
            display_name: organisation::name("display_name", &admin.display_name)?,
            ..admin
        };
        let invitation = secret::generate(secret::Kind::Invitation, id);
        let (hash, now) = (secret::hash(&invitation), clock::now());
        let admin = self
            .database
            .write(id, move |c| Box::pin(store::create(c, id, admin, hash, now, now + INVITATION)))
            .await?;
        Ok(Response::new(CreateAdminResponse { admin: Some(admin), invitation }))
    }

    async fn list_admins(
        &self,
        request: Request<ListAdminsRequest>,
    ) -> Result<Response<ListAdminsResponse>, Status> {
        let id = organisation_id(&request.into_inner().organisation_id)?;
        let admins = self.database.read(id, move |c| Box::pin(store::list(c, id))).await?;
        Ok(Response::new(ListAdminsResponse { admins }))
    }
}

fn email(email: &str) -> Result<String, Error> {
    let email = organisation::name("email", email)?;
    match email.split_once('@') {
        Some((local, domain)) if !local.is_empty() && !domain.is_empty() => Ok(email),
        _ => Err(Error::Invalid {
            field: "email",
            description: "has no @; expected an address such as ann@example.com".into(),
        }),
    }
}
