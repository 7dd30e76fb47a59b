//! The organisation's own settings.

use axum::Router;
use axum::extract::State;
use axum::response::{Redirect, Response};
use axum::routing::get;
use muster_proto::identity::v1::{Organisation, UnknownMembers, UpdateOrganisationRequest};
use serde::Deserialize;

use super::{HERE, Settings, done, refusal};
use crate::Gateway;
use crate::console::frame::Problem;
use crate::console::input::Form;
use crate::console::session::Signed;

pub(super) fn routes() -> Router<Gateway> {
    Router::new().route("/admin/settings/organisation", get(back).post(update))
}

/// What is typed.
#[derive(Debug, Deserialize)]
pub(super) struct Typed {
    pub default_locale: String,
    #[serde(default)]
    pub unknown_members: String,
    #[serde(default)]
    pub custom_field_1_name: String,
    #[serde(default)]
    pub custom_field_2_name: String,
    #[serde(default)]
    pub custom_field_3_name: String,
    #[serde(skip)]
    pub wrong: Option<String>,
}

impl Typed {
    /// As the settings are.
    pub(super) fn of(organisation: &Organisation) -> Self {
        let refuses = organisation.unknown_members() == UnknownMembers::Refuse;
        let organisation = organisation.clone();
        Self {
            default_locale: organisation.default_locale,
            unknown_members: if refuses { "refuse" } else { "leave-out" }.into(),
            custom_field_1_name: organisation.custom_field_1_name,
            custom_field_2_name: organisation.custom_field_2_name,
            custom_field_3_name: organisation.custom_field_3_name,
            wrong: None,
        }
    }
}

async fn back(_: Signed) -> Redirect {
    Redirect::to(HERE)
}

async fn update(
    State(gateway): State<Gateway>,
    signed: Signed,
    Form(typed): Form<Typed>,
) -> Result<Response, Problem> {
    let unknown_members = match typed.unknown_members.as_str() {
        "refuse" => UnknownMembers::Refuse,
        _ => UnknownMembers::LeaveOut,
    };
    let organisation = Organisation {
        default_locale: typed.default_locale.trim().to_owned(),
        unknown_members: unknown_members.into(),
        custom_field_1_name: typed.custom_field_1_name.trim().to_owned(),
        custom_field_2_name: typed.custom_field_2_name.trim().to_owned(),
        custom_field_3_name: typed.custom_field_3_name.trim().to_owned(),
        ..signed.organisation.clone()
    };
    let request = UpdateOrganisationRequest {
        organisation: Some(organisation),
        actor: Some(signed.actor()),
        client_address: signed.client_address.clone(),
    };
    match gateway.parts.organisations.clone().update_organisation(request).await {
        Ok(_) => Ok(done("saved")),
        Err(status) => {
            let wrong = refusal(status)?;
            let mut settings = Settings::load(&gateway, &signed).await?;
            settings.organisation = Typed { wrong: Some(wrong), ..typed };
            settings.refused()
        }
    }
}
