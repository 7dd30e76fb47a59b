//! API keys: what Okta, or another SCIM client, authenticates with.

use askama::Template;
use axum::Router;
use axum::extract::{Path, State};
use axum::response::{Redirect, Response};
use axum::routing::get;
use muster_proto::identity::v1::{
    Admin, ApiKey, CreateApiKeyRequest, ListApiKeysRequest, RevokeApiKeyRequest,
};
use prost_types::Timestamp;
use serde::Deserialize;
use time::{Date, Duration, OffsetDateTime, format_description::well_known::Iso8601};

use super::{HERE, Settings, Shown, done, refusal, who};
use crate::Gateway;
use crate::console::frame::{Frame, Problem, Section, page};
use crate::console::input::Form;
use crate::console::moment::{Moment, moment};
use crate::console::session::Signed;

/// How many keys that work no more are shown.
const GONE: usize = 20;

/// The most that are shown that work.
const SHOWN: usize = 50;

pub(super) fn routes() -> Router<Gateway> {
    Router::new()
        .route("/admin/settings/api-keys", get(back).post(create))
        .route("/admin/settings/api-keys/new", get(new))
        .route("/admin/settings/api-keys/{id}/revoke", get(confirm).post(revoke))
}

/// A key as it is shown.
pub(super) struct Key {
    pub id: String,
    pub label: String,
    pub prefix: String,
    pub creator: String,
    pub created: Option<Moment>,
    pub last_used: Option<Moment>,
    pub expires: Option<Moment>,
    pub state: KeyState,
    /// The newer key that has taken its place, where it seems to have.
    pub replaced_by: Option<String>,
}

/// Whether a key works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KeyState {
    Used,
    Unused,
    Expired,
    Revoked,
}

/// The keys that work and those that do not any more, newest first.
pub(super) fn rows(mut keys: Vec<ApiKey>, admins: &[Admin]) -> (Vec<Key>, Vec<Key>) {
    keys.reverse();
    let now = OffsetDateTime::now_utc().unix_timestamp();
    let rows: Vec<Key> = keys
        .iter()
        .map(|key| Key {
            id: key.id.clone(),
            label: key.label.clone(),
            prefix: key.prefix.clone(),
            creator: who(key.creator.as_ref(), admins),
            created: moment(key.create_time.as_ref()),
            last_used: moment(key.last_use_time.as_ref()),
            expires: moment(key.expire_time.as_ref()),
            state: state(key, now),
            replaced_by: keys
                .iter()
                .find(|newer| replaces(newer, key, now))
                .map(|newer| newer.label.clone()),
        })
        .collect();
    let works = |key: &Key| matches!(key.state, KeyState::Used | KeyState::Unused);
    let (mut working, mut gone): (Vec<_>, Vec<_>) = rows.into_iter().partition(works);
    working.truncate(SHOWN);
    gone.truncate(GONE);
    (working, gone)
}

fn state(key: &ApiKey, now: i64) -> KeyState {
    if key.revoke_time.is_some() {
        KeyState::Revoked
    } else if key.expire_time.is_some_and(|time| time.seconds <= now) {
        KeyState::Expired
    } else if key.last_use_time.is_some() {
        KeyState::Used
    } else {
        KeyState::Unused
    }
}

/// Whether `newer` works and `older` has gone unused since. A use is noted to about a minute.
fn replaces(newer: &ApiKey, older: &ApiKey, now: i64) -> bool {
    let seconds = |time: &Option<Timestamp>| time.map(|time| time.seconds);
    let Some(first) = seconds(&newer.first_use_time) else { return false };
    newer.id > older.id
        && state(newer, now) == KeyState::Used
        && seconds(&older.last_use_time).is_none_or(|last| last + 60 <= first)
        && matches!(state(older, now), KeyState::Used | KeyState::Unused)
        && now - first >= 60
}

/// What is typed of a new key.
#[derive(Debug, Deserialize)]
pub(super) struct NewKey {
    pub label: String,
    /// A day, or nothing.
    #[serde(default)]
    pub expires: String,
    #[serde(skip)]
    pub wrong: Option<String>,
}

impl Default for NewKey {
    fn default() -> Self {
        Self { label: "Okta".into(), expires: String::new(), wrong: None }
    }
}

#[derive(Template)]
#[template(path = "settings_key.html")]
struct New {
    frame: Frame,
    new_key: NewKey,
}

async fn new(signed: Signed) -> Result<Response, Problem> {
    page(&New {
        frame: signed.frame("Generate an API key", Section::Settings),
        new_key: NewKey::default(),
    })
}

/// A page that was made by a form is asked for again.
async fn back(_: Signed) -> Redirect {
    Redirect::to(HERE)
}

async fn create(
    State(gateway): State<Gateway>,
    signed: Signed,
    Form(typed): Form<NewKey>,
) -> Result<Response, Problem> {
    let expire_time = match expiry(&typed.expires) {
        Ok(expire_time) => expire_time,
        Err(wrong) => return again(&gateway, &signed, typed, wrong).await,
    };
    let key = ApiKey {
        organisation_id: signed.organisation_id().to_owned(),
        label: typed.label.clone(),
        expire_time,
        ..ApiKey::default()
    };
    let request = CreateApiKeyRequest {
        api_key: Some(key),
        actor: Some(signed.actor()),
        client_address: signed.client_address.clone(),
    };
    match gateway.parts.api_keys.clone().create_api_key(request).await {
        Ok(answer) => {
            let mut settings = Settings::load(&gateway, &signed).await?;
            settings.shown = Some(Shown {
                title: "Your API token",
                text: format!("Static {}", answer.into_inner().secret),
                advice: "Copy it now: it is not shown again. In Okta, paste it whole, with the word \
                         Static, into API Token, and click Test API Credentials.",
            });
            page(&settings)
        }
        Err(status) => again(&gateway, &signed, typed, refusal(status)?).await,
    }
}

async fn again(
    gateway: &Gateway,
    signed: &Signed,
    typed: NewKey,
    wrong: String,
) -> Result<Response, Problem> {
    let mut settings = Settings::load(gateway, signed).await?;
    settings.new_key = NewKey { wrong: Some(wrong), ..typed };
    settings.refused()
}

/// The end of a day (UTC), or none where none is typed.
fn expiry(day: &str) -> Result<Option<Timestamp>, String> {
    if day.trim().is_empty() {
        return Ok(None);
    }
    let Ok(date) = Date::parse(day.trim(), &Iso8601::DATE) else {
        return Err(format!("The day was {day:?}; expected one such as 2027-12-31."));
    };
    let end = date.midnight().assume_utc() + Duration::DAY;
    if end <= OffsetDateTime::now_utc() {
        return Err("The day is over; choose one from today on, or none.".into());
    }
    Ok(Some(Timestamp { seconds: end.unix_timestamp(), nanos: 0 }))
}

#[derive(Template)]
#[template(path = "settings_revoke.html")]
struct Confirm {
    frame: Frame,
    key: Key,
}

async fn confirm(
    State(gateway): State<Gateway>,
    signed: Signed,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let organisation_id = signed.organisation_id().to_owned();
    let request = ListApiKeysRequest { organisation_id };
    let keys = gateway.parts.api_keys.clone().list_api_keys(request).await?.into_inner().api_keys;
    let (working, _) = rows(keys, &[]);
    let key = working.into_iter().find(|key| key.id == id).ok_or_else(Problem::no_such_page)?;
    page(&Confirm { frame: signed.frame("Revoke an API key", Section::Settings), key })
}

async fn revoke(
    State(gateway): State<Gateway>,
    signed: Signed,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let request = RevokeApiKeyRequest {
        organisation_id: signed.organisation_id().to_owned(),
        id,
        actor: Some(signed.actor()),
        client_address: signed.client_address.clone(),
    };
    gateway.parts.api_keys.clone().revoke_api_key(request).await?;
    Ok(done("key-revoked"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(id: &str, first: Option<i64>, last: Option<i64>) -> ApiKey {
        let time = |seconds: Option<i64>| seconds.map(|seconds| Timestamp { seconds, nanos: 0 });
        ApiKey {
            id: id.into(),
            first_use_time: time(first),
            last_use_time: time(last),
            ..ApiKey::default()
        }
    }

    #[test]
    fn an_old_key_is_replaced_once_it_goes_unused_while_a_newer_one_works() {
        let newer = key("2", Some(1_000), Some(2_000));
        assert!(replaces(&newer, &key("1", Some(1), Some(900)), 2_000));
        assert!(replaces(&newer, &key("1", None, None), 2_000), "was never used");
        assert!(!replaces(&newer, &key("1", Some(1), Some(1_500)), 2_000), "is used still");
        assert!(
            !replaces(&newer, &key("1", Some(1), Some(980)), 2_000),
            "may have been used since"
        );
        assert!(!replaces(&newer, &key("1", Some(1), Some(900)), 1_030), "it is early days");
        assert!(!replaces(&newer, &key("3", Some(1), Some(900)), 2_000), "is the newer");
        let unused = key("2", None, None);
        assert!(!replaces(&unused, &key("1", Some(1), Some(900)), 2_000), "does not work yet");
    }

    #[test]
    fn a_key_expires_at_the_end_of_a_day() {
        assert_eq!(expiry(" "), Ok(None));
        let end = expiry("2999-12-31").unwrap().unwrap();
        assert_eq!(end.seconds % 86_400, 0);
        for wrong in ["yesterday", "31.12.2999", "2020-01-01", "2999-13-01"] {
            assert!(expiry(wrong).is_err(), "{wrong}");
        }
    }
}
