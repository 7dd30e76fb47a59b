//! Where each attribute of a user stands, for filters.

use muster_proto::filter::v1::Filter;
use muster_runtime::filter_sql::{Column, Columns};
use muster_runtime::id::OrganisationId;
use muster_scim::caseless;
use sqlx::{Postgres, QueryBuilder};

use crate::Error;

/// Pushes the condition of a filter on `identity.users AS u`.
pub(super) fn push(
    query: &mut QueryBuilder<Postgres>,
    organisation: OrganisationId,
    filter: &Filter,
) -> Result<(), Error> {
    let find = |attribute: &str| column(attribute, organisation);
    Columns { find: &find, fold: caseless::key, fold_part: caseless::part }
        .push(query, filter)
        .map_err(|unsupported| Error::Invalid {
            field: "filter",
            description: unsupported.to_string(),
        })
}

/// Pushes what to order `identity.users AS u` by, with a comma after it.
pub(super) fn push_order(
    query: &mut QueryBuilder<Postgres>,
    organisation: OrganisationId,
    order_by: &str,
) -> Result<(), Error> {
    let find = |attribute: &str| column(attribute, organisation);
    Columns { find: &find, fold: caseless::key, fold_part: caseless::part }
        .push_order(query, order_by)
        .map_err(|_| Error::Invalid {
            field: "order_by",
            description: "names an attribute that users have no order by".into(),
        })
}

fn column(attribute: &str, organisation: OrganisationId) -> Option<Column> {
    let (name, part) = match attribute.split_once('.') {
        Some((name, part)) => (name, Some(part)),
        None => (attribute, None),
    };
    Some(match (name, part) {
        ("id", None) => Column::Id { sql: "u.user_id" },
        ("revision", None) => text("(u.revision::text)".into(), false, None),
        ("create_time", None) => Column::Time { sql: "u.created_at" },
        ("update_time", None) => Column::Time { sql: "u.updated_at" },
        ("active", None) => Column::Boolean {
            sql: "(u.document->>'active')::boolean".into(),
            indexed: Some("u.active"),
        },
        ("user_name", None) => text("u.user_name_key".into(), true, None),
        ("external_id", None) => text("u.external_id".into(), false, None),
        ("primary_email", None) => text("u.primary_email_key".into(), true, None),
        ("display_name", None) => {
            text("(u.search->>'display_name')".into(), true, Some("u.display_name_key"))
        }
        ("content_region", None) => text("u.content_region".into(), true, None),
        ("custom_field_1", None) => {
            text("(u.search->>'custom_field_1')".into(), true, Some("u.custom_field_1_key"))
        }
        ("custom_field_2", None) => {
            text("(u.search->>'custom_field_2')".into(), true, Some("u.custom_field_2_key"))
        }
        ("custom_field_3", None) => {
            text("(u.search->>'custom_field_3')".into(), true, Some("u.custom_field_3_key"))
        }
        ("profile_url", None) => text("(u.document->>'profile_url')".into(), false, None),
        (
            "nick_name" | "title" | "user_type" | "preferred_language" | "locale" | "timezone",
            None,
        ) => text(format!("(u.search->>'{name}')"), true, None),
        ("name" | "enterprise", None) => Column::Whole { sql: format!("(u.search->'{name}')") },
        (
            "name",
            Some(
                part @ ("formatted" | "family_name" | "given_name" | "middle_name"
                | "honorific_prefix" | "honorific_suffix"),
            ),
        )
        | (
            "enterprise",
            Some(
                part @ ("employee_number" | "cost_center" | "organization" | "division"
                | "department" | "manager_id"),
            ),
        ) => text(format!("(u.search->'{name}'->>'{part}')"), true, None),
        // Equality of an address, which clients ask for, has an index.
        ("emails", Some("value")) => Column::Lookup {
            sql: format!(
                "u.user_id IN (SELECT e.user_id FROM identity.user_email AS e
                                WHERE e.organisation_id = '{organisation}' AND e.email_key = "
            ),
            otherwise: each("emails", Some("value")).map(Box::new),
        },
        _ => return each(name, part),
    })
}

/// A multi-valued attribute or a part of it.
fn each(name: &str, part: Option<&str>) -> Option<Column> {
    let parts: &[&str] = match name {
        "addresses" => &[
            "formatted",
            "street_address",
            "locality",
            "region",
            "postal_code",
            "country",
            "type",
            "primary",
        ],
        "emails" | "phone_numbers" | "ims" | "photos" | "entitlements" | "roles"
        | "x509_certificates" => &["value", "display", "type", "primary"],
        _ => return None,
    };
    let column = match part {
        None => None,
        Some("primary") => {
            Some(Column::Boolean { sql: "(v.value->>'primary')::boolean".into(), indexed: None })
        }
        Some(part) if parts.contains(&part) => {
            // In `search` those that regard case stand as they are.
            let exact = matches!((name, part), ("photos" | "x509_certificates", "value"));
            Some(text(format!("(v.value->>'{part}')"), !exact, None))
        }
        Some(_) => return None,
    };
    Some(Column::Each {
        elements: format!("jsonb_array_elements(u.search->'{name}') AS v (value)"),
        part: column.map(Box::new),
    })
}

fn text(sql: String, folded: bool, indexed: Option<&'static str>) -> Column {
    Column::Text { sql, folded, indexed }
}
