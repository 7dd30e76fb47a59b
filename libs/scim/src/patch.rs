//! PATCH (RFC 7644 §3.5.2): operations on a document, all of them or none.

mod target;

use std::collections::BTreeMap;

use serde_json::Value;

use crate::filter::{Filter, Operand, Operator, matches_value};
use crate::path::{AttributePath, PatchPath};
use crate::resource::{MOST_VALUES, is_written, kind_of, normalise, object};
use crate::schema::{Attribute, Mutability, ResourceType, Schema, Type};
use crate::{Error, Limits, Object, ScimType};

/// The most comparisons with values that the operations of one request may make together.
const MOST_COMPARISONS: usize = 200_000;

/// The schema of a PATCH body.
pub const SCHEMA: &str = "urn:ietf:params:scim:api:messages:2.0:PatchOp";

/// What an operation does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Adds values, or sets what is not there (§3.5.2.1).
    Add,
    /// Sets values in place of those that are there (§3.5.2.3).
    Replace,
    /// Unassigns (§3.5.2.2).
    Remove,
}

/// One operation as it was sent.
#[derive(Debug, Clone, PartialEq)]
pub struct Operation {
    /// What it does.
    pub kind: Kind,
    /// What it is about; none for the resource itself.
    pub path: Option<String>,
    /// The value.
    pub value: Option<Value>,
}

/// Reads a PATCH body. Names of members and operations may be in any letter case (Entra ID sends
/// `Add`).
pub fn parse(body: Value, limits: &Limits) -> Result<Vec<Operation>, Error> {
    let syntax = |detail: String| Error::of(ScimType::InvalidSyntax, detail);
    let mut operations = None;
    for (key, value) in object(body)? {
        if key.eq_ignore_ascii_case("schemas") {
            let named = value.as_array().is_some_and(|urns| {
                urns.iter().filter_map(Value::as_str).any(|urn| urn.eq_ignore_ascii_case(SCHEMA))
            });
            if !named {
                return Err(syntax(format!("schemas does not name {SCHEMA:?}, as a PATCH does")));
            }
        } else if key.eq_ignore_ascii_case("Operations") {
            operations = Some(value);
        }
    }
    let operations = match operations {
        Some(Value::Array(operations)) if !operations.is_empty() => operations,
        Some(Value::Array(_)) => {
            return Err(syntax("Operations is empty; expected at least one".into()));
        }
        Some(other) => {
            return Err(syntax(format!("Operations is {}; expected an array", kind_of(&other))));
        }
        None => {
            return Err(syntax("Operations is missing; expected an array of operations".into()));
        }
    };
    let most = limits.patch_operations;
    if operations.len() > most {
        return Err(Error::new(
            413,
            format!("Operations has {} operations; at most {most}", operations.len()),
        ));
    }
    operations.into_iter().enumerate().map(|(index, value)| operation(index, value)).collect()
}

fn operation(index: usize, value: Value) -> Result<Operation, Error> {
    let syntax =
        |what: String| Error::of(ScimType::InvalidSyntax, format!("Operations[{index}] {what}"));
    let Value::Object(members) = value else {
        return Err(syntax(format!("is {}; expected an object", kind_of(&value))));
    };
    let (mut kind, mut path, mut operand) = (None, None, None);
    for (key, value) in members {
        if key.eq_ignore_ascii_case("op") {
            kind = match value.as_str().map(str::to_ascii_lowercase).as_deref() {
                Some("add") => Some(Kind::Add),
                Some("replace") => Some(Kind::Replace),
                Some("remove") => Some(Kind::Remove),
                _ => {
                    return Err(syntax("has an op that is none of add, replace and remove".into()));
                }
            };
        } else if key.eq_ignore_ascii_case("path") {
            path = match value {
                Value::Null => None,
                Value::String(text) => Some(text),
                other => return Err(syntax(format!("has a path that is {}", kind_of(&other)))),
            };
        } else if key.eq_ignore_ascii_case("value") {
            operand = Some(value);
        }
    }
    let kind = kind.ok_or_else(|| syntax("has no op; expected add, replace or remove".into()))?;
    if kind != Kind::Remove && operand.is_none() {
        return Err(Error::of(
            ScimType::InvalidValue,
            format!("Operations[{index}] has no value, which add and replace need"),
        ));
    }
    Ok(Operation { kind, path, value: operand })
}

/// Applies operations in order to a document in canonical form. On an error the document is as it
/// was.
pub fn apply(
    document: &mut Object,
    operations: Vec<Operation>,
    resource_type: &'static ResourceType,
    limits: &Limits,
) -> Result<(), Error> {
    let mut patch = Patch::new(document.clone(), resource_type, limits);
    for operation in operations {
        patch.apply(operation)?;
    }
    *document = patch.document;
    Ok(())
}

/// What operations do, whatever the document is that they are applied to.
#[derive(Debug, PartialEq)]
pub struct Assignments {
    /// The single values that they set or unassign.
    pub targets: Vec<AttributePath>,
    /// A document of those that they set.
    pub document: Object,
}

/// What operations assign, where they do nothing but assign single values; none where what comes of
/// them depends on the document, or one is refused.
#[must_use]
pub fn assignments(
    operations: &[Operation],
    resource_type: &'static ResourceType,
    limits: &Limits,
) -> Option<Assignments> {
    let mut patch = Patch::new(Object::new(), resource_type, limits);
    patch.assigned = Some(Vec::new());
    for operation in operations {
        patch.apply(operation.clone()).ok()?;
        patch.assigned.as_ref()?;
    }
    let targets = patch.assigned.filter(|targets| !targets.is_empty())?;
    Some(Assignments { targets, document: patch.document })
}

/// A PATCH under way.
struct Patch {
    document: Object,
    resource_type: &'static ResourceType,
    /// How many comparisons with values there have been.
    comparisons: usize,
    limits: Limits,
    /// The single values that have been set or unassigned; none from when anything else has been, or
    /// where nobody asks.
    assigned: Option<Vec<AttributePath>>,
}

impl Patch {
    fn new(document: Object, resource_type: &'static ResourceType, limits: &Limits) -> Self {
        Self { document, resource_type, comparisons: 0, limits: *limits, assigned: None }
    }

    fn apply(&mut self, operation: Operation) -> Result<(), Error> {
        let Operation { kind, path, value } = operation;
        let value = value.unwrap_or(Value::Null);
        let Some(path) = path else {
            return match (kind, value) {
                (Kind::Remove, _) => Err(Error::of(
                    ScimType::NoTarget,
                    "a remove without a path names nothing; send the path of what to remove",
                )),
                (_, Value::Object(values)) => self.set_each(kind, values),
                (_, other) => Err(Error::of(
                    ScimType::InvalidValue,
                    format!(
                        "a {} without a path has {} as its value; expected an object of attributes",
                        name_of(kind),
                        kind_of(&other)
                    ),
                )),
            };
        };
        let (path, filter) = match PatchPath::parse(&path, self.resource_type, &self.limits)? {
            PatchPath::Extension(extension) => {
                let value = if kind == Kind::Remove { Value::Null } else { value };
                return self.set_extension(kind, extension, value);
            }
            PatchPath::Attribute(path) => (path, None),
            PatchPath::Values { path, filter } => (path, Some(filter)),
        };
        if path.attribute.name == "password" {
            return Ok(());
        }
        if !is_written(path.attribute) || path.target().mutability == Mutability::ReadOnly {
            return Err(Error::of(
                ScimType::Mutability,
                format!("{path} is read-only: the service says what it is"),
            ));
        }
        if kind == Kind::Remove && path.attribute.required && path.sub_attribute.is_none() {
            return Err(Error::of(
                ScimType::Mutability,
                format!("{path} cannot be removed: every {} has one", self.resource_type.name),
            ));
        }
        self.set(kind, &path, filter.as_ref(), value)
    }

    /// A value without a path: its keys are attribute names, paths or the URNs of extensions. What is
    /// read-only or declared by no schema is ignored there.
    fn set_each(&mut self, kind: Kind, values: Object) -> Result<(), Error> {
        for (key, value) in values {
            if let Some(extension) = self.resource_type.extension(&key) {
                self.set_extension(kind, extension, value)?;
            } else if let Ok(path) = PatchPath::parse(&key, self.resource_type, &self.limits)
                && let Some((path, filter)) = path.of_attribute()
                && is_written(path.attribute)
                && path.target().mutability != Mutability::ReadOnly
            {
                self.set(kind, &path, filter.as_ref(), value)?;
            }
        }
        Ok(())
    }

    fn set_extension(
        &mut self,
        kind: Kind,
        extension: &'static Schema,
        value: Value,
    ) -> Result<(), Error> {
        match value {
            Value::Null => {
                self.assigned = None;
                self.document.remove(extension.id);
                Ok(())
            }
            Value::Object(values) => {
                for (key, value) in values {
                    if let Some(attribute) = extension.attribute(&key)
                        && is_written(attribute)
                    {
                        let path = AttributePath {
                            extension: Some(extension),
                            attribute,
                            sub_attribute: None,
                        };
                        self.set(kind, &path, None, value)?;
                    }
                }
                Ok(())
            }
            other => Err(Error::of(
                ScimType::InvalidValue,
                format!("{} is {}; expected an object", extension.id, kind_of(&other)),
            )),
        }
    }

    fn set(
        &mut self,
        kind: Kind,
        path: &AttributePath,
        filter: Option<&Filter>,
        value: Value,
    ) -> Result<(), Error> {
        let attribute = path.attribute;
        if attribute.multi_valued || path.target().kind == Type::Complex {
            self.assigned = None;
        } else if let Some(assigned) = &mut self.assigned {
            assigned.push(*path);
        }
        let current = target::take(&mut self.document, path.extension, attribute);
        let new = match (attribute.multi_valued, path.sub_attribute) {
            (true, _) => {
                let values = match current {
                    Some(Value::Array(values)) => values,
                    _ => Vec::new(),
                };
                self.compared(values.len(), filter)?;
                let values = set_values(values, kind, path, filter, value)?;
                if values.len() > MOST_VALUES {
                    return Err(Error::of(
                        ScimType::InvalidValue,
                        format!("{path} would have {} values; at most {MOST_VALUES}", values.len()),
                    ));
                }
                (!values.is_empty()).then_some(Value::Array(values))
            }
            (false, Some(part)) => {
                let mut whole = match current {
                    Some(Value::Object(whole)) => whole,
                    _ => Object::new(),
                };
                set_part(&mut whole, kind, part, value, &path.to_string())?;
                (!whole.is_empty()).then_some(Value::Object(whole))
            }
            (false, None) if kind == Kind::Remove => None,
            (false, None) => match value {
                Value::Object(parts) if attribute.kind == Type::Complex => {
                    set_parts(current, kind, parts, path)?
                }
                value => normalise(attribute, value, &path.to_string())?,
            },
        };
        let empty = |new: &Value| new.as_str().is_some_and(|text| text.trim().is_empty());
        if attribute.required && kind != Kind::Remove && new.as_ref().is_none_or(empty) {
            return Err(Error::of(
                ScimType::InvalidValue,
                format!("{path} would have no value; every resource has one"),
            ));
        }
        if let Some(new) = new {
            target::put(&mut self.document, path.extension, attribute, new);
        }
        Ok(())
    }

    /// Counts what an operation is about to compare: many operations, each with a long filter on
    /// many values, would multiply.
    fn compared(&mut self, values: usize, filter: Option<&Filter>) -> Result<(), Error> {
        self.comparisons += values * filter.map_or(1, Filter::comparisons);
        if self.comparisons > MOST_COMPARISONS {
            return Err(Error::new(
                413,
                format!(
                    "the operations make more than {MOST_COMPARISONS} comparisons with values; \
                     send fewer at once"
                ),
            ));
        }
        Ok(())
    }
}

/// A complex value whose parts are set: those that are not named stay (§3.5.2.3), one that is null
/// is unassigned.
fn set_parts(
    current: Option<Value>,
    kind: Kind,
    parts: Object,
    path: &AttributePath,
) -> Result<Option<Value>, Error> {
    let mut whole = match current {
        Some(Value::Object(whole)) => whole,
        _ => Object::new(),
    };
    for (key, value) in parts {
        if let Some(part) = path.attribute.sub_attribute(&key)
            && is_written(part)
            // It follows from `value`; the server says what it is.
            && part.name != "$ref"
        {
            set_part(&mut whole, kind, part, value, &format!("{path}.{}", part.name))?;
        }
    }
    Ok((!whole.is_empty()).then_some(Value::Object(whole)))
}

fn set_part(
    whole: &mut Object,
    kind: Kind,
    part: &'static Attribute,
    value: Value,
    at: &str,
) -> Result<(), Error> {
    let value = if kind == Kind::Remove { None } else { normalise(part, value, at)? };
    match value {
        Some(value) => whole.insert(part.name.to_owned(), value),
        None => whole.remove(part.name),
    };
    Ok(())
}

/// Operations on a multi-valued attribute.
fn set_values(
    values: Vec<Value>,
    kind: Kind,
    path: &AttributePath,
    filter: Option<&Filter>,
    value: Value,
) -> Result<Vec<Value>, Error> {
    let at = path.to_string();
    let meets = |value: &Value| filter.is_none_or(|filter| matches_value(filter, value));
    match (kind, path.sub_attribute) {
        (Kind::Remove, None) => {
            // No list at all names every value; an empty one names none.
            let named = match value {
                Value::Null => None,
                value => match normalise(path.attribute, value, &at)? {
                    Some(Value::Array(named)) => Some(named),
                    _ => Some(Vec::new()),
                },
            };
            let goes = |value: &Value| {
                meets(value)
                    && named.as_ref().is_none_or(|named| named.iter().any(|n| same(n, value)))
            };
            Ok(values.into_iter().filter(|value| !goes(value)).collect())
        }
        (_, Some(part)) => {
            let (mut values, mut changed) = (values, Vec::new());
            for (index, element) in values.iter_mut().enumerate() {
                if let Value::Object(whole) = element
                    && matches_in(filter, whole)
                {
                    set_part(whole, kind, part, value.clone(), &at)?;
                    changed.push(index);
                }
            }
            if changed.is_empty() && kind != Kind::Remove {
                // What is to be replaced must be there (§3.5.2.3), but for an address: Entra ID
                // replaces `emails[type eq "work"].value` of users who have none.
                if kind == Kind::Replace && filter.is_some() && path.attribute.name != "emails" {
                    return Err(no_target(&at));
                }
                let mut whole = described(filter, &at)?;
                set_part(&mut whole, kind, part, value, &at)?;
                // One that was to be unassigned is not there already.
                if whole.contains_key(part.name) {
                    changed.push(values.len());
                    values.push(Value::Object(whole));
                }
            }
            let mut values = one_primary(values, &changed, &at)?;
            values.retain(|value| value.as_object().is_none_or(|whole| !whole.is_empty()));
            Ok(values)
        }
        (Kind::Add | Kind::Replace, None) => {
            let new = match normalise(path.attribute, value, &at)? {
                Some(Value::Array(new)) => new,
                _ => Vec::new(),
            };
            match filter {
                None if kind == Kind::Replace => Ok(new),
                None => add_values(values, new, path.attribute, &at),
                Some(filter) => set_matching(values, kind, filter, new, &at),
            }
        }
    }
}

/// Adds values. One that is there already, by its value and type, takes what else is said of it
/// (§3.5.2.1: adding a value that is there changes nothing).
fn add_values(
    mut values: Vec<Value>,
    new: Vec<Value>,
    attribute: &Attribute,
    at: &str,
) -> Result<Vec<Value>, Error> {
    let mut places: BTreeMap<String, usize> = BTreeMap::new();
    for (place, value) in values.iter().enumerate() {
        places.entry(identity_of(value, attribute)).or_insert(place);
    }
    let mut changed = Vec::new();
    for value in new {
        let place = *places.entry(identity_of(&value, attribute)).or_insert(values.len());
        match (values.get_mut(place), value) {
            (Some(Value::Object(whole)), Value::Object(parts)) => whole.extend(parts),
            (Some(_), _) => continue,
            (None, value) => values.push(value),
        }
        if !changed.contains(&place) {
            changed.push(place);
        }
    }
    one_primary(values, &changed, at)
}

/// `emails[type eq "work"]` set as a whole.
fn set_matching(
    values: Vec<Value>,
    kind: Kind,
    filter: &Filter,
    new: Vec<Value>,
    at: &str,
) -> Result<Vec<Value>, Error> {
    let Some(new) = new.into_iter().next() else {
        return Ok(values.into_iter().filter(|value| !matches_value(filter, value)).collect());
    };
    let (mut values, mut changed) = (values, Vec::new());
    for (index, element) in values.iter_mut().enumerate() {
        if matches_value(filter, element) {
            match (kind, element, &new) {
                (Kind::Add, Value::Object(whole), Value::Object(parts)) => {
                    whole.extend(parts.clone());
                }
                (_, element, new) => *element = new.clone(),
            }
            changed.push(index);
        }
    }
    if changed.is_empty() {
        // What is to be replaced must be there (§3.5.2.3).
        if kind == Kind::Replace {
            return Err(no_target(at));
        }
        let mut whole = described(Some(filter), at)?;
        if let Value::Object(parts) = new {
            whole.extend(parts);
        }
        changed.push(values.len());
        values.push(Value::Object(whole));
    }
    one_primary(values, &changed, at)
}

fn matches_in(filter: Option<&Filter>, whole: &Object) -> bool {
    filter.is_none_or(|filter| crate::filter::matches(filter, whole))
}

/// The value that a filter describes where none meets it: `emails[type eq "work"]` is a work
/// address (Entra ID sets one so that is not there). A filter that describes none, or that asks for
/// one by its `value`, is `noTarget`.
fn described(filter: Option<&Filter>, at: &str) -> Result<Object, Error> {
    fn collect(filter: &Filter, whole: &mut Object) -> bool {
        match filter {
            Filter::And(filters) => filters.iter().all(|filter| collect(filter, whole)),
            Filter::Compare { path, operator: Operator::Equal, operand } => {
                let value: Value = match operand {
                    Operand::String(text) => text.as_str().into(),
                    Operand::Boolean(value) => (*value).into(),
                    _ => return false,
                };
                let name = path.attribute.name;
                name != "value" && whole.insert(name.to_owned(), value).is_none()
            }
            _ => false,
        }
    }
    let mut whole = Object::new();
    match filter {
        Some(filter) if !collect(filter, &mut whole) => Err(no_target(at)),
        _ => Ok(whole),
    }
}

fn no_target(at: &str) -> Error {
    let what = format!("no value of {at} meets the filter in the path; add the value instead");
    Error::of(ScimType::NoTarget, what)
}

/// A value that is made primary takes it from the others (§3.5.2).
fn one_primary(mut values: Vec<Value>, changed: &[usize], at: &str) -> Result<Vec<Value>, Error> {
    let is_primary = |value: &Value| value["primary"] == Value::Bool(true);
    let mut made = changed.iter().filter(|index| values.get(**index).is_some_and(is_primary));
    let Some(&primary) = made.next() else { return Ok(values) };
    if made.next().is_some() {
        return Err(Error::of(
            ScimType::InvalidValue,
            format!("several values of {at} would be primary; make at most one"),
        ));
    }
    for (index, value) in values.iter_mut().enumerate() {
        if index != primary && is_primary(value) {
            value["primary"] = Value::Bool(false);
        }
    }
    Ok(values)
}

/// Whether a value that a `remove` names is this one: by its `value` where it has one.
fn same(named: &Value, value: &Value) -> bool {
    match (named, value) {
        (Value::String(a), Value::String(b)) => crate::caseless::eq(a, b),
        _ => match named.get("value") {
            Some(named) => value.get("value").is_some_and(|value| same(named, value)),
            None => named == value,
        },
    }
}

/// What values are told apart by: their value and type, without regard to case where the schema
/// disregards it.
fn identity_of(value: &Value, attribute: &Attribute) -> String {
    let key = |text: &str, exact: bool| {
        if exact { text.to_owned() } else { crate::caseless::key(text) }
    };
    match (value, value.get("value")) {
        (Value::String(text), _) => key(text, attribute.case_exact),
        (_, Some(Value::String(text))) => {
            let exact = attribute.sub_attribute("value").is_some_and(|part| part.case_exact);
            let kind = value.get("type").and_then(Value::as_str).map(crate::caseless::key);
            format!("{} {:?}", key(text, exact), kind)
        }
        _ => value.to_string(),
    }
}

fn name_of(kind: Kind) -> &'static str {
    match kind {
        Kind::Add => "add",
        Kind::Replace => "replace",
        Kind::Remove => "remove",
    }
}

#[cfg(test)]
mod tests;
