//! Versions of resources: weak entity tags made of the revision (RFC 7644 §3.14).

use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};

use crate::failure::Failure;

/// The version of a revision, as `meta.version` and `ETag` have it.
pub(super) fn tag(revision: i64) -> String {
    format!("W/\"{revision}\"")
}

/// The same as a header.
pub(super) fn header(revision: i64) -> Option<HeaderValue> {
    tag(revision).parse().ok()
}

/// The revision of a tag; none where it is none of ours.
pub(super) fn revision(tag: &str) -> Option<i64> {
    let text = tag.strip_prefix("W/").unwrap_or(tag).strip_prefix('"')?.strip_suffix('"')?;
    text.parse().ok().filter(|revision| *revision > 0)
}

/// The revision that a write asks for by `If-Match`; 0 where any will do.
///
/// Of several tags the one that `current` says is asked for: only then is the resource read first.
/// The writing statement still decides.
pub(super) async fn expected(
    headers: &HeaderMap,
    current: impl AsyncFnOnce() -> Result<i64, Failure>,
) -> Result<i64, Failure> {
    let tags: Vec<&str> = headers
        .get_all(header::IF_MATCH)
        .iter()
        .flat_map(|value| value.to_str().unwrap_or_default().split(','))
        .map(str::trim)
        .collect();
    if tags.is_empty() || tags.contains(&"*") {
        return Ok(0);
    }
    // A tag that we never gave is of no version that there is.
    let revisions: Vec<i64> = tags.into_iter().filter_map(revision).collect();
    let named = match revisions.as_slice() {
        [one] => Some(*one),
        [] => None,
        several => Some(current().await?).filter(|current| several.contains(current)),
    };
    named.ok_or_else(|| {
        Failure::new(
            StatusCode::PRECONDITION_FAILED,
            "If-Match names no version of the resource; send its meta.version, such as W/\"3\"",
        )
    })
}

/// The answer to a client who has this revision already.
pub(super) fn not_modified(revision: i64) -> Response {
    let mut response = StatusCode::NOT_MODIFIED.into_response();
    response.headers_mut().extend(header(revision).map(|tag| (header::ETAG, tag)));
    response
}

/// Whether a client has this revision already (`If-None-Match`).
pub(super) fn is_known(headers: &HeaderMap, revision: i64) -> bool {
    let tag = tag(revision);
    headers
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .any(|known| known == "*" || known == tag || known == &tag[2..])
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(value: &str) -> Option<i64> {
        let headers = HeaderMap::from_iter([(header::IF_MATCH, value.parse().unwrap())]);
        expected(&headers, async || Ok(3)).await.ok()
    }

    #[tokio::test]
    async fn an_if_match_names_a_revision_or_any() {
        assert_eq!(read("W/\"3\"").await, Some(3));
        assert_eq!(read("\"2\"").await, Some(2));
        assert_eq!(read("*").await, Some(0));
        assert_eq!(read("\"1\", W/\"3\"").await, Some(3));
        for wrong in ["3", "W/3", "\"x\"", "\"0\"", "\"-1\"", "\"1\", \"2\"", ""] {
            assert_eq!(read(wrong).await, None, "{wrong}");
        }
        assert_eq!(expected(&HeaderMap::new(), async || Ok(3)).await.ok(), Some(0));
    }
}
