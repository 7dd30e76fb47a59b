//! People: who the organisation has, who is in sync, who waits for whom.

pub(super) mod find;
pub(super) mod shown;

use askama::Template;
use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::get;
use muster_proto::group::v1::ListGroupsRequest;
use muster_proto::identity::v1::{ListUnknownCountriesRequest, UnknownCountry};

use self::find::{Criteria, find};
use self::shown::{Row, rows};
use super::frame::{Frame, Problem, Section, page};
use super::input::Query;
use super::session::Signed;
use crate::Gateway;

/// How many groups are offered to choose from while a name is typed.
const SUGGESTED_GROUPS: i32 = 100;
/// How many of the country codes that are not known are named above the list.
const COUNTRIES: usize = 20;

pub(super) fn routes() -> Router<Gateway> {
    Router::new().route("/admin/people", get(list))
}

#[derive(Template)]
#[template(path = "people.html")]
struct People {
    frame: Frame,
    criteria: Criteria,
    /// What the organisation calls its custom fields.
    fields: [String; 3],
    groups: Vec<String>,
    unknown_countries: Vec<UnknownCountry>,
    rows: Vec<Row>,
    user_count: i64,
    active_user_count: i64,
    /// Whether the page ends before all were looked at.
    is_cut: bool,
    next: Option<String>,
    previous: Option<String>,
    /// The same question as a CSV file.
    export: String,
}

impl People {
    /// Number, name and value of each custom field.
    fn custom(&self) -> impl Iterator<Item = (usize, &String, &str)> {
        let values = self.fields.iter().zip(self.criteria.custom());
        (1..).zip(values).map(|(number, (name, value))| (number, name, value))
    }

    fn is_open(&self) -> bool {
        self.criteria.has_more_filters()
    }
}

async fn list(
    State(gateway): State<Gateway>,
    signed: Signed,
    Query(criteria): Query<Criteria>,
) -> Result<Response, Problem> {
    let organisation = signed.organisation_id();
    let found = async {
        let found = find(&gateway, organisation, &criteria, criteria.size()).await?;
        let rows = rows(&gateway, &found.users).await?;
        Ok((found, rows))
    };
    let groups = async {
        let request = ListGroupsRequest {
            organisation_id: organisation.to_owned(),
            page_size: SUGGESTED_GROUPS,
            order_by: "display_name".to_owned(),
            ..ListGroupsRequest::default()
        };
        let groups = gateway.parts.groups.clone().list_groups(request).await?.into_inner().groups;
        Ok(groups.into_iter().map(|group| group.display_name).collect::<Vec<_>>())
    };
    let countries = async {
        let request = ListUnknownCountriesRequest { organisation_id: organisation.to_owned() };
        let mut users = gateway.parts.users.clone();
        Ok(users.list_unknown_countries(request).await?.into_inner().countries)
    };
    let ((found, rows), groups, unknown_countries) =
        tokio::try_join!(found, groups, countries).map_err(|problem: Problem| problem)?;
    page(&People {
        frame: signed.frame("People", Section::People),
        fields: shown::field_names(&signed.organisation),
        groups,
        unknown_countries,
        rows,
        user_count: found.user_count,
        active_user_count: found.active_user_count,
        is_cut: found.is_cut,
        next: found.next.map(|token| criteria.address("/admin/people", &token)),
        previous: found.previous.map(|token| criteria.address("/admin/people", &token)),
        export: criteria.address("/admin/people.csv", ""),
        criteria,
    })
}
