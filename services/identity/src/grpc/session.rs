//! `SessionService`; `sign_in.rs` has what is more than a statement.

use muster_proto::identity::v1::session_service_server::SessionService;
use muster_proto::identity::v1::{
    AcceptInvitationRequest, AuditAction, AuthenticateSessionRequest, AuthenticateSessionResponse,
    ChangePasswordRequest, ChooseOrganisationRequest, EndSessionRequest, EndSessionResponse,
    EndSessionsRequest, EndSessionsResponse, GetInvitationRequest, GetInvitationResponse,
    SignInRequest, SignInResponse, SignInVerifiedRequest,
};
use muster_runtime::clock;
use muster_runtime::feed::Actor;
use muster_runtime::grpc::database_status;
use tonic::{Request, Response, Status};

use super::{actor, organisation_id};
use crate::store::audit::{self, Event};
use crate::store::session as store;
use crate::store::sign_in::Account;
use crate::store::{admin, invitation, organisation};
use crate::{Error, Identity, secret};

#[tonic::async_trait]
impl SessionService for Identity {
    async fn sign_in(
        &self,
        request: Request<SignInRequest>,
    ) -> Result<Response<SignInResponse>, Status> {
        Ok(Response::new(self.sign_in_with_password(request.into_inner()).await?))
    }

    async fn sign_in_verified(
        &self,
        request: Request<SignInVerifiedRequest>,
    ) -> Result<Response<SignInResponse>, Status> {
        let SignInVerifiedRequest { email, client_address } = request.into_inner();
        Ok(Response::new(self.sign_in_as(&email, client_address).await?))
    }

    async fn choose_organisation(
        &self,
        request: Request<ChooseOrganisationRequest>,
    ) -> Result<Response<SignInResponse>, Status> {
        let request = request.into_inner();
        let chosen = secret::parse(secret::Kind::Choice, &request.secret);
        let (id, hash) = chosen.ok_or(Error::NotFound("choice"))?;
        let session = secret::generate(secret::Kind::Session, id);
        let (session_hash, now) = (secret::hash(&session), clock::now());
        self.database
            .write(id, move |c| {
                Box::pin(async move {
                    invitation::get(c, id, hash, now).await?;
                    let account = invitation::take(c, id, hash, now).await?;
                    store::begin(c, account, session_hash, now).await?;
                    let admin = admin::get(c, account).await?;
                    let event = by_themselves(account, admin.email, request.client_address);
                    audit::add(c, id, event(AuditAction::SignedIn), now).await
                })
            })
            .await?;
        Ok(Response::new(SignInResponse { session, choices: Vec::new() }))
    }

    async fn get_invitation(
        &self,
        request: Request<GetInvitationRequest>,
    ) -> Result<Response<GetInvitationResponse>, Status> {
        let invited = secret::parse(secret::Kind::Invitation, &request.into_inner().secret);
        let (id, hash) = invited.ok_or(Error::NotFound("link"))?;
        let (admin, organisation) = self
            .database
            .read(id, move |c| {
                Box::pin(async move {
                    let admin = invitation::get(c, id, hash, clock::now()).await?;
                    let admin = admin::get(c, Account { organisation: id, admin }).await?;
                    Ok::<_, Error>((admin, organisation::get(c, id).await?))
                })
            })
            .await?;
        Ok(Response::new(GetInvitationResponse {
            admin: Some(admin),
            organisation: Some(organisation),
        }))
    }

    async fn accept_invitation(
        &self,
        request: Request<AcceptInvitationRequest>,
    ) -> Result<Response<SignInResponse>, Status> {
        Ok(Response::new(self.set_password_by_link(request.into_inner()).await?))
    }

    async fn change_password(
        &self,
        request: Request<ChangePasswordRequest>,
    ) -> Result<Response<SignInResponse>, Status> {
        Ok(Response::new(self.set_another_password(request.into_inner()).await?))
    }

    async fn authenticate_session(
        &self,
        request: Request<AuthenticateSessionRequest>,
    ) -> Result<Response<AuthenticateSessionResponse>, Status> {
        let AuthenticateSessionRequest { secret, unattended } = request.into_inner();
        let (id, hash) =
            secret::parse(secret::Kind::Session, &secret).ok_or(Error::Unauthenticated)?;
        let now = clock::now();
        let (admin, organisation, stale) = self
            .database
            .point(id, move |c| Box::pin(store::authenticate(c, id, hash, now)))
            .await?;
        if stale && !unattended {
            let noted = self.database.write(id, move |c| Box::pin(store::used(c, id, hash, now)));
            if let Err(error) = noted.await {
                // The session ends sooner for it, at worst. The status has been logged.
                drop(database_status(&error));
            }
        }
        Ok(Response::new(AuthenticateSessionResponse {
            admin: Some(admin),
            organisation: Some(organisation),
        }))
    }

    async fn end_session(
        &self,
        request: Request<EndSessionRequest>,
    ) -> Result<Response<EndSessionResponse>, Status> {
        let EndSessionRequest { secret, client_address } = request.into_inner();
        if let Some((id, hash)) = secret::parse(secret::Kind::Session, &secret) {
            self.database
                .write(id, move |c| {
                    Box::pin(async move {
                        let Some(admin) = store::end(c, id, hash).await? else { return Ok(()) };
                        let account = Account { organisation: id, admin };
                        let email = admin::get(c, account).await?.email;
                        let event = by_themselves(account, email, client_address);
                        audit::add(c, id, event(AuditAction::SignedOut), clock::now()).await?;
                        Ok::<_, Error>(())
                    })
                })
                .await?;
        }
        Ok(Response::new(EndSessionResponse {}))
    }

    async fn end_sessions(
        &self,
        request: Request<EndSessionsRequest>,
    ) -> Result<Response<EndSessionsResponse>, Status> {
        let request = request.into_inner();
        let organisation = organisation_id(&request.organisation_id)?;
        let admin = request.admin_id.parse().map_err(|_| Error::NotFound("admin"))?;
        let account = Account { organisation, admin };
        let (actor, client_address) = (actor(request.actor)?, request.client_address);
        self.database
            .write(organisation, move |c| {
                Box::pin(async move {
                    let subject = admin::get(c, account).await?.email;
                    store::end_all(c, account).await?;
                    let action = AuditAction::SignedOutEverywhere;
                    let event = Event { actor, action, subject, client_address };
                    audit::add(c, organisation, event, clock::now()).await
                })
            })
            .await?;
        Ok(Response::new(EndSessionsResponse {}))
    }
}

/// What an admin does to themselves, once it is said what.
pub(super) fn by_themselves(
    account: Account,
    email: String,
    client_address: String,
) -> impl FnOnce(AuditAction) -> Event {
    let actor = Actor::Admin(account.admin);
    move |action| Event { actor, action, subject: email, client_address }
}
