//! A person: what is known of them, what has become of it, and what an admin can do.

mod edit;
mod fields;
mod history;

use std::collections::HashMap;

use askama::Template;
use axum::Router;
use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Redirect, Response};
use axum::routing::{get, post};
use http::StatusCode;
use muster_proto::identity::v1::{
    GetUserRequest, ListProvisioningLogRequest, ReleaseUserNameRequest, UpdateUserRequest, User,
};
use prost_types::FieldMask;
use serde::Deserialize;
use tonic::Status;

use self::history::Change;
use super::frame::{Frame, Problem, Section, page};
use super::input::{Form, Query};
use super::log::shown::Shown;
use super::people::shown::{self, Row};
use super::session::Signed;
use crate::Gateway;
use crate::scim::representation;

/// How many changes a page shows.
const CHANGES: i32 = 20;
/// How many groups and approvers.
const ROWS: usize = 100;
/// How many of the requests that were about the person.
const CALLS: i32 = 10;

pub(super) fn routes() -> Router<Gateway> {
    Router::new()
        .route("/admin/people/new", get(edit::blank).post(edit::create))
        .route("/admin/people/{id}", get(show))
        .route("/admin/people/{id}/edit", get(edit::show).post(edit::save))
        .route("/admin/people/{id}/active", post(set_active))
        .route("/admin/people/{id}/release", get(confirm_release).post(release))
}

#[derive(Template)]
#[template(path = "person.html")]
struct Person {
    frame: Frame,
    row: Row,
    /// Name and value; what has none is left out.
    facts: Vec<(String, String)>,
    changes: Vec<Change>,
    /// Where older changes are.
    older: Option<String>,
    /// The last requests that were about the person.
    calls: Vec<Shown>,
    /// The same as a GET of the SCIM user answers.
    scim: String,
}

impl Person {
    fn user(&self) -> &User {
        &self.row.user
    }

    fn is_active(&self) -> bool {
        self.row.user.active == Some(true)
    }

    fn path(&self) -> String {
        format!("/admin/people/{}", self.row.user.id)
    }
}

/// What the query may say.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Asked {
    /// What was just done.
    done: String,
    /// Where the history goes on.
    history: String,
}

async fn show(
    State(gateway): State<Gateway>,
    signed: Signed,
    Path(id): Path<String>,
    Query(asked): Query<Asked>,
) -> Result<Response, Problem> {
    let organisation = signed.organisation_id();
    let user = read(&gateway, &signed, id).await?;
    let users = [user];
    let changes = async {
        let history = history::read(&gateway, &signed, &users[0].id, asked.history, CHANGES);
        Ok::<_, Problem>(tokio::try_join!(history, history::names(&gateway, &signed))?)
    };
    let calls = calls(&gateway, organisation, &users[0].id);
    let rows = shown::rows(&gateway, &users);
    let (mut rows, ((changes, older), names), calls) = tokio::try_join!(rows, changes, calls)?;
    let row = rows.pop().ok_or_else(Problem::no_such_page)?;
    let approvers: Vec<_> =
        row.approvers.iter().map(|declared| declared.approver.clone()).collect();
    let (user, groups) = (row.user.clone(), row.groups.clone());
    let scim = representation(&gateway, user, groups, approvers);
    let fields = shown::field_names(&signed.organisation);
    let frame = signed.frame(row.name.clone(), Section::People).with_notice(done(&asked.done));
    page(&Person {
        frame,
        facts: facts(&row.user, &fields),
        changes: history::shown(&changes, &names, &fields),
        older: Some(older).filter(|token| !token.is_empty()).map(|token| {
            // A token is letters, digits, hyphens and underscores.
            format!("/admin/people/{}?history={token}#history", row.user.id)
        }),
        calls,
        scim: serde_json::to_string_pretty(&scim).unwrap_or_default(),
        row,
    })
}

/// The last requests that were about a person.
async fn calls(gateway: &Gateway, organisation: &str, id: &str) -> Result<Vec<Shown>, Problem> {
    let request = ListProvisioningLogRequest {
        organisation_id: organisation.to_owned(),
        subject_id: id.to_owned(),
        page_size: CALLS,
        ..ListProvisioningLogRequest::default()
    };
    let mut log = gateway.parts.provisioning_log.clone();
    let entries = log.list_provisioning_log(request).await?.into_inner().entries;
    // By which key is for the page of each.
    Ok(entries.into_iter().map(|entry| Shown::of(entry, &HashMap::new())).collect())
}

fn done(what: &str) -> Option<&'static str> {
    Some(match what {
        "added" => "The person was added.",
        "saved" => "The changes were saved.",
        "same" => "Nothing was different, so nothing was changed.",
        "deactivated" => "The person is inactive now. Groups and history were kept.",
        "reactivated" => "The person is active again.",
        "released" => "The userName and the e-mail addresses are free for somebody else.",
        _ => return None,
    })
}

/// What is known of a person, in words.
fn facts(user: &User, fields: &[String; 3]) -> Vec<(String, String)> {
    let name = user.name.clone().unwrap_or_default();
    let enterprise = user.enterprise.clone().unwrap_or_default();
    let emails = user.emails.iter().filter_map(|email| {
        let kind = email.r#type.as_ref().map(|kind| format!(" ({kind})")).unwrap_or_default();
        Some(format!("{}{kind}", email.value.as_ref()?))
    });
    let emails = emails.collect::<Vec<_>>().join(", ");
    let region = match &user.country_code {
        Some(code) if code != shown::region(user) => {
            format!("{} (country code {code})", shown::region(user))
        }
        _ => shown::region(user).to_owned(),
    };
    let locale = match &user.locale {
        Some(locale) => locale.clone(),
        None => format!("{} (the organisation’s default)", user.effective_locale),
    };
    let all = [
        ("userName", user.user_name.clone()),
        ("First name", name.given_name),
        ("Last name", name.family_name),
        ("Display name", user.display_name.clone()),
        ("E-mail", Some(emails)),
        ("Content region", Some(region)),
        ("Locale", Some(locale)),
        (fields[0].as_str(), user.custom_field_1.clone()),
        (fields[1].as_str(), user.custom_field_2.clone()),
        (fields[2].as_str(), user.custom_field_3.clone()),
        ("Title", user.title.clone()),
        ("User type", user.user_type.clone()),
        ("Department", enterprise.department),
        ("Division", enterprise.division),
        ("Cost centre", enterprise.cost_center),
        ("Employee number", enterprise.employee_number),
        ("External id", user.external_id.clone()),
    ];
    let known = all.into_iter().filter_map(|(name, value)| {
        let value = value.filter(|value| !value.trim().is_empty())?;
        Some((name.to_owned(), value))
    });
    known.collect()
}

async fn read(gateway: &Gateway, signed: &Signed, id: String) -> Result<User, Status> {
    let request = GetUserRequest { organisation_id: signed.organisation_id().to_owned(), id };
    Ok(gateway.parts.users.clone().get_user(request).await?.into_inner())
}

/// A button's form.
#[derive(Debug, Deserialize)]
struct Press {
    revision: i64,
    #[serde(default)]
    active: String,
}

async fn set_active(
    State(gateway): State<Gateway>,
    signed: Signed,
    Path(id): Path<String>,
    Form(press): Form<Press>,
) -> Result<Response, Problem> {
    let active = press.active == "yes";
    let user = User {
        organisation_id: signed.organisation_id().to_owned(),
        id,
        revision: press.revision,
        active: Some(active),
        ..User::default()
    };
    let request = UpdateUserRequest {
        user: Some(user),
        update_mask: Some(FieldMask { paths: vec!["active".to_owned()] }),
        actor: Some(signed.actor()),
        ..UpdateUserRequest::default()
    };
    let user = gateway.parts.users.clone().update_user(request).await?.into_inner();
    gateway.parts.settled(&user).await;
    let done = if active { "reactivated" } else { "deactivated" };
    Ok(Redirect::to(&format!("/admin/people/{}?done={done}", user.id)).into_response())
}

#[derive(Template)]
#[template(path = "person_release.html")]
struct Release {
    frame: Frame,
    name: String,
    user: User,
}

async fn confirm_release(
    State(gateway): State<Gateway>,
    signed: Signed,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let user = read(&gateway, &signed, id).await?;
    if user.active() {
        return Err(Problem::new(
            StatusCode::CONFLICT,
            "The person is active",
            "Only a leaver’s userName can be released. Deactivate the person first.",
        ));
    }
    let frame = signed.frame("Release the userName", Section::People);
    page(&Release { frame, name: shown::name(&user), user })
}

async fn release(
    State(gateway): State<Gateway>,
    signed: Signed,
    Path(id): Path<String>,
    Form(press): Form<Press>,
) -> Result<Response, Problem> {
    let request = ReleaseUserNameRequest {
        organisation_id: signed.organisation_id().to_owned(),
        id,
        revision: press.revision,
        actor: Some(signed.actor()),
    };
    let user = gateway.parts.users.clone().release_user_name(request).await?.into_inner();
    gateway.parts.settled(&user).await;
    Ok(Redirect::to(&format!("/admin/people/{}?done=released", user.id)).into_response())
}
