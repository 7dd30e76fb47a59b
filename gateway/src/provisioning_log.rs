//! The provisioning log: what each SCIM request was and what came of it.
//!
//! A request notes its entry in a bounded queue and goes on: it neither waits for the log nor fails
//! by it. A task beside the requests sends what has gathered to identity (`writer`).

mod action;
mod writer;

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use axum::response::Response;
use http::{HeaderValue, Method, header, request};
use muster_proto::identity::v1::{
    ProvisioningAction, ProvisioningLogEntry, ProvisioningOutcome, ProvisioningSubject,
};
use muster_runtime::clock::{self, timestamp};
use muster_runtime::id::LogEntryId;
use muster_scim::Error;
use serde_json::Value;
use time::OffsetDateTime;

use action::Asked;
pub(crate) use writer::Log;

use crate::server::AppliedInPart;

/// Where SCIM begins; the log's paths are below it.
const BASE: &str = "/scim/v2";

/// How many characters are kept of what a client sends at whatever length it likes.
const PATH: usize = 2_048;
const DETAIL: usize = 4_096;
const NAME: usize = 512;
const USER_AGENT: usize = 256;
/// How many ids are kept of those that were left out, and of how many characters each.
const UNKNOWN_IDS: (usize, usize) = (1_000, 64);

/// What the user or the group that an answer is about is called. In its extensions.
#[derive(Debug, Clone)]
pub(crate) struct Called(pub String);

/// That a list went up to its end. In an answer's extensions.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ToTheEnd;

/// The error that an answer holds. In its extensions.
#[derive(Debug, Clone)]
pub(crate) struct Refusal(pub Error);

/// A SCIM request under way. In its extensions; all clones are one.
#[derive(Debug, Clone)]
pub(crate) struct Call(Arc<Started>);

#[derive(Debug)]
struct Started {
    id: LogEntryId,
    at: OffsetDateTime,
    clock: Instant,
    method: Method,
    /// The path below the base URL and the query.
    target: String,
    user_agent: String,
    known: Mutex<Known>,
}

/// What becomes known of a request while it is answered.
#[derive(Debug, Default)]
struct Known {
    /// None for a client that nobody knows.
    organisation_id: Option<String>,
    api_key_id: String,
    /// Whether the key is one that may not be used any more.
    refused_key: bool,
    /// What the user or group is called that is to be created.
    name: String,
}

impl Call {
    /// A request that has just come; none where it is no SCIM request.
    pub(crate) fn begin(head: &request::Parts) -> Option<Self> {
        let target = head.uri.path_and_query()?.as_str().strip_prefix(BASE)?;
        if !target.is_empty() && !target.starts_with(['/', '?']) {
            return None;
        }
        let user_agent = head.headers.get(header::USER_AGENT).map(HeaderValue::as_bytes);
        let user_agent = String::from_utf8_lossy(user_agent.unwrap_or_default());
        Some(Self::new(head.method.clone(), target, &user_agent))
    }

    /// The same for an operation of a bulk request.
    pub(crate) fn operation(method: &Method, target: &str, bulk: Option<&Self>) -> Self {
        let call = Self::new(method.clone(), target, bulk.map_or("", |bulk| &bulk.0.user_agent));
        if let Some(bulk) = bulk {
            let known = bulk.known();
            call.by(known.organisation_id.as_deref().unwrap_or_default(), &known.api_key_id);
        }
        call
    }

    fn new(method: Method, target: &str, user_agent: &str) -> Self {
        Self(Arc::new(Started {
            id: LogEntryId::new(),
            at: clock::now(),
            clock: Instant::now(),
            method,
            target: kept(target, PATH),
            user_agent: kept(user_agent, USER_AGENT),
            known: Mutex::default(),
        }))
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        muster_runtime::lock(&self.0.known)
    }

    /// Notes whose request it is.
    pub(crate) fn by(&self, organisation_id: &str, api_key_id: &str) {
        let mut known = self.known();
        known.organisation_id = Some(organisation_id.to_owned());
        api_key_id.clone_into(&mut known.api_key_id);
    }

    /// Notes that it came with a key of the organisation that may not be used.
    pub(crate) fn refused(&self, organisation_id: &str, api_key_id: &str) {
        self.by(organisation_id, api_key_id);
        self.known().refused_key = true;
    }

    /// Notes what is to be created: a body's attribute of that name, in any letter case.
    pub(crate) fn creates(&self, body: &Value, attribute: &str) {
        let object = body.as_object().into_iter().flatten();
        let named = object.into_iter().find(|(name, _)| name.eq_ignore_ascii_case(attribute));
        if let Some(name) = named.and_then(|(_, value)| value.as_str()) {
            self.known().name = kept(name, NAME);
        }
    }

    /// The entry of the request, now that it is answered; none where nobody knows whose it is.
    fn entry(&self, response: &Response, trace_id: Option<String>) -> Option<ProvisioningLogEntry> {
        let Started { id, at, clock, method, target, user_agent, .. } = &*self.0;
        let known = self.known();
        let organisation_id = known.organisation_id.clone()?;
        let extensions = response.extensions();
        let Asked { mut action, subject, subject_id } =
            action::asked(method, target, extensions.get::<ToTheEnd>().is_some());
        if known.refused_key {
            action = ProvisioningAction::RefusedKey;
        }
        let created = response.headers().get(header::LOCATION).and_then(|value| {
            Some(value.to_str().ok()?.rsplit('/').next().unwrap_or_default().to_owned())
        });
        let subject_id = subject_id.map(str::to_owned).or(created).unwrap_or_default();
        let unknown = extensions.get::<AppliedInPart>().map(|part| &part.unknown_member_ids[..]);
        let refusal = extensions.get::<Refusal>().map(|Refusal(error)| error);
        let status = response.status();
        let outcome = match unknown {
            _ if status.is_client_error() || status.is_server_error() => {
                ProvisioningOutcome::Failed
            }
            Some(_) => ProvisioningOutcome::AppliedInPart,
            None => ProvisioningOutcome::Applied,
        };
        let unknown = unknown.unwrap_or_default();
        let called = extensions.get::<Called>().map(|Called(name)| kept(name, NAME));
        Some(ProvisioningLogEntry {
            id: id.to_string(),
            organisation_id,
            request_time: Some(timestamp(*at)),
            duration: prost_types::Duration::try_from(clock.elapsed()).ok(),
            api_key_id: known.api_key_id.clone(),
            method: method.as_str().chars().take(16).collect(),
            path: target.clone(),
            action: action.into(),
            outcome: outcome.into(),
            status: status.as_u16().into(),
            subject: subject.into(),
            subject_name: match subject {
                ProvisioningSubject::Unspecified => String::new(),
                _ => called.unwrap_or_else(|| known.name.clone()),
            },
            subject_id,
            scim_type: refusal
                .and_then(|error| error.scim_type)
                .map(|scim_type| scim_type.as_str().to_owned())
                .unwrap_or_default(),
            detail: refusal.map(|error| kept(&error.detail, DETAIL)).unwrap_or_default(),
            unknown_member_ids: unknown
                .iter()
                .take(UNKNOWN_IDS.0)
                .map(|id| kept(id, UNKNOWN_IDS.1))
                .collect(),
            unknown_member_count: i32::try_from(unknown.len()).unwrap_or(i32::MAX),
            trace_id: trace_id.unwrap_or_default(),
            user_agent: user_agent.clone(),
        })
    }
}

/// Text as it is kept: so many characters, without those that no column takes, and without what
/// looks like an API key, wherever a client may have put its own.
fn kept(text: &str, characters: usize) -> String {
    const KEY: &str = "muster_";
    let mut kept = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(KEY) {
        let (before, key) = rest.split_at(at + KEY.len());
        let end = key.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(key.len());
        kept.push_str(before);
        kept.push_str(if end > 30 { "…" } else { &key[..end] });
        rest = &key[end..];
    }
    kept.push_str(rest);
    let clean = kept.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c });
    clean.take(characters).collect()
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    fn call(method: &str, uri: &str) -> Option<Call> {
        let request = http::Request::builder().method(method).uri(uri).body(()).unwrap();
        Call::begin(&request.into_parts().0)
    }

    #[test]
    fn only_scim_requests_of_somebody_known_have_an_entry() {
        assert!(call("GET", "/admin").is_none());
        assert!(call("GET", "/scim/v2x").is_none());
        let call = call("GET", "/scim/v2/Users?count=1").unwrap();
        let answer = Response::new(Body::empty());
        assert!(call.entry(&answer, None).is_none());
        call.by("o", "k");
        let entry = call.entry(&answer, None).unwrap();
        assert_eq!((entry.path.as_str(), entry.api_key_id.as_str()), ("/Users?count=1", "k"));
    }

    #[test]
    fn no_key_is_kept_wherever_it_stands() {
        let key = format!("muster_{}_{}", "a".repeat(22), "b".repeat(50));
        assert_eq!(kept(&format!("/Users?k={key}&x={key}"), 99), "/Users?k=muster_…&x=muster_…");
        assert_eq!(kept("muster_x and so on", 99), "muster_x and so on");
        assert_eq!(kept("a\0b\u{1b}", 99), "a\u{fffd}b\u{fffd}");
        assert_eq!(kept("ééé", 2), "éé");
    }

    #[test]
    fn what_is_created_is_called_as_the_body_says() {
        let call = call("POST", "/scim/v2/Users").unwrap();
        call.by("o", "k");
        call.creates(&serde_json::json!({"USERNAME": "ann"}), "userName");
        let entry = call.entry(&Response::new(Body::empty()), None).unwrap();
        assert_eq!(entry.subject_name, "ann");
        assert_eq!(entry.action(), ProvisioningAction::CreateUser);
    }
}
