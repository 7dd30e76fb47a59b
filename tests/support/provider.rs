//! A small identity provider: `OpenID` Connect's code flow with PKCE, signed with ES256. It says of
//! whoever comes what the test has told it to say.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Form, Query, State};
use axum::response::{IntoResponse as _, Redirect, Response};
use axum::routing::{get, post};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::{HeaderMap, StatusCode, header};
use muster_runtime::http_server::{self, Limits};
use muster_runtime::life::Life;
use percent_encoding::percent_decode_str;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tokio::net::TcpListener;

/// Who the console is to it.
pub(crate) const CLIENT_ID: &str = "muster-console";
pub(crate) const CLIENT_SECRET: &str = "provider secret: 100% +/";

/// A provider, running.
#[derive(Clone)]
pub(crate) struct Provider(Arc<Inner>);

struct Inner {
    issuer: String,
    /// What published keys show, and what signs.
    published: EcdsaKeyPair,
    signing: Mutex<EcdsaKeyPair>,
    /// Laid over the claims of the next ID token; null takes one away.
    claims: Mutex<Value>,
    /// Of whom userinfo tells, and what.
    userinfo: Mutex<Value>,
    /// What was asked with each code that was given and not yet exchanged.
    codes: Mutex<HashMap<String, HashMap<String, String>>>,
}

/// A key that no provider publishes.
pub(crate) fn another_key() -> EcdsaKeyPair {
    let (random, kind) = (SystemRandom::new(), &ECDSA_P256_SHA256_FIXED_SIGNING);
    let document = EcdsaKeyPair::generate_pkcs8(kind, &random).unwrap();
    EcdsaKeyPair::from_pkcs8(kind, document.as_ref(), &random).unwrap()
}

impl Provider {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let random = SystemRandom::new();
        let kind = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let document = EcdsaKeyPair::generate_pkcs8(kind, &random).unwrap();
        let pair = || EcdsaKeyPair::from_pkcs8(kind, document.as_ref(), &random).unwrap();
        let this = Self(Arc::new(Inner {
            issuer: format!("http://{}", listener.local_addr().unwrap()),
            published: pair(),
            signing: Mutex::new(pair()),
            claims: Mutex::new(serde_json::json!({})),
            userinfo: Mutex::new(serde_json::json!({})),
            codes: Mutex::new(HashMap::new()),
        }));
        let router = Router::new()
            .route("/.well-known/openid-configuration", get(discovery))
            .route("/authorize", get(authorize))
            .route("/token", post(token))
            .route("/userinfo", get(userinfo))
            .route("/keys", get(keys))
            .with_state(this.clone());
        // It ends with the test's runtime.
        tokio::spawn(http_server::serve(listener, router, Limits::default(), Life::new()));
        this
    }

    pub(crate) fn issuer(&self) -> &str {
        &self.0.issuer
    }

    /// What it says next, over what is right.
    pub(crate) fn says(&self, claims: Value) {
        *self.0.claims.lock().unwrap() = claims;
    }

    pub(crate) fn userinfo_says(&self, userinfo: Value) {
        *self.0.userinfo.lock().unwrap() = userinfo;
    }

    /// Signs with a key that it does not publish.
    pub(crate) fn signs_with(&self, key: EcdsaKeyPair) {
        *self.0.signing.lock().unwrap() = key;
    }

    fn sign(&self, claims: &Value) -> String {
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let header = serde_json::json!({"alg": "ES256", "kid": "one"});
        let message = format!("{}.{}", encode(&header), encode(claims));
        let signing = self.0.signing.lock().unwrap();
        let signature = signing.sign(&SystemRandom::new(), message.as_bytes()).unwrap();
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))
    }
}

fn json(value: &Value) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], value.to_string()).into_response()
}

async fn discovery(State(provider): State<Provider>) -> Response {
    let issuer = provider.issuer();
    json(&serde_json::json!({
        "issuer": issuer,
        "authorization_endpoint": format!("{issuer}/authorize"),
        "token_endpoint": format!("{issuer}/token"),
        "userinfo_endpoint": format!("{issuer}/userinfo"),
        "jwks_uri": format!("{issuer}/keys"),
    }))
}

/// Asks nobody anything: whoever comes has signed in.
async fn authorize(
    State(provider): State<Provider>,
    Query(asked): Query<HashMap<String, String>>,
) -> Response {
    let right = [
        ("client_id", CLIENT_ID),
        ("response_type", "code"),
        ("scope", "openid email"),
        ("code_challenge_method", "S256"),
    ];
    if right.iter().any(|(name, value)| asked.get(*name).map(String::as_str) != Some(*value)) {
        return (StatusCode::BAD_REQUEST, format!("{asked:?}")).into_response();
    }
    let code = format!("code-{}", uuid::Uuid::new_v4().simple());
    let to = format!("{}?code={code}&state={}", asked["redirect_uri"], asked["state"]);
    provider.0.codes.lock().unwrap().insert(code, asked);
    Redirect::to(&to).into_response()
}

async fn token(
    State(provider): State<Provider>,
    headers: HeaderMap,
    Form(sent): Form<HashMap<String, String>>,
) -> Response {
    let basic = headers.get(header::AUTHORIZATION).map(|value| value.to_str().unwrap());
    let pair = STANDARD.decode(basic.unwrap().strip_prefix("Basic ").unwrap()).unwrap();
    let pair = String::from_utf8(pair).unwrap();
    let (id, secret) = pair.split_once(':').unwrap();
    let decode = |text: &str| percent_decode_str(text).decode_utf8().unwrap().into_owned();
    let known = (decode(id).as_str(), decode(secret).as_str()) == (CLIENT_ID, CLIENT_SECRET);
    let asked = provider.0.codes.lock().unwrap().remove(&sent["code"]);
    let Some(asked) = asked.filter(|_| known && sent["grant_type"] == "authorization_code") else {
        return (StatusCode::BAD_REQUEST, json(&serde_json::json!({"error": "invalid_grant"})))
            .into_response();
    };
    let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(&sent["code_verifier"]));
    assert_eq!(challenge, asked["code_challenge"]);
    assert_eq!(sent["redirect_uri"], asked["redirect_uri"]);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let mut claims = serde_json::json!({
        "iss": provider.issuer(),
        "sub": "person-1",
        "aud": CLIENT_ID,
        "iat": now,
        "exp": now + 300,
        "nonce": asked["nonce"],
        "email_verified": true,
    });
    for (name, value) in provider.0.claims.lock().unwrap().as_object().unwrap() {
        claims[name] = value.clone();
    }
    let tokens = serde_json::json!({
        "access_token": "access",
        "token_type": "Bearer",
        "id_token": provider.sign(&claims),
    });
    json(&tokens)
}

async fn userinfo(State(provider): State<Provider>, headers: HeaderMap) -> Response {
    if headers.get(header::AUTHORIZATION).is_none_or(|value| value != "Bearer access") {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    json(&provider.0.userinfo.lock().unwrap())
}

async fn keys(State(provider): State<Provider>) -> Response {
    let point = provider.0.published.public_key().as_ref();
    let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    json(&serde_json::json!({"keys": [
        {"kty": "RSA", "kid": "another", "n": "AQAB", "e": "AQAB"},
        {"kty": "EC", "kid": "one", "use": "sig", "crv": "P-256",
         "x": part(&point[1..33]), "y": part(&point[33..])},
    ]}))
}
