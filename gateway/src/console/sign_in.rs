//! Signing in: the password, the choice of an organisation, one-time links.

use std::time::Duration;

use askama::Template;
use axum::Router;
use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Redirect, Response};
use axum::routing::{get, post};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use muster_proto::identity::v1::sign_in_response::Choice;
use muster_proto::identity::v1::{
    AcceptInvitationRequest, ChooseOrganisationRequest, EndSessionRequest, GetInvitationRequest,
    SignInRequest, SignInResponse,
};
use serde::Deserialize;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::frame::{Frame, Problem, in_words, page, page_with};
use super::input::{Form, Query, next_page};
use super::session::{NotSigned, Signed, cookie, is_kept, secret};
use crate::Gateway;
use crate::client_address::ClientAddress;

pub(super) fn routes() -> Router<Gateway> {
    Router::new()
        .route("/admin/sign-in", get(show).post(sign_in))
        .route("/admin/sign-in/organisation", post(choose).get(begin_again))
        .route("/admin/invitation/{secret}", get(invitation).post(accept))
}

#[derive(Template)]
#[template(path = "sign_in.html")]
struct SignIn<'a> {
    frame: Frame,
    next: &'a str,
    email: &'a str,
    wrong: Option<String>,
    /// The public URL, where browsers do not keep the cookie.
    insecure: Option<&'a str>,
    has_provider: bool,
}

#[derive(Debug, Deserialize)]
struct Asked {
    #[serde(default)]
    next: String,
}

async fn show(
    State(gateway): State<Gateway>,
    Query(asked): Query<Asked>,
    signed: Result<Signed, NotSigned>,
) -> Result<Response, Problem> {
    let next = next_page(&asked.next);
    if signed.is_ok() {
        return Ok(Redirect::to(next).into_response());
    }
    page(&sign_in_page(&gateway, next, "", None))
}

fn sign_in_page<'a>(
    gateway: &'a Gateway,
    next: &'a str,
    email: &'a str,
    wrong: Option<String>,
) -> SignIn<'a> {
    let insecure = (!is_kept(&gateway.public_url)).then_some(&*gateway.public_url);
    SignIn {
        frame: Frame::open("Sign in"),
        next,
        email,
        wrong,
        insecure,
        has_provider: gateway.oidc.is_some(),
    }
}

#[derive(Deserialize)]
struct Typed {
    email: String,
    password: String,
    #[serde(default)]
    next: String,
}

async fn sign_in(
    State(gateway): State<Gateway>,
    ClientAddress(client_address): ClientAddress,
    headers: HeaderMap,
    Form(typed): Form<Typed>,
) -> Result<Response, Problem> {
    let next = next_page(&typed.next);
    let request =
        SignInRequest { email: typed.email.clone(), password: typed.password, client_address };
    let status = match gateway.parts.sessions.clone().sign_in(request).await {
        Ok(answer) => return signed_in(&gateway, &headers, answer.into_inner(), next).await,
        Err(status) => status,
    };
    let again = |status, wrong: String| {
        page_with(status, &sign_in_page(&gateway, next, &typed.email, Some(wrong)))
    };
    match status.code() {
        Code::Unauthenticated => again(
            StatusCode::UNPROCESSABLE_ENTITY,
            "The e-mail address or the password is not right. Type both again, or ask another \
             admin for a new link."
                .into(),
        ),
        Code::ResourceExhausted => waiting(&status, again),
        _ => Err(status.into()),
    }
}

/// The form again for whoever has to wait.
pub(super) fn waiting(
    status: &Status,
    again: impl FnOnce(StatusCode, String) -> Result<Response, Problem>,
) -> Result<Response, Problem> {
    let delay = status.get_details_retry_info().and_then(|info| info.retry_delay);
    let seconds = delay.unwrap_or(Duration::from_secs(1)).as_secs().max(1);
    let unit = if seconds == 1 { "second" } else { "seconds" };
    let wrong = format!("There were too many wrong attempts. Wait {seconds} {unit} and try again.");
    let mut response = again(StatusCode::TOO_MANY_REQUESTS, wrong)?;
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    Ok(response)
}

#[derive(Template)]
#[template(path = "choose.html")]
struct Choose<'a> {
    frame: Frame,
    next: &'a str,
    choices: Vec<Choice>,
}

/// Gives the browser its session, in the place of whichever it had, or lets the person choose.
pub(super) async fn signed_in(
    gateway: &Gateway,
    headers: &HeaderMap,
    answer: SignInResponse,
    next: &str,
) -> Result<Response, Problem> {
    if answer.session.is_empty() {
        let frame = Frame::open("Choose an organisation");
        return page(&Choose { frame, next, choices: answer.choices });
    }
    if let Some(earlier) = secret(headers, &gateway.public_url) {
        let request =
            EndSessionRequest { secret: earlier.to_owned(), client_address: String::new() };
        gateway.parts.sessions.clone().end_session(request).await?;
    }
    let cookie = [(header::SET_COOKIE, cookie(&answer.session, &gateway.public_url))];
    Ok((cookie, Redirect::to(next)).into_response())
}

#[derive(Deserialize)]
struct Chosen {
    choice: String,
    #[serde(default)]
    next: String,
}

async fn choose(
    State(gateway): State<Gateway>,
    ClientAddress(client_address): ClientAddress,
    headers: HeaderMap,
    Form(chosen): Form<Chosen>,
) -> Result<Response, Problem> {
    let request = ChooseOrganisationRequest { secret: chosen.choice, client_address };
    match gateway.parts.sessions.clone().choose_organisation(request).await {
        Ok(answer) => {
            let next = next_page(&chosen.next);
            signed_in(&gateway, &headers, answer.into_inner(), next).await
        }
        // It took too long, or was chosen twice.
        Err(status) if status.code() == Code::NotFound => Ok(begin_again().await.into_response()),
        Err(status) => Err(status.into()),
    }
}

async fn begin_again() -> Redirect {
    Redirect::to("/admin/sign-in")
}

#[derive(Template)]
#[template(path = "invitation.html")]
struct Invitation {
    frame: Frame,
    organisation: String,
    email: String,
    wrong: Option<String>,
}

async fn invitation(
    State(gateway): State<Gateway>,
    Path(secret): Path<String>,
) -> Result<Response, Problem> {
    page(&invited(&gateway, secret).await?)
}

/// Whom a link is for.
async fn invited(gateway: &Gateway, secret: String) -> Result<Invitation, Problem> {
    let request = GetInvitationRequest { secret };
    let answer = gateway.parts.sessions.clone().get_invitation(request).await;
    let answer = answer.map_err(spent)?.into_inner();
    Ok(Invitation {
        frame: Frame::open("Set your password"),
        organisation: answer.organisation.unwrap_or_default().display_name,
        email: answer.admin.unwrap_or_default().email,
        wrong: None,
    })
}

#[derive(Deserialize)]
struct NewPassword {
    password: String,
}

async fn accept(
    State(gateway): State<Gateway>,
    ClientAddress(client_address): ClientAddress,
    Path(secret): Path<String>,
    headers: HeaderMap,
    Form(typed): Form<NewPassword>,
) -> Result<Response, Problem> {
    let password = typed.password;
    let request = AcceptInvitationRequest { secret: secret.clone(), password, client_address };
    match gateway.parts.sessions.clone().accept_invitation(request).await {
        Ok(answer) => signed_in(&gateway, &headers, answer.into_inner(), super::HOME).await,
        Err(status) if status.code() == Code::InvalidArgument => {
            let again = invited(&gateway, secret).await?;
            let again = Invitation { wrong: Some(in_words(&status)), ..again };
            page_with(StatusCode::UNPROCESSABLE_ENTITY, &again)
        }
        Err(status) => Err(spent(status)),
    }
}

fn spent(status: Status) -> Problem {
    if status.code() == Code::NotFound {
        Problem::new(
            StatusCode::NOT_FOUND,
            "This link does not work any more",
            "A link works once and for a limited time. Sign in if you have set your password; \
             otherwise ask another admin for a new link, or an operator to run muster admin reset.",
        )
    } else {
        status.into()
    }
}
