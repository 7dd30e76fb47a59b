//! Adding a person, and correcting what is known of one.

use askama::Template;
use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Redirect, Response};
use http::StatusCode;
use muster_proto::identity::v1::{CreateUserRequest, UpdateUserRequest, User};
use serde::Deserialize;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::super::frame::{Frame, Problem, Section, in_words, page, page_with};
use super::super::input::Form;
use super::super::people::shown;
use super::super::session::Signed;
use super::fields::Fields;
use super::history::{self, Difference};
use super::read;
use crate::Gateway;

/// How many changes are looked through for what changed meanwhile.
const MEANWHILE: i32 = 100;

#[derive(Template)]
#[template(path = "person_edit.html")]
struct Edit {
    frame: Frame,
    /// None for somebody new.
    id: Option<String>,
    name: String,
    revision: i64,
    fields: Fields,
    /// What the organisation calls its custom fields.
    names: [String; 3],
    default_locale: String,
    wrong: Wrong,
    /// What somebody else changed while the form was open.
    meanwhile: Option<Vec<Difference>>,
}

impl Edit {
    fn action(&self) -> String {
        match &self.id {
            Some(id) => format!("/admin/people/{id}/edit"),
            None => "/admin/people/new".to_owned(),
        }
    }

    fn back(&self) -> String {
        match &self.id {
            Some(id) => format!("/admin/people/{id}"),
            None => "/admin/people".to_owned(),
        }
    }

    fn custom(&self) -> [(&'static str, &str, &str); 3] {
        [
            ("field1", &self.names[0], &self.fields.field1),
            ("field2", &self.names[1], &self.fields.field2),
            ("field3", &self.names[2], &self.fields.field3),
        ]
    }
}

/// Why a form was refused.
#[derive(Debug, Default)]
struct Wrong {
    /// The field that it is about; empty where that is not one of the form's.
    field: &'static str,
    /// What is wrong and what to do; empty where nothing is.
    what: String,
}

impl Wrong {
    fn is(&self, field: &str) -> bool {
        self.field == field && !self.what.is_empty()
    }
}

/// The form that was sent, with the revision that it showed.
#[derive(Debug, Deserialize)]
pub(super) struct Sent {
    #[serde(default)]
    revision: i64,
    #[serde(flatten)]
    fields: Fields,
}

fn form(signed: &Signed, user: Option<&User>, fields: Fields) -> Edit {
    let name = user.map(shown::name).unwrap_or_default();
    let title = if user.is_some() { format!("Edit {name}") } else { "Add a person".to_owned() };
    Edit {
        frame: signed.frame(title, Section::People),
        id: user.map(|user| user.id.clone()),
        name,
        revision: user.map_or(0, |user| user.revision),
        fields,
        names: shown::field_names(&signed.organisation),
        default_locale: signed.organisation.default_locale.clone(),
        wrong: Wrong::default(),
        meanwhile: None,
    }
}

pub(super) async fn blank(signed: Signed) -> Result<Response, Problem> {
    page(&form(&signed, None, Fields::default()))
}

pub(super) async fn create(
    State(gateway): State<Gateway>,
    signed: Signed,
    Form(sent): Form<Sent>,
) -> Result<Response, Problem> {
    let mut edit = form(&signed, None, sent.fields);
    let nobody = User {
        organisation_id: signed.organisation_id().to_owned(),
        active: Some(true),
        ..User::default()
    };
    let user = match edit.fields.apply(nobody) {
        Ok(user) => user,
        Err(error) => {
            edit.wrong = Wrong { field: "", what: error.detail };
            return page_with(StatusCode::UNPROCESSABLE_ENTITY, &edit);
        }
    };
    let request = CreateUserRequest { user: Some(user), actor: Some(signed.actor()) };
    match gateway.parts.users.clone().create_user(request).await {
        Ok(user) => {
            let user = user.into_inner();
            gateway.parts.settled(&user).await;
            Ok(Redirect::to(&format!("/admin/people/{}?done=added", user.id)).into_response())
        }
        Err(status) => refused(edit, status),
    }
}

pub(super) async fn show(
    State(gateway): State<Gateway>,
    signed: Signed,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let user = read(&gateway, &signed, id).await?;
    page(&form(&signed, Some(&user), Fields::of(&user)))
}

pub(super) async fn save(
    State(gateway): State<Gateway>,
    signed: Signed,
    Path(id): Path<String>,
    Form(sent): Form<Sent>,
) -> Result<Response, Problem> {
    let before = read(&gateway, &signed, id).await?;
    if before.revision != sent.revision {
        return lost_race(&gateway, &signed, before, sent).await;
    }
    let mut edit = form(&signed, Some(&before), sent.fields.clone());
    let user = match edit.fields.apply(before.clone()) {
        Ok(user) => user,
        Err(error) => {
            edit.wrong = Wrong { field: "", what: error.detail };
            return page_with(StatusCode::UNPROCESSABLE_ENTITY, &edit);
        }
    };
    let actor = Some(signed.actor());
    let request = UpdateUserRequest { user: Some(user), actor, ..UpdateUserRequest::default() };
    match gateway.parts.users.clone().update_user(request).await {
        Ok(user) => {
            let user = user.into_inner();
            gateway.parts.settled(&user).await;
            let done = if user.revision == sent.revision { "same" } else { "saved" };
            Ok(Redirect::to(&format!("/admin/people/{}?done={done}", user.id)).into_response())
        }
        Err(status) if status.code() == Code::Aborted => {
            let now = read(&gateway, &signed, before.id).await?;
            lost_race(&gateway, &signed, now, sent).await
        }
        Err(status) => refused(edit, status),
    }
}

/// Shows what changed while the form was open, and the form with what was typed on top of it.
async fn lost_race(
    gateway: &Gateway,
    signed: &Signed,
    now: User,
    sent: Sent,
) -> Result<Response, Problem> {
    let (changes, _) = history::read(gateway, signed, &now.id, String::new(), MEANWHILE).await?;
    let since = changes.iter().take_while(|change| change.revision > sent.revision);
    // What the form showed is what the first of them found.
    let base = since.last().and_then(|change| change.before.clone());
    let mut edit = form(signed, Some(&now), sent.fields.clone());
    let names = shown::field_names(&signed.organisation);
    if let Some(base) = base {
        edit.fields = sent.fields.merged(&Fields::of(&base), &Fields::of(&now));
        edit.meanwhile = Some(history::differences(&base, &now, &names));
    } else {
        edit.meanwhile = Some(Vec::new());
    }
    page_with(StatusCode::CONFLICT, &edit)
}

/// The form again, with what identity has against it.
fn refused(mut edit: Edit, status: Status) -> Result<Response, Problem> {
    let details = status.get_error_details();
    let field = match status.code() {
        Code::InvalidArgument => details
            .bad_request()
            .and_then(|bad| bad.field_violations.first())
            .map(|v| v.field.clone()),
        Code::AlreadyExists => {
            details.error_info().and_then(|info| info.metadata.get("attribute").cloned())
        }
        _ => return Err(status.into()),
    };
    let field = match field.as_deref() {
        Some("user_name") => "user_name",
        Some("emails.value") => "email",
        Some("country_code") => "country",
        _ => "",
    };
    let taken = status.code() == Code::AlreadyExists;
    let namesake = details.error_info().is_some_and(|info| info.reason == "NAMESAKE");
    let what = if namesake {
        "An inactive person has this userName. If this is somebody else, open that person’s page \
         and release the userName first."
            .to_owned()
    } else if taken {
        "Somebody else has this already. Search for it in People, and correct or deactivate that \
         person first."
            .to_owned()
    } else {
        in_words(&status) + "."
    };
    edit.wrong = Wrong { field, what };
    page_with(StatusCode::UNPROCESSABLE_ENTITY, &edit)
}
