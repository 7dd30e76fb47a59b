//! Filters on their way to the service that owns the attributes. A leaf that another service owns
//! is answered by that service as a set of ids, and put in its place.

mod foreign;

use std::collections::BTreeMap;

use muster_proto::filter::v1::comparison::Operand as Value;
use muster_proto::filter::v1::filter::Kind;
use muster_proto::filter::v1::{self as proto, Filter as Message};
use muster_runtime::clock::timestamp;
use muster_scim::filter::{Filter, Operand, Operator, matches};
use muster_scim::path::AttributePath;
use muster_scim::schema::{ENTERPRISE_USER, MUSTER_USER, ResourceType, USER_TYPE};
use muster_scim::{Error, Object, ScimType};
use serde_json::json;

use super::version;
use crate::Gateway;
use crate::failure::Failure;

/// The typed expression of a filter on resources of a type.
pub(super) async fn to_proto(
    gateway: &Gateway,
    organisation: &str,
    filter: &Filter,
    resource_type: &'static ResourceType,
) -> Result<Message, Failure> {
    let filter = simple(filter.clone());
    let mut foreign = BTreeMap::new();
    let leaves = foreign::leaves(&filter).into_iter();
    for leaf in leaves.filter(|leaf| path_of(leaf).is_some_and(|path| has(resource_type, &path))) {
        let ids = foreign::resolve(gateway, organisation, leaf).await?;
        foreign.insert(leaf.to_string(), ids);
    }
    let scim_url = &gateway.scim_url;
    Ok(Translation { foreign, resource_type, scim_url }.filter(&filter)?)
}

/// The same filter by fewer kinds of leaves: without `ne` and without null.
fn simple(filter: Filter) -> Filter {
    let many = |filters: Vec<Filter>| filters.into_iter().map(simple).collect();
    let not = |filter| Filter::Not(Box::new(simple(filter)));
    match filter {
        Filter::And(filters) => Filter::And(many(filters)),
        Filter::Or(filters) => Filter::Or(many(filters)),
        Filter::Not(filter) => not(*filter),
        Filter::Compare { path, operator: Operator::NotEqual, operand } => {
            not(Filter::Compare { path, operator: Operator::Equal, operand })
        }
        Filter::Compare { path, operator: Operator::Equal, operand: Operand::Null } => {
            Filter::Not(Box::new(Filter::Present(path)))
        }
        Filter::Values { path, filter } => {
            Filter::Values { path, filter: Box::new(simple(*filter)) }
        }
        leaf @ (Filter::Present(_) | Filter::Compare { .. }) => leaf,
    }
}

/// What a translation needs to know.
struct Translation<'a> {
    /// Leaves that other services have answered, by their text.
    foreign: BTreeMap<String, Vec<String>>,
    resource_type: &'static ResourceType,
    scim_url: &'a str,
}

impl Translation<'_> {
    fn filter(&self, filter: &Filter) -> Result<Message, Error> {
        combine(filter, &|leaf| self.leaf(leaf))
    }

    fn leaf(&self, leaf: &Filter) -> Result<Message, Error> {
        if let Some(ids) = self.foreign.get(&leaf.to_string()) {
            return Ok(message(Kind::Ids(proto::Ids { ids: ids.clone() })));
        }
        let path = path_of(leaf).ok_or_else(|| cannot(leaf))?;
        if !has(self.resource_type, &path) {
            return Ok(constant(leaf, &json!({})));
        }
        let part = path.sub_attribute.map(|part| part.name);
        let users = format!("{}{}/", self.scim_url, USER_TYPE.endpoint);
        match (path.attribute.name, part) {
            ("schemas", _) => Ok(self.schemas(leaf)),
            ("meta", None) => Ok(always()),
            ("meta", Some("resourceType")) => {
                Ok(constant(leaf, &json!({"meta": {"resourceType": self.resource_type.name}})))
            }
            ("meta", Some("location")) => {
                let prefix = format!("{}{}/", self.scim_url, self.resource_type.endpoint);
                by_address(leaf, "id", &prefix)
            }
            ("meta", Some("version")) => by_version(leaf),
            ("manager", Some("$ref")) => by_address(leaf, "enterprise.manager_id", &users),
            // Nobody's is kept.
            ("manager", Some("displayName")) => Ok(constant(leaf, &json!({}))),
            ("members", _) => member(leaf, "member_ids", &users),
            _ => own(leaf, &path),
        }
    }

    /// A resource names an extension where it has any of the extension's attributes.
    fn schemas(&self, leaf: &Filter) -> Message {
        let named = |urn: &str| constant_holds(leaf, &json!({"schemas": [urn]}));
        if named(self.resource_type.schema.id) {
            return always();
        }
        let extensions = self.resource_type.extensions.iter().filter(|schema| named(schema.id));
        let fields = extensions.flat_map(|extension| {
            extension.attributes.iter().filter_map(|attribute| {
                let extension = Some(*extension);
                field(&AttributePath { extension, attribute, sub_attribute: None })
            })
        });
        let filters: Vec<Message> = fields.map(|field| message(Kind::Present(field))).collect();
        if filters.is_empty() {
            return never();
        }
        message(Kind::Any(proto::Filters { filters }))
    }
}

/// A leaf that the owner has a column for.
fn own(leaf: &Filter, path: &AttributePath) -> Result<Message, Error> {
    let field = field(path).ok_or_else(|| cannot(leaf))?;
    Ok(message(match leaf {
        Filter::Compare { operator, operand, .. } => {
            Kind::Comparison(comparison(field, *operator, operand))
        }
        Filter::Values { filter, .. } => {
            return Ok(any_value(field, combine(filter, &own_part)?));
        }
        _ => Kind::Present(field),
    }))
}

/// The same combination of other leaves.
fn combine(
    filter: &Filter,
    leaf: &dyn Fn(&Filter) -> Result<Message, Error>,
) -> Result<Message, Error> {
    let many = |filters: &[Filter]| {
        let filters = filters.iter().map(|filter| combine(filter, leaf));
        Ok::<_, Error>(proto::Filters { filters: filters.collect::<Result<_, _>>()? })
    };
    Ok(match filter {
        Filter::And(filters) => message(Kind::All(many(filters)?)),
        Filter::Or(filters) => message(Kind::Any(many(filters)?)),
        Filter::Not(filter) => message(Kind::Not(Box::new(combine(filter, leaf)?))),
        other => leaf(other)?,
    })
}

/// A leaf about one part of a value of a multi-valued attribute.
fn own_part(leaf: &Filter) -> Result<Message, Error> {
    let path = path_of(leaf).ok_or_else(|| cannot(leaf))?;
    let part = snake_case(path.attribute.name);
    Ok(message(match leaf {
        Filter::Compare { operator, operand, .. } => {
            Kind::Comparison(comparison(part, *operator, operand))
        }
        Filter::Present(_) => Kind::Present(part),
        _ => return Err(cannot(leaf)),
    }))
}

/// A leaf about a group's members, of whom only the id differs; `field` holds it. Within a value
/// (`members[…]`) the part is the attribute itself.
fn member(leaf: &Filter, field: &str, users: &str) -> Result<Message, Error> {
    let path = path_of(leaf).ok_or_else(|| cannot(leaf))?;
    let part = path.target().name;
    Ok(match (part, leaf) {
        (_, Filter::Values { filter, .. }) => {
            let inner = combine(filter, &|leaf| member(leaf, "value", users))?;
            any_value(field.to_owned(), inner)
        }
        ("$ref", _) => by_address(leaf, field, users)?,
        (_, Filter::Present(_)) => message(Kind::Present(field.to_owned())),
        ("type", _) => {
            let user = json!({"type": "User", "members": [{"type": "User"}]});
            let there = message(Kind::Present(field.to_owned()));
            // Within a value there is no id to say never by.
            if constant_holds(leaf, &user) {
                there
            } else {
                message(Kind::All(proto::Filters { filters: vec![there.clone(), not(there)] }))
            }
        }
        (_, Filter::Compare { operator, operand, .. }) => {
            message(Kind::Comparison(comparison(field.to_owned(), *operator, operand)))
        }
        _ => return Err(cannot(leaf)),
    })
}

/// A leaf about the address of a resource whose id `field` holds.
fn by_address(leaf: &Filter, field: &str, prefix: &str) -> Result<Message, Error> {
    match leaf {
        Filter::Present(_) => Ok(message(Kind::Present(field.to_owned()))),
        Filter::Compare { operator: Operator::Equal, operand: Operand::String(url), .. } => {
            // What is no address of ours is nobody's; an empty text is no id.
            Ok(equal(field, url.strip_prefix(prefix).unwrap_or_default()))
        }
        _ => Err(cannot(leaf)),
    }
}

fn by_version(leaf: &Filter) -> Result<Message, Error> {
    match leaf {
        Filter::Present(_) => Ok(always()),
        Filter::Compare { operator: Operator::Equal, operand: Operand::String(tag), .. } => {
            Ok(version::revision(tag).map_or_else(never, |r| equal("revision", &r.to_string())))
        }
        _ => Err(cannot(leaf)),
    }
}

/// A leaf about what is the same for every resource.
fn constant(leaf: &Filter, resource: &serde_json::Value) -> Message {
    if constant_holds(leaf, resource) { always() } else { never() }
}

fn constant_holds(leaf: &Filter, resource: &serde_json::Value) -> bool {
    let empty = Object::new();
    matches(leaf, resource.as_object().unwrap_or(&empty))
}

/// Whether resources of the type have the attribute; in a search of several types they may not.
fn has(resource_type: &ResourceType, path: &AttributePath) -> bool {
    match path.extension {
        Some(extension) => resource_type.extension(extension.id).is_some(),
        None => resource_type
            .attribute(path.attribute.name)
            .is_some_and(|own| std::ptr::eq(own, path.attribute)),
    }
}

fn path_of(leaf: &Filter) -> Option<AttributePath> {
    match leaf {
        Filter::Present(path) | Filter::Compare { path, .. } | Filter::Values { path, .. } => {
            Some(*path)
        }
        Filter::And(_) | Filter::Or(_) | Filter::Not(_) => None,
    }
}

/// What the owner calls an attribute; none where it cannot be filtered by.
pub(super) fn field(path: &AttributePath) -> Option<String> {
    let (name, part) = (path.attribute.name, path.sub_attribute.map(|part| part.name));
    let whole = match path.extension {
        Some(extension) if extension.id == ENTERPRISE_USER.id => {
            return match (name, part) {
                ("manager", None | Some("value")) => Some("enterprise.manager_id".to_owned()),
                ("manager", Some(_)) => None,
                _ => Some(format!("enterprise.{}", snake_case(name))),
            };
        }
        Some(extension) if extension.id == MUSTER_USER.id => {
            return (name != "approvers").then(|| snake_case(name));
        }
        Some(_) => return None,
        None => name,
    };
    match (whole, part) {
        ("meta", Some("created")) => Some("create_time".to_owned()),
        ("meta", Some("lastModified")) => Some("update_time".to_owned()),
        ("meta" | "schemas" | "password" | "groups", _) => None,
        ("members", None | Some("value")) => Some("member_ids".to_owned()),
        ("members", Some(_)) => None,
        (_, Some(part)) => Some(format!("{}.{}", snake_case(whole), snake_case(part))),
        // Compared as a whole, a complex attribute has been given its `value` by the parser.
        (_, None) => Some(snake_case(whole)),
    }
}

/// A complex attribute as a whole stands for its `value`, where it has one.
pub(super) fn with_value(path: AttributePath) -> AttributePath {
    let value = path.attribute.sub_attribute("value");
    AttributePath { sub_attribute: path.sub_attribute.or(value), ..path }
}

/// Names of the contracts: `givenName` is `given_name`, `customField1` is `custom_field_1`.
fn snake_case(name: &str) -> String {
    let mut snake = String::with_capacity(name.len() + 4);
    let mut previous = '_';
    for character in name.chars() {
        let digit = character.is_ascii_digit() && previous.is_ascii_lowercase();
        // x509Certificates begins with a letter and a number of its own.
        let numbered = digit && snake != "x";
        if (character.is_ascii_uppercase() || numbered) && !snake.is_empty() {
            snake.push('_');
        }
        snake.push(character.to_ascii_lowercase());
        previous = character;
    }
    snake
}

fn comparison(attribute: String, operator: Operator, operand: &Operand) -> proto::Comparison {
    proto::Comparison {
        attribute,
        operator: match operator {
            Operator::Equal => proto::Operator::Equal,
            Operator::NotEqual => proto::Operator::NotEqual,
            Operator::Contains => proto::Operator::Contains,
            Operator::StartsWith => proto::Operator::StartsWith,
            Operator::EndsWith => proto::Operator::EndsWith,
            Operator::Greater => proto::Operator::Greater,
            Operator::GreaterOrEqual => proto::Operator::GreaterOrEqual,
            Operator::Less => proto::Operator::Less,
            Operator::LessOrEqual => proto::Operator::LessOrEqual,
        }
        .into(),
        operand: match operand {
            Operand::Null => None,
            Operand::Boolean(value) => Some(Value::Boolean(*value)),
            Operand::Integer(value) => Some(Value::Integer(*value)),
            Operand::Decimal(value) => Some(Value::Decimal(*value)),
            Operand::String(text) => Some(Value::Text(text.clone())),
            Operand::DateTime(moment) => Some(Value::Time(timestamp(*moment))),
        },
    }
}

fn equal(attribute: &str, text: &str) -> Message {
    let operand = Operand::String(text.to_owned());
    message(Kind::Comparison(comparison(attribute.to_owned(), Operator::Equal, &operand)))
}

/// At least one value of an attribute meets all of a condition.
fn any_value(attribute: String, filter: Message) -> Message {
    message(Kind::Value(Box::new(proto::ValueFilter { attribute, filter: Some(Box::new(filter)) })))
}

fn always() -> Message {
    message(Kind::Present("id".to_owned()))
}

fn never() -> Message {
    message(Kind::Ids(proto::Ids::default()))
}

fn not(filter: Message) -> Message {
    message(Kind::Not(Box::new(filter)))
}

fn message(kind: Kind) -> Message {
    Message { kind: Some(kind) }
}

fn cannot(leaf: &Filter) -> Error {
    let leaf: String = leaf.to_string().chars().take(100).collect();
    Error::of(
        ScimType::InvalidFilter,
        format!("the filter has {leaf}, which cannot be filtered by; compare another attribute"),
    )
}

#[cfg(test)]
mod tests {
    use muster_scim::schema::{GROUP_TYPE, Type, USER_TYPE};

    use super::*;

    #[test]
    fn every_attribute_that_can_be_read_has_a_name_in_the_contracts() {
        for (scim, contract) in [
            ("userName", "user_name"),
            ("x509Certificates.value", "x509_certificates.value"),
            ("name.givenName", "name.given_name"),
            ("meta.lastModified", "update_time"),
            (
                "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User:costCenter",
                "enterprise.cost_center",
            ),
            (
                "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User:manager.value",
                "enterprise.manager_id",
            ),
            ("urn:learnerbly:params:scim:schemas:2.0:User:customField2", "custom_field_2"),
            ("urn:learnerbly:params:scim:schemas:2.0:User:contentRegion", "content_region"),
        ] {
            let path = AttributePath::resolve(scim, &USER_TYPE).unwrap();
            assert_eq!(field(&path).as_deref(), Some(contract));
        }
        let path = AttributePath::resolve("members.value", &GROUP_TYPE).unwrap();
        assert_eq!(field(&path).as_deref(), Some("member_ids"));
        assert_eq!(path.target().kind, Type::String);
    }
}
