//! Requests that write must come from the console's own pages: the browser says so, and the form
//! carries the session's token. Either alone would do today; together they stay right where a
//! browser or a proxy errs.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use http::{HeaderMap, StatusCode, header};
use muster_runtime::http_server::{BodyError, read_body};

use super::frame::Problem;
use super::session::{csrf_token, secret};
use crate::Gateway;

/// The form field that carries the token; the first of a form with a file.
const FIELD: &str = "csrf";

/// How much of a form with a file is read to find the token.
const HEAD: usize = 4 * 1024;

/// Refuses a request that writes and does not come from the console's own origin.
pub(super) async fn need_same_origin(
    State(gateway): State<Gateway>,
    request: Request,
    next: Next,
) -> Response {
    if request.method().is_safe() || is_same_origin(request.headers(), &gateway.public_url) {
        next.run(request).await
    } else {
        Problem::forged().into_response()
    }
}

fn is_same_origin(headers: &HeaderMap, public_url: &str) -> bool {
    let text = |name| headers.get(name).and_then(|value: &http::HeaderValue| value.to_str().ok());
    match text(header::HeaderName::from_static("sec-fetch-site")) {
        Some(site) => site == "same-origin",
        None => text(header::ORIGIN).is_some_and(|origin| origin == origin_of(public_url)),
    }
}

/// Scheme and authority: the public URL may have a path.
fn origin_of(public_url: &str) -> &str {
    let authority = public_url.find("://").map_or(0, |at| at + 3);
    let end = public_url[authority..].find('/').map_or(public_url.len(), |at| authority + at);
    &public_url[..end]
}

/// Refuses a request that writes in a session and does not carry the session's token. Without a
/// session it goes on, to be sent to the sign-in page.
pub(super) async fn need_token(
    State(gateway): State<Gateway>,
    request: Request,
    next: Next,
) -> Response {
    let Some(secret) = secret(request.headers(), &gateway.public_url) else {
        return next.run(request).await;
    };
    if request.method().is_safe() {
        return next.run(request).await;
    }
    let expected = csrf_token(secret);
    let is_token = |sent: Option<String>| {
        // Compared as hashes, so that time tells nothing.
        sent.is_some_and(|sent| csrf_token(&sent) == csrf_token(&expected))
    };
    if let Some(sent) = request.headers().get("x-csrf-token") {
        let sent = sent.to_str().ok().map(str::to_owned);
        return if is_token(sent) {
            next.run(request).await
        } else {
            Problem::forged().into_response()
        };
    }
    let kind = request.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let boundary = kind
        .and_then(|kind| kind.strip_prefix("multipart/form-data"))
        .and_then(|rest| rest.split_once("boundary="))
        .map(|(_, boundary)| boundary.trim_matches('"').to_owned());
    let (head, body) = request.into_parts();
    let read = match boundary {
        Some(boundary) => multipart(body, &boundary).await,
        None => urlencoded(body, &gateway).await,
    };
    match read {
        Ok((sent, body)) if is_token(sent.clone()) => {
            next.run(Request::from_parts(head, body)).await
        }
        Ok(_) => Problem::forged().into_response(),
        Err(problem) => problem.into_response(),
    }
}

/// The token in a form, and the form again.
async fn urlencoded(body: Body, gateway: &Gateway) -> Result<(Option<String>, Body), Problem> {
    let limits = gateway.limits;
    let bytes = read_body(body, limits.body_bytes, limits.body_time).await.map_err(|error| {
        let (status, advice) = match error {
            BodyError::TooLarge => (
                StatusCode::PAYLOAD_TOO_LARGE,
                format!("A form may hold {} bytes. Go back and shorten it.", limits.body_bytes),
            ),
            BodyError::TooSlow => (
                StatusCode::REQUEST_TIMEOUT,
                "It took too long to arrive. Go back and send it again.".to_owned(),
            ),
            BodyError::Broken => (
                StatusCode::BAD_REQUEST,
                "The connection broke. Go back and send it again.".to_owned(),
            ),
        };
        Problem::new(status, "The form did not arrive whole", advice)
    })?;
    let fields: Vec<(String, String)> = serde_urlencoded::from_bytes(&bytes).unwrap_or_default();
    let token = fields.into_iter().find(|(name, _)| name == FIELD).map(|(_, value)| value);
    Ok((token, Body::from(bytes)))
}

/// The token in the first field of a form with a file, and the form again, which is not read whole.
async fn multipart(body: Body, boundary: &str) -> Result<(Option<String>, Body), Problem> {
    let mut rest = body.into_data_stream();
    let mut head = BytesMut::new();
    let token = loop {
        if let Some(token) = first_field(&head, boundary) {
            break Some(token);
        }
        if head.len() >= HEAD {
            break None;
        }
        match rest.next().await {
            Some(Ok(bytes)) => head.extend_from_slice(&bytes),
            Some(Err(_)) => {
                return Err(Problem::unreadable("The connection broke. Send it again."));
            }
            None => break None,
        }
    };
    let head = futures::stream::iter([Ok::<Bytes, axum::Error>(head.freeze())]);
    Ok((token, Body::from_stream(head.chain(rest))))
}

/// The value of the first field, where it is the token and has arrived whole (RFC 7578).
fn first_field(head: &[u8], boundary: &str) -> Option<String> {
    let end = head.len().min(HEAD);
    let text = String::from_utf8_lossy(&head[..end]);
    let field = text.strip_prefix("--")?.strip_prefix(boundary)?.strip_prefix("\r\n")?;
    let (headers, rest) = field.split_once("\r\n\r\n")?;
    let named = format!("form-data; name=\"{FIELD}\"");
    let is_token = headers.lines().any(|line| {
        let (name, value) = line.split_once(':').unwrap_or_default();
        name.eq_ignore_ascii_case("content-disposition") && value.trim() == named
    });
    let (value, _) = rest.split_once("\r\n--")?;
    is_token.then(|| value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(headers: &[(&'static str, &str)]) -> bool {
        let headers =
            headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
        is_same_origin(&headers.collect(), "https://muster.example.com/sub")
    }

    #[test]
    fn the_browser_says_where_a_form_comes_from() {
        assert!(sent(&[("sec-fetch-site", "same-origin")]));
        assert!(sent(&[("origin", "https://muster.example.com")]));
        assert!(!sent(&[]));
        for site in ["cross-site", "same-site", "none", ""] {
            let origin = ("origin", "https://muster.example.com");
            assert!(!sent(&[("sec-fetch-site", site), origin]), "{site}");
        }
        for origin in ["null", "http://muster.example.com", "https://muster.example.com.evil.test"]
        {
            assert!(!sent(&[("origin", origin)]), "{origin}");
        }
    }

    #[test]
    fn the_first_field_of_a_form_with_a_file_is_the_token() {
        let form =
            b"--XX\r\nContent-Disposition: form-data; name=\"csrf\"\r\n\r\ntoken\r\n--XX\r\n";
        assert_eq!(first_field(form, "XX").as_deref(), Some("token"));
        for end in 0..form.len() - 6 {
            assert_eq!(first_field(&form[..end], "XX"), None, "{end}");
        }
        let other =
            b"--XX\r\nContent-Disposition: form-data; name=\"file\"\r\n\r\ntoken\r\n--XX\r\n";
        assert_eq!(first_field(other, "XX"), None);
    }
}
