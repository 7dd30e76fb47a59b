//! One step of the rehearsal: sends, looks at what comes, and says in words what was wrong.

use http::Method;
use serde_json::Value;

use crate::scim_client::{Answer, ScimClient};

/// How many characters of a body are worth repeating in a failure.
const EXCERPT: usize = 600;

/// One step of the rehearsal and what was wrong with it.
#[derive(Debug, Clone)]
pub struct Step {
    /// The part of the guide it belongs to ("Step 3a: Assigning users").
    pub part: &'static str,
    /// What Okta does, in words ("Assign Maya Okonkwo").
    pub name: String,
    /// What was sent, what came and what was expected, in words and without secrets; empty if the
    /// step passed.
    pub failures: Vec<String>,
}

/// A request that was answered as expected, with what was sent in words.
pub(super) struct Exchange {
    pub(super) sent: String,
    pub(super) answer: Answer,
}

impl Step {
    pub(super) fn new(part: &'static str, name: impl Into<String>) -> Self {
        Self { part, name: name.into(), failures: Vec::new() }
    }

    /// Whether nothing was wrong.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.failures.is_empty()
    }

    pub(super) fn fail(&mut self, failure: impl Into<String>) {
        self.failures.push(failure.into());
    }

    /// Sends a request. `None`, and a failure noted, if no answer comes or one of another status
    /// than `expected`.
    pub(super) async fn send(
        &mut self,
        client: &ScimClient,
        method: Method,
        path_and_query: &str,
        body: Option<&Value>,
        expected: &[u16],
    ) -> Option<Exchange> {
        let mut sent = format!("{method} {path_and_query}");
        if let Some(body) = body {
            sent = format!("{sent} {}", without_secrets(body));
        }
        match client.send(method, path_and_query, body).await {
            Ok(answer) if expected.contains(&answer.status) => Some(Exchange { sent, answer }),
            Ok(answer) => {
                let expected: Vec<String> = expected.iter().map(u16::to_string).collect();
                let expected = expected.join(" or ");
                let came = format!("{} {}", answer.status, excerpt(&answer.text));
                self.fail(format!("sent {sent}; came {came}; expected {expected}"));
                None
            }
            Err(error) => {
                self.fail(format!("sent {sent}; no answer came: {error:#}"));
                None
            }
        }
    }

    pub(super) async fn get(&mut self, client: &ScimClient, path: &str) -> Option<Exchange> {
        self.send(client, Method::GET, path, None, &[200]).await
    }

    /// Notes a failure about an answer, unless what came is what was expected.
    pub(super) fn expect(
        &mut self,
        exchange: &Exchange,
        what: &str,
        came: impl Into<Value>,
        expected: impl Into<Value>,
    ) {
        let (came, expected) = (came.into(), expected.into());
        if came != expected {
            let sent = &exchange.sent;
            self.fail(format!("sent {sent}; {what} came as {came}; expected {expected}"));
        }
    }

    /// Looks at the envelope of a list and gives its resources: the schema, and numbers where
    /// Okta insists on JSON integers.
    pub(super) fn resources<'e>(&mut self, exchange: &'e Exchange) -> &'e [Value] {
        let answer = &exchange.answer;
        let list = "urn:ietf:params:scim:api:messages:2.0:ListResponse";
        self.expect(exchange, "schemas", answer.at("/schemas").clone(), vec![list]);
        let total = answer.at("/totalResults").as_u64();
        for number in ["/totalResults", "/startIndex", "/itemsPerPage"] {
            let came = answer.at(number);
            // startIndex and itemsPerPage may be left out where everything is on the page
            // (RFC 7644 §3.4.2).
            let wanted = number == "/totalResults" || !came.is_null();
            if wanted && !came.is_u64() {
                self.fail(format!(
                    "sent {}; {} came as {came}; expected an integer",
                    exchange.sent,
                    &number[1..]
                ));
            }
        }
        match answer.at("/Resources") {
            Value::Array(resources) => resources,
            Value::Null if total == Some(0) => &[],
            other => {
                let sent = &exchange.sent;
                self.fail(format!("sent {sent}; Resources came as {other}; expected an array"));
                &[]
            }
        }
    }
}

/// A body as a failure may show it.
fn without_secrets(body: &Value) -> String {
    let mut body = body.clone();
    if let Some(password) = body.get_mut("password") {
        *password = "…".into();
    }
    excerpt(&body.to_string())
}

fn excerpt(text: &str) -> String {
    match text.char_indices().nth(EXCERPT) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None if text.is_empty() => "with an empty body".to_owned(),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_failure_shows_no_password() {
        let shown = without_secrets(&json!({ "userName": "a@b.c", "password": "s3cret" }));
        assert!(shown.contains("a@b.c") && !shown.contains("s3cret"), "{shown}");
    }

    #[test]
    fn a_long_body_is_cut_between_characters() {
        assert_eq!(excerpt(&"é".repeat(EXCERPT + 1)), format!("{}…", "é".repeat(EXCERPT)));
        assert_eq!(excerpt(&"é".repeat(EXCERPT)), "é".repeat(EXCERPT));
    }
}
