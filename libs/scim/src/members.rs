//! PATCH of a group as a delta: nobody reads its members to write them back.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::filter::{Filter, Operand, Operator};
use crate::patch::{Kind, Operation};
use crate::path::PatchPath;
use crate::resource::{kind_of, normalise};
use crate::schema::{Attribute, GROUP_TYPE};
use crate::{Error, Object, ScimType};

/// What a request does to a group.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct GroupDelta {
    /// The new name; none where it stays.
    pub display_name: Option<String>,
    /// The new external id, or its removal; none where it stays.
    pub external_id: Option<Option<String>>,
    /// What becomes of the members.
    pub members: MembersDelta,
}

/// What becomes of a group's members.
#[derive(Debug, Clone, PartialEq)]
pub enum MembersDelta {
    /// Some come, some go; the ids as they were sent.
    Changes(BTreeMap<String, Change>),
    /// They become these.
    Full(BTreeSet<String>),
}

/// What becomes of one member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Becomes or stays a member.
    Add,
    /// Goes or stays away.
    Remove,
}

impl Default for MembersDelta {
    fn default() -> Self {
        Self::Changes(BTreeMap::new())
    }
}

impl MembersDelta {
    fn change(&mut self, ids: BTreeSet<String>, change: Change) {
        match (self, change) {
            (Self::Changes(changes), _) => changes.extend(ids.into_iter().map(|id| (id, change))),
            (Self::Full(members), Change::Add) => members.extend(ids),
            (Self::Full(members), Change::Remove) => members.retain(|id| !ids.contains(id)),
        }
    }
}

/// Folds the operations of a PATCH in order; a later one about the same member wins.
pub fn group_delta(operations: Vec<Operation>) -> Result<GroupDelta, Error> {
    let mut delta = GroupDelta::default();
    for operation in operations {
        let Operation { kind, path, value } = operation;
        let value = value.unwrap_or(Value::Null);
        match (path, value) {
            (Some(path), value) => {
                let path = PatchPath::parse(&path, &GROUP_TYPE)?;
                fold(&mut delta, kind, &path, value)?;
            }
            (None, Value::Object(values)) if kind != Kind::Remove => {
                for (key, value) in values {
                    // What no schema declares and what is read-only is ignored in a value.
                    if let Ok(path @ PatchPath::Attribute(p)) = PatchPath::parse(&key, &GROUP_TYPE)
                        && matches!(p.attribute.name, "displayName" | "externalId" | "members")
                    {
                        fold(&mut delta, kind, &path, value)?;
                    }
                }
            }
            (None, _) if kind == Kind::Remove => {
                return Err(Error::of(
                    ScimType::NoTarget,
                    "a remove without a path names nothing; send the path of what to remove",
                ));
            }
            (None, other) => {
                return Err(invalid(format!(
                    "an operation without a path has {} as its value; expected an object",
                    kind_of(&other)
                )));
            }
        }
    }
    Ok(delta)
}

fn fold(delta: &mut GroupDelta, kind: Kind, path: &PatchPath, value: Value) -> Result<(), Error> {
    let (attribute, filter) = match path {
        PatchPath::Attribute(path) => (path, None),
        PatchPath::Values { path, filter } => (path, Some(filter)),
        PatchPath::Extension(_) => return Ok(()),
    };
    match attribute.attribute.name {
        "displayName" => {
            let name = match kind {
                Kind::Remove => None,
                _ => text(attribute.attribute, value)?,
            };
            delta.display_name = Some(name.ok_or_else(|| {
                Error::of(
                    ScimType::Mutability,
                    "displayName cannot be removed: every group has one",
                )
            })?);
        }
        "externalId" => {
            delta.external_id = Some(match kind {
                Kind::Remove => None,
                _ => text(attribute.attribute, value)?,
            });
        }
        "members" if attribute.sub_attribute.is_some() => {
            return Err(Error::of(
                ScimType::Mutability,
                "the parts of a member cannot change; remove the member and add another",
            ));
        }
        "members" => fold_members(&mut delta.members, kind, filter, value)?,
        name => {
            return Err(Error::of(
                ScimType::Mutability,
                format!("{name} is read-only: the service says what it is"),
            ));
        }
    }
    Ok(())
}

fn fold_members(
    members: &mut MembersDelta,
    kind: Kind,
    filter: Option<&Filter>,
    value: Value,
) -> Result<(), Error> {
    match (kind, filter) {
        (Kind::Remove, Some(filter)) => members.change(named(filter)?, Change::Remove),
        (_, Some(_)) => {
            return Err(Error::of(
                ScimType::Mutability,
                "a member cannot change; remove the member and add another",
            ));
        }
        (Kind::Remove, None) => match ids(value)? {
            Some(ids) => members.change(ids, Change::Remove),
            None => *members = MembersDelta::Full(BTreeSet::new()),
        },
        (Kind::Replace, None) => *members = MembersDelta::Full(ids(value)?.unwrap_or_default()),
        (Kind::Add, None) => members.change(ids(value)?.unwrap_or_default(), Change::Add),
    }
    Ok(())
}

/// The members that a filter names: `value eq "…"`, or several of them joined by `or`.
fn named(filter: &Filter) -> Result<BTreeSet<String>, Error> {
    match filter {
        Filter::Compare { path, operator: Operator::Equal, operand: Operand::String(id) }
            if path.attribute.name == "value" =>
        {
            Ok(BTreeSet::from([id.clone()]))
        }
        Filter::Or(filters) => {
            let sets = filters.iter().map(named).collect::<Result<Vec<_>, _>>()?;
            Ok(sets.into_iter().flatten().collect())
        }
        other => Err(Error::of(
            ScimType::InvalidFilter,
            format!("members are named by value eq \"…\", joined by or; the path has {other}"),
        )),
    }
}

/// The members of a group document in canonical form (POST, PUT).
pub fn members_of(document: &Object) -> Result<BTreeSet<String>, Error> {
    Ok(ids(document.get("members").cloned().unwrap_or_default())?.unwrap_or_default())
}

/// The ids in a list of members; none where there is no list. A member is an object with a `value`,
/// or a bare id.
fn ids(value: Value) -> Result<Option<BTreeSet<String>>, Error> {
    let members = match value {
        Value::Null => return Ok(None),
        Value::Array(members) => members,
        one @ Value::Object(_) => vec![one],
        other => {
            return Err(invalid(format!(
                "members is {}; expected an array of objects with a value, a user's id",
                kind_of(&other)
            )));
        }
    };
    members
        .iter()
        .enumerate()
        .map(|(index, member)| id(index, member))
        .collect::<Result<_, _>>()
        .map(Some)
}

fn id(index: usize, member: &Value) -> Result<String, Error> {
    let part = |name: &str| {
        let mut parts = member.as_object()?.iter();
        parts.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    };
    if part("type").and_then(Value::as_str).is_some_and(|kind| kind.eq_ignore_ascii_case("Group")) {
        return Err(invalid(format!(
            "members[{index}] is a group; groups in groups are not supported, send its users"
        )));
    }
    match (member, part("value")) {
        (Value::String(id), _) | (_, Some(Value::String(id))) => Ok(id.clone()),
        (Value::Object(_), None) => {
            Err(invalid(format!("members[{index}] has no value; expected a user's id")))
        }
        (Value::Object(_), Some(other)) => Err(invalid(format!(
            "members[{index}].value is {}; expected a user's id as a string",
            kind_of(other)
        ))),
        (other, _) => Err(invalid(format!(
            "members[{index}] is {}; expected an object with a value, a user's id",
            kind_of(other)
        ))),
    }
}

fn text(attribute: &'static Attribute, value: Value) -> Result<Option<String>, Error> {
    Ok(match normalise(attribute, value, attribute.name)? {
        Some(Value::String(text)) => Some(text),
        _ => None,
    })
}

fn invalid(detail: String) -> Error {
    Error::of(ScimType::InvalidValue, detail)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::patch::parse;

    fn delta(operations: Value) -> Result<GroupDelta, Error> {
        group_delta(parse(json!({"Operations": operations}))?)
    }

    fn changes(operations: Value) -> Vec<(String, Change)> {
        match delta(operations).unwrap().members {
            MembersDelta::Changes(changes) => changes.into_iter().collect(),
            MembersDelta::Full(_) => panic!("a full set"),
        }
    }

    #[test]
    fn what_okta_sends_with_every_change_is_one_delta() {
        let operations = json!([
            {"op": "remove", "path": "members[value eq \"a\"]"},
            {"op": "add", "path": "members", "value": [{"value": "b", "display": "b@x.y"}, {"value": "b"}]},
            {"op": "replace", "value": {"id": "g", "displayName": "Sales"}},
        ]);
        assert_eq!(
            changes(operations.clone()),
            [("a".into(), Change::Remove), ("b".into(), Change::Add)]
        );
        assert_eq!(delta(operations).unwrap().display_name.as_deref(), Some("Sales"));
    }

    #[test]
    fn a_remove_with_a_list_removes_those_and_one_without_removes_all() {
        let listed = json!([{"op": "Remove", "path": "members", "value": [{"value": "a"}]}]);
        assert_eq!(changes(listed), [("a".into(), Change::Remove)]);
        let nobody = json!([{"op": "Remove", "path": "members", "value": []}]);
        assert_eq!(changes(nobody), []);
        let all = delta(json!([{"op": "remove", "path": "members"}])).unwrap();
        assert_eq!(all.members, MembersDelta::Full(BTreeSet::new()));
        let either = json!([{"op": "remove", "path": "members[value eq \"a\" or value eq \"b\"]"}]);
        assert_eq!(changes(either).len(), 2);
    }

    #[test]
    fn a_later_operation_wins() {
        let operations = json!([
            {"op": "add", "path": "members", "value": ["a", "b"]},
            {"op": "remove", "path": "members[value eq \"a\"]"},
        ]);
        assert_eq!(changes(operations), [("a".into(), Change::Remove), ("b".into(), Change::Add)]);
        let operations = json!([
            {"op": "replace", "path": "members", "value": ["a", "b"]},
            {"op": "remove", "path": "members[value eq \"a\"]"},
            {"op": "add", "path": "members", "value": ["c"]},
        ]);
        let full = MembersDelta::Full(["b", "c"].map(String::from).into());
        assert_eq!(delta(operations).unwrap().members, full);
    }

    #[test]
    fn what_cannot_be_done_is_refused() {
        for (operation, keyword) in [
            (json!({"op": "remove", "path": "displayName"}), ScimType::Mutability),
            (json!({"op": "replace", "path": "id", "value": "x"}), ScimType::Mutability),
            (
                json!({"op": "replace", "path": "members[value eq \"a\"].value", "value": "b"}),
                ScimType::Mutability,
            ),
            (json!({"op": "remove", "path": "members[value co \"a\"]"}), ScimType::InvalidFilter),
            (
                json!({"op": "add", "path": "members", "value": [{"value": "g", "type": "Group"}]}),
                ScimType::InvalidValue,
            ),
            (
                json!({"op": "add", "path": "members", "value": [{"display": "x"}]}),
                ScimType::InvalidValue,
            ),
            (json!({"op": "add", "path": "colour", "value": "x"}), ScimType::InvalidPath),
            (json!({"op": "remove"}), ScimType::NoTarget),
            (json!({"op": "replace", "value": []}), ScimType::InvalidValue),
        ] {
            let error = delta(json!([operation.clone()])).unwrap_err();
            assert_eq!(error.scim_type, Some(keyword), "{operation}: {error}");
        }
    }
}
