//! Filters as SQL: where each attribute of a group stands.

use muster_proto::filter::v1::Filter;
use muster_runtime::filter_sql::{Column, Columns};
use muster_runtime::id::OrganisationId;
use muster_scim::caseless;
use sqlx::{Postgres, QueryBuilder};

use crate::Error;

/// The organisation's groups `g` that a filter matches; all where there is none.
pub(crate) fn condition(
    query: &mut QueryBuilder<Postgres>,
    organisation: OrganisationId,
    filter: Option<&Filter>,
) -> Result<(), Error> {
    query.push("g.organisation_id = ").push_bind(organisation);
    if let Some(filter) = filter {
        query.push(" AND ");
        let find = |attribute: &str| column(attribute, organisation);
        let columns = Columns { find: &find, fold: caseless::key, fold_part: caseless::part };
        columns.push(query, filter).map_err(|unsupported| Error::Invalid {
            field: "filter",
            description: unsupported.to_string(),
        })?;
    }
    Ok(())
}

/// Pushes what to order groups `g` by, with a comma after it.
pub(crate) fn push_order(
    query: &mut QueryBuilder<Postgres>,
    organisation: OrganisationId,
    order_by: &str,
) -> Result<(), Error> {
    // A group's members have no first.
    let find = |attribute: &str| {
        column(attribute, organisation).filter(|column| !matches!(column, Column::Each { .. }))
    };
    Columns { find: &find, fold: caseless::key, fold_part: caseless::part }
        .push_order(query, order_by)
        .map_err(|_| Error::Invalid {
            field: "order_by",
            description: "names an attribute that groups have no order by".into(),
        })
}

fn column(attribute: &str, organisation: OrganisationId) -> Option<Column> {
    let text = |sql: &str, folded| Column::Text { sql: sql.to_owned(), folded, indexed: None };
    Some(match attribute {
        "id" => Column::Id { sql: "g.group_id" },
        "revision" => text("(g.revision::text)", false),
        "create_time" => Column::Time { sql: "g.created_at" },
        "update_time" => Column::Time { sql: "g.updated_at" },
        "display_name" => text("g.display_name_key", true),
        "external_id" => text("g.external_id", false),
        // Equality is one look-up of the key, however large the group.
        "member_ids" | "member_ids.value" => Column::Each {
            elements: format!(
                "(SELECT m.user_id FROM groups.membership AS m
                   WHERE m.organisation_id = '{organisation}' AND m.group_id = g.group_id) AS v"
            ),
            part: Some(Box::new(Column::Id { sql: "v.user_id" })),
        },
        _ => return None,
    })
}
