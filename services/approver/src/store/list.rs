//! Lists of users by their approvers, filtered: the SQL of the service that is put together at run
//! time.

use muster_proto::filter::v1::Filter;
use muster_runtime::filter_sql::{Column, Columns};
use muster_runtime::id::{OrganisationId, UserId};
use muster_scim::caseless;
use sqlx::{PgConnection, QueryBuilder};

use crate::Error;

/// The users after `after` for whom an approver is in force whom the filter matches, by id.
pub(crate) async fn users_by_approver(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    filter: Option<&Filter>,
    after: Option<UserId>,
    limit: i64,
) -> Result<Vec<UserId>, Error> {
    let mut query = QueryBuilder::new(
        "SELECT DISTINCT d.user_id
           FROM approver.declaration AS d
           JOIN approver.person AS p
             ON p.organisation_id = d.organisation_id AND p.user_id = d.approver_id
          WHERE p.active AND p.organisation_id = ",
    );
    query.push_bind(organisation);
    query.push(" AND d.organisation_id = ").push_bind(organisation);
    if let Some(filter) = filter {
        query.push(" AND ");
        let columns = Columns { find: &column, fold: caseless::key, fold_part: caseless::part };
        columns.push(&mut query, filter).map_err(|unsupported| Error::Invalid {
            field: "filter",
            description: unsupported.to_string(),
        })?;
    }
    if let Some(after) = after {
        query.push(" AND d.user_id > ").push_bind(after);
    }
    query.push(" ORDER BY d.user_id LIMIT ").push_bind(limit);
    Ok(query.build_query_scalar().fetch_all(connection).await?)
}

fn column(attribute: &str) -> Option<Column> {
    let email = || Column::Text { sql: "p.email_key".into(), folded: true, indexed: None };
    (attribute == "email").then(email)
}
