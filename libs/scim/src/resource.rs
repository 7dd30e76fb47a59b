//! Reading what a client sent of a resource, into canonical form.

use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use base64::{Engine as _, alphabet};
use serde_json::Value;

use crate::schema::{Attribute, Mutability, ResourceType, Schema, Type};
use crate::{Error, Object, ScimType, caseless};

/// The longest string, in characters.
pub const LONGEST_STRING: usize = 1_024;
/// The longest photo or certificate, in bytes.
pub const LONGEST_BINARY: usize = 64 * 1_024;
/// The most values of a multi-valued attribute other than `members`, which are not read here.
pub const MOST_VALUES: usize = 1_000;

/// Reads the body of a POST or PUT.
///
/// What no schema declares, what is read-only and `password` are dropped (RFC 7644 §3.3, §3.5.1);
/// null, `[]` and empty objects are unassigned (RFC 7643 §2.5). A missing `userName` is left to
/// the caller, who may have an e-mail address for it, and `members` to `take_members`.
pub fn read(body: Value, resource_type: &'static ResourceType) -> Result<Object, Error> {
    let body = object(body)?;
    check_schemas(&body, resource_type)?;
    let mut document = Object::new();
    for (key, value) in body {
        if let Some(extension) = resource_type.extension(&key) {
            if let Some(object) = read_extension(extension, value)? {
                document.insert(extension.id.to_owned(), object.into());
            }
        } else if let Some(attribute) = resource_type.attribute(&key)
            && attribute.name == "members"
        {
            document.insert(attribute.name.to_owned(), value);
        } else if let Some(attribute) = resource_type.attribute(&key)
            && is_written(attribute)
            && let Some(value) = normalise(attribute, value, attribute.name)?
        {
            document.insert(attribute.name.to_owned(), value);
        }
    }
    for attribute in resource_type.schema.attributes {
        if attribute.required
            && attribute.name != "userName"
            && !document.contains_key(attribute.name)
        {
            return Err(invalid(format!(
                "{} is missing; every {} has one",
                attribute.name, resource_type.name
            )));
        }
    }
    Ok(document)
}

/// The body as an object.
pub fn object(body: Value) -> Result<Object, Error> {
    match body {
        Value::Object(object) => Ok(object),
        other => Err(Error::of(
            ScimType::InvalidSyntax,
            format!("the body is {}; expected a JSON object", kind_of(&other)),
        )),
    }
}

/// Whether what a client sends of an attribute is kept at all.
pub(crate) fn is_written(attribute: &Attribute) -> bool {
    attribute.name != "schemas"
        && matches!(attribute.mutability, Mutability::ReadWrite | Mutability::Immutable)
}

/// Brings one attribute's value into canonical form; none where that is unassigned. `at` names the
/// attribute in errors.
///
/// Tolerated: one value where an array is meant, a bare string where a complex value has a
/// `value`, `"True"` and `"False"` for booleans, several addresses in one string of `approvers`.
pub fn normalise(
    attribute: &'static Attribute,
    value: Value,
    at: &str,
) -> Result<Option<Value>, Error> {
    if !attribute.multi_valued {
        return single(attribute, value, at);
    }
    let values = match value {
        Value::Null => return Ok(None),
        Value::Array(values) => values,
        value => vec![value],
    };
    if values.len() > MOST_VALUES {
        return Err(invalid(format!("{at} has {} values; at most {MOST_VALUES}", values.len())));
    }
    let values = if attribute.name == "approvers" { split_at_commas(values) } else { values };
    let mut normalised = Vec::with_capacity(values.len());
    for (index, value) in values.into_iter().enumerate() {
        let declared =
            |parts: &Object| parts.keys().any(|name| attribute.sub_attribute(name).is_some());
        if attribute.kind == Type::Complex && value.as_object().is_some_and(|v| !declared(v)) {
            return Err(invalid(format!(
                "{at}[{index}] has no attribute that the schema declares"
            )));
        }
        if let Some(value) = single(attribute, value, &format!("{at}[{index}]"))? {
            normalised.push(value);
        }
    }
    if normalised.iter().filter(|value| value["primary"] == Value::Bool(true)).count() > 1 {
        return Err(invalid(format!("{at} marks several values as primary; mark at most one")));
    }
    Ok((!normalised.is_empty()).then_some(Value::Array(normalised)))
}

fn single(attribute: &'static Attribute, value: Value, at: &str) -> Result<Option<Value>, Error> {
    let wrong = |expected: &str, value: &Value| {
        Err(invalid(format!("{at} is {}; expected {expected}", kind_of(value))))
    };
    match (attribute.kind, value) {
        (_, Value::Null) => Ok(None),
        (Type::Complex, Value::Object(object)) => {
            let object = parts(attribute.sub_attributes, object, at)?;
            Ok((!object.is_empty()).then_some(Value::Object(object)))
        }
        (Type::Complex, Value::String(text)) => match attribute.sub_attribute("value") {
            Some(value) => {
                let value = single(value, text.into(), at)?;
                Ok(value.map(|value| Object::from_iter([("value".to_owned(), value)]).into()))
            }
            None => wrong("an object", &Value::String(text)),
        },
        (Type::Complex, value) => wrong("an object", &value),
        (Type::Boolean, Value::Bool(value)) => Ok(Some(value.into())),
        (Type::Boolean, Value::String(text)) if text.eq_ignore_ascii_case("true") => {
            Ok(Some(true.into()))
        }
        (Type::Boolean, Value::String(text)) if text.eq_ignore_ascii_case("false") => {
            Ok(Some(false.into()))
        }
        (Type::Boolean, value) => wrong("true or false", &value),
        (Type::Integer, Value::Number(number)) if !number.is_f64() => Ok(Some(number.into())),
        (Type::Integer, value) => wrong("a whole number", &value),
        (Type::Decimal, Value::Number(number)) => Ok(Some(number.into())),
        (Type::Decimal, value) => wrong("a number", &value),
        (Type::DateTime, Value::String(text)) => {
            if date_time(&text).is_none() {
                return Err(invalid(format!(
                    "{at} is no date and time; expected one such as 2026-01-31T08:30:00Z"
                )));
            }
            Ok(Some(text.into()))
        }
        (Type::DateTime, value) => wrong("a date and time as a string", &value),
        (Type::String | Type::Reference | Type::Binary, Value::String(text)) => {
            check_text(attribute, &text, at)?;
            Ok(Some(text.into()))
        }
        (Type::String | Type::Reference | Type::Binary, value) => wrong("a string", &value),
    }
}

fn parts(sub_attributes: &'static [Attribute], object: Object, at: &str) -> Result<Object, Error> {
    let mut normalised = Object::new();
    for (key, value) in object {
        if let Some(attribute) = sub_attributes.iter().find(|a| a.name.eq_ignore_ascii_case(&key))
            // `$ref` follows from `value`; the server says what it is.
            && is_written(attribute) && attribute.name != "$ref"
            && let Some(value) = normalise(attribute, value, &format!("{at}.{}", attribute.name))?
        {
            normalised.insert(attribute.name.to_owned(), value);
        }
    }
    Ok(normalised)
}

fn read_extension(extension: &'static Schema, value: Value) -> Result<Option<Object>, Error> {
    match value {
        Value::Null => Ok(None),
        Value::Object(object) => {
            let mut normalised = Object::new();
            for (key, value) in object {
                if let Some(attribute) = extension.attribute(&key)
                    && let Some(value) = normalise(
                        attribute,
                        value,
                        &format!("{}:{}", extension.id, attribute.name),
                    )?
                {
                    normalised.insert(attribute.name.to_owned(), value);
                }
            }
            Ok((!normalised.is_empty()).then_some(normalised))
        }
        value => {
            Err(invalid(format!("{} is {}; expected an object", extension.id, kind_of(&value))))
        }
    }
}

fn check_schemas(body: &Object, resource_type: &ResourceType) -> Result<(), Error> {
    let Some((_, schemas)) = body.iter().find(|(key, _)| key.eq_ignore_ascii_case("schemas"))
    else {
        return Ok(());
    };
    let wrong = |what: &str| {
        Err(invalid(format!(
            "schemas {what}; expected an array that holds \"{}\"",
            resource_type.schema.id
        )))
    };
    let Value::Array(urns) = schemas else { return wrong(&format!("is {}", kind_of(schemas))) };
    if !urns.iter().all(Value::is_string) {
        return wrong("holds something that is no string");
    }
    let names =
        |urn: &str| urns.iter().filter_map(Value::as_str).any(|u| u.eq_ignore_ascii_case(urn));
    let extension_only = resource_type.extensions.iter().any(|extension| names(extension.id));
    // Some clients name their extension and forget the core.
    if urns.is_empty() || names(resource_type.schema.id) || extension_only {
        Ok(())
    } else {
        wrong("does not name the schema of the resource")
    }
}

fn check_text(attribute: &Attribute, text: &str, at: &str) -> Result<(), Error> {
    let long = attribute.kind == Type::Binary || at.starts_with("photos");
    if long && text.len() > LONGEST_BINARY {
        return Err(invalid(format!("{at} is longer than {LONGEST_BINARY} bytes")));
    }
    if !long && text.chars().count() > LONGEST_STRING {
        return Err(invalid(format!("{at} is longer than {LONGEST_STRING} characters")));
    }
    if attribute.kind == Type::Binary && !is_base64(text) {
        return Err(invalid(format!("{at} is not Base64 (RFC 4648 §4), as binary values are")));
    }
    let lines = matches!(attribute.name, "formatted" | "streetAddress");
    let allowed = |c: char| c == '\t' || (lines && matches!(c, '\n' | '\r'));
    if text.chars().any(|c| c < ' ' && !allowed(c)) {
        return Err(invalid(format!("{at} holds control characters; expected one line of text")));
    }
    Ok(())
}

/// Whether a text is Base64, with or without padding.
fn is_base64(text: &str) -> bool {
    let config = GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent);
    GeneralPurpose::new(&alphabet::STANDARD, config).decode(text).is_ok()
}

/// Each string of `approvers` may hold several addresses; the first of equals stays.
fn split_at_commas(values: Vec<Value>) -> Vec<Value> {
    let mut seen = std::collections::BTreeSet::new();
    let mut split = Vec::with_capacity(values.len());
    for value in values {
        let Value::String(text) = value else {
            split.push(value);
            continue;
        };
        for address in text.split(',').map(str::trim).filter(|address| !address.is_empty()) {
            if seen.insert(caseless::key(address)) {
                split.push(address.into());
            }
        }
    }
    split
}

/// Reads a date and time (RFC 7643 §2.3.5).
pub(crate) fn date_time(text: &str) -> Option<time::OffsetDateTime> {
    use time::format_description::well_known::Rfc3339;
    time::OffsetDateTime::parse(text, &Rfc3339).ok()
}

/// What kind of JSON value it is, for errors: never the value, which may be a secret.
pub(crate) fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

fn invalid(detail: String) -> Error {
    Error::of(ScimType::InvalidValue, detail)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::schema::{GROUP_TYPE, USER_TYPE};

    const MUSTER: &str = "urn:learnerbly:params:scim:schemas:2.0:User";
    const ENTERPRISE: &str = "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User";

    fn user(body: Value) -> Result<Value, Error> {
        read(body, &USER_TYPE).map(Value::Object)
    }

    #[test]
    fn a_user_is_read_as_the_schema_spells_it() {
        let body = json!({
            "SCHEMAS": [USER_TYPE.schema.id], "username": "ann", "NAME": {"GivenName": "Ann"},
            "emails": [{"Value": "a@b.c", "TYPE": "work", "primary": "True"}],
            (MUSTER.to_uppercase()): {"contentregion": "gb"},
        });
        assert_eq!(
            user(body).unwrap(),
            json!({
                "userName": "ann", "name": {"givenName": "Ann"},
                "emails": [{"value": "a@b.c", "type": "work", "primary": true}],
                MUSTER: {"contentRegion": "gb"},
            })
        );
    }

    #[test]
    fn what_is_read_only_undeclared_secret_or_empty_is_dropped() {
        let body = json!({
            "userName": "ann", "id": "x", "meta": 7, "groups": [{"value": "g"}], "shoeSize": 44,
            "password": {"any": "form"}, "title": null, "emails": [], "name": {"formatted": null},
            ENTERPRISE: {"manager": {"displayName": "Bo"}}, "urn:other": {"a": 1},
        });
        assert_eq!(user(body).unwrap(), json!({"userName": "ann"}));
    }

    #[test]
    fn approvers_may_be_an_array_a_string_or_a_string_with_commas() {
        for sent in
            [json!(["a@x.y", "b@x.y"]), json!("a@x.y, b@x.y"), json!(["a@x.y,b@x.y", "A@x.y", ""])]
        {
            let read = user(json!({"userName": "ann", MUSTER: {"approvers": sent}})).unwrap();
            assert_eq!(read[MUSTER]["approvers"], json!(["a@x.y", "b@x.y"]));
        }
    }

    #[test]
    fn a_manager_may_be_a_bare_id() {
        let read = user(json!({"userName": "ann", ENTERPRISE: {"manager": "42"}})).unwrap();
        assert_eq!(read[ENTERPRISE]["manager"], json!({"value": "42"}));
    }

    #[test]
    fn a_value_of_another_type_is_refused_by_name() {
        for (body, name) in [
            (json!({"userName": 1}), "userName"),
            (json!({"userName": "a", "active": "yes"}), "active"),
            (json!({"userName": "a", "name": "Ann"}), "name"),
            (json!({"userName": "a", "emails": [1]}), "emails[0]"),
            (json!({"userName": "a", "emails": [{"address": "a@b.c"}]}), "emails[0]"),
            (json!({"userName": "a", "active": []}), "active"),
            (
                json!({"userName": "a", "x509Certificates": [{"value": "***"}]}),
                "x509Certificates[0].value",
            ),
            (json!({"userName": "a", "emails": [{"value": true}]}), "emails[0].value"),
            (json!({"userName": "a", "title": "x\u{7}"}), "title"),
            (json!({"userName": "a".repeat(1025)}), "userName"),
            (json!({"userName": "a", MUSTER: []}), MUSTER),
            (
                json!({"userName": "a", "emails": [
                {"value": "a", "primary": true}, {"value": "b", "primary": true}]}),
                "emails",
            ),
        ] {
            let error = user(body).unwrap_err();
            assert_eq!(error.scim_type, Some(ScimType::InvalidValue));
            assert!(error.detail.starts_with(name), "{}", error.detail);
        }
    }

    #[test]
    fn schemas_must_name_the_resource_where_they_are_there() {
        assert!(user(json!({"schemas": [MUSTER], "userName": "a"})).is_ok());
        for schemas in [json!("x"), json!([1]), json!([GROUP_TYPE.schema.id])] {
            assert!(user(json!({"schemas": schemas, "userName": "a"})).is_err(), "{schemas}");
        }
    }

    #[test]
    fn a_group_has_a_name() {
        assert!(read(json!({"members": []}), &GROUP_TYPE).is_err());
        assert!(read(json!([]), &GROUP_TYPE).is_err());
        let group = read(json!({"displayName": "g", "members": ["u"]}), &GROUP_TYPE).unwrap();
        assert_eq!(Value::Object(group), json!({"displayName": "g", "members": ["u"]}));
    }
}
