//! Filters on their way to the service that owns the attributes.

use muster_proto::filter::v1::comparison::Operand as Value;
use muster_proto::filter::v1::filter::Kind;
use muster_proto::filter::v1::{self as proto, Filter as Message};
use muster_scim::filter::{Filter, Operand, Operator};
use muster_scim::path::AttributePath;
use muster_scim::{Error, ScimType};

/// The typed expression of a filter. `field` tells what the owner calls an attribute; none where it
/// cannot be filtered by.
pub(super) fn to_proto(
    filter: &Filter,
    field: &dyn Fn(&str) -> Option<&'static str>,
) -> Result<Message, Error> {
    let many = |filters: &[Filter]| {
        let filters = filters.iter().map(|filter| to_proto(filter, field));
        Ok::<_, Error>(proto::Filters { filters: filters.collect::<Result<_, _>>()? })
    };
    let kind = match filter {
        Filter::And(filters) => Kind::All(many(filters)?),
        Filter::Or(filters) => Kind::Any(many(filters)?),
        Filter::Not(filter) => Kind::Not(Box::new(to_proto(filter, field)?)),
        Filter::Compare { path, operator: Operator::Equal, operand } => {
            Kind::Comparison(equal(path, "", operand, field)?)
        }
        // `emails[value eq "…"]` is `emails.value eq "…"`.
        Filter::Values { path, filter } => match &**filter {
            Filter::Compare { path: part, operator: Operator::Equal, operand } => {
                Kind::Comparison(equal(path, part.attribute.name, operand, field)?)
            }
            _ => return Err(unsupported(filter)),
        },
        Filter::Compare { .. } | Filter::Present(_) => return Err(unsupported(filter)),
    };
    Ok(Message { kind: Some(kind) })
}

fn equal(
    path: &AttributePath,
    part: &str,
    operand: &Operand,
    field: &dyn Fn(&str) -> Option<&'static str>,
) -> Result<proto::Comparison, Error> {
    let name = if part.is_empty() { path.to_string() } else { format!("{path}.{part}") };
    let text = match operand {
        Operand::String(text) => text.clone(),
        _ => return Err(cannot(&name)),
    };
    Ok(proto::Comparison {
        attribute: field(&name).ok_or_else(|| cannot(&name))?.to_owned(),
        operator: proto::Operator::Equal.into(),
        operand: Some(Value::Text(text)),
    })
}

fn unsupported(filter: &Filter) -> Error {
    cannot(&filter.to_string().chars().take(100).collect::<String>())
}

fn cannot(what: &str) -> Error {
    Error::of(
        ScimType::InvalidFilter,
        format!(
            "the filter has {what}, which cannot be filtered by; supported is eq on userName, \
             externalId, id, emails.value and displayName for users, and on displayName, \
             externalId, id and members.value for groups, with and, or, not"
        ),
    )
}
