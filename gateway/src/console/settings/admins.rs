//! The organisation's admins.

use askama::Template;
use axum::Router;
use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Redirect, Response};
use axum::routing::{get, post};
use muster_proto::identity::v1::{
    Admin, CreateAdminRequest, DeleteAdminRequest, EndSessionsRequest, ListAdminsRequest,
    ResetAdminRequest, reset_admin_request,
};
use serde::Deserialize;

use super::{HERE, Settings, Shown, done, refusal};
use crate::Gateway;
use crate::console::frame::{Frame, Problem, Section, page};
use crate::console::input::Form;
use crate::console::moment::{Moment, moment};
use crate::console::session::Signed;

/// The most that are shown.
const SHOWN: usize = 100;

pub(super) fn routes() -> Router<Gateway> {
    Router::new()
        .route("/admin/settings/admins", get(back).post(invite))
        .route("/admin/settings/admins/{id}/link", get(back).post(reset))
        .route("/admin/settings/admins/{id}/sign-out", post(sign_out))
        .route("/admin/settings/admins/{id}/remove", get(confirm).post(remove))
}

/// An admin as they are shown.
pub(super) struct Row {
    pub id: String,
    pub name: String,
    pub email: String,
    pub is_oneself: bool,
    pub has_password: bool,
    pub last_signed_in: Option<Moment>,
}

impl Row {
    fn of(admin: &Admin, oneself: &str) -> Self {
        Self {
            id: admin.id.clone(),
            name: admin.display_name.clone(),
            email: admin.email.clone(),
            is_oneself: admin.id == oneself,
            has_password: admin.has_password,
            last_signed_in: moment(admin.last_sign_in_time.as_ref()),
        }
    }
}

/// How many there are beside those that are shown.
pub(super) fn further(admins: &[Admin]) -> usize {
    admins.len().saturating_sub(SHOWN)
}

pub(super) fn rows(admins: &[Admin], oneself: &str) -> Vec<Row> {
    admins.iter().take(SHOWN).map(|admin| Row::of(admin, oneself)).collect()
}

/// What is typed to invite somebody.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Invite {
    pub name: String,
    pub email: String,
    #[serde(skip)]
    pub wrong: Option<String>,
}

async fn back(_: Signed) -> Redirect {
    Redirect::to(HERE)
}

async fn invite(
    State(gateway): State<Gateway>,
    signed: Signed,
    Form(typed): Form<Invite>,
) -> Result<Response, Problem> {
    let admin = Admin {
        organisation_id: signed.organisation_id().to_owned(),
        email: typed.email.clone(),
        display_name: typed.name.clone(),
        ..Admin::default()
    };
    let request = CreateAdminRequest {
        admin: Some(admin),
        actor: Some(signed.actor()),
        client_address: signed.client_address.clone(),
    };
    match gateway.parts.admins.clone().create_admin(request).await {
        Ok(answer) => link(&gateway, &signed, &answer.into_inner().invitation).await,
        Err(status) => {
            let wrong = refusal(status)?;
            let mut settings = Settings::load(&gateway, &signed).await?;
            settings.invite = Invite { wrong: Some(wrong), ..typed };
            settings.refused()
        }
    }
}

async fn reset(
    State(gateway): State<Gateway>,
    signed: Signed,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let request = ResetAdminRequest {
        organisation_id: signed.organisation_id().to_owned(),
        key: Some(reset_admin_request::Key::Id(id)),
        actor: Some(signed.actor()),
        client_address: signed.client_address.clone(),
    };
    let answer = gateway.parts.admins.clone().reset_admin(request).await?;
    link(&gateway, &signed, &answer.into_inner().invitation).await
}

/// Shows a one-time link, once.
async fn link(gateway: &Gateway, signed: &Signed, secret: &str) -> Result<Response, Problem> {
    let mut settings = Settings::load(gateway, signed).await?;
    settings.shown = Some(Shown {
        title: "A link to set a password with",
        text: format!("{}/admin/invitation/{secret}", gateway.public_url),
        advice: "Copy it now, it is not shown again, and send it to them in a way that only they \
                 read. It works once, within 7 days.",
    });
    page(&settings)
}

async fn sign_out(
    State(gateway): State<Gateway>,
    signed: Signed,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let is_oneself = id == signed.admin.id;
    let request = EndSessionsRequest {
        organisation_id: signed.organisation_id().to_owned(),
        admin_id: id,
        actor: Some(signed.actor()),
        client_address: signed.client_address.clone(),
    };
    gateway.parts.sessions.clone().end_sessions(request).await?;
    if is_oneself {
        return Ok(Redirect::to("/admin/sign-in").into_response());
    }
    Ok(done("signed-out"))
}

#[derive(Template)]
#[template(path = "settings_remove.html")]
struct Confirm {
    frame: Frame,
    admin: Row,
}

async fn confirm(
    State(gateway): State<Gateway>,
    signed: Signed,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let organisation_id = signed.organisation_id().to_owned();
    let request = ListAdminsRequest { organisation_id };
    let admins = gateway.parts.admins.clone().list_admins(request).await?.into_inner().admins;
    let admin = admins.iter().find(|admin| admin.id == id && admin.id != signed.admin.id);
    let admin = Row::of(admin.ok_or_else(Problem::no_such_page)?, &signed.admin.id);
    page(&Confirm { frame: signed.frame("Remove an admin", Section::Settings), admin })
}

async fn remove(
    State(gateway): State<Gateway>,
    signed: Signed,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let request = DeleteAdminRequest {
        organisation_id: signed.organisation_id().to_owned(),
        id,
        actor: Some(signed.actor()),
        client_address: signed.client_address.clone(),
    };
    gateway.parts.admins.clone().delete_admin(request).await?;
    Ok(done("admin-removed"))
}
