//! What the console lists, as CSV files: sent page by page, safe for spreadsheets.

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use axum::routing::get;
use bytes::Bytes;
use futures::{StreamExt as _, stream};
use http::{HeaderValue, header};
use muster_proto::approver::v1::ApproverState;
use muster_proto::group::v1::Group;
use muster_proto::identity::v1::AuditAction;

use super::frame::Problem;
use super::groups::{self, Asked};
use super::input::Query;
use super::people::find::{Criteria, find};
use super::people::shown::{self, Row, rows};
use super::session::Signed;
use crate::Gateway;

/// How many people or groups are read at once.
const PAGE: i32 = 1_000;

pub(super) fn routes() -> Router<Gateway> {
    Router::new()
        .route("/admin/people.csv", get(people))
        .route("/admin/groups.csv", get(all_groups))
}

/// A cell that no spreadsheet reads as a formula: an apostrophe stands before what looks like one.
/// An import takes it away again; one that was there already gets another, for its sake.
fn safe(cell: &str) -> String {
    let is_formula = cell.trim_start_matches('\'').starts_with(['=', '+', '-', '@', '\t', '\r']);
    if is_formula { format!("'{cell}") } else { cell.to_owned() }
}

/// Lines of CSV.
pub(super) fn lines(lines: impl IntoIterator<Item = Vec<String>>) -> Bytes {
    let mut writer = csv::WriterBuilder::new()
        .terminator(csv::Terminator::CRLF)
        .flexible(true)
        .from_writer(Vec::new());
    for line in lines {
        // Writing to memory does not fail.
        drop(writer.write_record(line.iter().map(|cell| safe(cell))));
    }
    Bytes::from(writer.into_inner().unwrap_or_default())
}

/// A file to download: the header, what is there of it already, and the rest as it comes. It begins
/// with the mark by which spreadsheets know UTF-8.
pub(super) fn file(name: &'static str, body: Body) -> Response {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/csv; charset=utf-8"));
    let disposition = format!("attachment; filename=\"{name}.csv\"");
    headers.extend(disposition.parse().ok().map(|value| (header::CONTENT_DISPOSITION, value)));
    response
}

/// The first bytes of a file.
pub(super) fn start(header: Vec<String>) -> Vec<u8> {
    let mut bytes = "\u{feff}".as_bytes().to_vec();
    bytes.extend_from_slice(&lines([header]));
    bytes
}

/// A file that is sent page by page. `page` reads one: its lines, and where the next begins. The first
/// is read before anything is sent, so that what fails has a page of its own; what fails later breaks
/// the download off.
pub(super) async fn pages<P, F>(
    name: &'static str,
    header: Vec<String>,
    first: P,
    page: impl Fn(P) -> F + Send + 'static,
) -> Result<Response, Problem>
where
    P: Send + 'static,
    F: Future<Output = Result<(Bytes, Option<P>), Problem>> + Send + 'static,
{
    let (lines, next) = page(first).await?;
    let mut bytes = start(header);
    bytes.extend_from_slice(&lines);
    let rest = stream::try_unfold((next, page), |(next, page)| async move {
        let Some(next) = next else { return Ok(None) };
        let cut_short = |_| std::io::Error::other("the rest of the file could not be read");
        let (lines, next) = page(next).await.map_err(cut_short)?;
        Ok::<_, std::io::Error>(Some((lines, (next, page))))
    });
    let whole = stream::iter([Ok(Bytes::from(bytes))]).chain(rest);
    Ok(file(name, Body::from_stream(whole)))
}

/// The people who are asked for.
async fn people(
    State(gateway): State<Gateway>,
    signed: Signed,
    Query(criteria): Query<Criteria>,
) -> Result<Response, Problem> {
    let fields = shown::field_names(&signed.organisation);
    let header = [
        "userName",
        "email",
        "first name",
        "last name",
        "display name",
        "country",
        "locale",
        "active",
        "approvers",
    ];
    let header = header.into_iter().map(str::to_owned).chain(fields);
    let others = ["external id", "region", "groups", "approvers pending", "source", "id"];
    let header = header.chain(others.into_iter().map(str::to_owned)).collect();
    let organisation = signed.organisation_id().to_owned();
    signed.record(&gateway, AuditAction::Exported, "people").await?;
    pages("people", header, String::new(), move |page| {
        let (gateway, organisation) = (gateway.clone(), organisation.clone());
        let criteria = Criteria { page, ..criteria.clone() };
        async move {
            let found = find(&gateway, &organisation, &criteria, PAGE).await?;
            let rows = rows(&gateway, &found.users).await?;
            Ok((lines(rows.iter().map(person)), found.next))
        }
    })
    .await
}

fn person(row: &Row) -> Vec<String> {
    let user = &row.user;
    let name = user.name.clone().unwrap_or_default();
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let groups: Vec<&str> = row.groups.iter().map(|g| g.group_display_name.as_str()).collect();
    let pending =
        row.approvers.iter().filter(|declared| declared.approver.state() == ApproverState::Pending);
    let pending: Vec<&str> = pending.map(|d| d.approver.declared_email.as_str()).collect();
    vec![
        text(&user.user_name),
        user.primary_email.clone(),
        text(&name.given_name),
        text(&name.family_name),
        text(&user.display_name),
        text(&user.country_code),
        text(&user.locale),
        if user.active() { "yes" } else { "no" }.to_owned(),
        user.declared_approvers.join(", "),
        text(&user.custom_field_1),
        text(&user.custom_field_2),
        text(&user.custom_field_3),
        text(&user.external_id),
        row.region().to_owned(),
        groups.join(", "),
        pending.join(", "),
        row.source().name.to_owned(),
        user.id.clone(),
    ]
}

async fn all_groups(
    State(gateway): State<Gateway>,
    signed: Signed,
    Query(asked): Query<Asked>,
) -> Result<Response, Problem> {
    let header = ["name", "members", "external id", "source", "id"].map(str::to_owned).to_vec();
    let organisation = signed.organisation_id().to_owned();
    signed.record(&gateway, AuditAction::Exported, "groups").await?;
    pages("groups", header, String::new(), move |after| {
        let (gateway, organisation) = (gateway.clone(), organisation.clone());
        let asked = Asked { after, ..asked.clone() };
        async move {
            let found = groups::find(&gateway, &organisation, &asked, PAGE).await?;
            let last = found.groups.last().filter(|_| !found.next_page_token.is_empty());
            let next = last.map(|group| group.display_name.clone());
            Ok((lines(found.groups.iter().map(group)), next))
        }
    })
    .await
}

fn group(group: &Group) -> Vec<String> {
    vec![
        group.display_name.clone(),
        group.member_count.to_string(),
        group.external_id.clone().unwrap_or_default(),
        groups::source(group).1.to_owned(),
        group.id.clone(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_spreadsheet_would_run_is_text() {
        for formula in ["=1+1", "+44 20", "-1", "@SUM(A1)", "\tx", "\rx"] {
            assert_eq!(safe(formula), format!("'{formula}"));
        }
        assert_eq!(
            (safe("'=1"), safe("'tis"), safe("a=b")),
            ("''=1".into(), "'tis".into(), "a=b".into())
        );
    }

    #[test]
    fn cells_are_quoted_where_they_must_be() {
        let line = vec!["a,b".to_owned(), "say \"x\"".to_owned(), "=1,2".to_owned(), String::new()];
        assert_eq!(&lines([line])[..], b"\"a,b\",\"say \"\"x\"\"\",\"'=1,2\",\r\n");
    }
}
