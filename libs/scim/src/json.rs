//! A strict reader of JSON: no key twice, no value that a database would choke on.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use crate::{Error, Limits, Object, ScimType};

/// Reads a request body.
///
/// Refused are: what is no JSON, or has something after it (`invalidSyntax`); nesting deeper than
/// the limit; a key twice in one object, also in another letter case, since attribute names
/// ignore case (RFC 7643 §2.1); numbers that are out of range and NUL characters (`invalidValue`).
/// A byte order mark in front is accepted. Errors say where, and never quote a value.
pub fn parse(body: &[u8], limits: &Limits) -> Result<Value, Error> {
    parse_shortening(body, limits, |item| item)
}

/// The same, where each item of an array becomes what `shorten` makes of it as soon as it is read:
/// for arrays whose items are not to be held as they came.
pub fn parse_shortening(
    body: &[u8],
    limits: &Limits,
    shorten: fn(Value) -> Value,
) -> Result<Value, Error> {
    let syntax = |detail: String| Error::of(ScimType::InvalidSyntax, detail);
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    let text = std::str::from_utf8(body).map_err(|error| {
        syntax(format!("the body is not UTF-8 at byte {}; send JSON in UTF-8", error.valid_up_to()))
    })?;
    if text.trim().is_empty() {
        return Err(syntax("the body is empty; expected a JSON object".into()));
    }
    let (refusal, left) = (RefCell::new(None), Cell::new(limits.json_values));
    let mut deserializer = serde_json::Deserializer::from_str(text);
    Strict { depth: 0, limits, left: &left, refusal: &refusal, shorten }
        .deserialize(&mut deserializer)
        .and_then(|value| deserializer.end().map(|()| value))
        .map_err(|error| {
            let place = format!("line {} column {}", error.line(), error.column());
            match refusal.borrow_mut().take() {
                Some(Refusal { scim_type, what }) => {
                    Error::of(scim_type, format!("{what}, at {place} of the body"))
                }
                None if error.to_string().starts_with("number out of range") => Error::of(
                    ScimType::InvalidValue,
                    format!("a number is out of range, at {place} of the body"),
                ),
                None => {
                    syntax(format!("the body is not JSON: it breaks off or is wrong at {place}"))
                }
            }
        })
}

struct Refusal {
    scim_type: ScimType,
    what: String,
}

#[derive(Clone, Copy)]
struct Strict<'a> {
    depth: usize,
    limits: &'a Limits,
    /// How many more values there may be.
    left: &'a Cell<usize>,
    refusal: &'a RefCell<Option<Refusal>>,
    shorten: fn(Value) -> Value,
}

impl Strict<'_> {
    fn refuse<E: de::Error>(&self, scim_type: ScimType, what: impl Into<String>) -> E {
        *self.refusal.borrow_mut() = Some(Refusal { scim_type, what: what.into() });
        E::custom("refused")
    }

    fn deeper<E: de::Error>(self) -> Result<Self, E> {
        let deepest = self.limits.json_depth;
        if self.depth == deepest {
            let what = format!("values nest deeper than {deepest}");
            return Err(self.refuse(ScimType::InvalidSyntax, what));
        }
        Ok(Self { depth: self.depth + 1, ..self })
    }

    fn text<E: de::Error>(&self, text: &str) -> Result<(), E> {
        if text.contains('\0') {
            return Err(self.refuse(ScimType::InvalidValue, "a string holds a NUL character"));
        }
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        let Some(left) = self.left.get().checked_sub(1) else {
            let what = format!("there are more than {} values", self.limits.json_values);
            return Err(self.refuse(ScimType::InvalidSyntax, what));
        };
        self.left.set(left);
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E: de::Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Value, E> {
        self.text(text)?;
        Ok(text.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut array = Vec::new();
        while let Some(item) = items.next_element_seed(inner)? {
            array.push((self.shorten)(item));
        }
        Ok(array.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut object = Object::new();
        let mut seen = BTreeSet::new();
        while let Some(key) = entries.next_key::<String>()? {
            self.text(&key)?;
            if !seen.insert(key.to_lowercase()) {
                let key: String = key.chars().take(64).collect();
                let what = format!("{key:?} stands twice in one object");
                return Err(self.refuse(ScimType::InvalidSyntax, what));
            }
            let value = entries.next_value_seed(inner)?;
            object.insert(key, value);
        }
        Ok(object.into())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn refused(body: &[u8]) -> ScimType {
        parse(body, &Limits::DEFAULT).unwrap_err().scim_type.unwrap()
    }

    #[test]
    fn json_reads_as_it_is_written() {
        let value = json!({"a": [1, -2, 1.5, true, null, "ö\u{1f600}"], "b": {"c": {}}});
        assert_eq!(parse(value.to_string().as_bytes(), &Limits::DEFAULT), Ok(value.clone()));
        assert_eq!(parse(format!("\u{feff}{value}").as_bytes(), &Limits::DEFAULT), Ok(value));
    }

    #[test]
    fn what_is_no_json_is_invalid_syntax() {
        let bodies: [&[u8]; 8] =
            [b"", b"  ", b"{", b"{\"a\":}", b"{} {}", b"nope", b"\"\\ud800\"", b"{\"a\":\"\xff\"}"];
        for body in bodies {
            assert_eq!(refused(body), ScimType::InvalidSyntax, "{body:?}");
        }
    }

    #[test]
    fn a_key_twice_is_refused_in_any_letter_case() {
        assert_eq!(refused(br#"{"userName":"a","username":"b"}"#), ScimType::InvalidSyntax);
        assert_eq!(refused(br#"[{"x":{"a":1,"a":1}}]"#), ScimType::InvalidSyntax);
        assert!(parse(br#"[{"a":1},{"a":1}]"#, &Limits::DEFAULT).is_ok());
    }

    #[test]
    fn nesting_is_limited() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert!(parse(nested(Limits::DEFAULT.json_depth).as_bytes(), &Limits::DEFAULT).is_ok());
        assert_eq!(
            refused(nested(Limits::DEFAULT.json_depth + 1).as_bytes()),
            ScimType::InvalidSyntax
        );
        assert_eq!(refused("[".repeat(1_000_000).as_bytes()), ScimType::InvalidSyntax);
    }

    #[test]
    fn what_a_database_would_choke_on_is_an_invalid_value() {
        for body in [r#"{"a":1e400000}"#, r#"{"a":"\u0000"}"#, r#"{"\u0000":1}"#] {
            assert_eq!(refused(body.as_bytes()), ScimType::InvalidValue, "{body}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(body in prop::collection::vec(any::<u8>(), 0..200)) {
            drop(parse(&body, &Limits::DEFAULT));
        }
    }

    #[test]
    fn so_many_values_are_read_and_not_one_more() {
        let limits = Limits { json_values: 5, ..Limits::DEFAULT };
        for (text, fits) in [
            ("[1,2,3,4]", true),
            ("[1,2,3,4,5]", false),
            (r#"{"a":{"b":{"c":[0]}}}"#, true),
            (r#"{"a":{"b":{"c":[0,0]}}}"#, false),
        ] {
            assert_eq!(parse(text.as_bytes(), &limits).is_ok(), fits, "{text}");
        }
    }
}
