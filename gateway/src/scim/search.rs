//! Queries by POST (RFC 7644 §3.4.3): `/.search` for both types in one list, and one for each.

use std::collections::BTreeMap;

use axum::extract::{Request, State};
use axum::response::Response;
use http::StatusCode;
use muster_scim::list::{self, Page};
use muster_scim::resource::object;
use muster_scim::schema::{GROUP_TYPE, USER_TYPE};
use muster_scim::{Error, ScimType};
use serde_json::Value;

use super::{Asked, body, json};
use crate::auth::Client;
use crate::failure::Failure;
use crate::{Gateway, Limits};

/// The schema of a search request.
const SCHEMA: &str = "urn:ietf:params:scim:api:messages:2.0:SearchRequest";

/// A page of a list.
pub(super) struct Found {
    pub(super) total: u64,
    pub(super) resources: Vec<Value>,
    /// Where the list goes on; empty where it ends.
    pub(super) next_cursor: String,
}

impl Found {
    pub(super) fn response(self, asked: &Asked) -> Value {
        match asked.cursor {
            Some(_) => list::cursor_response(self.total, self.next_cursor, self.resources),
            None => list::response(self.total, asked.page.start_index, self.resources),
        }
    }
}

pub(super) async fn users(
    client: Client,
    State(gateway): State<Gateway>,
    request: Request,
) -> Result<Response, Failure> {
    let asked = Asked::of(&parameters(request, gateway.limits).await?, &USER_TYPE)?;
    let found = super::users::find(&gateway, &client, &asked).await?;
    Ok(json(StatusCode::OK, &found.response(&asked)))
}

pub(super) async fn groups(
    client: Client,
    State(gateway): State<Gateway>,
    request: Request,
) -> Result<Response, Failure> {
    let asked = Asked::of(&parameters(request, gateway.limits).await?, &GROUP_TYPE)?;
    let found = super::groups::find(&gateway, &client, &asked).await?;
    Ok(json(StatusCode::OK, &found.response(&asked)))
}

/// Users, then groups. A filter or an order that only one of them can have finds that one only.
pub(super) async fn everything(
    client: Client,
    State(gateway): State<Gateway>,
    request: Request,
) -> Result<Response, Failure> {
    let parameters = parameters(request, gateway.limits).await?;
    if parameters.contains_key("cursor") {
        let what = "a list of both types goes on by startIndex; a cursor is for one of them";
        return Err(Error::of(ScimType::InvalidCursor, what).into());
    }
    let users = Asked::of(&parameters, &USER_TYPE);
    let groups = Asked::of(&parameters, &GROUP_TYPE);
    let page = match (&users, groups.as_ref()) {
        (Ok(asked), _) | (_, Ok(asked)) => asked.page,
        (Err(_), Err(_)) => Page { start_index: 1, count: None },
    };
    let count = page.count.unwrap_or(super::DEFAULT_RESULTS).min(gateway.limits.max_results);
    let (mut total, mut resources, mut refusals) = (0, Vec::new(), Vec::new());
    match users {
        Ok(asked) => match super::users::find(&gateway, &client, &asked).await {
            Ok(found) => {
                total += found.total;
                resources.extend(found.resources);
            }
            Err(failure) => refusals.push(failure),
        },
        Err(failure) => refusals.push(failure),
    }
    match groups {
        Ok(mut asked) => {
            let room = count.saturating_sub(resources.len() as u64);
            asked.page.start_index = page.start_index.saturating_sub(total).max(1);
            asked.page.count = Some(room);
            match super::groups::find(&gateway, &client, &asked).await {
                Ok(found) => {
                    total += found.total;
                    resources.extend(found.resources);
                }
                Err(failure) => refusals.push(failure),
            }
        }
        Err(failure) => refusals.push(failure),
    }
    // What neither of them can answer, or what failed, is told.
    let wrong = refusals.iter().position(|failure| !failure.is_of_the_schema());
    match wrong.or((refusals.len() == 2).then_some(0)) {
        Some(at) => Err(refusals.swap_remove(at)),
        None => Ok(json(StatusCode::OK, &list::response(total, page.start_index, resources))),
    }
}

/// A search request as the parameters that a query would have, by name in lower case.
async fn parameters(request: Request, limits: Limits) -> Result<BTreeMap<String, String>, Failure> {
    let mut parameters = BTreeMap::new();
    for (key, value) in object(body(request, limits).await?)? {
        let name = key.to_ascii_lowercase();
        let text = match value {
            Value::Null => continue,
            Value::String(text) => text,
            Value::Number(number) => number.to_string(),
            Value::Array(items) => {
                let texts: Option<Vec<&str>> = items.iter().map(Value::as_str).collect();
                texts.ok_or_else(|| wrong(&key, "an array of strings"))?.join(",")
            }
            _ => return Err(wrong(&key, "a string, a number or an array of strings")),
        };
        if name == "schemas" && !text.split(',').any(|urn| urn.eq_ignore_ascii_case(SCHEMA)) {
            return Err(wrong(&key, &format!("an array that holds {SCHEMA:?}")));
        }
        parameters.insert(name, text);
    }
    Ok(parameters)
}

fn wrong(key: &str, expected: &str) -> Failure {
    let key: String = key.chars().take(40).collect();
    Error::of(ScimType::InvalidValue, format!("{key} is not {expected}")).into()
}
