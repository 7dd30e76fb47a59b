//! PATCH of a group as a delta: nobody reads its members to write them back.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::filter::{Filter, Operand, Operator, matches_value};
use crate::patch::{Kind, Operation};
use crate::path::PatchPath;
use crate::resource::{kind_of, normalise};
use crate::schema::{Attribute, GROUP_TYPE};
use crate::{Error, Limits, Object, ScimType, json};

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
    Full {
        /// Who is a member.
        all: BTreeSet<String>,
        /// Who stays where they are a member.
        retained: BTreeSet<String>,
    },
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
    /// Exactly these.
    #[must_use]
    pub fn full(all: BTreeSet<String>) -> Self {
        Self::Full { all, retained: BTreeSet::new() }
    }

    fn add(&mut self, ids: BTreeSet<String>) {
        match self {
            Self::Changes(changes) => changes.extend(ids.into_iter().map(|id| (id, Change::Add))),
            Self::Full { all, .. } => all.extend(ids),
        }
    }

    fn remove(&mut self, whom: Whom) {
        match (&mut *self, whom) {
            (Self::Changes(changes), Whom::These(ids)) => {
                changes.extend(ids.into_iter().map(|id| (id, Change::Remove)));
            }
            (Self::Changes(changes), Whom::AllBut(mut stay)) => {
                let of = |wanted: Change| {
                    let changes = changes.iter().filter(move |(_, change)| **change == wanted);
                    changes.map(|(id, _)| id.clone()).collect::<BTreeSet<_>>()
                };
                let (added, removed) = (of(Change::Add), of(Change::Remove));
                let all = added.intersection(&stay).cloned().collect();
                stay.retain(|id| !removed.contains(id));
                *self = Self::Full { all, retained: stay };
            }
            (Self::Full { all, retained }, Whom::These(ids)) => {
                all.retain(|id| !ids.contains(id));
                retained.retain(|id| !ids.contains(id));
            }
            (Self::Full { all, retained }, Whom::AllBut(stay)) => {
                all.retain(|id| stay.contains(id));
                retained.retain(|id| stay.contains(id));
            }
        }
    }
}

/// Members that a filter names, whoever the members are.
#[derive(Debug, Clone, PartialEq)]
enum Whom {
    These(BTreeSet<String>),
    AllBut(BTreeSet<String>),
}

impl Whom {
    fn everybody() -> Self {
        Self::AllBut(BTreeSet::new())
    }

    fn nobody() -> Self {
        Self::These(BTreeSet::new())
    }

    fn not(self) -> Self {
        match self {
            Self::These(ids) => Self::AllBut(ids),
            Self::AllBut(ids) => Self::These(ids),
        }
    }

    fn and(self, other: Self) -> Self {
        let both = |a: &BTreeSet<String>, b: &BTreeSet<String>| a & b;
        match (self, other) {
            (Self::These(a), Self::These(b)) => Self::These(both(&a, &b)),
            (Self::These(these), Self::AllBut(but)) | (Self::AllBut(but), Self::These(these)) => {
                Self::These(&these - &but)
            }
            (Self::AllBut(a), Self::AllBut(b)) => Self::AllBut(&a | &b),
        }
    }
}

/// Folds the operations of a PATCH in order; a later one about the same member wins.
pub fn group_delta(operations: Vec<Operation>, limits: &Limits) -> Result<GroupDelta, Error> {
    let mut delta = GroupDelta::default();
    for operation in operations {
        let Operation { kind, path, value } = operation;
        let value = value.unwrap_or(Value::Null);
        match (path, value) {
            (Some(path), value) => {
                let path = PatchPath::parse(&path, &GROUP_TYPE, limits)?;
                fold(&mut delta, kind, &path, value)?;
            }
            (None, Value::Object(values)) if kind != Kind::Remove => {
                for (key, value) in values {
                    // What no schema declares and what is read-only is ignored in a value.
                    if let Ok(path @ PatchPath::Attribute(p)) =
                        PatchPath::parse(&key, &GROUP_TYPE, limits)
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
    let members = match &delta.members {
        MembersDelta::Changes(changes) => changes.len(),
        MembersDelta::Full { all, .. } => all.len(),
    };
    few_enough(members, limits)?;
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
        (Kind::Remove, Some(filter)) => members.remove(named(filter)?),
        (_, Some(_)) => {
            return Err(Error::of(
                ScimType::Mutability,
                "a member cannot change; remove the member and add another",
            ));
        }
        (Kind::Remove, None) => match ids(value)? {
            Some(ids) => members.remove(Whom::These(ids)),
            None => *members = MembersDelta::full(BTreeSet::new()),
        },
        (Kind::Replace, None) => *members = MembersDelta::full(ids(value)?.unwrap_or_default()),
        (Kind::Add, None) => members.add(ids(value)?.unwrap_or_default()),
    }
    Ok(())
}

/// The members whom a filter on their `value`, `$ref` and `type` names. All are users, so it can be
/// told without reading them.
fn named(filter: &Filter) -> Result<Whom, Error> {
    let fold = |filters: &[Filter], of: fn(Whom, Whom) -> Whom| {
        let mut named = filters.iter().map(named);
        let first = named.next().unwrap_or(Ok(Whom::everybody()))?;
        named.try_fold(first, |all, next| Ok(of(all, next?)))
    };
    Ok(match filter {
        Filter::And(filters) => fold(filters, Whom::and)?,
        Filter::Or(filters) => fold(filters, |a, b| a.not().and(b.not()).not())?,
        Filter::Not(filter) => named(filter)?.not(),
        Filter::Present(_) => Whom::everybody(),
        Filter::Compare { path, operator, operand } if path.attribute.name == "type" => {
            let user = json!({"type": "User"});
            let leaf =
                Filter::Compare { path: *path, operator: *operator, operand: operand.clone() };
            if matches_value(&leaf, &user) { Whom::everybody() } else { Whom::nobody() }
        }
        Filter::Compare { path, operator: Operator::Equal, operand: Operand::String(text) } => {
            let id = if path.attribute.name == "$ref" { id_in(text) } else { text };
            Whom::These(BTreeSet::from([id.to_owned()]))
        }
        Filter::Compare { operator: Operator::Equal, operand: Operand::Null, .. } => Whom::nobody(),
        Filter::Compare { path, operator: Operator::NotEqual, operand } => {
            let (path, operator, operand) = (*path, Operator::Equal, operand.clone());
            named(&Filter::Compare { path, operator, operand })?.not()
        }
        other => {
            return Err(Error::of(
                ScimType::InvalidFilter,
                format!(
                    "the path has {other}; members are named by value eq \"…\", ne, pr, and, or \
                     and not"
                ),
            ));
        }
    })
}

/// The id at the end of a user's address.
fn id_in(address: &str) -> &str {
    address.rsplit_once("/Users/").map_or("", |(_, id)| id)
}

/// Takes the members out of a group document in canonical form (POST, PUT): there may be so many
/// that they are not to be held twice.
pub fn take_members(document: &mut Object, limits: &Limits) -> Result<BTreeSet<String>, Error> {
    let ids = ids(document.remove("members").unwrap_or_default())?.unwrap_or_default();
    few_enough(ids.len(), limits)?;
    Ok(ids)
}

fn few_enough(members: usize, limits: &Limits) -> Result<(), Error> {
    if members <= limits.members {
        return Ok(());
    }
    let most = limits.members;
    Err(Error::new(413, format!("the request is about {members} members; at most {most} at once")))
}

/// Reads the body of a request about a group, in which there may be so many members that an object
/// of each is not to be held: who is nothing but a user's id is that id from the start.
pub fn parse_body(body: &[u8], limits: &Limits) -> Result<Value, Error> {
    json::parse_shortening(body, limits, |item| match item {
        Value::Object(mut member) if is_plain(&member) => {
            member.remove("value").unwrap_or_default()
        }
        item => item,
    })
}

/// Whether an object in an array says nothing of a member but which user it is.
fn is_plain(member: &Object) -> bool {
    member.iter().all(|(name, value)| match name.as_str() {
        "value" => value.is_string(),
        "display" | "$ref" => true,
        "type" => value == "User",
        _ => false,
    }) && member.contains_key("value")
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
        .into_iter()
        .enumerate()
        .map(|(index, member)| id(index, member))
        .collect::<Result<_, _>>()
        .map(Some)
}

fn id(index: usize, member: Value) -> Result<String, Error> {
    let Some(object) = member.as_object() else {
        return match member {
            Value::String(id) => Ok(id),
            other => Err(invalid(format!(
                "members[{index}] is {}; expected an object with a value, a user's id",
                kind_of(&other)
            ))),
        };
    };
    let part = |name: &str| {
        let mut parts = object.iter();
        parts.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    };
    if part("type").and_then(Value::as_str).is_some_and(|kind| kind.eq_ignore_ascii_case("Group")) {
        return Err(invalid(format!(
            "members[{index}] is a group; groups in groups are not supported, send its users"
        )));
    }
    match part("value") {
        Some(Value::String(id)) => Ok(id.clone()),
        None => Err(invalid(format!("members[{index}] has no value; expected a user's id"))),
        Some(other) => Err(invalid(format!(
            "members[{index}].value is {}; expected a user's id as a string",
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
        group_delta(parse(json!({"Operations": operations}), &Limits::DEFAULT)?, &Limits::DEFAULT)
    }

    fn changes(operations: Value) -> Vec<(String, Change)> {
        match delta(operations).unwrap().members {
            MembersDelta::Changes(changes) => changes.into_iter().collect(),
            MembersDelta::Full { .. } => panic!("a full set"),
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
        assert_eq!(all.members, MembersDelta::full(BTreeSet::new()));
        let either = json!([{"op": "remove", "path": "members[value eq \"a\" or value eq \"b\"]"}]);
        assert_eq!(changes(either).len(), 2);
    }

    #[test]
    fn who_is_nothing_but_an_id_is_read_as_one() {
        let body = json!({
            "displayName": "Sales",
            "members": [
                {"value": "a", "display": "a@x.y", "$ref": "https://x/Users/a", "type": "User"},
                {"value": "b"}, {"VALUE": "c"}, {"value": 1}, {"value": "g", "type": "Group"},
                {"display": "nobody"}, {"value": "h", "colour": "red"}, "d",
            ],
            "Operations": [{"op": "replace", "path": "displayName", "value": "Sales"}],
        });
        let mut read = parse_body(body.to_string().as_bytes(), &Limits::DEFAULT).unwrap();
        let members = read["members"].take();
        assert_eq!(members[0], "a");
        assert_eq!(members[1], "b");
        for at in 2..8 {
            assert_eq!(members[at], body["members"][at], "{at}");
        }
        assert_eq!(read["Operations"], body["Operations"]);
    }

    #[test]
    fn a_filter_names_members_without_knowing_them() {
        let set = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<BTreeSet<_>>();
        let removed = |filter: &str| {
            let path = format!("members[{filter}]");
            delta(json!([
                {"op": "add", "path": "members", "value": ["new"]},
                {"op": "remove", "path": path},
            ]))
            .unwrap()
            .members
        };
        let everybody = MembersDelta::full(BTreeSet::new());
        for filter in
            ["type eq \"User\"", "value pr", "$ref pr", "value ne null", "not (type ne \"user\")"]
        {
            assert_eq!(removed(filter), everybody, "{filter}");
        }
        for filter in [
            "value ne \"a\"",
            "not (value eq \"a\")",
            "type eq \"User\" and not ($ref eq \"https://x/Users/a\")",
        ] {
            let but_one = MembersDelta::Full { all: set(&[]), retained: set(&["a"]) };
            assert_eq!(removed(filter), but_one, "{filter}");
        }
        let but_new = MembersDelta::Full { all: set(&["new"]), retained: set(&["new"]) };
        assert_eq!(removed("value ne \"new\""), but_new);
        for filter in ["value eq \"a\" and type eq \"User\"", "$ref eq \"https://x/Users/a\""] {
            let changes = [("a".into(), Change::Remove), ("new".into(), Change::Add)];
            assert_eq!(removed(filter), MembersDelta::Changes(changes.into()), "{filter}");
        }
        let nobody = MembersDelta::Changes([("new".into(), Change::Add)].into());
        for filter in ["type eq \"Group\"", "value eq \"a\" and value eq \"b\"", "value eq null"] {
            assert_eq!(removed(filter), nobody, "{filter}");
        }
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
        let full = MembersDelta::full(["b", "c"].map(String::from).into());
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
