//! Filters on their way to the service that owns the attributes. A leaf that another service owns
//! is answered by that service as a set of ids, and put in its place.

use std::collections::BTreeMap;

use muster_proto::approver::v1::BatchListApproveesRequest;
use muster_proto::filter::v1::comparison::Operand as Value;
use muster_proto::filter::v1::filter::Kind;
use muster_proto::filter::v1::{self as proto, Filter as Message};
use muster_proto::group::v1::{ListGroupsRequest, ListMembersRequest};
use muster_proto::identity::v1::ListUsersRequest;
use muster_runtime::feed::timestamp;
use muster_scim::filter::{Filter, Operand, Operator};
use muster_scim::path::AttributePath;
use muster_scim::schema::{ENTERPRISE_USER, MUSTER_USER, ResourceType};
use muster_scim::{Error, ScimType};

use crate::Gateway;
use crate::failure::Failure;

/// The most ids that a leaf of another service may stand for.
const MOST_IDS: usize = 10_000;

/// The typed expression of a filter on resources of a type.
pub(super) async fn to_proto(
    gateway: &Gateway,
    organisation: &str,
    filter: &Filter,
    resource_type: &'static ResourceType,
) -> Result<Message, Failure> {
    let mut foreign = BTreeMap::new();
    let mut leaves = Vec::new();
    collect_foreign(filter, &mut leaves);
    for leaf in leaves {
        let ids = resolve(gateway, organisation, leaf).await?;
        foreign.insert(leaf.to_string(), ids);
    }
    let scim_url = &gateway.scim_url;
    Ok(Translation { foreign, resource_type, scim_url }.filter(filter)?)
}

/// Leaves about a user that identity does not own.
fn collect_foreign<'f>(filter: &'f Filter, leaves: &mut Vec<&'f Filter>) {
    match filter {
        Filter::And(filters) | Filter::Or(filters) => {
            for filter in filters {
                collect_foreign(filter, leaves);
            }
        }
        Filter::Not(filter) => collect_foreign(filter, leaves),
        Filter::Present(path) | Filter::Compare { path, .. } | Filter::Values { path, .. } => {
            if matches!(path.attribute.name, "groups" | "approvers") {
                leaves.push(filter);
            }
        }
    }
}

async fn resolve(
    gateway: &Gateway,
    organisation: &str,
    leaf: &Filter,
) -> Result<Vec<String>, Failure> {
    let (path, part, operand) = match leaf {
        Filter::Compare { path, operator: Operator::Equal, operand: Operand::String(text) } => {
            (path, path.sub_attribute.map_or("value", |part| part.name), text)
        }
        Filter::Values { path, filter } => match &**filter {
            Filter::Compare {
                path: part,
                operator: Operator::Equal,
                operand: Operand::String(text),
            } => (path, part.attribute.name, text),
            _ => return Err(cannot(leaf).into()),
        },
        _ => return Err(cannot(leaf).into()),
    };
    match (path.attribute.name, part) {
        ("groups", "value") => members(gateway, organisation, operand.clone()).await,
        ("groups", "display") => {
            let request = ListGroupsRequest {
                organisation_id: organisation.to_owned(),
                filter: Some(equal("display_name", operand)),
                ..ListGroupsRequest::default()
            };
            let listed = gateway.parts.groups.clone().list_groups(request).await?.into_inner();
            match listed.groups.into_iter().next() {
                Some(group) => members(gateway, organisation, group.id).await,
                None => Ok(Vec::new()),
            }
        }
        ("approvers", _) => {
            let request = ListUsersRequest {
                organisation_id: organisation.to_owned(),
                filter: Some(equal("primary_email", operand)),
                ..ListUsersRequest::default()
            };
            let listed = gateway.parts.users.clone().list_users(request).await?.into_inner();
            let request = BatchListApproveesRequest {
                organisation_id: organisation.to_owned(),
                approver_ids: listed.users.into_iter().map(|user| user.id).collect(),
            };
            let mut approvers = gateway.parts.approvers.clone();
            let answer = approvers.batch_list_approvees(request).await?.into_inner();
            let ids: Vec<String> =
                answer.approvers.into_iter().flat_map(|approver| approver.user_ids).collect();
            if ids.len() > MOST_IDS { Err(too_many(leaf).into()) } else { Ok(ids) }
        }
        _ => Err(cannot(leaf).into()),
    }
}

async fn members(
    gateway: &Gateway,
    organisation: &str,
    group_id: String,
) -> Result<Vec<String>, Failure> {
    let request = ListMembersRequest {
        organisation_id: organisation.to_owned(),
        group_id,
        page_size: i32::try_from(MOST_IDS).unwrap_or(i32::MAX),
        ..ListMembersRequest::default()
    };
    match gateway.parts.groups.clone().list_members(request).await {
        Ok(page) if !page.get_ref().next_page_token.is_empty() => Err(Error::of(
            ScimType::TooMany,
            format!("the group has more than {MOST_IDS} members; list its members instead"),
        )
        .into()),
        Ok(page) => Ok(page.into_inner().user_ids),
        // Nobody is in a group that does not exist.
        Err(status) if status.code() == tonic::Code::NotFound => Ok(Vec::new()),
        Err(status) => Err(status.into()),
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
        if let Some(ids) = self.foreign.get(&filter.to_string()) {
            return Ok(message(Kind::Ids(proto::Ids { ids: ids.clone() })));
        }
        let many = |filters: &[Filter]| {
            let filters = filters.iter().map(|filter| self.filter(filter));
            Ok::<_, Error>(proto::Filters { filters: filters.collect::<Result<_, _>>()? })
        };
        Ok(message(match filter {
            Filter::And(filters) => Kind::All(many(filters)?),
            Filter::Or(filters) => Kind::Any(many(filters)?),
            Filter::Not(filter) => Kind::Not(Box::new(self.filter(filter)?)),
            Filter::Present(path) => match self.constant(path, Operator::Equal, None) {
                Some(constant) => return Ok(constant),
                None => Kind::Present(field(path).ok_or_else(|| cannot(filter))?),
            },
            Filter::Compare { path, operator, operand } => {
                if let Some(constant) = self.constant(path, *operator, Some(operand)) {
                    return Ok(constant);
                }
                let field = field(path).ok_or_else(|| cannot(filter))?;
                Kind::Comparison(comparison(field, *operator, operand))
            }
            Filter::Values { path, filter: inner } => {
                let attribute = field(path).ok_or_else(|| cannot(filter))?;
                // The members of a group are looked up by id, and have no other part.
                if attribute == "member_ids" {
                    let Filter::Compare { path: part, operator, operand } = &**inner else {
                        return Err(cannot(filter));
                    };
                    if part.attribute.name != "value" {
                        return Err(cannot(filter));
                    }
                    Kind::Comparison(comparison(attribute, *operator, operand))
                } else {
                    let inner = Some(Box::new(part(inner)?));
                    Kind::Value(Box::new(proto::ValueFilter { attribute, filter: inner }))
                }
            }
        }))
    }

    /// What is the same for every resource of the type, or follows from its id.
    fn constant(
        &self,
        path: &AttributePath,
        operator: Operator,
        operand: Option<&Operand>,
    ) -> Option<Message> {
        let always = || message(Kind::Present("id".to_owned()));
        let never = || message(Kind::Ids(proto::Ids::default()));
        let text = match operand {
            Some(Operand::String(text)) => Some(text.as_str()),
            Some(_) => return None,
            None => None,
        };
        let negate = |found: Message| match operator {
            Operator::NotEqual => message(Kind::Not(Box::new(found))),
            _ => found,
        };
        if !matches!(operator, Operator::Equal | Operator::NotEqual) {
            return None;
        }
        match (path.attribute.name, path.sub_attribute.map(|part| part.name), text) {
            ("meta" | "schemas", _, None) => Some(always()),
            ("meta", Some("resourceType"), Some(text)) => {
                Some(negate(if text == self.resource_type.name { always() } else { never() }))
            }
            ("meta", Some("location"), Some(text)) => {
                let prefix = format!("{}{}/", self.scim_url, self.resource_type.endpoint);
                let found = text.strip_prefix(&prefix).map(|id| equal("id", id));
                Some(negate(found.unwrap_or_else(never)))
            }
            ("schemas", _, Some(urn)) => Some(negate(match self.extension_fields(urn) {
                Some(fields) if fields.is_empty() => always(),
                Some(fields) => {
                    let filters = fields.into_iter().map(|f| message(Kind::Present(f))).collect();
                    message(Kind::Any(proto::Filters { filters }))
                }
                None => never(),
            })),
            _ => None,
        }
    }

    /// What a resource must have one of to have a schema; nothing for the core schema, none for
    /// one that it cannot have.
    fn extension_fields(&self, urn: &str) -> Option<Vec<String>> {
        if urn == self.resource_type.schema.id {
            return Some(Vec::new());
        }
        let extension = self.resource_type.extensions.iter().find(|schema| schema.id == urn)?;
        let paths = extension.attributes.iter().map(|attribute| AttributePath {
            extension: Some(extension),
            attribute,
            sub_attribute: None,
        });
        Some(paths.filter_map(|path| field(&path)).collect())
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

/// A condition on one value of a multi-valued attribute.
fn part(filter: &Filter) -> Result<Message, Error> {
    let many = |filters: &[Filter]| {
        let filters = filters.iter().map(part);
        Ok::<_, Error>(proto::Filters { filters: filters.collect::<Result<_, _>>()? })
    };
    Ok(message(match filter {
        Filter::And(filters) => Kind::All(many(filters)?),
        Filter::Or(filters) => Kind::Any(many(filters)?),
        Filter::Not(filter) => Kind::Not(Box::new(part(filter)?)),
        Filter::Present(path) => Kind::Present(snake_case(path.attribute.name)),
        Filter::Compare { path, operator, operand } => {
            Kind::Comparison(comparison(snake_case(path.attribute.name), *operator, operand))
        }
        Filter::Values { .. } => return Err(cannot(filter)),
    }))
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

fn too_many(leaf: &Filter) -> Error {
    let leaf: String = leaf.to_string().chars().take(100).collect();
    Error::of(ScimType::TooMany, format!("{leaf} stands for more than {MOST_IDS} users"))
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
