//! Compares an answer with what a session expects of it.

use serde_json::{Map, Value};

/// How `came` differs from `expected`, each difference with the JSON pointer to its place.
///
/// Of an object the keys that are named must match, arrays must match exactly, `null` also fits an
/// absent value. An object of operators is a condition instead: `$contains` (each of these is an
/// element), `$length`, `$type` (`string`, `integer`, `boolean`, `array`, `object`), `$includes`
/// (a part of a string), `$not` (anything but this).
pub(super) fn differences(expected: &Value, came: &Value) -> Vec<String> {
    let mut differences = Vec::new();
    compare(expected, came, "", &mut differences);
    differences
}

fn compare(expected: &Value, came: &Value, pointer: &str, differences: &mut Vec<String>) {
    let differ = || format!("{pointer} is {came}; expected {expected}");
    match (expected, came) {
        (Value::Object(conditions), _) if is_condition(conditions) => {
            for (operator, operand) in conditions {
                if !holds(operator, operand, came) {
                    differences.push(differ());
                }
            }
        }
        (Value::Object(fields), Value::Object(came)) => {
            for (key, expected) in fields {
                let came = came.get(key).unwrap_or(&Value::Null);
                compare(expected, came, &format!("{pointer}/{key}"), differences);
            }
        }
        (Value::Array(elements), Value::Array(came)) if elements.len() == came.len() => {
            for (index, (expected, came)) in elements.iter().zip(came).enumerate() {
                compare(expected, came, &format!("{pointer}/{index}"), differences);
            }
        }
        _ if expected == came => {}
        _ => differences.push(differ()),
    }
}

fn is_condition(fields: &Map<String, Value>) -> bool {
    !fields.is_empty() && fields.keys().all(|key| key.starts_with('$'))
}

fn holds(operator: &str, operand: &Value, came: &Value) -> bool {
    match operator {
        "$contains" => operand.as_array().is_some_and(|wanted| {
            let elements = came.as_array().map_or(&[][..], Vec::as_slice);
            wanted.iter().all(|wanted| elements.iter().any(|e| differences(wanted, e).is_empty()))
        }),
        "$length" => came.as_array().map(Vec::len).map(Value::from).as_ref() == Some(operand),
        "$includes" => came.as_str().zip(operand.as_str()).is_some_and(|(c, o)| c.contains(o)),
        "$not" => !differences(operand, came).is_empty(),
        "$type" => match operand.as_str() {
            Some("string") => came.is_string(),
            Some("integer") => came.is_i64() || came.is_u64(),
            Some("boolean") => came.is_boolean(),
            Some("array") => came.is_array(),
            Some("object") => came.is_object(),
            _ => panic!("$type knows no {operand}"),
        },
        _ => panic!("{operator} is no operator of a session"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fits(expected: &Value, came: &Value) -> bool {
        differences(expected, came).is_empty()
    }

    #[test]
    fn an_object_fits_if_the_named_keys_do() {
        let came = json!({ "a": 1, "b": { "c": "x", "d": null } });
        assert!(fits(&json!({ "b": { "c": "x" } }), &came));
        assert!(fits(&json!({ "b": { "d": null, "e": null } }), &came));
        assert_eq!(
            differences(&json!({ "b": { "c": "y" } }), &came),
            [r#"/b/c is "x"; expected "y""#]
        );
        assert!(!fits(&json!({ "c": 1 }), &came));
        assert!(!fits(&json!({}), &json!([])));
    }

    #[test]
    fn an_array_fits_in_length_and_order() {
        assert!(fits(&json!([{ "a": 1 }, 2]), &json!([{ "a": 1, "b": 2 }, 2])));
        assert!(!fits(&json!([1, 2]), &json!([2, 1])));
        assert!(!fits(&json!([1]), &json!([1, 1])));
        assert!(!fits(&json!([]), &json!([1])));
    }

    #[test]
    fn an_array_contains_elements_in_any_order() {
        let came = json!([{ "value": "1", "display": "a" }, { "value": "2" }]);
        let both = json!([{ "value": "2" }, { "value": "1" }]);
        assert!(fits(&json!({ "$contains": both, "$length": 2 }), &came));
        assert!(!fits(&json!({ "$contains": [{ "value": "3" }] }), &came));
        assert!(!fits(&json!({ "$contains": [], "$length": 1 }), &came));
        assert!(!fits(&json!({ "$contains": [1] }), &Value::Null));
    }

    #[test]
    fn a_type_a_part_and_a_denial_are_conditions() {
        assert!(fits(&json!({ "n": { "$type": "integer" } }), &json!({ "n": 0 })));
        assert!(!fits(&json!({ "n": { "$type": "integer" } }), &json!({ "n": "0" })));
        assert!(!fits(&json!({ "n": { "$type": "string" } }), &json!({})));
        assert!(fits(&json!({ "$includes": "bc" }), &json!("abcd")));
        assert!(!fits(&json!({ "$includes": "bc" }), &json!(["bc"])));
        assert!(fits(&json!({ "$not": "1" }), &json!("2")));
        assert!(!fits(&json!({ "$not": "1" }), &json!("1")));
    }
}
