//! How a request fails: as a SCIM error (RFC 7644 §3.12).

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use muster_runtime::grpc::is_away;
use muster_runtime::telemetry;
use muster_scim::{Error, ScimType};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::provisioning_log::Refusal;

/// A SCIM error on its way out.
#[derive(Debug)]
pub(crate) struct Failure(pub Error);

impl Failure {
    pub(crate) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self(Error::new(status.as_u16(), detail))
    }

    /// Whether a resource type cannot be asked so, while another perhaps can.
    pub(crate) fn is_of_the_schema(&self) -> bool {
        let kind = self.0.scim_type;
        matches!(kind, Some(ScimType::InvalidFilter | ScimType::InvalidValue))
    }

    /// What has no such id, of this organisation or of any other: always the same.
    pub(crate) fn not_found(what: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, format!("there is no {what} with this id"))
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        let of = |scim_type, detail| Self(Error::of(scim_type, detail));
        match status.code() {
            Code::NotFound => {
                let what = status.message().strip_prefix("there is no such ").unwrap_or("resource");
                Self::not_found(what)
            }
            Code::AlreadyExists => of(ScimType::Uniqueness, taken(&status)),
            Code::InvalidArgument => {
                let violation = status
                    .get_details_bad_request()
                    .and_then(|details| details.field_violations.into_iter().next());
                match violation {
                    Some(violation) if violation.field == "filter" => of(
                        ScimType::InvalidFilter,
                        format!("the filter {}", scim_words(&violation.description)),
                    ),
                    Some(violation) if violation.field == "page_token" => {
                        of(ScimType::InvalidCursor, format!("the cursor {}", violation.description))
                    }
                    Some(violation) => of(
                        ScimType::InvalidValue,
                        format!("{} {}", scim_name(&violation.field), violation.description),
                    ),
                    None => of(ScimType::InvalidValue, status.message().to_owned()),
                }
            }
            Code::FailedPrecondition => of(
                ScimType::ExpiredCursor,
                "the cursor has expired; begin again with an empty one".to_owned(),
            ),
            Code::Aborted => Self::new(
                StatusCode::PRECONDITION_FAILED,
                "the resource has changed since the version that the request names; read it again",
            ),
            Code::ResourceExhausted => {
                Self::new(StatusCode::PAYLOAD_TOO_LARGE, "the request or its answer is too large")
            }
            code if is_away(code) => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "a part of the service is not available now; send the request again",
            ),
            _ => Self::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "the service failed; its operators find the cause by the trace id",
            ),
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut error = self.0;
        if let Some(trace) = telemetry::trace_id() {
            error.detail = format!("{} (trace {trace})", error.detail);
        }
        let status =
            StatusCode::from_u16(error.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = crate::scim::json(status, &error.to_json());
        response.extensions_mut().insert(Refusal(error));
        let headers = response.headers_mut();
        match status {
            StatusCode::UNAUTHORIZED => {
                let challenge = HeaderValue::from_static("Bearer realm=\"Muster SCIM\"");
                headers.insert(header::WWW_AUTHENTICATE, challenge);
            }
            // A rate is by the second.
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            }
            _ => {}
        }
        response
    }
}

/// What a 409 says: the attribute and the value.
fn taken(status: &Status) -> String {
    let Some(info) = status.get_details_error_info() else { return status.message().to_owned() };
    let part = |name: &str| info.metadata.get(name).map(String::as_str).unwrap_or_default();
    let (attribute, value) = (scim_name(part("attribute")), part("value"));
    if info.reason == "NAMESAKE" {
        return format!(
            "{attribute} {value:?} belongs to an inactive user with another externalId: a namesake, \
             not a rehire; an admin can release the old user's userName and e-mail in the console"
        );
    }
    format!(
        "{attribute} {value:?} is already in use in this organisation; send another, or update the resource that has it"
    )
}

/// The SCIM name of a field of the contracts.
fn scim_name(field: &str) -> &str {
    match field {
        "user_name" => "userName",
        "external_id" => "externalId",
        "country_code" => "urn:learnerbly:params:scim:schemas:2.0:User:contentRegion",
        "display_name" => "displayName",
        "id" => "id",
        other => other,
    }
}

fn scim_words(description: &str) -> String {
    ["user_name", "external_id", "display_name"]
        .iter()
        .fold(description.to_owned(), |text, field| text.replace(field, scim_name(field)))
}
