//! From where a client asks.

use std::convert::Infallible;
use std::net::IpAddr;

use axum::extract::FromRequestParts;
use http::{HeaderMap, request};
use muster_runtime::http_server::Peer;

use crate::Gateway;

/// The client's address, in text; empty where it is not known.
#[derive(Debug, Clone)]
pub(crate) struct ClientAddress(pub String);

impl FromRequestParts<Gateway> for ClientAddress {
    type Rejection = Infallible;

    async fn from_request_parts(
        parts: &mut request::Parts,
        gateway: &Gateway,
    ) -> Result<Self, Infallible> {
        Ok(Self(of(parts, gateway).map(|address| address.to_string()).unwrap_or_default()))
    }
}

/// The address that a request comes from; none where it is not known.
pub(crate) fn of(parts: &request::Parts, gateway: &Gateway) -> Option<IpAddr> {
    let peer = parts.extensions.get().map(|Peer(address)| *address);
    let told = if gateway.trusts_forwarded_for { forwarded_for(&parts.headers) } else { None };
    told.or(peer)
}

/// What the proxy nearest to us has added: what stands before it is the client's own word.
fn forwarded_for(headers: &HeaderMap) -> Option<IpAddr> {
    let value = headers.get_all("x-forwarded-for").iter().next_back()?.to_str().ok()?;
    value.rsplit(',').next()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_proxys_word_counts() {
        let mut headers = HeaderMap::new();
        assert_eq!(forwarded_for(&headers), None);
        headers.append("x-forwarded-for", "203.0.113.9".parse().unwrap());
        headers.append("x-forwarded-for", "198.51.100.1, 192.0.2.7".parse().unwrap());
        assert_eq!(forwarded_for(&headers), "192.0.2.7".parse().ok());
        headers.append("x-forwarded-for", "unknown".parse().unwrap());
        assert_eq!(forwarded_for(&headers), None);
    }
}
