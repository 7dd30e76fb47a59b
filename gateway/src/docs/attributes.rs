//! The attributes of a schema, as rows of a table. The examples come from one whole user and one
//! whole group, which the page shows as well.

use std::sync::LazyLock;

use muster_scim::schema::{Attribute, GROUP, Uniqueness};
use serde_json::Value;

pub(super) const USER_EXAMPLE: &str = include_str!("user.json");
pub(super) const GROUP_EXAMPLE: &str = include_str!("group.json");

static USER: LazyLock<Value> = LazyLock::new(|| read(USER_EXAMPLE));
static GROUP_JSON: LazyLock<Value> = LazyLock::new(|| read(GROUP_EXAMPLE));

fn read(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_default()
}

/// An attribute, or a part of one.
#[derive(Debug)]
pub(super) struct Described {
    /// `emails.value`
    pub path: String,
    pub is_part: bool,
    /// `string[]`
    pub kind: String,
    pub description: &'static str,
    pub required: bool,
    pub case_exact: bool,
    pub mutability: &'static str,
    pub returned: &'static str,
    pub uniqueness: &'static str,
    pub values: String,
    /// As JSON; empty for what has parts.
    pub example: String,
}

/// The attributes of the schema with that URN, each followed by its parts. The common ones have no
/// URN.
pub(super) fn described(attributes: &'static [Attribute], urn: &str) -> Vec<Described> {
    let whole = if urn == GROUP.id { &*GROUP_JSON } else { &*USER };
    let example = whole.get(urn).unwrap_or(whole);
    let mut rows = Vec::new();
    for attribute in attributes {
        let value = example.get(attribute.name);
        rows.push(row(attribute, attribute.name.to_owned(), false, value));
        let first = value.map(|value| value.get(0).unwrap_or(value));
        for part in attribute.sub_attributes {
            let value = first.and_then(|value| value.get(part.name));
            rows.push(row(part, format!("{}.{}", attribute.name, part.name), true, value));
        }
    }
    rows
}

fn row(
    attribute: &'static Attribute,
    path: String,
    is_part: bool,
    example: Option<&Value>,
) -> Described {
    let kind = attribute.kind.name();
    let example = example.filter(|_| attribute.sub_attributes.is_empty());
    Described {
        path,
        is_part,
        kind: format!("{kind}{}", if attribute.multi_valued { "[]" } else { "" }),
        description: attribute.description,
        required: attribute.required,
        case_exact: attribute.case_exact,
        mutability: attribute.mutability.name(),
        returned: attribute.returned.name(),
        uniqueness: match attribute.uniqueness {
            Uniqueness::None => "",
            Uniqueness::Server => "in the organisation",
            Uniqueness::Global => "everywhere",
        },
        values: attribute.canonical_values.join(", "),
        example: example.map(Value::to_string).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use muster_scim::schema::{COMMON, ENTERPRISE_USER, MUSTER_USER, USER};

    use super::*;

    #[test]
    fn every_attribute_has_an_example() {
        let mut rows = described(&COMMON, "");
        for schema in [&USER, &GROUP, &ENTERPRISE_USER, &MUSTER_USER] {
            rows.extend(described(schema.attributes, schema.id));
        }
        let without: Vec<_> = rows
            .iter()
            .filter(|row| row.example.is_empty() && !row.kind.starts_with("complex"))
            .map(|row| &row.path)
            .collect();
        assert!(without.is_empty(), "{without:?}");
        assert!(rows.len() > 90, "{}", rows.len());
    }
}
