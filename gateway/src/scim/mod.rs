//! SCIM over HTTP (RFC 7644): one file a resource type, HTTP in, gRPC out.

mod bulk;
mod discovery;
mod filter;
mod groups;
mod resource;
mod search;
mod user_json;
mod user_parts;
mod users;
mod version;

pub(crate) use user_json::{from_scim, to_scim};
pub(crate) use users::{approvers_of, groups_of, representation};

use std::borrow::Cow;
use std::collections::BTreeMap;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, RawQuery, Request};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{any, get, post};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use muster_runtime::http_server::{BodyError, read_body};
use muster_scim::filter::{Filter, parse_among};
use muster_scim::list::Page;
use muster_scim::path::AttributePath;
use muster_scim::projection::Projection;
use muster_scim::schema::ResourceType;
use muster_scim::{Error, ScimType};
use percent_encoding::percent_decode_str;
use serde::Serialize;
use serde_json::Value;

use crate::auth::Client;
use crate::failure::Failure;
use crate::{Gateway, Limits};

/// How many resources a list has that does not say, at most.
pub(crate) const DEFAULT_RESULTS: u64 = 100;

/// The routes below `/scim/v2`.
pub(crate) fn routes() -> Router<Gateway> {
    Router::new()
        .route("/Users", get(users::list).post(users::create))
        .route(
            "/Users/{id}",
            get(users::get).put(users::replace).patch(users::patch).delete(users::delete),
        )
        .route("/Groups", get(groups::list).post(groups::create))
        .route(
            "/Groups/{id}",
            get(groups::get).put(groups::replace).patch(groups::patch).delete(groups::delete),
        )
        .route("/ServiceProviderConfig", get(discovery::service_provider_config))
        .route("/ResourceTypes", get(discovery::resource_types))
        .route("/ResourceTypes/{id}", get(discovery::resource_type))
        .route("/Schemas", get(discovery::schemas))
        .route("/Schemas/{id}", get(discovery::schema))
        .route("/Me", any(not_implemented))
        .route("/Bulk", post(bulk::bulk))
        .route("/.search", post(search::everything))
        .route("/Users/.search", post(search::users))
        .route("/Groups/.search", post(search::groups))
        .fallback(no_such_endpoint)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(axum::middleware::from_fn(acceptable))
}

/// Every answer is JSON: a client that accepts none is told so before anything is done.
async fn acceptable(request: Request, next: Next) -> Response {
    let mut accepted = request.headers().get_all(header::ACCEPT).iter().peekable();
    let json = |range: &str| {
        let mut parts = range.split(';').map(str::trim);
        let media_type = parts.next().unwrap_or_default().to_ascii_lowercase();
        let refused = parts.any(|part| matches!(part, "q=0" | "q=0.0" | "q=0.00" | "q=0.000"));
        !refused
            && matches!(
                media_type.as_str(),
                "application/scim+json" | "application/json" | "application/*" | "*/*" | ""
            )
    };
    let acceptable = accepted.peek().is_none()
        || accepted.any(|value| value.to_str().is_ok_and(|text| text.split(',').any(json)));
    if acceptable {
        next.run(request).await
    } else {
        let what = "the Accept header allows neither application/scim+json nor application/json";
        Failure::new(StatusCode::NOT_ACCEPTABLE, what).into_response()
    }
}

async fn not_implemented(_: Client) -> Failure {
    Failure::new(
        StatusCode::NOT_IMPLEMENTED,
        "this endpoint is not offered; see ServiceProviderConfig",
    )
}

pub(crate) async fn no_such_endpoint(_: Client) -> Failure {
    Failure::new(
        StatusCode::NOT_FOUND,
        "there is no such endpoint; there are /Users, /Groups, /Schemas, /ResourceTypes and \
         /ServiceProviderConfig",
    )
}

async fn method_not_allowed(_: Client, method: Method) -> Failure {
    Failure::new(
        StatusCode::METHOD_NOT_ALLOWED,
        format!("{method} is not possible here; the Allow header names what is"),
    )
}

/// A JSON answer.
pub(crate) fn json(status: StatusCode, body: &impl Serialize) -> Response {
    // Names are strings, and nothing fails to be written: there is nothing to tell.
    let mut response = Response::new(Body::from(serde_json::to_vec(body).unwrap_or_default()));
    *response.status_mut() = status;
    let media_type = HeaderValue::from_static("application/scim+json");
    response.headers_mut().insert(header::CONTENT_TYPE, media_type);
    response
}

/// The resource named in the path. An id that does not even read is nobody's.
fn id(path: Result<Path<String>, PathRejection>, what: &str) -> Result<String, Failure> {
    path.map(|Path(id)| id).map_err(|_| Failure::not_found(what))
}

/// What a list or a single resource may be asked with.
#[derive(Clone)]
struct Asked {
    page: Page,
    filter: Option<Filter>,
    /// What to order by, in the contracts' words.
    order_by: String,
    /// Where to go on, in a list by cursor (RFC 9865); empty on its first page. None in a list by
    /// index.
    cursor: Option<String>,
    projection: Projection,
}

impl Asked {
    fn read(
        RawQuery(query): RawQuery,
        gateway: &Gateway,
        resource_type: &'static ResourceType,
    ) -> Result<Self, Failure> {
        let parameters = parameters(query.as_deref().unwrap_or_default())?;
        Self::of(&parameters, gateway, resource_type)
    }

    /// Parameters by name in lower case, from a query or a search request.
    fn of(
        parameters: &BTreeMap<String, String>,
        gateway: &Gateway,
        resource_type: &'static ResourceType,
    ) -> Result<Self, Failure> {
        Self::among(parameters, gateway, resource_type, &[])
    }

    /// The same where resources of other types are asked for with them.
    fn among(
        parameters: &BTreeMap<String, String>,
        gateway: &Gateway,
        resource_type: &'static ResourceType,
        others: &'static [&'static ResourceType],
    ) -> Result<Self, Failure> {
        let parameter = |name: &str| parameters.get(&name.to_ascii_lowercase()).map(String::as_str);
        let cursor = parameter("cursor");
        let page = match cursor {
            None => Page::parse(parameter("startIndex"), parameter("count"))?,
            Some(_) if parameter("startIndex").is_some() => {
                let what = "startIndex and cursor exclude each other; send one of them";
                return Err(Error::of(ScimType::InvalidValue, what).into());
            }
            Some(_) => Page { start_index: 1, count: cursor_count(parameter("count"))? },
        };
        Ok(Self {
            page,
            cursor: cursor.map(str::to_owned),
            filter: parameter("filter")
                .map(|text| parse_among(text, resource_type, others, &gateway.limits.scim))
                .transpose()?,
            order_by: order_by(parameter("sortBy"), parameter("sortOrder"), resource_type)?,
            projection: Projection::parse(
                parameter("attributes"),
                parameter("excludedAttributes"),
                resource_type,
            )?,
        })
    }

    /// The same for another part of the list.
    fn window(&self, start_index: u64, count: u64) -> Self {
        Self { page: Page { start_index, count: Some(count) }, ..self.clone() }
    }

    /// The same for one attribute only.
    fn only(self, name: &str, resource_type: &'static ResourceType) -> Result<Self, Failure> {
        Ok(Self { projection: Projection::parse(Some(name), None, resource_type)?, ..self })
    }

    /// How many resources to answer with at most.
    fn count(&self, limits: Limits) -> u64 {
        self.page.count.unwrap_or(DEFAULT_RESULTS).min(limits.max_results)
    }

    /// How many resources to pass over.
    fn skip(&self) -> i32 {
        i32::try_from(self.page.start_index - 1).unwrap_or(i32::MAX)
    }
}

/// The `count` of a list by cursor, where a wrong one has a keyword of its own (RFC 9865 §2.1). One
/// below 0 is 0.
fn cursor_count(count: Option<&str>) -> Result<Option<u64>, Failure> {
    let Some(text) = count.map(str::trim).filter(|text| !text.is_empty()) else { return Ok(None) };
    let number: i64 = text.parse().map_err(|_| {
        let sent: String = text.chars().take(32).collect();
        let what = format!("count is {sent:?}; expected a whole number");
        Error::of(ScimType::InvalidCount, what)
    })?;
    Ok(Some(u64::try_from(number).unwrap_or(0)))
}

/// What `sortBy` and `sortOrder` say, in the contracts' words (RFC 7644 §3.4.2.3).
fn order_by(
    sort_by: Option<&str>,
    sort_order: Option<&str>,
    resource_type: &'static ResourceType,
) -> Result<String, Failure> {
    let invalid = |what: String| Failure::from(Error::of(ScimType::InvalidValue, what));
    let descending = match sort_order.map(|order| order.trim().to_ascii_lowercase()).as_deref() {
        None | Some("" | "ascending") => false,
        Some("descending") => true,
        Some(_) => {
            return Err(invalid("sortOrder is neither ascending nor descending".to_owned()));
        }
    };
    let Some(name) = sort_by.map(str::trim).filter(|name| !name.is_empty()) else {
        return Ok(String::new());
    };
    let shown: String = name.chars().take(100).collect();
    let path = AttributePath::resolve(name, resource_type)
        .ok_or_else(|| invalid(format!("sortBy is {shown:?}, which no schema declares")))?;
    let field = filter::field(&filter::with_value(path))
        .ok_or_else(|| invalid(format!("sortBy is {shown:?}, by which nothing is sorted")))?;
    Ok(if descending { format!("{field} desc") } else { field })
}

/// The parameters of a query. A name may come once: of two filters, which would be meant?
fn parameters(query: &str) -> Result<BTreeMap<String, String>, Failure> {
    let invalid = |what: &str| {
        Error::of(ScimType::InvalidValue, format!("the query {what}; send it percent-encoded"))
    };
    let decode = |text: &str| {
        let text = text.replace('+', " ");
        let text = percent_decode_str(&text).decode_utf8().map(Cow::into_owned);
        match text {
            Ok(text) if !text.contains('\0') => Ok(text),
            Ok(_) => Err(invalid("holds a NUL character")),
            Err(_) => Err(invalid("is not UTF-8")),
        }
    };
    let mut parameters = BTreeMap::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (name, value) = (decode(name)?, decode(value)?);
        if parameters.insert(name.to_ascii_lowercase(), value).is_some() {
            let name: String = name.chars().take(40).collect();
            return Err(invalid(&format!("has {name:?} twice")).into());
        }
    }
    Ok(parameters)
}

/// Reads a JSON body within the limits.
async fn body(request: Request, limits: Limits) -> Result<Value, Failure> {
    Ok(muster_scim::json::parse(&body_bytes(request, limits).await?, &limits.scim)?)
}

/// The bytes of a body that says it is JSON.
async fn body_bytes(request: Request, limits: Limits) -> Result<Bytes, Failure> {
    check_media_type(request.headers())?;
    let body = read_body(request.into_body(), limits.body_bytes, limits.body_time).await;
    body.map_err(|error| match error {
        BodyError::TooLarge => Failure::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("the body is larger than {} bytes", limits.body_bytes),
        ),
        BodyError::TooSlow => Failure::new(
            StatusCode::REQUEST_TIMEOUT,
            format!("the body took longer than {} s to arrive", limits.body_time.as_secs()),
        ),
        BodyError::Broken => Failure::new(StatusCode::BAD_REQUEST, "the body broke off"),
    })
}

fn check_media_type(headers: &HeaderMap) -> Result<(), Failure> {
    let unsupported = |what: String| Err(Failure::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, what));
    if headers.get(header::CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity") {
        return unsupported("the body has a Content-Encoding; send it as it is".into());
    }
    let Some(media_type) = headers.get(header::CONTENT_TYPE) else { return Ok(()) };
    let media_type = media_type.to_str().unwrap_or_default();
    let essence = media_type.split(';').next().unwrap_or_default().trim();
    if ["application/scim+json", "application/json"].iter().any(|m| essence.eq_ignore_ascii_case(m))
    {
        Ok(())
    } else {
        unsupported("the Content-Type is not application/scim+json or application/json".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_decoded_and_a_name_comes_once() {
        let read = parameters("filter=userName%20eq+%22a%2B1%22&Count=5&x").unwrap();
        assert_eq!(read["filter"], "userName eq \"a+1\"");
        assert_eq!((read["count"].as_str(), read["x"].as_str()), ("5", ""));
        for wrong in ["filter=%FF", "filter=%00", "count=1&COUNT=2"] {
            assert!(parameters(wrong).is_err(), "{wrong}");
        }
    }
}
