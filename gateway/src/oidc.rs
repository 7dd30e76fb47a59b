//! Signing in with an identity provider: `OpenID` Connect Core 1.0, the code flow with PKCE.
//!
//! Written out, because what there is to use brings a second HTTP client, or older copies of half
//! the cryptography in the tree. Only what a provider is needed for is here: who it says has
//! signed in. Who that is to Muster, the console asks identity.

mod id_token;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{HeaderValue, Method, Request, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use muster_runtime::clock;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};
use tokio::sync::Mutex;

use id_token::{Claims, Keys};

/// Which provider, and who we are to it.
#[derive(Debug, Clone)]
pub struct Config {
    /// Its issuer, such as `https://acme.okta.com`, exactly as it says itself.
    pub issuer: String,
    /// What it calls us.
    pub client_id: String,
    /// Where the secret is that we authenticate with; read each time, so that it can be changed.
    pub client_secret_file: PathBuf,
}

/// Why nobody is signed in. The words are for the log: they hold nothing of a person.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{0} cannot be reached: {1}")]
    Unreachable(&'static str, String),
    #[error("the {0} answered {1}")]
    Refused(&'static str, http::StatusCode),
    #[error("what the {0} answered does not read: {1}")]
    Unreadable(&'static str, serde_json::Error),
    #[error("the provider says that its issuer is {0:?}")]
    OtherIssuer(String),
    #[error("the client secret cannot be read: {0}")]
    Secret(std::io::Error),
    #[error("the ID token is not acceptable: {0}")]
    IdToken(&'static str),
    #[error("the provider has not verified the person's e-mail address, or does not tell it")]
    NoVerifiedEmail,
}

/// What the provider publishes (`OpenID` Connect Discovery 1.0 §3).
#[derive(Debug, Clone, Deserialize)]
struct Provider {
    issuer: String,
    authorization_endpoint: String,
    token_endpoint: String,
    jwks_uri: String,
    userinfo_endpoint: Option<String>,
    #[serde(default)]
    token_endpoint_auth_methods_supported: Vec<String>,
}

#[derive(Deserialize)]
struct Tokens {
    access_token: Option<String>,
    id_token: String,
}

/// What the userinfo endpoint tells (§5.3).
#[derive(Deserialize)]
struct UserInfo {
    sub: String,
    email: Option<String>,
    #[serde(default)]
    email_verified: bool,
}

/// What one sign-in is known by, from the way out to the way back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Started {
    /// Comes back in the address.
    pub state: String,
    /// Comes back in the ID token.
    pub nonce: String,
    /// Shows that whoever fetches the tokens is who asked (RFC 7636).
    pub verifier: String,
}

impl Started {
    pub(crate) fn new() -> Self {
        let random = || URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>());
        Self { state: random(), nonce: random(), verifier: random() }
    }
}

/// A provider to sign in with. Cloning it is cheap.
#[derive(Debug, Clone)]
pub(crate) struct Oidc(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    config: Config,
    /// Where the provider sends the browser back to.
    redirect_uri: String,
    http: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    /// What it published, and when it was read.
    provider: Mutex<Option<(Instant, Provider)>>,
}

/// For how long what a provider published is taken for true.
const FRESH: Duration = Duration::from_mins(10);

/// How long an answer of a provider may take and how long it may be.
const PATIENCE: Duration = Duration::from_secs(10);
const LONGEST_ANSWER: usize = 512 * 1024;

impl Oidc {
    pub(crate) fn new(config: Config, redirect_uri: String) -> Self {
        let builder = HttpsConnectorBuilder::new().with_webpki_roots();
        // Plain text only to a provider on this machine: a test's.
        let connector = if is_loopback(&config.issuer) {
            builder.https_or_http().enable_http1().build()
        } else {
            builder.https_only().enable_http1().build()
        };
        let http = Client::builder(TokioExecutor::new()).build(connector);
        Self(Arc::new(Inner { config, redirect_uri, http, provider: Mutex::new(None) }))
    }

    /// Where to send the browser.
    pub(crate) async fn authorization(&self, started: &Started) -> Result<String, Error> {
        let provider = self.provider().await?;
        let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(&started.verifier));
        let query = form(&[
            ("response_type", "code"),
            ("client_id", &self.0.config.client_id),
            ("redirect_uri", &self.0.redirect_uri),
            ("scope", "openid email"),
            ("state", &started.state),
            ("nonce", &started.nonce),
            ("code_challenge", &challenge),
            ("code_challenge_method", "S256"),
        ]);
        let joint = if provider.authorization_endpoint.contains('?') { '&' } else { '?' };
        Ok(format!("{}{joint}{query}", provider.authorization_endpoint))
    }

    /// The verified e-mail address of whoever came back with `code`.
    pub(crate) async fn email(&self, code: &str, started: &Started) -> Result<String, Error> {
        let provider = self.provider().await?;
        let tokens = self.tokens(&provider, code, &started.verifier).await?;
        let keys: Keys = self.get("key endpoint", &provider.jwks_uri, None).await?;
        let issuer = &self.0.config.issuer;
        let now = clock::now().unix_timestamp();
        let claims = Claims::read(&tokens.id_token, &keys)?;
        claims.check(issuer, &self.0.config.client_id, &started.nonce, now)?;
        if let (Some(email), true) = (claims.email, claims.email_verified) {
            return Ok(email);
        }
        // A provider may keep what scopes ask for out of the ID token (§5.4).
        let (Some(address), Some(token)) = (provider.userinfo_endpoint, tokens.access_token) else {
            return Err(Error::NoVerifiedEmail);
        };
        let info: UserInfo = self.get("userinfo endpoint", &address, Some(&token)).await?;
        match info.email {
            Some(email) if info.sub == claims.sub && info.email_verified => Ok(email),
            _ => Err(Error::NoVerifiedEmail),
        }
    }

    async fn provider(&self) -> Result<Provider, Error> {
        let mut known = self.0.provider.lock().await;
        if let Some((read, provider)) = &*known
            && read.elapsed() < FRESH
        {
            return Ok(provider.clone());
        }
        let issuer = &self.0.config.issuer;
        let address = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
        let provider: Provider = self.get("provider", &address, None).await?;
        if provider.issuer != *issuer {
            return Err(Error::OtherIssuer(provider.issuer));
        }
        *known = Some((Instant::now(), provider.clone()));
        Ok(provider)
    }

    async fn tokens(
        &self,
        provider: &Provider,
        code: &str,
        verifier: &str,
    ) -> Result<Tokens, Error> {
        let Config { client_id, client_secret_file, .. } = &self.0.config;
        let secret = tokio::fs::read_to_string(client_secret_file).await.map_err(Error::Secret)?;
        let secret = secret.trim();
        let mut fields = vec![
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", &*self.0.redirect_uri),
            ("code_verifier", verifier),
        ];
        let mut request = Request::builder().method(Method::POST).uri(&provider.token_endpoint);
        let methods = &provider.token_endpoint_auth_methods_supported;
        // Without a word on it, by the header (Discovery §3).
        if methods.is_empty() || methods.iter().any(|method| method == "client_secret_basic") {
            let pair = format!("{}:{}", encoded(client_id), encoded(secret));
            let value = HeaderValue::from_str(&format!("Basic {}", STANDARD.encode(pair)));
            if let Ok(mut value) = value {
                value.set_sensitive(true);
                request = request.header(header::AUTHORIZATION, value);
            }
        } else {
            fields.extend([("client_id", &**client_id), ("client_secret", secret)]);
        }
        let request = request
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Full::new(Bytes::from(form(&fields))));
        self.send("token endpoint", request).await
    }

    async fn get<T: DeserializeOwned>(
        &self,
        what: &'static str,
        address: &str,
        token: Option<&str>,
    ) -> Result<T, Error> {
        let mut request = Request::get(address);
        if let Some(token) = token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        self.send(what, request.body(Full::default())).await
    }

    async fn send<T: DeserializeOwned>(
        &self,
        what: &'static str,
        request: Result<Request<Full<Bytes>>, http::Error>,
    ) -> Result<T, Error> {
        let unreachable = |error: String| Error::Unreachable(what, error);
        let mut request = request.map_err(|error| unreachable(error.to_string()))?;
        let json = HeaderValue::from_static("application/json");
        request.headers_mut().insert(header::ACCEPT, json);
        let answer = async {
            let (head, body) = self
                .0
                .http
                .request(request)
                .await
                .map_err(|error| unreachable(error.to_string()))?
                .into_parts();
            let body = Limited::new(body, LONGEST_ANSWER).collect().await;
            let body = body.map_err(|error| unreachable(error.to_string()))?.to_bytes();
            if !head.status.is_success() {
                return Err(Error::Refused(what, head.status));
            }
            serde_json::from_slice(&body).map_err(|error| Error::Unreadable(what, error))
        };
        match tokio::time::timeout(PATIENCE, answer).await {
            Ok(answer) => answer,
            Err(_) => Err(unreachable("it takes too long".into())),
        }
    }
}

/// Whether an address is one of this machine.
pub(crate) fn is_loopback(url: &str) -> bool {
    let uri: Result<http::Uri, _> = url.parse();
    uri.ok().and_then(|uri| uri.host().map(str::to_owned)).is_some_and(|host| {
        let host = host.trim_matches(['[', ']']);
        host == "localhost"
            || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
    })
}

fn form(fields: &[(&str, &str)]) -> String {
    let pairs = fields.iter().map(|(name, value)| format!("{name}={}", encoded(value)));
    pairs.collect::<Vec<_>>().join("&")
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}
