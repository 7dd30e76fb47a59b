//! Who is calling: the API key in the `Authorization` header.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use http::{HeaderMap, StatusCode, header, request};
use muster_proto::feed::v1::{Actor, actor};
use muster_proto::identity::v1::{
    AuthenticateApiKeyRequest, AuthenticateApiKeyResponse, Organisation, UnknownMembers,
};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::admission::{Known, Place};
use crate::failure::Failure;
use crate::provisioning_log::Call;
use crate::{Gateway, client_address};

/// A SCIM client, authenticated.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    pub organisation: Organisation,
    pub api_key_id: String,
    /// Held until the request is answered.
    pub place: Arc<Place>,
}

impl Client {
    /// Whom the changes that it makes are by.
    pub(crate) fn actor(&self) -> Actor {
        Actor { kind: Some(actor::Kind::ApiKeyId(self.api_key_id.clone())) }
    }

    /// Whether a member who is no user fails a request.
    pub(crate) fn refuses_unknown_members(&self) -> bool {
        self.organisation.unknown_members() == UnknownMembers::Refuse
    }
}

impl FromRequestParts<Gateway> for Client {
    type Rejection = Failure;

    async fn from_request_parts(
        parts: &mut request::Parts,
        gateway: &Gateway,
    ) -> Result<Self, Failure> {
        // An operation of a bulk request, whose client has been authenticated.
        if let Some(client) = parts.extensions.get::<Self>() {
            return Ok(client.clone());
        }
        let secret = secret(&parts.headers).ok_or_else(unauthorized)?;
        let known = match gateway.admission.known(secret) {
            Some(known) => known,
            None => authenticate(gateway, secret, parts.extensions.get()).await?,
        };
        if let Some(call) = parts.extensions.get::<Call>() {
            call.by(&known.organisation.id, &known.api_key_id);
        }
        let address = client_address::of(parts, gateway);
        let place = gateway.admission.admit(&known, address).await?;
        let Known { api_key_id, organisation, .. } = known;
        Ok(Self { organisation, api_key_id, place })
    }
}

/// Asks identity whose key it is.
async fn authenticate(
    gateway: &Gateway,
    secret: &str,
    call: Option<&Call>,
) -> Result<Known, Failure> {
    let mut api_keys = gateway.parts.api_keys.clone();
    let request = AuthenticateApiKeyRequest { secret: secret.to_owned() };
    let answer = api_keys.authenticate_api_key(request).await.map_err(|status| {
        if status.code() != Code::Unauthenticated {
            return status.into();
        }
        note_refused(call, &status);
        unauthorized()
    })?;
    match answer.into_inner() {
        AuthenticateApiKeyResponse { api_key: Some(key), organisation: Some(organisation) } => {
            Ok(gateway.admission.learn(secret, &key, organisation))
        }
        _ => Err(unauthorized()),
    }
}

/// Notes for the log whose key it is that is refused, where it is anybody's. The client is not told.
fn note_refused(call: Option<&Call>, status: &Status) {
    let details = status.get_details_error_info();
    if let (Some(call), Some(info)) = (call, details)
        && let (Some(organisation), Some(api_key)) =
            (info.metadata.get("organisation_id"), info.metadata.get("api_key_id"))
    {
        call.refused(organisation, api_key);
    }
}

fn unauthorized() -> Failure {
    Failure::new(
        StatusCode::UNAUTHORIZED,
        "the Authorization header holds no valid API key; send \"Static KEY\" with a key that an \
         admin generated under Settings, and that is not revoked or expired",
    )
}

/// The key in the header: `Static K`, `Bearer K` or `Bearer Static K`, since the guide has admins
/// type `Static K` into a field that some clients put `Bearer` in front of.
fn secret(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = values.next()?.to_str().ok()?.trim();
    if values.next().is_some() {
        return None;
    }
    let after = |text: &'_ str, scheme: &str| -> Option<usize> {
        let (start, rest) = text.split_at_checked(scheme.len())?;
        let blank = rest.len() - rest.trim_start().len();
        (start.eq_ignore_ascii_case(scheme) && blank > 0).then_some(scheme.len() + blank)
    };
    let key = match after(value, "Bearer") {
        Some(at) => {
            let rest = &value[at..];
            after(rest, "Static").map_or(rest, |at| &rest[at..])
        }
        None => &value[after(value, "Static")?..],
    };
    (!key.is_empty() && !key.contains(char::is_whitespace)).then_some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(values: &[&str]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::AUTHORIZATION, value.parse().unwrap());
        }
        secret(&headers).map(str::to_owned)
    }

    #[test]
    fn static_bearer_and_bearer_static_name_the_same_key() {
        for value in ["Static K", "Bearer K", "Bearer Static K", "STATIC  K", "bearer static K "] {
            assert_eq!(read(&[value]).as_deref(), Some("K"), "{value}");
        }
    }

    #[test]
    fn anything_else_names_none() {
        for value in
            ["", "K", "Basic K", "Static", "Static Static K", "Static a b", "StaticK", "Bearer"]
        {
            assert_eq!(read(&[value]), None, "{value}");
        }
        assert_eq!(read(&["Static K", "Static K"]), None);
        assert_eq!(read(&[]), None);
    }
}
