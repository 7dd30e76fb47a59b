//! Signing in with the identity provider, where there is one: out to it and back.

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse as _, Redirect, Response};
use axum::routing::get;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use muster_proto::identity::v1::SignInVerifiedRequest;
use serde::Deserialize;
use tonic::Code;

use super::frame::Problem;
use super::input::{Query, next_page};
use super::session::{cookie_named, cookie_value};
use super::sign_in::signed_in;
use crate::Gateway;
use crate::client_address::ClientAddress;
use crate::oidc::{Oidc, Started};

/// Where it begins, and where the provider sends the browser back to.
const OUT: &str = "/admin/sign-in/provider";
pub(crate) const BACK: &str = "/admin/sign-in/provider/back";

/// The cookie that a sign-in under way is kept in, for ten minutes. Only this browser can end it.
const COOKIE: &str = "muster-sign-in";

pub(super) fn routes() -> Router<Gateway> {
    Router::new().route(OUT, get(out)).route(BACK, get(back))
}

#[derive(Debug, Deserialize)]
struct Asked {
    #[serde(default)]
    next: String,
}

async fn out(
    State(gateway): State<Gateway>,
    Query(asked): Query<Asked>,
) -> Result<Response, Problem> {
    let oidc = provider(&gateway)?;
    let started = Started::new();
    let address = oidc.authorization(&started).await.map_err(|error| failed(&error))?;
    let next = URL_SAFE_NO_PAD.encode(next_page(&asked.next));
    let Started { state, nonce, verifier } = &started;
    let value = format!("{state}.{nonce}.{verifier}.{next}");
    let kept = cookie_named(COOKIE, &value, &gateway.public_url, Some(600));
    Ok(([(header::SET_COOKIE, kept)], Redirect::to(&address)).into_response())
}

#[derive(Debug, Deserialize)]
struct Answer {
    #[serde(default)]
    state: String,
    #[serde(default)]
    code: String,
    #[serde(default)]
    error: String,
}

async fn back(
    State(gateway): State<Gateway>,
    ClientAddress(client_address): ClientAddress,
    Query(answer): Query<Answer>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let oidc = provider(&gateway)?;
    let kept = cookie_value(COOKIE, &headers, &gateway.public_url).and_then(read);
    // Whoever did not begin it in this browser does not end it here.
    let Some((started, next)) = kept.filter(|(started, _)| started.state == answer.state) else {
        return Err(Problem::new(
            StatusCode::FORBIDDEN,
            "This sign-in was not begun here",
            "It took longer than ten minutes, or began in another window. Go to Set-up and sign \
             in again.",
        ));
    };
    if !answer.error.is_empty() || answer.code.is_empty() {
        return Err(not_told());
    }
    let email = oidc.email(&answer.code, &started).await.map_err(|error| failed(&error))?;
    let request = SignInVerifiedRequest { email, client_address };
    let signed = gateway.parts.sessions.clone().sign_in_verified(request).await;
    let signed = signed.map_err(|status| match status.code() {
        Code::Unauthenticated => Problem::new(
            StatusCode::FORBIDDEN,
            "You are no admin here",
            "Your identity provider has signed you in, but no organisation has an admin with your \
             e-mail address. Ask an admin to invite you, under Settings, Admins.",
        ),
        _ => status.into(),
    })?;
    let next = next_page(&next).to_owned();
    let mut response = signed_in(&gateway, &headers, signed.into_inner(), &next).await?;
    let gone: HeaderValue = cookie_named(COOKIE, "", &gateway.public_url, Some(0));
    response.headers_mut().append(header::SET_COOKIE, gone);
    Ok(response)
}

/// What the cookie holds.
fn read(value: &str) -> Option<(Started, String)> {
    let mut parts = value.split('.').map(str::to_owned);
    let started = Started { state: parts.next()?, nonce: parts.next()?, verifier: parts.next()? };
    let next = String::from_utf8(URL_SAFE_NO_PAD.decode(parts.next()?).ok()?).ok()?;
    Some((started, next))
}

fn provider(gateway: &Gateway) -> Result<&Oidc, Problem> {
    gateway.oidc.as_ref().ok_or_else(Problem::no_such_page)
}

fn not_told() -> Problem {
    Problem::new(
        StatusCode::FORBIDDEN,
        "Your identity provider did not sign you in",
        "Try again, or sign in with your password. If it goes on, tell whoever manages the \
         provider, with the trace id below.",
    )
}

fn failed(error: &crate::oidc::Error) -> Problem {
    tracing::warn!(%error, "a sign-in with the identity provider failed");
    not_told()
}
