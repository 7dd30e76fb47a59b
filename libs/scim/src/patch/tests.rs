use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::schema::{GROUP_TYPE, USER_TYPE};

const MUSTER: &str = "urn:learnerbly:params:scim:schemas:2.0:User";
const ENTERPRISE: &str = "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User";

fn ann() -> Value {
    json!({
        "userName": "ann", "active": true, "title": "Engineer",
        "name": {"givenName": "Ann", "familyName": "Bell"},
        "emails": [
            {"value": "ann@x.example", "type": "work", "primary": true},
            {"value": "ann@y.example", "type": "home"},
        ],
        MUSTER: {"approvers": ["bo@x.example"], "contentRegion": "GB"},
    })
}

fn patched(operations: Value) -> Result<Value, Error> {
    let mut document = ann().as_object().unwrap().clone();
    let operations =
        parse(json!({"schemas": [SCHEMA], "Operations": operations}), &Limits::DEFAULT)?;
    let assigned = assignments(&operations, &USER_TYPE, &Limits::DEFAULT)
        .map(|assignments| assigned(&document, &assignments));
    let applied = apply(&mut document, operations, &USER_TYPE, &Limits::DEFAULT);
    if let Some(assigned) = assigned {
        assert_eq!(assigned, document, "{applied:?}");
    }
    applied?;
    Ok(Value::Object(document))
}

/// A document with what operations assign, as a service does that has the document.
fn assigned(document: &Object, assignments: &Assignments) -> Object {
    let mut document = document.clone();
    for target in &assignments.targets {
        let AttributePath { extension, attribute, sub_attribute } = *target;
        let mut theirs = assignments.document.clone();
        let new = target::take(&mut theirs, extension, attribute);
        let mut old = target::take(&mut document, extension, attribute);
        let whole = if let Some(part) = sub_attribute {
            let old = old.get_or_insert_with(|| json!({})).as_object_mut().unwrap();
            match new.as_ref().and_then(|new| new.get(part.name)) {
                Some(new) => old.insert(part.name.into(), new.clone()),
                None => old.remove(part.name),
            };
            Some(Value::Object(old.clone())).filter(|whole| *whole != json!({}))
        } else {
            new
        };
        if let Some(whole) = whole {
            target::put(&mut document, extension, attribute, whole);
        }
    }
    document
}

fn refused(operations: Value) -> ScimType {
    patched(operations).unwrap_err().scim_type.unwrap()
}

/// Applies one operation and tells what the document has at a pointer.
fn at(pointer: &str, operation: Value) -> Value {
    patched(json!([operation])).unwrap().pointer(pointer).cloned().unwrap_or(Value::Null)
}

#[test]
fn deactivation_comes_with_and_without_a_path_and_as_a_string() {
    for operation in [
        json!({"op": "replace", "value": {"active": false}}),
        json!({"op": "Replace", "path": "active", "value": false}),
        json!({"op": "REPLACE", "path": "active", "value": "False"}),
        json!({"op": "add", "path": "ACTIVE", "value": "false"}),
    ] {
        assert_eq!(at("/active", operation), json!(false));
    }
}

#[test]
fn operations_that_only_assign_single_values_do_so_whatever_the_document_is() {
    let assigned = |operations: Value| {
        let operations = parse(json!({"Operations": operations}), &Limits::DEFAULT).unwrap();
        let assignments = assignments(&operations, &USER_TYPE, &Limits::DEFAULT)?;
        let targets = assignments.targets.iter().map(ToString::to_string).collect::<Vec<_>>();
        Some((targets.join(" "), Value::Object(assignments.document)))
    };
    let some = |targets: &str, document: Value| Some((targets.to_owned(), document));
    for (operations, expected) in [
        (
            json!([{"op": "replace", "value": {"active": false}}]),
            some("active", json!({"active": false})),
        ),
        (
            json!([
                {"op": "replace", "path": "title", "value": "x"},
                {"op": "remove", "path": "name.givenName"},
                {"op": "add", "path": "name.familyName", "value": "Cole"},
                {"op": "remove", "path": "title"},
            ]),
            some(
                "title name.givenName name.familyName title",
                json!({"name": {"familyName": "Cole"}}),
            ),
        ),
        (
            json!([{"op": "add", "value": {"title": "x", "id": "ignored", "shoeSize": 44,
                (ENTERPRISE): {"department": "d"}}}]),
            some(
                &format!("title {ENTERPRISE}:department"),
                json!({"title": "x", (ENTERPRISE): {"department": "d"}}),
            ),
        ),
        // What becomes of these depends on what is there.
        (json!([{"op": "replace", "path": "name", "value": {"givenName": "A"}}]), None),
        (json!([{"op": "add", "path": "emails", "value": [{"value": "a@x.example"}]}]), None),
        (json!([{"op": "replace", "path": "emails[type eq \"home\"].value", "value": "a"}]), None),
        (json!([{"op": "remove", "path": ENTERPRISE}]), None),
        (json!([{"op": "replace", "value": {"active": false, "emails": []}}]), None),
        // It is refused.
        (json!([{"op": "replace", "path": "active", "value": "maybe"}]), None),
        // Nothing is set.
        (json!([{"op": "replace", "value": {"id": "ignored"}}]), None),
        (json!([{"op": "replace", "path": "password", "value": "x"}]), None),
    ] {
        assert_eq!(assigned(operations.clone()), expected, "{operations}");
    }
}

#[test]
fn a_value_without_a_path_may_have_dotted_and_urn_keys() {
    let manager = format!("{ENTERPRISE}:manager");
    let user = patched(json!([{"op": "Add", "value": {
        "name.familyName": "Cole", (&manager): {"value": "42"}, "displayName": "Ann C",
        MUSTER: {"customField1": "x"}, "emails[type eq \"home\"].value": "new@y.example", "id": "ignored", "shoeSize": 44, "groups": [],
    }}]))
    .unwrap();
    assert_eq!(user["name"], json!({"givenName": "Ann", "familyName": "Cole"}));
    assert_eq!(user[ENTERPRISE]["manager"], json!({"value": "42"}));
    assert_eq!(user[MUSTER]["customField1"], "x");
    assert_eq!(user[MUSTER]["contentRegion"], "GB");
    assert_eq!(user["displayName"], "Ann C");
    assert_eq!(user["emails"][1]["value"], "new@y.example");
    assert!(user.get("shoeSize").is_none() && user.get("id").is_none());
}

#[test]
fn a_part_of_a_complex_attribute_is_set_and_the_others_stay() {
    let operation = json!({"op": "replace", "path": "name.givenName", "value": "Anne"});
    assert_eq!(at("/name", operation), json!({"givenName": "Anne", "familyName": "Bell"}));
    let operation = json!({"op": "replace", "path": "name", "value": {"givenName": "Anne"}});
    assert_eq!(at("/name", operation), json!({"givenName": "Anne", "familyName": "Bell"}));
    let operation = json!({"op": "remove", "path": "name.givenName"});
    assert_eq!(at("/name", operation), json!({"familyName": "Bell"}));
}

#[test]
fn an_address_is_set_by_its_type_and_added_where_there_is_none() {
    let operation =
        json!({"op": "Replace", "path": "emails[type eq \"work\"].value", "value": "a@z.example"});
    assert_eq!(at("/emails/0/value", operation), "a@z.example");
    let operation =
        json!({"op": "Add", "path": "emails[type eq \"other\"].value", "value": "a@z.example"});
    assert_eq!(at("/emails/2", operation), json!({"type": "other", "value": "a@z.example"}));
    let operation = json!({"op": "replace", "path": "emails[type co \"x\"].value", "value": "v"});
    assert_eq!(refused(json!([operation])), ScimType::NoTarget);
}

#[test]
fn what_is_to_be_replaced_must_be_there_as_section_3_5_2_3_says() {
    for operation in [
        json!({"op": "replace", "path": "emails[type eq \"fax\"]", "value": {"value": "x@x.example"}}),
        json!({"op": "replace", "path": "emails[value eq \"no@x.example\"].display", "value": "x"}),
        json!({"op": "replace", "path": "roles[value eq \"zz\"].display", "value": "x"}),
        json!({"op": "replace", "path": "phoneNumbers[type eq \"fax\"].value", "value": "x"}),
        json!({"op": "replace", "path": "roles[value eq \"zz\"]", "value": {"value": "q"}}),
    ] {
        assert_eq!(refused(json!([operation])), ScimType::NoTarget);
    }
    let path = "emails[type eq \"fax\"]";
    let operation = json!({"op": "add", "path": path, "value": {"value": "x@x.example"}});
    assert_eq!(at("/emails/2", operation), json!({"type": "fax", "value": "x@x.example"}));
}

#[test]
fn a_value_that_is_there_takes_what_else_is_said_of_it() {
    let home = json!({"value": "ANN@y.example", "type": "Home", "primary": true});
    let user = patched(json!([{"op": "add", "path": "emails", "value": [home]}])).unwrap();
    let work = json!({"value": "ann@x.example", "type": "work", "primary": false});
    assert_eq!(user["emails"], json!([work, home]));
    // Of another type it is another.
    let other = json!({"value": "ann@y.example", "type": "other"});
    let operation = json!({"op": "add", "path": "emails", "value": [other, other]});
    assert_eq!(at("/emails", operation).as_array().unwrap().len(), 3);
}

#[test]
fn add_appends_without_duplicates_and_replace_replaces_all() {
    let work = json!({"value": "ann@y.example", "type": "home"});
    let operation = json!({"op": "add", "path": "emails", "value": [work]});
    assert_eq!(at("/emails", operation), ann()["emails"]);
    let operation = json!({"op": "replace", "path": "emails", "value": [work]});
    assert_eq!(at("/emails", operation), json!([work]));
    let path = format!("{MUSTER}:approvers");
    let operation = json!({"op": "add", "path": path, "value": ["cy@x.example"]});
    assert_eq!(
        patched(json!([operation])).unwrap()[MUSTER]["approvers"],
        json!(["bo@x.example", "cy@x.example"])
    );
}

#[test]
fn a_value_made_primary_takes_it_from_the_other() {
    let user = patched(json!([
        {"op": "replace", "path": "emails[type eq \"home\"].primary", "value": true}
    ]))
    .unwrap();
    assert_eq!(user["emails"][0]["primary"], false);
    assert_eq!(user["emails"][1]["primary"], true);
}

#[test]
fn remove_unassigns_an_attribute_values_or_a_whole_extension() {
    assert_eq!(at("/title", json!({"op": "remove", "path": "title"})), Value::Null);
    assert_eq!(at("/active", json!({"op": "remove", "path": "active"})), Value::Null);
    let operation = json!({"op": "remove", "path": "emails[type eq \"home\"]"});
    assert_eq!(at("/emails", operation), json!([ann()["emails"][0]]));
    let operation =
        json!({"op": "remove", "path": "emails", "value": [{"value": "ANN@y.example"}]});
    assert_eq!(at("/emails", operation), json!([ann()["emails"][0]]));
    let user = patched(json!([{"op": "remove", "path": MUSTER}])).unwrap();
    assert!(user.get(MUSTER).is_none());
    let path = format!("{MUSTER}:approvers[value eq \"bo@x.example\"]");
    let user = patched(json!([{"op": "remove", "path": path}])).unwrap();
    assert_eq!(user[MUSTER], json!({"contentRegion": "GB"}));
    assert_eq!(
        at("/emails", json!({"op": "remove", "path": "emails[type eq \"fax\"]"})),
        ann()["emails"]
    );
}

#[test]
fn null_and_the_empty_array_unassign() {
    assert_eq!(at("/title", json!({"op": "replace", "path": "title", "value": null})), Value::Null);
    assert_eq!(at("/emails", json!({"op": "replace", "value": {"emails": []}})), Value::Null);
    let user = patched(json!([{"op": "replace", "value": {MUSTER: {"approvers": null}}}])).unwrap();
    assert_eq!(user[MUSTER], json!({"contentRegion": "GB"}));
}

#[test]
fn a_part_that_is_null_is_unassigned_and_the_others_stay() {
    for operation in [
        json!({"op": "replace", "path": "name", "value": {"familyName": null}}),
        json!({"op": "replace", "value": {"name": {"familyName": null}}}),
    ] {
        assert_eq!(at("/name", operation), json!({"givenName": "Ann"}));
    }
    assert_eq!(at("/name", json!({"op": "replace", "path": "name", "value": null})), Value::Null);
    assert_eq!(at("/name", json!({"op": "replace", "path": "name", "value": {}})), ann()["name"]);
    // An empty array unassigns what is multi-valued only (RFC 7643 §2.5).
    let operation = json!({"op": "replace", "path": "active", "value": []});
    assert_eq!(refused(json!([operation])), ScimType::InvalidValue);
}

#[test]
fn a_remove_with_a_list_that_names_nobody_removes_nobody() {
    for value in [json!([]), json!([{"value": null}]), json!([{"value": "nobody@x.example"}])] {
        let operation = json!({"op": "remove", "path": "emails", "value": value});
        assert_eq!(at("/emails", operation), ann()["emails"], "{value}");
    }
}

#[test]
fn an_extension_is_unassigned_part_by_part_or_whole() {
    for operation in [
        json!({"op": "replace", "path": MUSTER, "value": {"approvers": []}}),
        json!({"op": "replace", "value": {MUSTER: {"approvers": []}}}),
    ] {
        assert_eq!(patched(json!([operation])).unwrap()[MUSTER], json!({"contentRegion": "GB"}));
    }
    for operation in [
        json!({"op": "replace", "path": MUSTER, "value": null}),
        json!({"op": "replace", "value": {MUSTER: null}}),
    ] {
        assert!(patched(json!([operation])).unwrap().get(MUSTER).is_none());
    }
    let operation = json!({"op": "replace", "path": MUSTER, "value": "x"});
    assert_eq!(refused(json!([operation])), ScimType::InvalidValue);
}

#[test]
fn what_every_user_has_cannot_be_unassigned() {
    for operation in [
        json!({"op": "replace", "path": "userName", "value": null}),
        json!({"op": "replace", "path": "userName", "value": "  "}),
        json!({"op": "replace", "value": {"userName": null}}),
    ] {
        assert_eq!(refused(json!([operation])), ScimType::InvalidValue);
    }
}

#[test]
fn values_that_are_the_same_without_regard_to_case_are_added_once() {
    let path = format!("{MUSTER}:approvers");
    let operation = json!({"op": "add", "path": path, "value": ["BO@x.example"]});
    let user = patched(json!([operation])).unwrap();
    assert_eq!(user[MUSTER]["approvers"], json!(["bo@x.example"]));
}

#[test]
fn an_address_that_is_not_there_and_becomes_null_is_not_added() {
    let path = "emails[type eq \"other\"].value";
    let operation = json!({"op": "replace", "path": path, "value": null});
    assert_eq!(at("/emails", operation), ann()["emails"]);
}

#[test]
fn no_attribute_gathers_more_values_than_one_may_have() {
    let emails = |from: usize| -> Vec<Value> {
        (from..from + 600).map(|n| json!({"value": format!("{n}@x.example")})).collect()
    };
    let operations = json!([
        {"op": "add", "path": "emails", "value": emails(0)},
        {"op": "add", "path": "emails", "value": emails(600)},
    ]);
    assert_eq!(refused(operations), ScimType::InvalidValue);
}

#[test]
fn what_is_read_only_is_refused_by_path_and_ignored_in_a_value() {
    for path in
        ["id", "meta.version", "groups", "schemas", &format!("{ENTERPRISE}:manager.displayName")]
    {
        let operation = json!({"op": "replace", "path": path, "value": "x"});
        assert_eq!(refused(json!([operation])), ScimType::Mutability, "{path}");
    }
    let value = json!({"id": "x", "meta": {}, "groups": [], "schemas": []});
    assert_eq!(patched(json!([{"op": "replace", "value": value}])).unwrap(), ann());
}

#[test]
fn a_password_is_accepted_and_dropped_in_any_form() {
    for operation in [
        json!({"op": "replace", "path": "password", "value": "secret"}),
        json!({"op": "replace", "value": {"password": {"x": 1}}}),
    ] {
        assert_eq!(patched(json!([operation])).unwrap(), ann());
    }
}

#[test]
fn what_is_wrong_is_refused_with_its_keyword_and_nothing_is_done() {
    for (operations, keyword) in [
        (json!([]), ScimType::InvalidSyntax),
        (json!({}), ScimType::InvalidSyntax),
        (json!([1]), ScimType::InvalidSyntax),
        (json!([{"op": "move", "path": "title"}]), ScimType::InvalidSyntax),
        (json!([{"path": "title", "value": "x"}]), ScimType::InvalidSyntax),
        (json!([{"op": "add", "path": "title"}]), ScimType::InvalidValue),
        (json!([{"op": "add", "path": "shoeSize", "value": 1}]), ScimType::InvalidPath),
        (json!([{"op": "add", "path": "emails[", "value": 1}]), ScimType::InvalidPath),
        (json!([{"op": "add", "path": "", "value": {}}]), ScimType::InvalidPath),
        (json!([{"op": "remove"}]), ScimType::NoTarget),
        (json!([{"op": "remove", "path": "userName"}]), ScimType::Mutability),
        (json!([{"op": "replace", "value": "x"}]), ScimType::InvalidValue),
        (json!([{"op": "replace", "path": "active", "value": "maybe"}]), ScimType::InvalidValue),
    ] {
        assert_eq!(refused(operations.clone()), keyword, "{operations}");
    }
    let mut document = ann().as_object().unwrap().clone();
    let operations = parse(
        json!({"schemas": [SCHEMA], "Operations": [
            {"op": "replace", "path": "title", "value": "Boss"},
            {"op": "replace", "path": "shoeSize", "value": 44},
        ]}),
        &Limits::DEFAULT,
    )
    .unwrap();
    assert!(apply(&mut document, operations, &USER_TYPE, &Limits::DEFAULT).is_err());
    assert_eq!(Value::Object(document), ann());
}

#[test]
fn a_thousand_operations_are_the_most() {
    let operations =
        vec![json!({"op": "remove", "path": "title"}); Limits::DEFAULT.patch_operations + 1];
    assert_eq!(patched(json!(operations)).unwrap_err().status, 413);
}

#[test]
fn operations_filters_and_values_do_not_multiply() {
    let emails: Vec<Value> = (0..900).map(|n| json!({"value": format!("{n}@x.example")})).collect();
    let filter = vec!["value eq \"x\""; Limits::DEFAULT.filter_comparisons].join(" or ");
    let remove = json!({"op": "remove", "path": format!("emails[{filter}]")});
    let mut operations = vec![json!({"op": "add", "path": "emails", "value": emails})];
    operations.resize(2, remove.clone());
    assert!(patched(json!(operations)).is_ok());
    operations.resize(Limits::DEFAULT.patch_operations, remove);
    assert_eq!(patched(json!(operations)).unwrap_err().status, 413);
}

proptest! {
    #[test]
    fn no_operation_makes_it_panic_and_an_error_leaves_the_document(
        kind in prop::sample::select(vec!["add", "replace", "remove"]),
        path in prop::sample::select(vec![
            "", "title", "name", "name.givenName", "emails", "emails.value", "emails[type eq \"work\"]",
            "emails[primary eq true].value", "emails[not (type pr)].display", "active", MUSTER,
            "addresses[type eq \"work\"].formatted", "members", "urn:x", "emails[", ENTERPRISE,
        ]),
        value in prop::sample::select(vec![
            json!(null), json!(1), json!("x"), json!([]), json!({}), json!(["a"]), json!(true),
            json!([{"value": "v", "primary": true}]), json!({"value": "v"}), json!({"title": "t"}),
            json!([[[]]]), json!({"emails": {"value": 1}}),
        ]),
    ) {
        let operation = json!({"op": kind, "path": path, "value": value});
        // What it only assigns is the same as when it is applied.
        let _either = patched(json!([operation]));
        for resource_type in [&USER_TYPE, &GROUP_TYPE] {
            let before = ann().as_object().unwrap().clone();
            let mut document = before.clone();
            let body = json!({"Operations": [operation]});
            if parse(body, &Limits::DEFAULT).and_then(|ops| apply(&mut document, ops, resource_type, &Limits::DEFAULT)).is_err() {
                prop_assert_eq!(document, before);
            }
        }
    }
}
