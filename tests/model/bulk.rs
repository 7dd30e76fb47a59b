//! Several operations in one request (RFC 7644 §3.7).

use muster::scim_client::Method;
use serde_json::{Value, json};

use super::Op;
use super::op::Request;

/// The request that asks for all of them.
pub(crate) fn request(ops: &[Op]) -> Request {
    let operations: Vec<Value> = ops.iter().enumerate().map(operation).collect();
    let body = json!({
        "schemas": ["urn:ietf:params:scim:api:messages:2.0:BulkRequest"],
        "Operations": operations,
    });
    Request { method: Method::POST, path: "/Bulk".into(), body: Some(body), if_match: None }
}

fn operation((number, op): (usize, &Op)) -> Value {
    let request = op.request();
    let mut operation = json!({"method": request.method.as_str(), "path": request.path});
    if let Some(body) = request.body {
        operation["data"] = body;
    }
    if let Some(tag) = request.if_match {
        operation["version"] = tag.into();
    }
    if request.method == Method::POST {
        operation["bulkId"] = format!("b{number}").into();
    }
    operation
}

/// How one of them was answered.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    pub(crate) status: u16,
    /// The id of what it was about; empty where it is not told.
    pub(crate) id: String,
    /// The body of an error.
    pub(crate) response: Value,
}

impl Part {
    /// The answer to the operation of a number; none where there is none.
    pub(crate) fn of(answer: &Value, number: usize) -> Option<Self> {
        let part = answer["Operations"].get(number)?;
        let location = part["location"].as_str().unwrap_or_default();
        Some(Self {
            status: part["status"].as_str()?.parse().ok()?,
            id: location.rsplit('/').next().unwrap_or_default().to_owned(),
            response: part["response"].clone(),
        })
    }
}
