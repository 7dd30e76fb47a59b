//! Where an attribute stands in a document.

use serde_json::Value;

use crate::Object;
use crate::schema::{Attribute, Schema};

/// Takes an attribute's value out.
pub(super) fn take(
    document: &mut Object,
    extension: Option<&Schema>,
    attribute: &Attribute,
) -> Option<Value> {
    let Some(extension) = extension else { return document.remove(attribute.name) };
    let part = document.get_mut(extension.id)?.as_object_mut()?;
    let value = part.remove(attribute.name);
    if part.is_empty() {
        document.remove(extension.id);
    }
    value
}

/// Puts a value in.
pub(super) fn put(
    document: &mut Object,
    extension: Option<&Schema>,
    attribute: &Attribute,
    value: Value,
) {
    match extension {
        None => {
            document.insert(attribute.name.to_owned(), value);
        }
        Some(extension) => {
            let part = document.entry(extension.id).or_insert_with(|| Value::Object(Object::new()));
            if let Value::Object(part) = part {
                part.insert(attribute.name.to_owned(), value);
            }
        }
    }
}
