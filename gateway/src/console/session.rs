//! Who is signed in: the cookie, and what handlers know of its holder.

use axum::Router;
use axum::extract::{FromRequestParts, State};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::post;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header, request};
use muster_proto::feed::v1::{Actor, actor};
use muster_proto::identity::v1::{
    Admin, AuditAction, AuditEvent, AuthenticateSessionRequest, AuthenticateSessionResponse,
    CreateAuditEventRequest, EndSessionRequest, Organisation,
};
use sha2::{Digest as _, Sha256};
use tonic::Code;

use super::frame::{Frame, Problem, Section, SignedIn};
use super::input::{next_page, sign_in_address};
use crate::Gateway;
use crate::client_address::ClientAddress;
use crate::oidc::is_loopback;

pub(super) fn routes() -> Router<Gateway> {
    Router::new().route("/admin/sign-out", post(sign_out))
}

/// Whether the console's cookie may travel without TLS: on this machine only.
fn is_secure(public_url: &str) -> bool {
    !(public_url.starts_with("http://") && is_loopback(public_url))
}

/// Whether browsers keep the cookie: not where it needs TLS, and the console is reached without.
pub(super) fn is_kept(public_url: &str) -> bool {
    !is_secure(public_url) || public_url.starts_with("https://")
}

/// The session's cookie.
const COOKIE: &str = "muster";

/// A cookie's name. `__Host-` makes browsers refuse one that another host or path has set.
fn cookie_name(name: &str, public_url: &str) -> String {
    if is_secure(public_url) { format!("__Host-{name}") } else { name.to_owned() }
}

/// The session's secret in the request's cookie.
pub(super) fn secret<'a>(headers: &'a HeaderMap, public_url: &str) -> Option<&'a str> {
    cookie_value(COOKIE, headers, public_url)
}

/// What one of our cookies holds.
pub(super) fn cookie_value<'a>(
    name: &str,
    headers: &'a HeaderMap,
    public_url: &str,
) -> Option<&'a str> {
    let name = cookie_name(name, public_url);
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs =
        cookies.flat_map(|text| text.split(';')).filter_map(|c| c.trim().split_once('='));
    pairs.find(|(key, value)| *key == name && !value.is_empty()).map(|(_, value)| value)
}

/// The header that gives the browser a session, or takes it away where `secret` is empty.
pub(super) fn cookie(secret: &str, public_url: &str) -> HeaderValue {
    cookie_named(COOKIE, secret, public_url, secret.is_empty().then_some(0))
}

/// The header that gives the browser one of our cookies, for so many seconds or until it closes.
pub(super) fn cookie_named(
    name: &str,
    value: &str,
    public_url: &str,
    seconds: Option<u32>,
) -> HeaderValue {
    let name = cookie_name(name, public_url);
    let secure = if is_secure(public_url) { "; Secure" } else { "" };
    let age = seconds.map(|seconds| format!("; Max-Age={seconds}")).unwrap_or_default();
    // Lax, because the way back from an identity provider is from another site.
    let text = format!("{name}={value}; Path=/; HttpOnly; SameSite=Lax{secure}{age}");
    // Values are letters, digits, underscores, hyphens and dots.
    HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static(""))
}

/// The token that a session's forms carry. Whoever does not hold the cookie cannot know it, and it
/// does not tell the cookie.
pub(super) fn csrf_token(secret: &str) -> String {
    let hash = Sha256::new_with_prefix("muster console form ").chain_update(secret).finalize();
    URL_SAFE_NO_PAD.encode(hash)
}

/// An admin who is signed in.
#[derive(Debug, Clone)]
pub(super) struct Signed {
    pub admin: Admin,
    pub organisation: Organisation,
    /// Goes into every form.
    pub csrf: String,
    /// From where they ask, for the audit.
    pub client_address: String,
}

impl Signed {
    pub(super) fn organisation_id(&self) -> &str {
        &self.organisation.id
    }

    /// Whom the changes that they make are by.
    pub(super) fn actor(&self) -> Actor {
        Actor { kind: Some(actor::Kind::AdminId(self.admin.id.clone())) }
    }

    /// Records something that identity does not see, such as an export of people.
    pub(super) async fn record(
        &self,
        gateway: &Gateway,
        action: AuditAction,
        subject: impl Into<String>,
    ) -> Result<(), Problem> {
        let event = AuditEvent {
            organisation_id: self.organisation.id.clone(),
            actor: Some(self.actor()),
            subject: subject.into(),
            client_address: self.client_address.clone(),
            action: action.into(),
            ..AuditEvent::default()
        };
        let request = CreateAuditEventRequest { event: Some(event) };
        gateway.parts.audit.clone().create_audit_event(request).await?;
        Ok(())
    }

    /// What is around a page.
    pub(super) fn frame(&self, title: impl Into<String>, section: Section) -> Frame {
        Frame {
            title: title.into(),
            csrf: self.csrf.clone(),
            notice: None,
            signed_in: Some(SignedIn {
                organisation: self.organisation.display_name.clone(),
                name: self.admin.display_name.clone(),
                email: self.admin.email.clone(),
                section,
            }),
        }
    }
}

/// Why a request is not answered with a page.
#[derive(Debug)]
pub(super) enum NotSigned {
    /// Nobody is signed in.
    Nobody {
        /// The sign-in page, which leads back.
        address: String,
        /// Whether htmx asked, to which a redirection is a piece of the page.
        is_piece: bool,
    },
    /// It is not known.
    Problem(Problem),
}

impl IntoResponse for NotSigned {
    fn into_response(self) -> Response {
        match self {
            Self::Nobody { address, is_piece: false } => Redirect::to(&address).into_response(),
            Self::Nobody { address, is_piece: true } => {
                let to = HeaderName::from_static("hx-redirect");
                (StatusCode::UNAUTHORIZED, [(to, address)]).into_response()
            }
            Self::Problem(problem) => problem.into_response(),
        }
    }
}

impl FromRequestParts<Gateway> for Signed {
    type Rejection = NotSigned;

    async fn from_request_parts(
        parts: &mut request::Parts,
        gateway: &Gateway,
    ) -> Result<Self, NotSigned> {
        let is_piece = parts.headers.contains_key("hx-request");
        // Where to come back to: the page, which a piece of it or a form is not.
        let asked = match (&parts.method, parts.uri.path_and_query()) {
            (&Method::GET, Some(asked)) if !is_piece => asked.as_str(),
            _ => page_on_screen(&parts.headers).unwrap_or(super::HOME),
        };
        let address = sign_in_address(next_page(asked));
        let nobody = || NotSigned::Nobody { address: address.clone(), is_piece };
        let secret = secret(&parts.headers, &gateway.public_url).ok_or_else(nobody)?;
        let request = AuthenticateSessionRequest {
            secret: secret.to_owned(),
            unattended: parts.headers.contains_key("x-unattended"),
        };
        let answer = gateway.parts.sessions.clone().authenticate_session(request).await;
        let csrf = csrf_token(secret);
        let Ok(ClientAddress(client_address)) =
            ClientAddress::from_request_parts(parts, gateway).await;
        match answer.map(tonic::Response::into_inner) {
            Ok(AuthenticateSessionResponse {
                admin: Some(admin),
                organisation: Some(organisation),
            }) => Ok(Self { admin, organisation, csrf, client_address }),
            Ok(_) => Err(nobody()),
            Err(status) if status.code() == Code::Unauthenticated => Err(nobody()),
            Err(status) => Err(NotSigned::Problem(status.into())),
        }
    }
}

/// The path of the page that htmx runs in.
fn page_on_screen(headers: &HeaderMap) -> Option<&str> {
    let address = headers.get("hx-current-url")?.to_str().ok()?;
    let (_, rest) = address.split_once("://")?;
    rest.find('/').map(|at| &rest[at..])
}

async fn sign_out(
    State(gateway): State<Gateway>,
    ClientAddress(client_address): ClientAddress,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    if let Some(secret) = secret(&headers, &gateway.public_url) {
        let request = EndSessionRequest { secret: secret.to_owned(), client_address };
        gateway.parts.sessions.clone().end_session(request).await?;
    }
    let gone = [(header::SET_COOKIE, cookie("", &gateway.public_url))];
    Ok((gone, Redirect::to("/admin/sign-in")).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_on_this_machine_the_cookie_goes_without_tls() {
        for here in ["http://127.0.0.1:8080", "http://localhost", "http://[::1]:8080"] {
            assert_eq!(cookie_name(COOKIE, here), "muster", "{here}");
        }
        for elsewhere in [
            "https://muster.example.com",
            "https://127.0.0.1:8080",
            "http://muster.example.com",
            "http://127.0.0.1.example.com",
            "http://localhost@example.com",
        ] {
            assert_eq!(cookie_name(COOKIE, elsewhere), "__Host-muster", "{elsewhere}");
        }
    }

    #[test]
    fn the_cookie_is_found_among_others() {
        let mut headers = HeaderMap::new();
        headers.append(header::COOKIE, "a=b; muster=one".parse().unwrap());
        headers.append(header::COOKIE, "__Host-muster=two".parse().unwrap());
        assert_eq!(secret(&headers, "http://127.0.0.1"), Some("one"));
        assert_eq!(secret(&headers, "https://muster.example.com"), Some("two"));
    }
}
