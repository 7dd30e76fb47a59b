//! `AdminService`.

use muster_proto::identity::v1::admin_service_server::AdminService;
use muster_proto::identity::v1::reset_admin_request::Key;
use muster_proto::identity::v1::{
    Admin, AuditAction, CreateAdminRequest, CreateAdminResponse, DeleteAdminRequest,
    DeleteAdminResponse, ListAdminsRequest, ListAdminsResponse, ResetAdminRequest,
    ResetAdminResponse,
};
use muster_runtime::clock;
use muster_runtime::feed::Actor;
use tonic::{Request, Response, Status};

use super::{actor, organisation_id, required};
use crate::session::{INVITATION, RESET};
use crate::store::audit::{self, Event};
use crate::store::sign_in::Account;
use crate::store::{admin as store, invitation};
use crate::{Error, Identity, organisation, secret};

#[tonic::async_trait]
impl AdminService for Identity {
    async fn create_admin(
        &self,
        request: Request<CreateAdminRequest>,
    ) -> Result<Response<CreateAdminResponse>, Status> {
        let request = request.into_inner();
        let admin = required("admin", request.admin)?;
        let id = organisation_id(&admin.organisation_id)?;
        let actor = actor(request.actor)?;
        let admin = Admin {
            email: email(&admin.email)?,
            display_name: organisation::name("display_name", &admin.display_name)?,
            ..admin
        };
        let invitation = secret::generate(secret::Kind::Invitation, id);
        let (hash, now) = (secret::hash(&invitation), clock::now());
        let expires_at = now + lifetime(&actor);
        let event = Event {
            actor,
            action: AuditAction::AdminInvited,
            subject: admin.email.clone(),
            client_address: request.client_address,
        };
        let admin = self
            .database
            .write(id, move |c| {
                Box::pin(async move {
                    let (account, admin) = store::create(c, id, admin, now).await?;
                    invitation::create(c, account, hash, expires_at).await?;
                    audit::add(c, id, event, now).await?;
                    Ok::<_, Error>(admin)
                })
            })
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

    async fn reset_admin(
        &self,
        request: Request<ResetAdminRequest>,
    ) -> Result<Response<ResetAdminResponse>, Status> {
        let request = request.into_inner();
        let id = organisation_id(&request.organisation_id)?;
        let key = required("key", request.key)?;
        let actor = actor(request.actor)?;
        let client_address = request.client_address;
        let invitation = secret::generate(secret::Kind::Invitation, id);
        let (hash, now) = (secret::hash(&invitation), clock::now());
        let expires_at = now + lifetime(&actor);
        let admin = self
            .database
            .write(id, move |c| {
                Box::pin(async move {
                    let admin = match key {
                        Key::Id(id) => id.parse().map_err(|_| Error::NotFound("admin"))?,
                        Key::Email(email) => {
                            store::find(c, id, &muster_scim::caseless::key(&email)).await?
                        }
                    };
                    let account = Account { organisation: id, admin };
                    let admin = store::get(c, account).await?;
                    invitation::delete_all(c, account).await?;
                    invitation::create(c, account, hash, expires_at).await?;
                    let (action, subject) = (AuditAction::AdminReset, admin.email.clone());
                    audit::add(c, id, Event { actor, action, subject, client_address }, now)
                        .await?;
                    Ok::<_, Error>(admin)
                })
            })
            .await?;
        Ok(Response::new(ResetAdminResponse { admin: Some(admin), invitation }))
    }

    async fn delete_admin(
        &self,
        request: Request<DeleteAdminRequest>,
    ) -> Result<Response<DeleteAdminResponse>, Status> {
        let request = request.into_inner();
        let id = organisation_id(&request.organisation_id)?;
        let admin = request.id.parse().map_err(|_| Error::NotFound("admin"))?;
        let actor = actor(request.actor)?;
        // So one is always left.
        if matches!(actor, Actor::Admin(by) if by == admin) {
            return Err(Error::Oneself.into());
        }
        let client_address = request.client_address;
        self.database
            .write(id, move |c| {
                Box::pin(async move {
                    let (action, now) = (AuditAction::AdminRemoved, clock::now());
                    let subject = store::delete(c, Account { organisation: id, admin }).await?;
                    audit::add(c, id, Event { actor, action, subject, client_address }, now).await
                })
            })
            .await?;
        Ok(Response::new(DeleteAdminResponse {}))
    }
}

/// How long a link lasts: an admin sends it to a colleague, an operator opens it.
fn lifetime(actor: &Actor) -> time::Duration {
    if matches!(actor, Actor::Admin(_)) { INVITATION } else { RESET }
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
