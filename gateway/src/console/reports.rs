//! Reports: how many people there are of what, as a chart, a table and a file.

use std::collections::BTreeMap;

use askama::Template;
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use axum::routing::get;
use muster_proto::group::v1::{BatchCountInactiveMembersRequest, ListGroupsResponse};
use muster_proto::identity::v1::{AuditAction, GetHeadCountsRequest, HeadCount};

use super::csv_out;
use super::frame::{Frame, Problem, Section, page};
use super::groups::{self, Asked};
use super::people::shown;
use super::session::Signed;
use crate::Gateway;

/// How many values a table has, and a chart.
const ROWS: usize = 50;
const BARS: usize = 12;
/// How many groups a file has at most.
const MOST_GROUPS: i32 = 1_000;

pub(super) fn routes() -> Router<Gateway> {
    Router::new().route("/admin/reports", get(show)).route("/admin/reports.csv", get(file))
}

/// Head-counts by one thing.
struct Report {
    /// Names it in addresses within the page.
    id: &'static str,
    title: String,
    counts: Vec<HeadCount>,
}

/// A bar of a chart.
struct Bar {
    value: String,
    active: i64,
    inactive: i64,
    /// From the top, in the chart's units.
    top: usize,
    /// How long the parts are, in the chart's units.
    active_width: i64,
    inactive_width: i64,
}

/// How long the longest bar is, in the chart's units.
const LONGEST: i64 = 360;
/// How high a bar is with the room below it.
const PITCH: usize = 28;
/// The longest value that stands beside a bar, in characters.
const LONGEST_LABEL: usize = 24;

impl Report {
    fn bars(&self) -> Vec<Bar> {
        let most = self.counts.iter().map(|c| c.active_count + c.inactive_count).max();
        let most = most.unwrap_or(1).max(1);
        let bars = self.counts.iter().take(BARS).enumerate().map(|(at, count)| Bar {
            value: shortened(&count.value),
            active: count.active_count,
            inactive: count.inactive_count,
            top: at * PITCH,
            active_width: count.active_count * LONGEST / most,
            inactive_width: count.inactive_count * LONGEST / most,
        });
        bars.collect()
    }

    fn height(&self) -> usize {
        self.counts.len().min(BARS) * PITCH
    }

    fn rows(&self) -> &[HeadCount] {
        &self.counts[..self.counts.len().min(ROWS)]
    }

    fn others(&self) -> usize {
        self.counts.len().saturating_sub(ROWS)
    }
}

fn shortened(value: &str) -> String {
    if value.chars().count() <= LONGEST_LABEL {
        return value.to_owned();
    }
    value.chars().take(LONGEST_LABEL - 1).chain(['…']).collect()
}

#[derive(Template)]
#[template(path = "reports.html")]
struct Reports {
    frame: Frame,
    reports: Vec<Report>,
}

async fn show(State(gateway): State<Gateway>, signed: Signed) -> Result<Response, Problem> {
    let reports = read(&gateway, &signed, i32::try_from(ROWS).unwrap_or(groups::PAGE)).await?;
    page(&Reports { frame: signed.frame("Reports", Section::Reports), reports })
}

/// All reports, of so many groups.
async fn read(
    gateway: &Gateway,
    signed: &Signed,
    most_groups: i32,
) -> Result<Vec<Report>, Problem> {
    let organisation_id = signed.organisation_id().to_owned();
    let counts = async {
        let mut reports = gateway.parts.reports.clone();
        let request = GetHeadCountsRequest { organisation_id: organisation_id.clone() };
        Ok::<_, Problem>(reports.get_head_counts(request).await?.into_inner())
    };
    let groups = async {
        let found = groups::find(gateway, &organisation_id, &Asked::default(), most_groups).await?;
        by_group(gateway, &organisation_id, found).await
    };
    let (counts, groups) = tokio::try_join!(counts, groups)?;
    let [one, two, three] = shown::field_names(&signed.organisation);
    Ok(vec![
        Report { id: "region", title: "Content region".to_owned(), counts: counts.content_regions },
        Report { id: "group", title: "Group".to_owned(), counts: groups },
        Report { id: "field1", title: one, counts: counts.custom_field_1 },
        Report { id: "field2", title: two, counts: counts.custom_field_2 },
        Report { id: "field3", title: three, counts: counts.custom_field_3 },
    ])
}

async fn by_group(
    gateway: &Gateway,
    organisation: &str,
    found: ListGroupsResponse,
) -> Result<Vec<HeadCount>, Problem> {
    let request = BatchCountInactiveMembersRequest {
        organisation_id: organisation.to_owned(),
        group_ids: found.groups.iter().map(|group| group.id.clone()).collect(),
    };
    let mut groups = gateway.parts.groups.clone();
    let inactive = groups.batch_count_inactive_members(request).await?.into_inner().groups;
    let inactive: BTreeMap<String, i64> =
        inactive.into_iter().map(|group| (group.group_id, group.inactive_count)).collect();
    let counts = found.groups.into_iter().map(|group| {
        let inactive_count = inactive.get(&group.id).copied().unwrap_or_default();
        HeadCount {
            value: group.display_name,
            active_count: (group.member_count - inactive_count).max(0),
            inactive_count,
        }
    });
    Ok(counts.collect())
}

async fn file(State(gateway): State<Gateway>, signed: Signed) -> Result<Response, Problem> {
    signed.record(&gateway, AuditAction::Exported, "reports").await?;
    let reports = read(&gateway, &signed, MOST_GROUPS).await?;
    let header = ["report", "value", "active", "inactive", "total"].map(str::to_owned).to_vec();
    let mut bytes = csv_out::start(header);
    let lines = reports.iter().flat_map(|report| {
        report.counts.iter().map(|count| {
            vec![
                report.title.clone(),
                count.value.clone(),
                count.active_count.to_string(),
                count.inactive_count.to_string(),
                (count.active_count + count.inactive_count).to_string(),
            ]
        })
    });
    bytes.extend_from_slice(&csv_out::lines(lines));
    Ok(csv_out::file("reports", Body::from(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_bar_fills_the_chart_and_the_others_are_in_proportion() {
        let count = |value: &str, active_count, inactive_count| HeadCount {
            value: value.into(),
            active_count,
            inactive_count,
        };
        let counts = vec![count("a", 30, 10), count(&"b".repeat(40), 10, 0)];
        let report = Report { id: "x", title: "X".into(), counts };
        let bars = report.bars();
        assert_eq!((bars[0].active_width, bars[0].inactive_width), (270, 90));
        assert_eq!((bars[1].active_width, bars[1].top), (90, PITCH));
        assert_eq!(bars[1].value.chars().count(), LONGEST_LABEL);
        let nobody = Report { id: "x", title: "X".into(), counts: vec![count("a", 0, 0)] };
        assert_eq!(nobody.bars()[0].active_width, 0);
    }
}
