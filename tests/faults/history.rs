//! What clients asked, when, and what they were told.

use serde_json::{Value, json};

use crate::model::{Expected, Op};

/// One request.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    pub(crate) organisation: usize,
    pub(crate) op: Op,
    /// Whether it is one of several of one request: then only errors have a body.
    pub(crate) in_bulk: bool,
    /// The trace id that the client gave it.
    pub(crate) trace: String,
    /// When it was sent and when it returned, on one clock of all clients.
    pub(crate) sent: u64,
    pub(crate) returned: u64,
    pub(crate) outcome: Outcome,
}

/// How a request ended for its client.
#[derive(Debug, Clone)]
pub(crate) enum Outcome {
    Answered {
        status: u16,
        body: Value,
    },
    /// There was no answer.
    Unknown(String),
}

impl Record {
    /// The status, where it says what became of the request: an error of the service does not.
    pub(crate) fn status(&self) -> Option<u16> {
        match self.outcome {
            Outcome::Answered { status, .. } if status < 500 => Some(status),
            _ => None,
        }
    }

    pub(crate) fn body(&self) -> &Value {
        match &self.outcome {
            Outcome::Answered { body, .. } => body,
            Outcome::Unknown(_) => &Value::Null,
        }
    }

    pub(crate) fn succeeded(&self) -> bool {
        self.status().is_some_and(|status| status < 300)
    }

    /// What it must be answered with, given what it would be if it were alone.
    pub(crate) fn expected(&self, alone: Expected) -> Expected {
        if self.in_bulk { Expected { body: None, ..alone } } else { alone }
    }

    pub(crate) fn to_json(&self) -> Value {
        let outcome = match &self.outcome {
            Outcome::Answered { status, body } => json!({"status": status, "body": body}),
            Outcome::Unknown(error) => json!({"unknown": error}),
        };
        json!({
            "organisation": self.organisation,
            "request": self.op.request().to_string(),
            "bulk": self.in_bulk,
            "trace": self.trace,
            "sent": self.sent,
            "returned": self.returned,
            "outcome": outcome,
        })
    }
}

impl std::fmt::Display for Record {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let request = self.op.request();
        let within = if self.in_bulk { "in a bulk, " } else { "" };
        let outcome = match &self.outcome {
            Outcome::Answered { status, .. } => status.to_string(),
            Outcome::Unknown(error) => error.clone(),
        };
        let Self { trace, sent, returned, .. } = self;
        write!(f, "{request} ({within}trace {trace}, {sent} to {returned}: {outcome})")
    }
}
