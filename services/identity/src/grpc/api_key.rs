//! `ApiKeyService`.

use std::net::IpAddr;

use ipnet::IpNet;
use muster_proto::identity::v1::api_key_service_server::ApiKeyService;
use muster_proto::identity::v1::{
    ApiKey, AuditAction, AuthenticateApiKeyRequest, AuthenticateApiKeyResponse,
    CreateApiKeyRequest, CreateApiKeyResponse, ListApiKeysRequest, ListApiKeysResponse,
    RevokeApiKeyRequest,
};
use muster_runtime::clock;
use muster_runtime::grpc::database_status;
use tonic::{Request, Response, Status};

use super::{actor, organisation_id, required, time};
use crate::store::api_key as store;
use crate::store::audit::{self, Event};
use crate::{Error, Identity, organisation, secret};

/// The most networks that a key is limited to.
const MOST_NETWORKS: usize = 100;

#[tonic::async_trait]
impl ApiKeyService for Identity {
    async fn create_api_key(
        &self,
        request: Request<CreateApiKeyRequest>,
    ) -> Result<Response<CreateApiKeyResponse>, Status> {
        let request = request.into_inner();
        let key = required("api_key", request.api_key)?;
        let id = organisation_id(&key.organisation_id)?;
        let secret = secret::generate(secret::Kind::ApiKey, id);
        let key = store::NewApiKey {
            hash: secret::hash(&secret),
            prefix: secret::shown(&secret).to_owned(),
            label: organisation::name("label", &key.label)?,
            expires_at: time("expire_time", key.expire_time)?,
            source_networks: networks(key.source_networks)?,
            creator: actor(request.actor)?,
        };
        let event = Event {
            actor: key.creator.clone(),
            action: AuditAction::ApiKeyCreated,
            subject: key.label.clone(),
            client_address: request.client_address,
        };
        let key = self
            .database
            .write(id, move |c| {
                Box::pin(async move {
                    let now = clock::now();
                    let key = store::create(c, id, key, now).await?;
                    audit::add(c, id, event, now).await?;
                    Ok::<_, Error>(key)
                })
            })
            .await?;
        Ok(Response::new(CreateApiKeyResponse { api_key: Some(key), secret }))
    }

    async fn list_api_keys(
        &self,
        request: Request<ListApiKeysRequest>,
    ) -> Result<Response<ListApiKeysResponse>, Status> {
        let id = organisation_id(&request.into_inner().organisation_id)?;
        let api_keys = self.database.read(id, move |c| Box::pin(store::list(c, id))).await?;
        Ok(Response::new(ListApiKeysResponse { api_keys }))
    }

    async fn revoke_api_key(
        &self,
        request: Request<RevokeApiKeyRequest>,
    ) -> Result<Response<ApiKey>, Status> {
        let request = request.into_inner();
        let organisation = organisation_id(&request.organisation_id)?;
        let id = request.id.parse().map_err(|_| Error::NotFound("API key"))?;
        let (actor, client_address) = (actor(request.actor)?, request.client_address);
        let key = self
            .database
            .write(organisation, move |c| {
                Box::pin(async move {
                    let (action, now) = (AuditAction::ApiKeyRevoked, clock::now());
                    let key = store::revoke(c, organisation, id, now).await?;
                    let subject = key.label.clone();
                    let event = Event { actor, action, subject, client_address };
                    audit::add(c, organisation, event, now).await?;
                    Ok::<_, Error>(key)
                })
            })
            .await?;
        Ok(Response::new(key))
    }

    async fn authenticate_api_key(
        &self,
        request: Request<AuthenticateApiKeyRequest>,
    ) -> Result<Response<AuthenticateApiKeyResponse>, Status> {
        let secret = request.into_inner().secret;
        let (id, hash) =
            secret::parse(secret::Kind::ApiKey, &secret).ok_or(Error::Unauthenticated)?;
        let now = clock::now();
        let (key, organisation, stale) = self
            .database
            .point(id, move |c| Box::pin(store::authenticate(c, id, hash, now)))
            .await?;
        if stale {
            let noted = self.database.write(id, move |c| Box::pin(store::used(c, id, hash, now)));
            if let Err(error) = noted.await {
                // A note for the console: nobody is turned away for it. The status has been logged.
                drop(database_status(&error));
            }
        }
        Ok(Response::new(AuthenticateApiKeyResponse {
            api_key: Some(key),
            organisation: Some(organisation),
        }))
    }
}

/// Networks as they are compared: without the bits of a host.
fn networks(texts: Vec<String>) -> Result<Vec<String>, Error> {
    if texts.len() > MOST_NETWORKS {
        let description = format!("has {} networks; at most {MOST_NETWORKS}", texts.len());
        return Err(Error::Invalid { field: "source_networks", description });
    }
    let parse = |text: String| {
        let network = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        network.map(|network| network.trunc().to_string()).map_err(|_| Error::Invalid {
            field: "source_networks",
            description: format!("was {text:?}; expected a network such as 203.0.113.0/24"),
        })
    };
    texts.into_iter().map(parse).collect()
}
