//! Importing people from a CSV file: the file, what it would do, and how far it is.

use std::time::Duration;

use askama::Template;
use axum::Router;
use axum::extract::multipart::MultipartRejection;
use axum::extract::{DefaultBodyLimit, Multipart, Path, State};
use axum::response::{IntoResponse as _, Redirect, Response};
use axum::routing::get;
use http::StatusCode;
use muster_proto::identity::v1::{
    AuditAction, CheckImportRequest, CheckImportResponse, CreateImportRequest, GetImportRequest,
    Import, ImportState, StartImportRequest,
};
use muster_runtime::deadline;
use tonic::Code;

use super::frame::{Frame, Problem, Section, page, page_with};
use super::people::shown;
use super::session::Signed;
use crate::Gateway;

/// The largest file, in bytes; identity's limit too.
const LARGEST: usize = 10 * 1024 * 1024;
/// What a form has around its file.
const AROUND: usize = 64 * 1024;
/// How long a check of a large file may take.
const PATIENCE: Duration = Duration::from_secs(25);

pub(super) fn routes() -> Router<Gateway> {
    Router::new()
        .route(
            "/admin/people/import",
            get(blank).post(keep).layer(DefaultBodyLimit::max(LARGEST + AROUND)),
        )
        .route("/admin/people/import/{id}", get(show).post(start))
}

#[derive(Template)]
#[template(path = "csv_import.html")]
struct Upload {
    frame: Frame,
    /// What the organisation calls its custom fields.
    fields: [String; 3],
    wrong: String,
}

fn upload(signed: &Signed, wrong: impl Into<String>) -> Upload {
    Upload {
        frame: signed.frame("Import people", Section::People),
        fields: shown::field_names(&signed.organisation),
        wrong: wrong.into(),
    }
}

async fn blank(signed: Signed) -> Result<Response, Problem> {
    page(&upload(&signed, ""))
}

/// Keeps the file and goes on to what it would do.
async fn keep(
    State(gateway): State<Gateway>,
    signed: Signed,
    form: Result<Multipart, MultipartRejection>,
) -> Result<Response, Problem> {
    let unreadable = || Problem::unreadable("Go back, choose the file and send it again.");
    let form = form.map_err(|_| unreadable())?;
    let read = tokio::time::timeout(gateway.limits.body_time, file_of(form));
    let file = match read.await.map_err(|_| unreadable())? {
        Ok(file) => file,
        Err(StatusCode::PAYLOAD_TOO_LARGE) => {
            let wrong = "The file is larger than 10 MiB. Split it and import the parts.";
            return page_with(StatusCode::PAYLOAD_TOO_LARGE, &upload(&signed, wrong));
        }
        Err(_) => return Err(unreadable()),
    };
    if file.is_empty() {
        let wrong = "Choose a file that is not empty.";
        return page_with(StatusCode::UNPROCESSABLE_ENTITY, &upload(&signed, wrong));
    }
    let request =
        CreateImportRequest { organisation_id: signed.organisation_id().to_owned(), file };
    match gateway.parts.imports.clone().create_import(request).await {
        Ok(import) => {
            let address = format!("/admin/people/import/{}", import.into_inner().id);
            Ok(Redirect::to(&address).into_response())
        }
        Err(status) if status.code() == Code::InvalidArgument => {
            let wrong = "The file is larger than 10 MiB. Split it and import the parts.";
            page_with(StatusCode::PAYLOAD_TOO_LARGE, &upload(&signed, wrong))
        }
        Err(status) => Err(status.into()),
    }
}

/// The form's file; empty where it has none.
async fn file_of(mut form: Multipart) -> Result<Vec<u8>, StatusCode> {
    while let Some(field) = form.next_field().await.map_err(|error| error.status())? {
        if field.name() == Some("file") {
            return field.bytes().await.map(|bytes| bytes.to_vec()).map_err(|error| error.status());
        }
    }
    Ok(Vec::new())
}

#[derive(Template)]
#[template(path = "csv_import_state.html")]
struct Shown {
    frame: Frame,
    import: Import,
    /// What it would do, before it has begun.
    check: Option<CheckImportResponse>,
}

impl Shown {
    fn path(&self) -> String {
        format!("/admin/people/import/{}", self.import.id)
    }

    fn is_running(&self) -> bool {
        self.import.state() == ImportState::Running
    }

    fn is_done(&self) -> bool {
        self.import.state() == ImportState::Done
    }
}

async fn show(
    State(gateway): State<Gateway>,
    signed: Signed,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let organisation_id = signed.organisation_id().to_owned();
    let request = GetImportRequest { organisation_id: organisation_id.clone(), id: id.clone() };
    let import = gateway.parts.imports.clone().get_import(request).await?.into_inner();
    let check = if matches!(import.state(), ImportState::Kept | ImportState::Failed) {
        let mut imports = gateway.parts.imports.clone();
        let check = imports.check_import(CheckImportRequest { organisation_id, id });
        Some(deadline::within(PATIENCE, check).await?.into_inner())
    } else {
        None
    };
    page(&Shown { frame: signed.frame("Import people", Section::People), import, check })
}

async fn start(
    State(gateway): State<Gateway>,
    signed: Signed,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let request = StartImportRequest {
        organisation_id: signed.organisation_id().to_owned(),
        id: id.clone(),
        actor: Some(signed.actor()),
    };
    match gateway.parts.imports.clone().start_import(request).await {
        Ok(import) => {
            signed.record(&gateway, AuditAction::Imported, "people").await?;
            let address = format!("/admin/people/import/{}", import.into_inner().id);
            Ok(Redirect::to(&address).into_response())
        }
        // Pressed twice: the page says how far it is.
        Err(status) if status.code() == Code::FailedPrecondition => {
            Ok(Redirect::to(&format!("/admin/people/import/{id}")).into_response())
        }
        Err(status) => Err(status.into()),
    }
}
