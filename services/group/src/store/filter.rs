//! Filters as SQL: the only statements of the service that are put together at run time, from fixed
//! text and bound values.

use muster_proto::filter::v1::comparison::Operand;
use muster_proto::filter::v1::filter::Kind;
use muster_proto::filter::v1::{Comparison, Filter, Operator};
use muster_runtime::id::{GroupId, OrganisationId, UserId};
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
        push(query, organisation, filter)?;
    }
    Ok(())
}

fn push(
    query: &mut QueryBuilder<Postgres>,
    organisation: OrganisationId,
    filter: &Filter,
) -> Result<(), Error> {
    match &filter.kind {
        Some(Kind::All(filters)) => join(query, organisation, &filters.filters, " AND "),
        Some(Kind::Any(filters)) => join(query, organisation, &filters.filters, " OR "),
        Some(Kind::Not(filter)) => {
            query.push("NOT ");
            push(query, organisation, filter)
        }
        Some(Kind::Comparison(comparison)) => compare(query, organisation, comparison),
        Some(Kind::Ids(ids)) => {
            // What is no id is no group's.
            let ids: Vec<GroupId> = ids.ids.iter().filter_map(|id| id.parse().ok()).collect();
            query.push("g.group_id = ANY (").push_bind(ids).push(")");
            Ok(())
        }
        Some(Kind::Present(attribute)) => Err(unsupported(attribute, "PRESENT")),
        Some(Kind::Value(value)) => Err(unsupported(&value.attribute, "VALUE")),
        None => Err(Error::Invalid { field: "filter", description: "is empty".into() }),
    }
}

fn join(
    query: &mut QueryBuilder<Postgres>,
    organisation: OrganisationId,
    filters: &[Filter],
    separator: &str,
) -> Result<(), Error> {
    if filters.is_empty() {
        return Err(Error::Invalid { field: "filter", description: "joins nothing".into() });
    }
    for (position, filter) in filters.iter().enumerate() {
        query.push(if position == 0 { "(" } else { separator });
        push(query, organisation, filter)?;
    }
    query.push(")");
    Ok(())
}

/// Every condition is true or false, never null, so that `NOT` means what it says.
fn compare(
    query: &mut QueryBuilder<Postgres>,
    organisation: OrganisationId,
    comparison: &Comparison,
) -> Result<(), Error> {
    let (Operator::Equal, Some(Operand::Text(text))) =
        (comparison.operator(), comparison.operand.as_ref())
    else {
        return Err(unsupported(&comparison.attribute, comparison.operator().as_str_name()));
    };
    match comparison.attribute.as_str() {
        "display_name" => {
            query.push("g.display_name_key = ").push_bind(caseless::key(text));
        }
        "external_id" => {
            query.push("(g.external_id IS NOT NULL AND g.external_id = ");
            query.push_bind(text.clone()).push(")");
        }
        "id" => match text.parse::<GroupId>() {
            Ok(id) => {
                query.push("g.group_id = ").push_bind(id);
            }
            Err(_) => {
                query.push("false");
            }
        },
        "member_ids" => match text.parse::<UserId>() {
            // One look-up of the key, however large the group.
            Ok(user) => {
                query
                    .push("EXISTS (SELECT FROM groups.membership AS m WHERE m.organisation_id = ")
                    .push_bind(organisation)
                    .push(" AND m.group_id = g.group_id AND m.user_id = ")
                    .push_bind(user)
                    .push(")");
            }
            Err(_) => {
                query.push("false");
            }
        },
        other => return Err(unsupported(other, comparison.operator().as_str_name())),
    }
    Ok(())
}

fn unsupported(attribute: &str, operator: &str) -> Error {
    Error::Invalid {
        field: "filter",
        description: format!(
            "compares {attribute} by {operator}, which is not supported; supported is \
             OPERATOR_EQUAL with text, of display_name, external_id, id and member_ids"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(attribute: &str, operator: Operator) -> Filter {
        let operand = Some(Operand::Text("Sales".into()));
        let comparison =
            Comparison { attribute: attribute.into(), operator: operator.into(), operand };
        Filter { kind: Some(Kind::Comparison(comparison)) }
    }

    fn sql(filter: &Filter) -> Result<String, Error> {
        let mut query = QueryBuilder::new("");
        condition(&mut query, OrganisationId::new(), Some(filter))?;
        Ok(query.sql().as_str().to_owned())
    }

    #[test]
    fn values_are_bound_and_never_part_of_the_text() {
        let filter =
            Filter { kind: Some(Kind::Not(Box::new(text("display_name", Operator::Equal)))) };
        let sql = sql(&filter).unwrap();
        assert_eq!(sql, "g.organisation_id = $1 AND NOT g.display_name_key = $2");
    }

    #[test]
    fn what_cannot_be_filtered_by_is_named_with_its_operator() {
        let error = sql(&text("display_name", Operator::Contains)).unwrap_err().to_string();
        assert!(error.contains("display_name by OPERATOR_CONTAINS"), "{error}");
        assert!(sql(&text("origin", Operator::Equal)).unwrap_err().to_string().contains("origin"));
    }
}
