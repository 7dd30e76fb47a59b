//! The provisioning log: what Okta asked for and what came of it.

pub(super) mod shown;

use askama::Template;
use axum::Router;
use axum::extract::{Path, State};
use axum::response::{Html, IntoResponse as _, Response};
use axum::routing::get;
use http::{HeaderMap, StatusCode};
use muster_proto::identity::v1::{
    ApiKey, AuditAction, GetProvisioningLogEntryRequest, ListApiKeysRequest,
    ListProvisioningLogRequest, ProvisioningOutcome as Outcome, SummariseProvisioningRequest,
};
use serde::{Deserialize, Serialize};
use tonic::Status;

use self::shown::{Shown, labels};
use super::csv_out;
use super::frame::{Frame, Problem, Section, page};
use super::input::{Query, wants_piece};
use super::session::Signed;
use crate::Gateway;

/// How many entries a page has.
const ROWS: i32 = 100;
/// How many are read at once for a file.
const EXPORTED: i32 = 200;

pub(super) fn routes() -> Router<Gateway> {
    Router::new()
        .route("/admin/log", get(list))
        .route("/admin/log/export.csv", get(export))
        .route("/admin/log/{id}", get(entry))
}

/// What is asked for.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(default)]
struct Criteria {
    /// `changes`, `failed`, `in-part` or nothing.
    #[serde(skip_serializing_if = "String::is_empty")]
    show: String,
    /// The id of a user or group, or how its name begins.
    #[serde(skip_serializing_if = "String::is_empty")]
    about: String,
    /// An API key's id.
    #[serde(skip_serializing_if = "String::is_empty")]
    key: String,
    /// Where the page begins.
    #[serde(skip_serializing_if = "String::is_empty")]
    page: String,
    /// How many requests there had been when the page was shown that asks for news.
    #[serde(skip_serializing_if = "Option::is_none")]
    seen: Option<i64>,
}

impl Criteria {
    fn request(&self, organisation: &str, page_size: i32) -> ListProvisioningLogRequest {
        let about = self.about.trim();
        let is_id = about.len() == 36 && about.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
        let (subject_id, prefix) = if is_id { (about, "") } else { ("", about) };
        ListProvisioningLogRequest {
            organisation_id: organisation.to_owned(),
            page_size,
            page_token: self.page.clone(),
            outcome: match self.show.as_str() {
                "failed" => Outcome::Failed,
                "in-part" => Outcome::AppliedInPart,
                _ => Outcome::Unspecified,
            }
            .into(),
            subject_id: subject_id.to_owned(),
            subject_name_prefix: prefix.to_owned(),
            api_key_id: self.key.clone(),
            changes_only: self.show == "changes",
            since: None,
            until: None,
        }
    }

    fn is_narrow(&self) -> bool {
        !(self.show.is_empty() && self.about.trim().is_empty() && self.key.is_empty())
    }

    fn address(&self, path: &str) -> String {
        match serde_urlencoded::to_string(self) {
            Ok(query) if !query.is_empty() => format!("{path}?{query}"),
            _ => path.to_owned(),
        }
    }
}

/// The list: what updates by itself.
struct Found {
    rows: Vec<Shown>,
    is_narrow: bool,
    is_first: bool,
    /// Where news are asked for; on the first page only.
    news: String,
    /// How many requests have come since the page was shown.
    arrived: i64,
    next: Option<String>,
    first: String,
}

#[derive(Template)]
#[template(path = "log_found.html")]
struct FoundPiece<'a> {
    found: &'a Found,
}

#[derive(Template)]
#[template(path = "log.html")]
struct Log {
    frame: Frame,
    criteria: Criteria,
    keys: Vec<ApiKey>,
    export: String,
    found: Found,
}

async fn list(
    State(gateway): State<Gateway>,
    signed: Signed,
    Query(criteria): Query<Criteria>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let organisation = signed.organisation_id();
    let count = count(&gateway, organisation).await?;
    let is_piece = wants_piece(&headers) && criteria.seen.is_some();
    if is_piece && criteria.seen == Some(count) {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let keys = keys(&gateway, organisation);
    let request = criteria.request(organisation, ROWS);
    let mut log = gateway.parts.provisioning_log.clone();
    let listed = async { Ok(log.list_provisioning_log(request).await?.into_inner()) };
    let (listed, keys) = tokio::try_join!(listed, keys)?;
    let names = labels(keys.clone());
    let here = Criteria { seen: None, page: String::new(), ..criteria.clone() };
    let next = Criteria { page: listed.next_page_token.clone(), ..here.clone() };
    let found = Found {
        rows: listed.entries.into_iter().map(|entry| Shown::of(entry, &names)).collect(),
        is_narrow: criteria.is_narrow(),
        is_first: criteria.page.is_empty(),
        news: Criteria { seen: Some(count), ..here.clone() }.address("/admin/log"),
        arrived: criteria.seen.filter(|_| is_piece).map_or(0, |seen| count - seen),
        next: (!listed.next_page_token.is_empty()).then(|| next.address("/admin/log")),
        first: here.address("/admin/log"),
    };
    if is_piece {
        let piece = FoundPiece { found: &found }.render().map_err(|_| Problem::failed())?;
        return Ok(Html(piece).into_response());
    }
    let export = here.address("/admin/log/export.csv");
    let frame = signed.frame("Provisioning log", Section::Log);
    page(&Log { frame, criteria: here, keys, export, found })
}

/// How many requests there have been: a few rows are read, never the log.
pub(super) async fn count(gateway: &Gateway, organisation: &str) -> Result<i64, Status> {
    let request = SummariseProvisioningRequest { organisation_id: organisation.to_owned() };
    let summary = gateway.parts.provisioning_log.clone().summarise_provisioning(request).await?;
    Ok(summary.into_inner().counts.iter().map(|count| count.count).sum())
}

/// The organisation's API keys, also those that are revoked.
pub(super) async fn keys(gateway: &Gateway, organisation: &str) -> Result<Vec<ApiKey>, Status> {
    let request = ListApiKeysRequest { organisation_id: organisation.to_owned() };
    Ok(gateway.parts.api_keys.clone().list_api_keys(request).await?.into_inner().api_keys)
}

#[derive(Template)]
#[template(path = "log_entry.html")]
struct Entry {
    frame: Frame,
    entry: Shown,
}

async fn entry(
    State(gateway): State<Gateway>,
    signed: Signed,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let organisation_id = signed.organisation_id().to_owned();
    let request = GetProvisioningLogEntryRequest { organisation_id, id };
    let mut log = gateway.parts.provisioning_log.clone();
    let entry = async { Ok(log.get_provisioning_log_entry(request).await?.into_inner()) };
    let keys = keys(&gateway, signed.organisation_id());
    let (entry, keys) = tokio::try_join!(entry, keys)?;
    let entry = Shown::of(entry, &labels(keys));
    page(&Entry { frame: signed.frame(entry.what, Section::Log), entry })
}

const COLUMNS: [&str; 14] = [
    "Time (UTC)",
    "What",
    "Method",
    "Path",
    "Who",
    "Id",
    "Outcome",
    "Status",
    "scimType",
    "Detail",
    "Unknown members",
    "Duration",
    "API key",
    "Trace id",
];

async fn export(
    State(gateway): State<Gateway>,
    signed: Signed,
    Query(criteria): Query<Criteria>,
) -> Result<Response, Problem> {
    let names = labels(keys(&gateway, signed.organisation_id()).await?);
    let request = criteria.request(signed.organisation_id(), EXPORTED);
    let log = gateway.parts.provisioning_log.clone();
    let header = COLUMNS.map(str::to_owned).to_vec();
    let first = request.page_token.clone();
    let file = csv_out::pages("provisioning-log", header, first, move |page_token| {
        let (mut log, names) = (log.clone(), names.clone());
        let request = ListProvisioningLogRequest { page_token, ..request.clone() };
        async move {
            let page = log.list_provisioning_log(request).await?.into_inner();
            let rows = page.entries.into_iter().map(|entry| cells(Shown::of(entry, &names)));
            let next = Some(page.next_page_token).filter(|token| !token.is_empty());
            Ok((csv_out::lines(rows), next))
        }
    });
    let file = file.await?;
    signed.record(&gateway, AuditAction::Exported, "the provisioning log").await?;
    Ok(file)
}

fn cells(entry: Shown) -> Vec<String> {
    vec![
        entry.when.text,
        entry.what.to_owned(),
        entry.method,
        entry.path,
        entry.who,
        entry.subject_id,
        entry.outcome.to_owned(),
        entry.status.to_string(),
        entry.scim_type,
        entry.detail,
        entry.unknown_ids.join(" "),
        entry.duration,
        entry.key,
        entry.trace_id,
    ]
}
