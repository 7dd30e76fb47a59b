//! The admin console: HTML below `/admin`, for the admins of one organisation.
//!
//! # How a page is made
//!
//! A page is a file here, `people.rs`, with `pub(super) fn routes() -> Router<Gateway>`, and a
//! template of the same name, `templates/people.html`. [`routes`] merges its routes, which are
//! written out whole (`/admin/people`), so that they can be searched for.
//!
//! ```ignore
//! #[derive(Template)]
//! #[template(path = "people.html")]
//! struct People {
//!     frame: Frame,
//!     people: Vec<Person>,
//! }
//!
//! async fn list(State(gateway): State<Gateway>, signed: Signed) -> Result<Response, Problem> {
//!     let people = …;
//!     page(&People { frame: signed.frame("People", Section::People), people })
//! }
//! ```
//!
//! - **Who**: a handler takes [`Signed`](session::Signed): the admin, their organisation, whom
//!   changes are by. Who is not signed in is sent to the sign-in page and comes back from there.
//!   Ids in paths are asked for in `signed.organisation_id()` only; one of another organisation is
//!   then `NOT_FOUND`, which [`Problem`](frame::Problem) answers as a 404.
//! - **The template** begins with `{% extends "base.html" %}` and fills the block `main`; the page
//!   has one `h1`. `base.html` reads `frame`. Every value is escaped by askama; `|safe` is not used.
//! - **What failed** is a [`Problem`](frame::Problem), also made from a gRPC status: a page that
//!   says what to do. A form that is refused is shown again with what was typed, by
//!   `page_with(StatusCode::UNPROCESSABLE_ENTITY, …)`.
//! - **What was sent** is taken by [`Form`](input::Form) and [`Query`](input::Query), whose
//!   refusals are pages too.
//! - **Forms** post to their own page (`method="post"`), carry
//!   `<input type="hidden" name="csrf" value="{{ frame.csrf }}">` as their *first* field, and are
//!   answered with `Redirect::to` (303). Nothing is written on GET. htmx sends the token by itself,
//!   in the header `x-csrf-token`. [`csrf`] refuses whatever has none, before any handler.
//! - **What updates by itself** is a piece of the page with `hx-get`, `hx-trigger="every 5s"` and
//!   `hx-headers='{"x-unattended": "true"}'`: the session is then not taken for used, so that an open
//!   page does not keep it alive. The handler answers the piece alone where
//!   [`wants_piece`](input::wants_piece) says so.
//! - **Scripts and styles** are the files in `assets`, never in the page: the Content-Security-Policy
//!   refuses those. `console.js` does copy buttons (`data-copy="what"`), dialogs
//!   (`data-opens="id"`, and `data-shown` on a dialog to open it at once) and forms that submit
//!   when a choice changes (`data-submits`). What needs it is marked `class="js"`, what stands in
//!   for it `class="no-js"`.
//! - **Exports and imports** are recorded with [`Signed::record`](session::Signed::record); what
//!   identity does it records itself. Requests to it carry `signed.actor()` and, where the contract
//!   asks for it, `signed.client_address`.
//! - **Times** are written by [`moment`](moment::moment).
//! - **Looks**: `assets/console.css` begins with a list of what there is.

mod assets;
mod csrf;
mod csv_import;
mod csv_out;
mod frame;
mod group;
mod groups;
mod input;
mod log;
mod moment;
mod oidc;
mod people;
mod person;
mod reports;
mod session;
mod set_up;
mod settings;
mod sign_in;

use axum::Router;
use axum::extract::Request;
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{Redirect, Response};
use axum::routing::{any, get};
use http::{HeaderName, HeaderValue, header};

use crate::Gateway;
use frame::Problem;
pub(crate) use oidc::BACK;

/// Where the console is.
pub(crate) const HOME: &str = "/admin";

/// The routes below `/admin`.
pub(crate) fn routes(gateway: &Gateway) -> Router<Gateway> {
    let signed_in = Router::new()
        .merge(set_up::routes())
        .merge(log::routes())
        .merge(people::routes())
        .merge(person::routes())
        .merge(groups::routes())
        .merge(group::routes())
        .merge(csv_import::routes())
        .merge(csv_out::routes())
        .merge(reports::routes())
        .merge(session::routes())
        .merge(settings::routes())
        .layer(from_fn_with_state(gateway.clone(), csrf::need_token));
    Router::new()
        .merge(signed_in)
        .merge(assets::routes())
        .merge(sign_in::routes())
        .merge(oidc::routes())
        .route("/admin/", get(async || Redirect::permanent(HOME)))
        .route("/admin/{*path}", any(async || Problem::no_such_page()))
        .method_not_allowed_fallback(async || Problem::method_not_allowed())
        .layer(from_fn_with_state(gateway.clone(), csrf::need_same_origin))
        .layer(from_fn(secured))
        .layer(from_fn_with_state(gateway.clone(), transport_security))
}

/// The address of one of the `assets`, for pages outside the console.
pub(crate) fn asset(name: &str) -> String {
    assets::address(name)
}

/// What pages may do: run our script, show our style, send forms to us; nothing else.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    img-src 'self' data:; connect-src 'self'; form-action 'self'; base-uri 'none'; \
    frame-ancestors 'none'";

/// The headers that keep a page to itself.
pub(crate) async fn secured(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("permissions-policy"), "clipboard-write=(self)"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    // What admins see is not kept by browsers and proxies; assets say otherwise for themselves.
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// Tells browsers to keep to https, where the console is reached by it.
async fn transport_security(
    axum::extract::State(gateway): axum::extract::State<Gateway>,
    request: Request,
    next: Next,
) -> Response {
    let mut response = next.run(request).await;
    if gateway.public_url.starts_with("https:") {
        let year = HeaderValue::from_static("max-age=31536000");
        response.headers_mut().insert(header::STRICT_TRANSPORT_SECURITY, year);
    }
    response
}
