//! Bulk requests (RFC 7644 §3.7): operations that may name what others create by their `bulkId`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::resource::{kind_of, object};
use crate::{Error, Object, ScimType};

/// The schema of a request.
pub const REQUEST: &str = "urn:ietf:params:scim:api:messages:2.0:BulkRequest";
/// The schema of an answer.
pub const RESPONSE: &str = "urn:ietf:params:scim:api:messages:2.0:BulkResponse";

/// What stands before a `bulkId` where it is referred to.
const REFERENCE: &str = "bulkId:";

/// A bulk request.
#[derive(Debug, Clone, PartialEq)]
pub struct Bulk {
    /// How many errors end it; none where they do not.
    pub fail_on_errors: Option<usize>,
    /// What to do.
    pub operations: Vec<Operation>,
}

/// One operation of a bulk request.
#[derive(Debug, Clone, PartialEq)]
pub struct Operation {
    /// `POST`, `PUT`, `PATCH` or `DELETE`.
    pub method: &'static str,
    /// Relative to the base URL: `/Users`, or `/Groups/…`.
    pub path: String,
    /// What others call the resource that a POST creates.
    pub bulk_id: Option<String>,
    /// The version that the resource must still have.
    pub version: Option<String>,
    /// The body.
    pub data: Option<Value>,
}

/// Reads a bulk request of at most `most` operations.
pub fn parse(body: Value, most: usize) -> Result<Bulk, Error> {
    let syntax = |detail: String| Error::of(ScimType::InvalidSyntax, detail);
    let mut members = lower_case(object(body)?);
    let named = members.get("schemas").and_then(Value::as_array).is_some_and(|urns| {
        urns.iter().filter_map(Value::as_str).any(|urn| urn.eq_ignore_ascii_case(REQUEST))
    });
    if !named {
        return Err(syntax(format!("schemas does not name {REQUEST:?}, as a bulk request does")));
    }
    let fail_on_errors = match members.remove("failonerrors") {
        None | Some(Value::Null) => None,
        Some(value) => match value.as_u64().and_then(|count| usize::try_from(count).ok()) {
            Some(count) if count > 0 => Some(count),
            _ => {
                let what = "failOnErrors is no whole number above 0";
                return Err(Error::of(ScimType::InvalidValue, what));
            }
        },
    };
    let operations = match members.remove("operations") {
        Some(Value::Array(operations)) => operations,
        Some(other) => {
            return Err(syntax(format!("Operations is {}; expected an array", kind_of(&other))));
        }
        None => return Err(syntax("Operations is missing; expected an array".into())),
    };
    if operations.len() > most {
        let count = operations.len();
        return Err(Error::new(413, format!("Operations has {count} operations; at most {most}")));
    }
    let operations: Vec<Operation> = operations
        .into_iter()
        .enumerate()
        .map(|(index, value)| operation(index, value))
        .collect::<Result<_, _>>()?;
    let mut seen = BTreeSet::new();
    for id in operations.iter().filter_map(|operation| operation.bulk_id.as_ref()) {
        if !seen.insert(id) {
            return Err(syntax(format!("the bulkId {id:?} is used twice")));
        }
    }
    Ok(Bulk { fail_on_errors, operations })
}

fn operation(index: usize, value: Value) -> Result<Operation, Error> {
    let syntax =
        |what: &str| Error::of(ScimType::InvalidSyntax, format!("Operations[{index}] {what}"));
    let Value::Object(members) = value else { return Err(syntax("is no object")) };
    let mut members = lower_case(members);
    let mut text = |name: &str| match members.remove(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(syntax(&format!("has a {name} that is no string"))),
    };
    let method = match text("method")?.map(|method| method.to_ascii_uppercase()).as_deref() {
        Some("POST") => "POST",
        Some("PUT") => "PUT",
        Some("PATCH") => "PATCH",
        Some("DELETE") => "DELETE",
        _ => return Err(syntax("has a method that is none of POST, PUT, PATCH and DELETE")),
    };
    let path = text("path")?.ok_or_else(|| syntax("has no path"))?;
    let (bulk_id, version) = (text("bulkid")?, text("version")?);
    let parts: Vec<&str> = path.split('/').collect();
    match (method, parts.as_slice()) {
        ("POST", ["", "Users" | "Groups"]) if bulk_id.is_none() => {
            return Err(syntax("is a POST without a bulkId"));
        }
        ("POST", ["", "Users" | "Groups"]) => {}
        ("POST", _) => return Err(syntax("is a POST to a path other than /Users and /Groups")),
        (_, ["", "Users" | "Groups", id]) if !id.is_empty() => {}
        _ => return Err(syntax("has a path that is none of /Users/ID and /Groups/ID")),
    }
    let data = members.remove("data").filter(|data| !data.is_null());
    if method != "DELETE" && data.is_none() {
        return Err(syntax("has no data"));
    }
    Ok(Operation { method, path, bulk_id, version, data })
}

impl Operation {
    /// The `bulkId`s that it refers to.
    #[must_use]
    pub fn references(&self) -> BTreeSet<String> {
        let mut references = BTreeSet::new();
        let mut note = |id: &str| {
            references.insert(id.to_owned());
            None
        };
        let mut copy = self.clone();
        copy.replace(&mut note);
        references
    }

    /// Puts ids in the place of references.
    pub fn resolve(&mut self, ids: &BTreeMap<String, String>) {
        self.replace(&mut |reference| ids.get(reference).cloned());
    }

    /// Takes the manager out of a user who refers to one not created yet, for a PATCH to put in
    /// later; none where that would not free it of all references.
    pub fn postpone_manager(&mut self) -> Option<Value> {
        let urn = crate::schema::ENTERPRISE_USER.id;
        if self.method != "POST" || self.path != "/Users" {
            return None;
        }
        let mut without = self.clone();
        let data = without.data.as_mut()?.as_object_mut()?;
        let (_, extension) = data.iter_mut().find(|(key, _)| key.eq_ignore_ascii_case(urn))?;
        let extension = extension.as_object_mut()?;
        let name = extension.keys().find(|key| key.eq_ignore_ascii_case("manager"))?.clone();
        let manager = extension.remove(&name)?;
        if !without.references().is_empty() {
            return None;
        }
        *self = without;
        Some(serde_json::json!({
            "schemas": [crate::patch::SCHEMA],
            "Operations": [{"op": "add", "path": format!("{urn}:manager"), "value": manager}],
        }))
    }

    fn replace(&mut self, id_of: &mut dyn FnMut(&str) -> Option<String>) {
        if let Some((before, reference)) = self.path.split_once(&format!("/{REFERENCE}")) {
            let replaced = id_of(reference).map(|id| format!("{before}/{id}"));
            if let Some(path) = replaced {
                self.path = path;
            }
        }
        if let Some(data) = &mut self.data {
            replace_in(data, id_of);
        }
    }
}

/// Replaces references where ids stand: in `value`, `manager` and `members`, and in double quotes
/// within a `path`. A title that looks like one is a title.
pub fn replace_in(value: &mut Value, id_of: &mut dyn FnMut(&str) -> Option<String>) {
    match value {
        Value::Array(values) => values.iter_mut().for_each(|value| replace_in(value, id_of)),
        Value::Object(parts) => {
            for (name, part) in parts {
                match name.to_ascii_lowercase().as_str() {
                    "value" | "manager" | "members" => replace_ids(part, id_of),
                    "path" => replace_quoted(part, id_of),
                    name if name.ends_with(":manager") => replace_ids(part, id_of),
                    _ => replace_in(part, id_of),
                }
            }
        }
        _ => {}
    }
}

fn replace_ids(value: &mut Value, id_of: &mut dyn FnMut(&str) -> Option<String>) {
    match value {
        Value::String(text) => {
            if let Some(id) = text.strip_prefix(REFERENCE).and_then(id_of) {
                *text = id;
            }
        }
        Value::Array(values) => values.iter_mut().for_each(|value| replace_ids(value, id_of)),
        other => replace_in(other, id_of),
    }
}

fn replace_quoted(path: &mut Value, id_of: &mut dyn FnMut(&str) -> Option<String>) {
    if let Value::String(text) = path
        && text.contains(&format!("\"{REFERENCE}"))
    {
        let mut parts = text.split('"').map(str::to_owned).collect::<Vec<_>>();
        for part in &mut parts {
            if let Some(id) = part.strip_prefix(REFERENCE).and_then(&mut *id_of) {
                *part = id;
            }
        }
        *text = parts.join("\"");
    }
}

fn lower_case(members: Object) -> Object {
    members.into_iter().map(|(key, value)| (key.to_ascii_lowercase(), value)).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn bulk(operations: Value) -> Result<Bulk, Error> {
        parse(json!({"schemas": [REQUEST], "Operations": operations}), 3)
    }

    #[test]
    fn references_are_found_and_resolved_in_values_and_paths() {
        let mut operation = bulk(json!([{
            "method": "patch", "path": "/Groups/bulkId:g", "data": {"Operations": [
                {"op": "add", "path": "members", "value": [{"value": "bulkId:a"}]},
                {"op": "remove", "path": "members[value eq \"bulkId:b\"]"},
            ]},
        }]))
        .unwrap()
        .operations
        .remove(0);
        assert_eq!(operation.references(), ["a", "b", "g"].map(String::from).into());
        let ids = ["a", "b", "g"].map(|id| (id.to_owned(), id.to_uppercase())).into();
        operation.resolve(&ids);
        assert!(operation.references().is_empty());
        assert_eq!(operation.path, "/Groups/G");
        let data = operation.data.unwrap();
        assert_eq!(data["Operations"][0]["value"][0]["value"], "A");
        assert_eq!(data["Operations"][1]["path"], "members[value eq \"B\"]");
    }

    #[test]
    fn a_text_that_looks_like_a_reference_is_a_text() {
        let operation = bulk(json!([{
            "method": "POST", "path": "/Users", "bulkId": "a",
            "data": {"userName": "a", "title": "bulkId:b", "emails": [{"display": "bulkId:c"}]},
        }]))
        .unwrap()
        .operations
        .remove(0);
        assert!(operation.references().is_empty());
    }

    #[test]
    fn a_manager_who_is_not_there_yet_is_put_in_later() {
        let urn = crate::schema::ENTERPRISE_USER.id;
        let mut operation = bulk(json!([{
            "method": "POST", "path": "/Users", "bulkId": "a",
            "data": {"userName": "a", urn: {"manager": {"value": "bulkId:b"}}},
        }]))
        .unwrap()
        .operations
        .remove(0);
        let patch = operation.postpone_manager().unwrap();
        assert_eq!(patch["Operations"][0]["value"]["value"], "bulkId:b");
        assert!(operation.references().is_empty());
    }

    #[test]
    fn what_is_no_bulk_request_is_refused() {
        let post = json!({"method": "POST", "path": "/Users", "bulkId": "a", "data": {}});
        for operations in [
            json!({}),
            json!([1]),
            json!([{"path": "/Users"}]),
            json!([{"method": "GET", "path": "/Users/1"}]),
            json!([{"method": "POST", "path": "/Users", "data": {}}]),
            json!([{"method": "POST", "path": "/Bulk", "bulkId": "a", "data": {}}]),
            json!([{"method": "PUT", "path": "/Users", "data": {}}]),
            json!([{"method": "PUT", "path": "/Users/1/2", "data": {}}]),
            json!([{"method": "PUT", "path": "/Users/1"}]),
            json!([post, post]),
        ] {
            let error = bulk(operations.clone()).unwrap_err();
            assert_eq!(error.scim_type, Some(ScimType::InvalidSyntax), "{operations}");
        }
        assert_eq!(bulk(json!([post, post, post, post])).unwrap_err().status, 413);
        assert!(parse(json!({"Operations": []}), 3).is_err());
        assert!(bulk(json!([])).is_ok());
    }
}
