//! Set-up: the console's first page.

use askama::Template;
use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::get;

use super::frame::{Frame, Problem, Section, page};
use super::session::Signed;
use crate::Gateway;

pub(super) fn routes() -> Router<Gateway> {
    Router::new().route("/admin", get(show))
}

#[derive(Template)]
#[template(path = "set_up.html")]
struct SetUp {
    frame: Frame,
    scim_url: String,
}

async fn show(State(gateway): State<Gateway>, signed: Signed) -> Result<Response, Problem> {
    let scim_url = gateway.scim_url.to_string();
    page(&SetUp { frame: signed.frame("Set-up", Section::SetUp), scim_url })
}
