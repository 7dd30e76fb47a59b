//! What browsers send: forms and queries, whose refusals are pages.

use axum::extract::{FromRequest, FromRequestParts, Request};
use http::{HeaderMap, request};
use serde::de::DeserializeOwned;

use super::frame::Problem;
use crate::Gateway;

/// A form that was sent.
#[derive(Debug)]
pub(super) struct Form<T>(pub T);

impl<T: DeserializeOwned> FromRequest<Gateway> for Form<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, gateway: &Gateway) -> Result<Self, Problem> {
        let form = axum::extract::Form::from_request(request, gateway).await;
        let axum::extract::Form(form) = form.map_err(|rejection| {
            let field = rejection.body_text();
            // serde names the field, never the value.
            let field = field.rsplit("missing field ").next().filter(|name| name.len() < 64);
            let field = field.unwrap_or("a field");
            Problem::unreadable(format!("Go back and send it again: {field} is missing or wrong."))
        })?;
        Ok(Self(form))
    }
}

/// The query of an address. One that does not read is that of a mistyped address.
#[derive(Debug)]
pub(super) struct Query<T>(pub T);

impl<T: DeserializeOwned> FromRequestParts<Gateway> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut request::Parts, _: &Gateway) -> Result<Self, Problem> {
        axum::extract::Query::try_from_uri(&parts.uri)
            .map(|axum::extract::Query(query)| Self(query))
            .map_err(|_| Problem::no_such_page())
    }
}

/// Whether htmx asks for a piece of the page rather than the whole.
pub(super) fn wants_piece(headers: &HeaderMap) -> bool {
    headers.contains_key("hx-request") && !headers.contains_key("hx-history-restore-request")
}

/// The address of the sign-in page that leads back to `next` afterwards.
pub(super) fn sign_in_address(next: &str) -> String {
    let next = percent_encoding::utf8_percent_encode(next, percent_encoding::NON_ALPHANUMERIC);
    format!("/admin/sign-in?next={next}")
}

/// Where to go after sign-in: a page of the console, or its first page for whatever else `next`
/// holds. Another site, by whatever spelling, is never a page of the console.
pub(super) fn next_page(next: &str) -> &str {
    let path = next.split(['?', '#']).next().unwrap_or_default();
    let below = path == super::HOME || path.starts_with("/admin/");
    let plain = next.bytes().all(|b| b.is_ascii_graphic() && b != b'\\')
        && !path.contains("//")
        && !path.split('/').any(|part| part == ".." || part == ".")
        && next.parse::<http::uri::PathAndQuery>().is_ok();
    if below && plain && next.len() <= 2_048 { next } else { super::HOME }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_of_the_console_is_led_back_to() {
        for next in ["/admin", "/admin/people", "/admin/people?search=ann%20b&active=true"] {
            assert_eq!(next_page(next), next);
        }
    }

    #[test]
    fn whatever_else_leads_to_the_first_page() {
        for next in [
            "",
            "/",
            "//evil.test",
            "/\\evil.test",
            "https://evil.test/admin/",
            "/admin/../evil",
            "/admin//evil.test",
            "/admin/\\evil.test",
            "/administrator",
            "/admin@evil.test",
            "/admin/\r\nSet-Cookie: a=b",
            "javascript:alert(1)",
            "/admin/ü",
        ] {
            assert_eq!(next_page(next), "/admin", "{next}");
        }
    }
}
