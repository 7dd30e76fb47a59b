//! Settings: API keys, the organisation, its admins, and what they have done.

mod admins;
mod api_keys;
mod organisation;
mod password;

use askama::Template;
use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse as _, Redirect, Response};
use axum::routing::get;
use http::StatusCode;
use muster_proto::feed::v1::{Actor, actor};
use muster_proto::identity::v1::{
    Admin, AuditAction, AuditEvent, ListAdminsRequest, ListApiKeysRequest, ListAuditEventsRequest,
};
use serde::Deserialize;
use tonic::{Code, Status};

use super::frame::{Frame, Problem, Section, in_words, page, page_with};
use super::input::Query;
use super::moment::{Moment, moment};
use super::session::Signed;
use crate::Gateway;

/// Where Settings are.
const HERE: &str = "/admin/settings";

/// How many of what was done Settings show, and a page of all of it.
const RECENT: i32 = 8;
const ACTIVITY: i32 = 100;

pub(super) fn routes() -> Router<Gateway> {
    Router::new()
        .route(HERE, get(show))
        .route("/admin/settings/activity", get(activity))
        .merge(api_keys::routes())
        .merge(organisation::routes())
        .merge(admins::routes())
        .merge(password::routes())
}

/// The page, with what was typed where a form is shown again.
#[derive(Template)]
#[template(path = "settings.html")]
struct Settings {
    frame: Frame,
    keys: Vec<api_keys::Key>,
    gone_keys: Vec<api_keys::Key>,
    new_key: api_keys::NewKey,
    organisation: organisation::Typed,
    admins: Vec<admins::Row>,
    further_admins: usize,
    invite: admins::Invite,
    activity: Vec<Event>,
    /// What is shown once.
    shown: Option<Shown>,
}

/// A secret that was just made, in a dialog.
struct Shown {
    title: &'static str,
    text: String,
    advice: &'static str,
}

impl Settings {
    /// As things are, with nothing typed.
    async fn load(gateway: &Gateway, signed: &Signed) -> Result<Self, Problem> {
        let organisation_id = signed.organisation_id().to_owned();
        let parts = &gateway.parts;
        let (mut keys, mut admins, mut audit) =
            (parts.api_keys.clone(), parts.admins.clone(), parts.audit.clone());
        let (keys, admins, audit) = tokio::try_join!(
            keys.list_api_keys(ListApiKeysRequest { organisation_id: organisation_id.clone() }),
            admins.list_admins(ListAdminsRequest { organisation_id: organisation_id.clone() }),
            audit.list_audit_events(ListAuditEventsRequest {
                organisation_id,
                page_size: RECENT,
                page_token: String::new(),
            }),
        )?;
        let admins = admins.into_inner().admins;
        let (keys, gone_keys) = api_keys::rows(keys.into_inner().api_keys, &admins);
        Ok(Self {
            frame: signed.frame("Settings", Section::Settings),
            keys,
            gone_keys,
            new_key: api_keys::NewKey::default(),
            organisation: organisation::Typed::of(&signed.organisation),
            activity: audit.into_inner().events.into_iter().map(Event::of).collect(),
            further_admins: admins::further(&admins),
            admins: admins::rows(&admins, &signed.admin.id),
            invite: admins::Invite::default(),
            shown: None,
        })
    }

    /// A form that was refused, again.
    fn refused(&self) -> Result<Response, Problem> {
        page_with(StatusCode::UNPROCESSABLE_ENTITY, self)
    }
}

#[derive(Debug, Deserialize)]
struct Asked {
    done: Option<String>,
}

async fn show(
    State(gateway): State<Gateway>,
    signed: Signed,
    Query(asked): Query<Asked>,
) -> Result<Response, Problem> {
    let mut settings = Settings::load(&gateway, &signed).await?;
    settings.frame = settings.frame.with_notice(asked.done.as_deref().and_then(notice));
    page(&settings)
}

/// What is said of what was just done. Only these texts: an address cannot put words on the page.
fn notice(done: &str) -> Option<&'static str> {
    Some(match done {
        "saved" => "Saved.",
        "key-revoked" => "The API key is revoked. Requests that still use it are refused.",
        "admin-removed" => "The admin is removed and signed out.",
        "signed-out" => "They are signed out everywhere.",
        "password" => "Your password is changed. You are signed out everywhere else.",
        _ => return None,
    })
}

/// Back to Settings, with a word on what was done.
fn done(what: &str) -> Response {
    Redirect::to(&format!("{HERE}?done={what}")).into_response()
}

/// What a person is told of a refusal; an error that is none of theirs goes on.
fn refusal(status: Status) -> Result<String, Problem> {
    match status.code() {
        Code::InvalidArgument => Ok(in_words(&status)),
        Code::AlreadyExists => Ok("Somebody has this e-mail address already.".into()),
        _ => Err(status.into()),
    }
}

/// Something that was done, as it is shown.
struct Event {
    when: Option<Moment>,
    who: String,
    what: &'static str,
    subject: String,
    client_address: String,
    trace_id: String,
}

impl Event {
    fn of(event: AuditEvent) -> Self {
        let what = match event.action() {
            AuditAction::SignedIn => "signed in",
            AuditAction::SignInRefused => "typed a wrong password",
            AuditAction::SignedOut => "signed out",
            AuditAction::SignedOutEverywhere => "signed out everywhere",
            AuditAction::PasswordSet => "set a password",
            AuditAction::AdminInvited => "invited an admin",
            AuditAction::AdminReset => "made a new link for an admin",
            AuditAction::AdminRemoved => "removed an admin",
            AuditAction::ApiKeyCreated => "generated an API key",
            AuditAction::ApiKeyRevoked => "revoked an API key",
            AuditAction::SettingsChanged => "changed the settings",
            AuditAction::Exported => "exported",
            AuditAction::Imported => "imported",
            AuditAction::UserErased => "erased what was kept of a deleted person",
            AuditAction::Unspecified => "did something",
        };
        let by_themselves = matches!(
            event.action(),
            AuditAction::SignedIn | AuditAction::SignedOut | AuditAction::PasswordSet
        );
        let who = if event.actor_name.is_empty() {
            who(event.actor.as_ref(), &[])
        } else {
            event.actor_name
        };
        Self {
            when: moment(event.create_time.as_ref()),
            who,
            what,
            subject: if by_themselves { String::new() } else { event.subject },
            client_address: event.client_address,
            trace_id: event.trace_id,
        }
    }
}

/// An actor, by name.
fn who(actor: Option<&Actor>, admins: &[Admin]) -> String {
    match actor.and_then(|actor| actor.kind.as_ref()) {
        Some(actor::Kind::AdminId(id)) => admins
            .iter()
            .find(|admin| admin.id == *id)
            .map_or_else(|| "A former admin".to_owned(), |admin| admin.display_name.clone()),
        Some(actor::Kind::Caller(name)) if !name.is_empty() && name != "operator" => name.clone(),
        Some(actor::Kind::ApiKeyId(_)) => "An API key".to_owned(),
        Some(actor::Kind::Caller(_)) | None => "An operator".to_owned(),
    }
}

#[derive(Debug, Deserialize)]
struct Further {
    #[serde(default)]
    page: String,
}

#[derive(Template)]
#[template(path = "settings_activity.html")]
struct Activity {
    frame: Frame,
    events: Vec<Event>,
    is_first: bool,
    next: String,
}

async fn activity(
    State(gateway): State<Gateway>,
    signed: Signed,
    Query(further): Query<Further>,
) -> Result<Response, Problem> {
    let is_first = further.page.is_empty();
    let request = ListAuditEventsRequest {
        organisation_id: signed.organisation_id().to_owned(),
        page_size: ACTIVITY,
        page_token: further.page,
    };
    let answer = gateway.parts.audit.clone().list_audit_events(request).await;
    let answer = answer.map_err(|status| match status.code() {
        Code::InvalidArgument => Problem::no_such_page(),
        _ => status.into(),
    })?;
    let answer = answer.into_inner();
    page(&Activity {
        frame: signed.frame("Activity", Section::Settings),
        events: answer.events.into_iter().map(Event::of).collect(),
        is_first,
        next: answer.next_page_token,
    })
}
