//! An admin's own password.

use askama::Template;
use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::get;
use http::{HeaderMap, StatusCode};
use muster_proto::identity::v1::ChangePasswordRequest;
use serde::Deserialize;
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::Gateway;
use crate::console::frame::{Frame, Problem, Section, in_words, page, page_with};
use crate::console::input::Form;
use crate::console::session::Signed;
use crate::console::sign_in::{signed_in, waiting};

pub(super) fn routes() -> Router<Gateway> {
    Router::new().route("/admin/settings/password", get(show).post(change))
}

#[derive(Template)]
#[template(path = "settings_password.html")]
struct Password {
    frame: Frame,
    email: String,
    wrong: Option<String>,
    /// Whether it is the current one that is wrong.
    wrong_current: bool,
}

impl Password {
    fn of(signed: &Signed) -> Self {
        Self {
            frame: signed.frame("Change your password", Section::Settings),
            email: signed.admin.email.clone(),
            wrong: None,
            wrong_current: false,
        }
    }
}

async fn show(signed: Signed) -> Result<Response, Problem> {
    page(&Password::of(&signed))
}

#[derive(Deserialize)]
struct Typed {
    current: String,
    new: String,
}

async fn change(
    State(gateway): State<Gateway>,
    signed: Signed,
    headers: HeaderMap,
    Form(typed): Form<Typed>,
) -> Result<Response, Problem> {
    let request = ChangePasswordRequest {
        organisation_id: signed.organisation_id().to_owned(),
        admin_id: signed.admin.id.clone(),
        current_password: typed.current,
        new_password: typed.new,
        client_address: signed.client_address.clone(),
    };
    let status = match gateway.parts.sessions.clone().change_password(request).await {
        Ok(answer) => {
            let next = "/admin/settings?done=password";
            return signed_in(&gateway, &headers, answer.into_inner(), next).await;
        }
        Err(status) => status,
    };
    let field = status
        .get_details_bad_request()
        .and_then(|details| details.field_violations.into_iter().next())
        .map(|violation| violation.field);
    let wrong_current = field.as_deref() != Some("new_password");
    let again = |code, wrong: String| {
        page_with(code, &Password { wrong: Some(wrong), wrong_current, ..Password::of(&signed) })
    };
    match status.code() {
        Code::InvalidArgument => again(StatusCode::UNPROCESSABLE_ENTITY, in_words(&status)),
        Code::ResourceExhausted => waiting(&status, again),
        _ => Err(status.into()),
    }
}
