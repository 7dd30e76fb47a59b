//! Set-up: the guide's five steps as a checklist, which ticks itself as Okta's requests arrive.

mod progress;

use askama::Template;
use askama::filters::Safe;
use axum::Router;
use axum::extract::State;
use axum::response::{Html, IntoResponse as _, Response};
use axum::routing::get;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use self::progress::Progress;
use super::frame::{Frame, Problem, Section, page};
use super::input::{Query, wants_piece};
use super::session::Signed;
use crate::Gateway;

pub(super) fn routes() -> Router<Gateway> {
    Router::new().route("/admin", get(show))
}

/// The checklist itself.
#[derive(Template)]
#[template(path = "set_up_steps.html")]
struct Steps {
    scim_url: String,
    progress: Progress,
}

/// The checklist, rendered, and where it asks whether it has changed.
struct Checklist {
    html: Safe<String>,
    version: String,
    is_news: bool,
}

#[derive(Template)]
#[template(path = "set_up_found.html")]
struct Piece<'a> {
    checklist: &'a Checklist,
}

#[derive(Template)]
#[template(path = "set_up.html")]
struct SetUp {
    frame: Frame,
    checklist: Checklist,
}

#[derive(Debug, Deserialize)]
struct Asked {
    /// The version of the checklist that the page shows.
    seen: Option<String>,
}

async fn show(
    State(gateway): State<Gateway>,
    signed: Signed,
    Query(Asked { seen }): Query<Asked>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let progress = Progress::of(&gateway, signed.organisation_id()).await?;
    let steps = Steps { scim_url: gateway.scim_url.to_string(), progress };
    let html = steps.render().map_err(|_| Problem::failed())?;
    let version = URL_SAFE_NO_PAD.encode(&Sha256::digest(&html)[..9]);
    let is_piece = wants_piece(&headers) && seen.is_some();
    if is_piece && seen.as_ref() == Some(&version) {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    // Rendered by a template, which has escaped every value.
    let checklist = Checklist { html: Safe(html), version, is_news: is_piece };
    if is_piece {
        let piece = Piece { checklist: &checklist }.render().map_err(|_| Problem::failed())?;
        return Ok(Html(piece).into_response());
    }
    page(&SetUp { frame: signed.frame("Set-up", Section::SetUp), checklist })
}
