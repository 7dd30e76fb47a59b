//! Plays the sessions of `tests/data`: requests as identity providers send them, each with what
//! must come back. `tests/data/README.md` tells the format.

mod matcher;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use http::{HeaderName, HeaderValue};
use muster::scim_client::{Answer, Method, ScimClient};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use matcher::differences;

/// How long a step that says `eventually` may take to come true.
const PATIENCE: Duration = Duration::from_secs(10);

/// What `save` has kept so far, by name.
type Saved = BTreeMap<String, Value>;

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Step {
    name: String,
    request: Request,
    expect: Expect,
    #[serde(default)]
    save: BTreeMap<String, String>,
    /// Whether the request is repeated until what is expected comes.
    #[serde(default)]
    eventually: bool,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    method: String,
    path: String,
    body: Option<Value>,
    raw_body: Option<RawBody>,
    repeat: Option<Vec<Repeat>>,
    #[serde(default)]
    headers: BTreeMap<String, Option<String>>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum RawBody {
    Text(String),
    Bytes(Vec<u8>),
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Repeat {
    text: String,
    times: usize,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expect {
    status: Status,
    body: Option<Value>,
    #[serde(default)]
    absent: Vec<String>,
    #[serde(default)]
    headers: Map<String, Value>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum Status {
    One(u16),
    OneOf(Vec<u16>),
}

/// Plays the session in the file `session` of `tests/data` against an organisation of its own.
///
/// Panics at the first answer that is not as expected, with the session, the step, what was sent,
/// what came and what was expected.
pub(crate) async fn play(client: &ScimClient, session: &str) {
    let mut saved = Saved::from([("key".to_owned(), client.key().into())]);
    for step in read(session) {
        let step = step_with(&step, &saved).unwrap_or_else(|e| panic!("{session}: {e}"));
        let answer = play_step(client, session, &step).await;
        for (name, pointer) in &step.save {
            let value = answer.body.as_ref().and_then(|body| body.pointer(pointer));
            let value = value.unwrap_or_else(|| {
                panic!(
                    "{session}, “{}”: nothing to save at {pointer} in {}",
                    step.name, answer.text
                )
            });
            saved.insert(name.clone(), value.clone());
        }
    }
}

async fn play_step(client: &ScimClient, session: &str, step: &Step) -> Answer {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let request = &step.request;
        let answer = send(client, request).await.unwrap_or_else(|error| {
            panic!("{session}, “{}”: no answer came: {error:#}", step.name);
        });
        let failures = failures(&answer, &step.expect);
        if failures.is_empty() {
            return answer;
        }
        assert!(
            step.eventually && Instant::now() < deadline,
            "{session}, “{}”\n  sent     {}\n  came     {} {}\n  expected {} {}\n  {}",
            step.name,
            request.in_words(),
            answer.status,
            answer.text,
            step.expect.status.in_words(),
            step.expect.body.as_ref().unwrap_or(&Value::Null),
            failures.join("\n  "),
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn send(client: &ScimClient, request: &Request) -> anyhow::Result<Answer> {
    let mut headers = Vec::new();
    for (name, value) in &request.headers {
        let value = value.as_deref().map(HeaderValue::from_str).transpose()?;
        headers.push((HeaderName::try_from(name)?, value));
    }
    let method: Method = request.method.parse()?;
    let body = request.bytes().map(Into::into);
    client.send_bytes(method, &request.path, body, &headers).await
}

impl Request {
    fn bytes(&self) -> Option<Vec<u8>> {
        if let Some(body) = &self.body {
            return Some(body.to_string().into_bytes());
        }
        if let Some(segments) = &self.repeat {
            let text: String = segments.iter().map(|s| s.text.repeat(s.times)).collect();
            return Some(text.into_bytes());
        }
        match &self.raw_body {
            Some(RawBody::Text(text)) => Some(text.clone().into_bytes()),
            Some(RawBody::Bytes(bytes)) => Some(bytes.clone()),
            None => None,
        }
    }

    fn in_words(&self) -> String {
        let body = self.bytes().unwrap_or_default();
        let body: String = String::from_utf8_lossy(&body).chars().take(2000).collect();
        format!("{} {} {body}", self.method, self.path)
    }
}

impl Status {
    fn fits(&self, came: u16) -> bool {
        match self {
            Self::One(status) => came == *status,
            Self::OneOf(statuses) => statuses.contains(&came),
        }
    }

    fn in_words(&self) -> String {
        match self {
            Self::One(status) => status.to_string(),
            Self::OneOf(statuses) => {
                statuses.iter().map(u16::to_string).collect::<Vec<_>>().join(" or ")
            }
        }
    }
}

/// What is wrong with an answer: what the step asks for, and what holds for every answer.
fn failures(answer: &Answer, expect: &Expect) -> Vec<String> {
    let mut failures = Vec::new();
    if !expect.status.fits(answer.status) {
        failures.push(format!("status is {}", answer.status));
    }
    if let Some(expected) = &expect.body {
        failures.extend(differences(expected, answer.at("")));
    }
    for pointer in &expect.absent {
        let came = answer.at(pointer);
        // An unassigned attribute, null and an empty array are the same (RFC 7643 §2.5).
        if !came.is_null() && *came != json!([]) {
            failures.push(format!("{pointer} is {came}; expected nothing there"));
        }
    }
    for (name, expected) in &expect.headers {
        let came = answer.headers.get(name).and_then(|value| value.to_str().ok());
        failures.extend(differences(expected, &came.into()).iter().map(|d| format!("{name}{d}")));
    }
    failures.extend(failures_of_form(answer));
    failures
}

/// What holds for every answer: SCIM's media type, an error in SCIM's form (RFC 7644 §3.12), and no
/// body where there must be none.
fn failures_of_form(answer: &Answer) -> Vec<String> {
    let mut failures = Vec::new();
    if answer.status == 204 && !answer.text.is_empty() {
        failures.push("a 204 has no body".to_owned());
    }
    if !answer.text.is_empty() {
        let media_type = answer.content_type().unwrap_or_default();
        if !media_type.starts_with("application/scim+json") {
            failures.push(format!("content-type is {media_type:?}"));
        }
    }
    if answer.status >= 400 {
        let error = json!({
            "schemas": ["urn:ietf:params:scim:api:messages:2.0:Error"],
            "status": answer.status.to_string(),
            "detail": { "$type": "string" },
        });
        failures.extend(differences(&error, answer.at("")));
        if answer.at("/detail") == "" {
            failures.push("an error says what is wrong".to_owned());
        }
    }
    failures
}

/// The steps of a session, nothing put in for `${name}` yet.
fn read(session: &str) -> Vec<Value> {
    let path = folder().join(session);
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{session}: {e}"))
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data")
}

fn step_with(step: &Value, saved: &Saved) -> Result<Step, String> {
    let name = step["name"].as_str().unwrap_or("a step without name");
    let filled = fill(step, saved).map_err(|variable| {
        format!("“{name}” uses ${{{variable}}}, which no step before has saved")
    })?;
    serde_json::from_value(filled).map_err(|error| format!("“{name}”: {error}"))
}

/// Puts what was saved in the place of each `${name}`: the value itself where the string is nothing
/// else, its text where there is more. The error is the name that nothing was saved under.
fn fill(value: &Value, saved: &Saved) -> Result<Value, String> {
    Ok(match value {
        Value::String(text) => fill_text(text, saved)?,
        Value::Array(values) => {
            values.iter().map(|value| fill(value, saved)).collect::<Result<_, _>>()?
        }
        Value::Object(fields) => {
            let fields = fields.iter().map(|(key, value)| Ok((key.clone(), fill(value, saved)?)));
            Value::Object(fields.collect::<Result<_, String>>()?)
        }
        other => other.clone(),
    })
}

fn fill_text(text: &str, saved: &Saved) -> Result<Value, String> {
    let mut filled = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        let (name, after) = after.split_once('}').ok_or_else(|| after.to_owned())?;
        let value = saved.get(name).ok_or_else(|| name.to_owned())?;
        if before.is_empty() && after.is_empty() && filled.is_empty() {
            return Ok(value.clone());
        }
        filled.push_str(before);
        match value {
            Value::String(value) => filled.push_str(value),
            other => filled.push_str(&other.to_string()),
        }
        rest = after;
    }
    filled.push_str(rest);
    Ok(filled.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_saved_value_is_put_in_as_it_is_or_as_text() {
        let saved = Saved::from([("id".into(), json!("7")), ("n".into(), json!(3))]);
        let value = json!({ "a": "${n}", "b": ["/Users/${id}?n=${n}", true], "c": "plain" });
        let filled = json!({ "a": 3, "b": ["/Users/7?n=3", true], "c": "plain" });
        assert_eq!(fill(&value, &saved), Ok(filled));
        assert_eq!(fill(&json!("${other}"), &saved), Err("other".into()));
    }

    #[test]
    fn every_session_is_well_formed() {
        let files = fs::read_dir(folder()).unwrap().map(|file| file.unwrap().path());
        let sessions = files.filter(|path| path.extension().is_some_and(|e| e == "json"));
        let mut count = 0;
        for path in sessions {
            let session = path.file_name().unwrap().to_str().unwrap();
            let mut saved = Saved::from([("key".to_owned(), "K".into())]);
            for step in read(session) {
                let step = step_with(&step, &saved).unwrap_or_else(|e| panic!("{session}: {e}"));
                let request = &step.request;
                assert!(request.path.starts_with('/'), "{session}, “{}”", step.name);
                assert!(request.method.parse::<Method>().is_ok(), "{session}, “{}”", step.name);
                let bodies =
                    [request.body.is_some(), request.raw_body.is_some(), request.repeat.is_some()];
                let bodies = bodies.iter().filter(|given| **given).count();
                assert!(bodies <= 1, "{session}, “{}” has {bodies} bodies", step.name);
                saved.extend(step.save.into_keys().map(|name| (name, json!("saved"))));
            }
            count += 1;
        }
        assert!(count >= 6, "{count} sessions");
    }

    #[test]
    fn an_error_that_is_no_scim_error_is_noticed() {
        let answer = |status, text: &str| Answer {
            status,
            headers: [(http::header::CONTENT_TYPE, "application/scim+json".parse().unwrap())]
                .into_iter()
                .collect(),
            body: serde_json::from_str(text).ok(),
            text: text.to_owned(),
        };
        let error = r#"{"schemas":["urn:ietf:params:scim:api:messages:2.0:Error"],"status":"404","detail":"No such user."}"#;
        assert_eq!(failures_of_form(&answer(404, error)), Vec::<String>::new());
        assert_ne!(failures_of_form(&answer(400, error)), Vec::<String>::new());
        assert_ne!(failures_of_form(&answer(404, "{}")), Vec::<String>::new());
        assert_ne!(failures_of_form(&answer(404, "")), Vec::<String>::new());
        assert_ne!(failures_of_form(&answer(204, "{}")), Vec::<String>::new());
        assert_eq!(failures_of_form(&answer(204, "")), Vec::<String>::new());
    }
}
