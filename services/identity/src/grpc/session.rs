//! `SessionService`.

use muster_proto::identity::v1::session_service_server::SessionService;
use muster_proto::identity::v1::{
    AuthenticateSessionRequest, AuthenticateSessionResponse, EndSessionRequest, EndSessionResponse,
};
use muster_runtime::clock;
use muster_runtime::grpc::database_status;
use tonic::{Request, Response, Status};

use crate::store::session as store;
use crate::{Error, Identity, secret};

#[tonic::async_trait]
impl SessionService for Identity {
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
            .read(id, move |c| Box::pin(store::authenticate(c, id, hash, now)))
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
        if let Some((id, hash)) = secret::parse(secret::Kind::Session, &request.into_inner().secret)
        {
            self.database
                .write(id, move |c| Box::pin(store::delete(c, id, hash)))
                .await
                .map_err(Error::from)?;
        }
        Ok(Response::new(EndSessionResponse {}))
    }
}
