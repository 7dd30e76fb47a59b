//! Plain evaluation of a filter, on one resource or one value.

use std::cmp::Ordering;

use serde_json::Value;

use super::{Filter, Operand, Operator};
use crate::path::AttributePath;
use crate::resource::date_time;
use crate::schema::Type;
use crate::{Object, caseless};

/// Whether a resource in canonical form meets a filter.
#[must_use]
pub fn matches(filter: &Filter, resource: &Object) -> bool {
    evaluate(filter, &|path| values(path, resource))
}

/// Whether one value of a multi-valued attribute meets a filter on its parts.
#[must_use]
pub fn matches_value(filter: &Filter, value: &Value) -> bool {
    evaluate(filter, &|path| match value {
        Value::Object(object) => values(path, object),
        simple => vec![simple],
    })
}

/// What a resource in canonical form is sorted by, at the path of a single text or moment; none
/// where it has no value. Keys compare as their texts do (RFC 7644 §3.4.2.3).
#[must_use]
pub fn sort_key(path: &AttributePath, resource: &Object) -> Option<String> {
    let text = values(path, resource).first()?.as_str()?;
    let target = path.target();
    Some(match target.kind {
        Type::DateTime => format!("{:040}", date_time(text)?.unix_timestamp_nanos()),
        _ if target.case_exact => text.to_owned(),
        _ => caseless::key(text),
    })
}

fn evaluate<'v>(filter: &Filter, read: &dyn Fn(&AttributePath) -> Vec<&'v Value>) -> bool {
    match filter {
        Filter::And(filters) => filters.iter().all(|filter| evaluate(filter, read)),
        Filter::Or(filters) => filters.iter().any(|filter| evaluate(filter, read)),
        Filter::Not(filter) => !evaluate(filter, read),
        Filter::Present(path) => read(path).iter().any(|value| is_present(value)),
        Filter::Compare { path, operator, operand } => {
            let equal = |values: &[&Value]| match operand {
                Operand::Null => values.is_empty(),
                _ => values
                    .iter()
                    .any(|value| compare(path, value, operand) == Some(Ordering::Equal)),
            };
            let values = read(path);
            match operator {
                Operator::Equal => equal(&values),
                Operator::NotEqual => !equal(&values),
                _ => values.iter().any(|value| holds(path, value, *operator, operand)),
            }
        }
        Filter::Values { path, filter } => {
            read(path).into_iter().any(|value| matches_value(filter, value))
        }
    }
}

/// The values at a path: none, one, or each of a multi-valued attribute.
fn values<'v>(path: &AttributePath, resource: &'v Object) -> Vec<&'v Value> {
    let object = match path.extension {
        Some(extension) => resource.get(extension.id).and_then(Value::as_object),
        None => Some(resource),
    };
    let Some(value) = object.and_then(|object| object.get(path.attribute.name)) else {
        return Vec::new();
    };
    let each: Vec<&Value> = match value {
        Value::Array(values) => values.iter().collect(),
        value => vec![value],
    };
    match path.sub_attribute {
        Some(part) => each.into_iter().filter_map(|value| value.get(part.name)).collect(),
        None => each,
    }
}

fn is_present(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(values) => !values.is_empty(),
        Value::Object(object) => !object.is_empty(),
        _ => true,
    }
}

fn holds(path: &AttributePath, value: &Value, operator: Operator, operand: &Operand) -> bool {
    if let (
        Operator::Contains | Operator::StartsWith | Operator::EndsWith,
        Value::String(text),
        Operand::String(part),
    ) = (operator, value, operand)
    {
        let (text, part) = if path.target().case_exact {
            (text.clone(), part.clone())
        } else {
            (caseless::key(text), caseless::part(part))
        };
        return match operator {
            Operator::Contains => text.contains(&part),
            Operator::StartsWith => text.starts_with(&part),
            _ => text.ends_with(&part),
        };
    }
    let Some(ordering) = compare(path, value, operand) else { return false };
    match operator {
        Operator::Greater => ordering.is_gt(),
        Operator::GreaterOrEqual => ordering.is_ge(),
        Operator::Less => ordering.is_lt(),
        Operator::LessOrEqual => ordering.is_le(),
        _ => false,
    }
}

fn compare(path: &AttributePath, value: &Value, operand: &Operand) -> Option<Ordering> {
    match (value, operand) {
        (Value::String(text), Operand::String(other)) if path.target().case_exact => {
            Some(text.as_str().cmp(other))
        }
        (Value::String(text), Operand::String(other)) => {
            Some(caseless::key(text).cmp(&caseless::key(other)))
        }
        (Value::String(text), Operand::DateTime(other)) => Some(date_time(text)?.cmp(other)),
        (Value::Bool(value), Operand::Boolean(other)) => Some(value.cmp(other)),
        (Value::Number(number), Operand::Integer(other)) => match number.as_i64() {
            Some(integer) => Some(integer.cmp(other)),
            #[expect(clippy::cast_precision_loss, reason = "the other side is a fraction already")]
            None => number.as_f64()?.partial_cmp(&(*other as f64)),
        },
        (Value::Number(number), Operand::Decimal(other)) => number.as_f64()?.partial_cmp(other),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::filter::{matches, parse};
    use crate::schema::USER_TYPE;

    #[test]
    fn a_filter_holds_for_the_resources_it_describes() {
        let user = json!({
            "userName": "Ann", "active": true, "externalId": "X1",
            "meta": {"created": "2026-01-31T08:30:00Z"},
            "emails": [{"value": "ann@x.example", "type": "work"}, {"value": "a@y.example", "type": "home"}],
            "urn:learnerbly:params:scim:schemas:2.0:User": {"approvers": ["Bo@x.example"]},
        });
        let user = user.as_object().unwrap();
        for (text, expected) in [
            (r#"userName eq "aNN""#, true),
            (r#"userName ne "ann""#, false),
            (r#"externalId eq "x1""#, false),
            (r#"externalId eq "X1""#, true),
            ("active eq true", true),
            ("title pr", false),
            ("title eq null", true),
            (r#"title ne "x""#, true),
            ("emails pr", true),
            (r#"emails eq "A@Y.example""#, true),
            (r#"emails[type eq "work" and value sw "a@"]"#, false),
            (r#"emails[type eq "home" and value sw "a@"]"#, true),
            (r#"emails.type eq "home" and not (emails.type eq "fax")"#, true),
            (r#"meta.created lt "2026-01-31T10:00:00+01:00""#, true),
            (r#"meta.created ge "2026-01-31T08:30:00.000Z""#, true),
            (r#"userName gt "alan""#, true),
            (r#"userName ew "NN""#, true),
            (r#"userName co " ""#, false),
            (r#"urn:learnerbly:params:scim:schemas:2.0:User:approvers eq "bo@x.example""#, true),
        ] {
            assert_eq!(
                matches(&parse(text, &USER_TYPE, &crate::Limits::DEFAULT).unwrap(), user),
                expected,
                "{text}"
            );
        }
    }
}
