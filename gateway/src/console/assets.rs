//! The console's style and scripts. Their addresses change with what they hold, so that browsers
//! keep them for ever.

use std::sync::LazyLock;

use axum::Router;
use axum::extract::Path;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderValue, header};
use sha2::{Digest as _, Sha256};

use super::frame::Problem;
use crate::Gateway;

/// Name, media type and text.
const FILES: [(&str, &str, &str); 4] = [
    ("console.css", "text/css; charset=utf-8", include_str!("assets/console.css")),
    ("console.js", "text/javascript; charset=utf-8", include_str!("assets/console.js")),
    ("htmx.min.js", "text/javascript; charset=utf-8", include_str!("assets/htmx.min.js")),
    ("icon.svg", "image/svg+xml", include_str!("assets/icon.svg")),
];

/// Names what the files hold.
static VERSION: LazyLock<String> = LazyLock::new(|| {
    let mut hash = Sha256::new();
    for (name, _, text) in FILES {
        hash.update(name);
        hash.update(text);
    }
    URL_SAFE_NO_PAD.encode(&hash.finalize()[..9])
});

pub(super) fn routes() -> Router<Gateway> {
    Router::new().route("/admin/assets/{version}/{name}", get(file))
}

/// The address of a file.
pub(super) fn address(name: &str) -> String {
    format!("/admin/assets/{}/{name}", *VERSION)
}

async fn file(Path((version, name)): Path<(String, String)>) -> Response {
    let Some((_, media_type, text)) = FILES.into_iter().find(|(file, ..)| *file == name) else {
        return Problem::no_such_page().into_response();
    };
    // A page of another version, while replicas of both run, gets what there is, once.
    let cached =
        if version == *VERSION { "public, max-age=31536000, immutable" } else { "no-store" };
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(media_type)),
        (header::CACHE_CONTROL, HeaderValue::from_static(cached)),
    ];
    (headers, text).into_response()
}
