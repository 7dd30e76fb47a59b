//! A small SCIM client that behaves as Okta's: what the rehearsal and the end-to-end tests speak
//! to a server with.

use std::{fmt, time::Duration};

use anyhow::{Context, bail};
use bytes::Bytes;
pub use http::{HeaderMap, Method};
use http::{
    HeaderName, HeaderValue, Request, Uri,
    header::{ACCEPT, ACCEPT_CHARSET, AUTHORIZATION, CONTENT_TYPE, ETAG, USER_AGENT},
};
use http_body_util::{BodyExt, Full};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use percent_encoding::{AsciiSet, CONTROLS, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

/// How long one request may take, from the first byte sent to the last byte read. Okta gives up
/// after 60 s; a server that needs half of that is already in trouble.
const TIMEOUT: Duration = Duration::from_secs(30);

/// What a query's value is encoded with: everything but the unreserved characters (RFC 3986 §2.3).
const QUERY_VALUE: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// What may not stand in a request's target as it is. `%` may: the caller has encoded something.
const NOT_IN_A_TARGET: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'<')
    .add(b'>')
    .add(b'[')
    .add(b'\\')
    .add(b']')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

/// A SCIM server and the authorization to speak to it. Cloning shares the connections.
#[derive(Clone)]
pub struct ScimClient {
    http: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    base_url: String,
    authorization: HeaderValue,
}

/// What a server answered.
#[derive(Debug, Clone)]
pub struct Answer {
    /// HTTP status code.
    pub status: u16,
    /// All header fields.
    pub headers: HeaderMap,
    /// The body as JSON; `None` if it is empty or no JSON.
    pub body: Option<Value>,
    /// The body as it came.
    pub text: String,
}

impl ScimClient {
    /// A client for the server at `base_url` (such as `http://127.0.0.1:8080/scim/v2`) that sends
    /// `authorization` (such as `Static muster_…`) with every request.
    ///
    /// Fails if `base_url` is no `http` or `https` URL or `authorization` cannot stand in a header.
    pub fn new(
        base_url: impl Into<String>,
        authorization: impl AsRef<str>,
    ) -> anyhow::Result<Self> {
        let base_url = base_url.into().trim_end_matches('/').to_owned();
        let uri: Uri = base_url.parse().with_context(|| format!("{base_url:?} is no URL"))?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.query().is_some() {
            bail!("{base_url:?} is not a SCIM base URL: expected http://… or https://…");
        }
        // The parser's error would repeat the value, which is a secret.
        let Ok(mut authorization) = HeaderValue::from_str(authorization.as_ref()) else {
            bail!("the authorization holds characters that an HTTP header cannot carry");
        };
        authorization.set_sensitive(true);
        let connector =
            HttpsConnectorBuilder::new().with_webpki_roots().https_or_http().enable_http1().build();
        let http = Client::builder(TokioExecutor::new()).build(connector);
        Ok(Self { http, base_url, authorization })
    }

    /// The base URL, without a slash at the end.
    #[must_use]
    pub fn base_url(&self) -> &str {
        &self.base_url
    }

    /// The secret alone, without `Static` or `Bearer` before it.
    #[must_use]
    pub fn key(&self) -> &str {
        let authorization = self.authorization.to_str().unwrap_or_default();
        authorization.rsplit(' ').next().unwrap_or_default()
    }

    /// `GET`
    pub async fn get(&self, path_and_query: &str) -> anyhow::Result<Answer> {
        self.send(Method::GET, path_and_query, None).await
    }

    /// `POST`
    pub async fn post(&self, path_and_query: &str, body: &Value) -> anyhow::Result<Answer> {
        self.send(Method::POST, path_and_query, Some(body)).await
    }

    /// `PUT`
    pub async fn put(&self, path_and_query: &str, body: &Value) -> anyhow::Result<Answer> {
        self.send(Method::PUT, path_and_query, Some(body)).await
    }

    /// `PATCH`
    pub async fn patch(&self, path_and_query: &str, body: &Value) -> anyhow::Result<Answer> {
        self.send(Method::PATCH, path_and_query, Some(body)).await
    }

    /// `DELETE`
    pub async fn delete(&self, path_and_query: &str) -> anyhow::Result<Answer> {
        self.send(Method::DELETE, path_and_query, None).await
    }

    /// Sends a request to `path_and_query` below the base URL, with a JSON body if there is one.
    ///
    /// An answer of any status is `Ok`; an error means that there was none.
    pub async fn send(
        &self,
        method: Method,
        path_and_query: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<Answer> {
        let body = body.map(|body| Bytes::from(body.to_string()));
        self.send_bytes(method, path_and_query, body, &[]).await
    }

    /// Sends a body that need not be JSON, and other header fields than Okta would: each of
    /// `headers` takes the place of the one of that name, `None` leaves it out.
    pub async fn send_bytes(
        &self,
        method: Method,
        path_and_query: &str,
        body: Option<Bytes>,
        headers: &[(HeaderName, Option<HeaderValue>)],
    ) -> anyhow::Result<Answer> {
        let path_and_query = utf8_percent_encode(path_and_query, NOT_IN_A_TARGET).to_string();
        let said = format!("{method} {}{path_and_query}", self.base_url);
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path_and_query}", self.base_url))
            .body(Full::new(body.clone().unwrap_or_default()))
            .with_context(|| said.clone())?;
        *request.headers_mut() = self.okta_headers(body.is_some());
        for (name, value) in headers {
            match value {
                Some(value) => request.headers_mut().insert(name, value.clone()),
                None => request.headers_mut().remove(name),
            };
        }
        tokio::time::timeout(TIMEOUT, self.exchange(request))
            .await
            .with_context(|| format!("{said}: no answer within {} s", TIMEOUT.as_secs()))?
            .with_context(|| said)
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> anyhow::Result<Answer> {
        let response = self.http.request(request).await?;
        let (parts, body) = response.into_parts();
        let text = String::from_utf8_lossy(&body.collect().await?.to_bytes()).into_owned();
        let body = serde_json::from_str(&text).ok();
        Ok(Answer { status: parts.status.as_u16(), headers: parts.headers, body, text })
    }

    fn okta_headers(&self, with_body: bool) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(USER_AGENT, HeaderValue::from_static("Okta SCIM Client 1.0.0"));
        headers.insert(ACCEPT, HeaderValue::from_static("application/scim+json; charset=utf-8"));
        headers.insert(ACCEPT_CHARSET, HeaderValue::from_static("utf-8"));
        headers.insert(AUTHORIZATION, self.authorization.clone());
        if with_body {
            let json = HeaderValue::from_static("application/scim+json; charset=utf-8");
            headers.insert(CONTENT_TYPE, json);
        }
        headers
    }
}

/// A client is its base URL: what it authorizes itself with is a secret.
impl fmt::Debug for ScimClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScimClient").field("base_url", &self.base_url).finish_non_exhaustive()
    }
}

impl Answer {
    /// The `ETag` header field.
    #[must_use]
    pub fn etag(&self) -> Option<&str> {
        self.headers.get(ETAG)?.to_str().ok()
    }

    /// The `Content-Type` header field.
    #[must_use]
    pub fn content_type(&self) -> Option<&str> {
        self.headers.get(CONTENT_TYPE)?.to_str().ok()
    }

    /// The value at a JSON pointer (RFC 6901) in the body; `Null` if nothing is there.
    #[must_use]
    pub fn at(&self, pointer: &str) -> &Value {
        self.body.as_ref().and_then(|body| body.pointer(pointer)).unwrap_or(&Value::Null)
    }
}

/// A query string, `?` included, as Okta encodes it:
/// `query(&[("filter", r#"userName eq "a@b.c""#)])` is `?filter=userName%20eq%20%22a%40b.c%22`.
#[must_use]
pub fn query(parameters: &[(&str, &str)]) -> String {
    let pairs: Vec<String> = parameters
        .iter()
        .map(|(name, value)| format!("{name}={}", utf8_percent_encode(value, QUERY_VALUE)))
        .collect();
    format!("?{}", pairs.join("&"))
}

/// `attribute eq "value"`, with the value quoted as a filter wants it (RFC 7644 §3.4.2.2: as JSON).
#[must_use]
pub fn eq(attribute: &str, value: &str) -> String {
    format!("{attribute} eq {}", Value::from(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_encoded_as_okta_encodes_it() {
        let sent =
            query(&[("filter", &eq("userName", "a+1@b.c")), ("startIndex", "1"), ("count", "100")]);
        assert_eq!(sent, "?filter=userName%20eq%20%22a%2B1%40b.c%22&startIndex=1&count=100");
    }

    #[test]
    fn a_value_with_quotes_cannot_leave_its_filter() {
        assert_eq!(eq("displayName", r#"a" or "b"#), r#"displayName eq "a\" or \"b""#);
    }

    #[test]
    fn debug_shows_no_secret() {
        let client = ScimClient::new("http://127.0.0.1:1/scim/v2/", "Static s3cret").unwrap();
        assert_eq!(client.base_url(), "http://127.0.0.1:1/scim/v2");
        assert_eq!(client.key(), "s3cret");
        assert!(!format!("{client:?}").contains("s3cret"));
    }

    #[test]
    fn what_is_no_base_url_is_refused_and_so_is_an_impossible_key() {
        for base_url in ["", "127.0.0.1:8080", "/scim/v2", "ftp://example.com", "http://"] {
            assert!(ScimClient::new(base_url, "Static k").is_err(), "{base_url}");
        }
        let refused = ScimClient::new("http://127.0.0.1", "Static s3c\nret").unwrap_err();
        assert!(!format!("{refused:?}").contains("s3c"));
    }
}
