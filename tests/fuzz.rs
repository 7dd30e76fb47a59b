//! Every parser of what strangers send, against pieces of what it expects put together at random, for
//! `MUSTER_FUZZ_SECONDS` each (2): it refuses or takes, says why in one line, and does not panic.

use std::time::{Duration, Instant};

use muster_identity::people_file::PeopleFile;
use muster_identity::secret::{self, Kind};
use muster_scim::schema::{GROUP_TYPE, USER_TYPE};
use muster_scim::{Error, Limits, bulk, filter, json, members, patch, path, projection, resource};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use serde_json::{Value, json as value};

const LIMITS: Limits = Limits::DEFAULT;

/// Runs `test` with what `inputs` makes, for as long as is asked; says the seed where it fails.
fn for_a_while<S: Strategy>(name: &str, inputs: S, test: impl Fn(&S::Value)) {
    let seconds = std::env::var("MUSTER_FUZZ_SECONDS").map_or(2, |text| text.parse().unwrap());
    let seed: [u8; 32] = std::env::var("MUSTER_FUZZ_SEED").map_or_else(
        |_| rand::random(),
        |text| {
            let bytes: Vec<u8> = serde_json::from_str(&text).unwrap();
            bytes.try_into().unwrap()
        },
    );
    // Told where it fails only: the harness keeps it until then.
    println!("{name}: MUSTER_FUZZ_SEED='{seed:?}'");
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let until = Instant::now() + Duration::from_secs(seconds);
    let mut count = 0;
    while Instant::now() < until {
        let input = inputs.new_tree(&mut runner).unwrap().current();
        test(&input);
        count += 1;
    }
    println!("{name}: {count} inputs");
}

/// Texts of so many pieces.
fn text(pieces: &'static [&'static str], most: usize) -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        8 => select(pieces).prop_map(str::to_owned),
        1 => "\\PC{0,4}",
        1 => any::<char>().prop_map(String::from),
    ];
    prop::collection::vec(piece, 0..most).prop_map(|pieces| pieces.concat())
}

/// An error is one line that a log can hold, of a status that blames the client.
fn is_clear(error: &Error) {
    assert!((400..500).contains(&error.status), "{error:?}");
    assert!(!error.detail.is_empty() && error.detail.len() < 4_000, "{error:?}");
    assert!(!error.detail.chars().any(char::is_control), "{error:?}");
}

const JSON: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"a\"",
    "\"A\"",
    "\"userName\"",
    "null",
    "true",
    "1",
    "-0",
    "1e9",
    "1e400",
    "18446744073709551616",
    "\"\\u0000\"",
    "\"\\ud800\"",
    "\"\\",
    "\"",
    " ",
    "\n",
    "\u{feff}",
];

#[test]
fn json() {
    for_a_while("json", text(JSON, 40), |text| match json::parse(text.as_bytes(), &LIMITS) {
        Ok(parsed) => {
            let again = json::parse(parsed.to_string().as_bytes(), &LIMITS);
            // Numbers that no float is may come out one bit away.
            assert!(again.is_ok(), "{text}");
        }
        Err(error) => is_clear(&error),
    });
}

const FILTER: &[&str] = &[
    "userName",
    "emails",
    "[",
    "]",
    ".value",
    ".type",
    " ",
    " eq ",
    " ne ",
    " co ",
    " sw ",
    " ew ",
    " pr",
    " gt ",
    " and ",
    " or ",
    "not ",
    "not(",
    "(",
    ")",
    "\"x\"",
    "\"",
    "\\",
    "\"\\\"\"",
    "true",
    "false",
    "null",
    "1",
    "\"2026-01-01T00:00:00Z\"",
    "meta.created",
    "groups",
    "approvers",
    "active",
    "urn:ietf:params:scim:schemas:core:2.0:User:",
    "urn:learnerbly:params:scim:schemas:2.0:User:",
    "members",
];

#[test]
fn filters() {
    for_a_while("filters", text(FILTER, 24), |text| {
        for resource_type in [&USER_TYPE, &GROUP_TYPE] {
            match filter::parse(text, resource_type, &LIMITS) {
                Ok(filter) => {
                    let printed = filter.to_string();
                    let again = filter::parse(&printed, resource_type, &LIMITS).unwrap();
                    assert_eq!(again, filter, "{text} is {printed}");
                }
                Err(error) => is_clear(&error),
            }
        }
    });
}

#[test]
fn paths_and_projections() {
    for_a_while("paths and projections", text(FILTER, 10), |text| {
        for resource_type in [&USER_TYPE, &GROUP_TYPE] {
            if let Err(error) = path::PatchPath::parse(text, resource_type, &LIMITS) {
                is_clear(&error);
            }
            for (asked, excluded) in [(Some(&**text), None), (None, Some(&**text))] {
                let parsed = projection::Projection::parse(asked, excluded, resource_type);
                if let Err(error) = parsed {
                    is_clear(&error);
                }
            }
        }
    });
}

/// JSON of attributes that there are, with values that may be anything.
fn resource() -> impl Strategy<Value = Value> {
    let name = select(
        &[
            "schemas",
            "id",
            "userName",
            "USERNAME",
            "name",
            "givenName",
            "emails",
            "value",
            "type",
            "primary",
            "active",
            "displayName",
            "members",
            "groups",
            "meta",
            "photos",
            "x509Certificates",
            "urn:learnerbly:params:scim:schemas:2.0:User",
            "approvers",
            "approver",
            "contentRegion",
            "customField1",
            "Operations",
            "op",
            "path",
            "bulkId",
            "method",
            "data",
            "failOnErrors",
        ][..],
    );
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        select(
            &[
                "",
                " ",
                "x",
                "True",
                "work",
                "add",
                "REPLACE",
                "remove",
                "POST",
                "PUT",
                "/Users",
                "/Groups/bulkId:1",
                "bulkId:1",
                "userName",
                "emails[type eq \"work\"].value",
                "members",
                "urn:ietf:params:scim:schemas:core:2.0:User",
                "ann@x.example",
                "GB",
                "2026-01-01T00:00:00Z",
                "urn:ietf:params:scim:api:messages:2.0:PatchOp",
                "aGk=",
                "urn:ietf:params:scim:api:messages:2.0:BulkRequest",
            ][..]
        )
        .prop_map(Value::from),
        "\\PC{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 60, 6, move |inner| {
        let object = prop::collection::vec((name.clone(), inner.clone()), 0..6);
        prop_oneof![
            prop::collection::vec(inner, 0..5).prop_map(Value::from),
            object.prop_map(|entries| {
                entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
            }),
        ]
    })
}

#[test]
fn resources() {
    for_a_while("resources", resource(), |body| {
        for resource_type in [&USER_TYPE, &GROUP_TYPE] {
            match resource::read(body.clone(), resource_type) {
                // Canonical form is canonical.
                Ok(mut read) => {
                    let again = resource::read(Value::Object(read.clone()), resource_type);
                    assert_eq!(again.unwrap(), read, "{body}");
                    if let Err(error) = members::take_members(&mut read, &LIMITS) {
                        is_clear(&error);
                    }
                }
                Err(error) => is_clear(&error),
            }
        }
    });
}

#[test]
fn patches() {
    let operation = (select(&["add", "Replace", "remove"][..]), text(FILTER, 6), resource());
    let operations = prop::collection::vec(operation, 1..4);
    for_a_while("patches", operations, |operations| {
        let operations = operations.iter().map(|(op, path, operand)| {
            let mut operation = value!({"op": op, "value": operand});
            if !path.is_empty() {
                operation["path"] = Value::from(path.as_str());
            }
            operation
        });
        let body = value!({"Operations": operations.collect::<Vec<_>>()});
        let Ok(operations) = patch::parse(body.clone(), &LIMITS) else { return };
        let before = value!({
            "userName": "ann",
            "emails": [{"value": "ann@x.example", "type": "work", "primary": true}],
        });
        let before = before.as_object().unwrap();
        let mut after = before.clone();
        match patch::apply(&mut after, operations.clone(), &USER_TYPE, &LIMITS) {
            Ok(()) => {
                assert!(after["userName"].is_string(), "{body}");
            }
            Err(error) => {
                is_clear(&error);
                assert_eq!(&after, before, "half of it was done: {body}");
            }
        }
        if let Err(error) = members::group_delta(operations, &LIMITS) {
            is_clear(&error);
        }
    });
}

#[test]
fn patch_and_bulk_bodies() {
    for_a_while("patch and bulk bodies", resource(), |body| {
        if let Err(error) = patch::parse(body.clone(), &LIMITS) {
            is_clear(&error);
        }
        let operations = value!({
            "schemas": ["urn:ietf:params:scim:api:messages:2.0:BulkRequest"],
            "Operations": [body, body],
        });
        for body in [body.clone(), operations] {
            if let Err(error) = bulk::parse(body, 10) {
                is_clear(&error);
            }
        }
    });
}

const CSV: &[&str] = &[
    "email",
    "first name",
    "last name",
    "country",
    "approvers",
    "user name",
    ",",
    ";",
    "\t",
    "\n",
    "\r\n",
    "\r",
    "\"",
    "\"\"",
    "ann@x.example",
    "GB",
    "\u{feff}",
    " ",
];

#[test]
fn people_files() {
    let fields = ["One", "Two", "Three"].map(str::to_owned);
    for_a_while("people files", text(CSV, 40), |text| {
        let header = format!("email,first name\n{text}");
        for text in [text, &header] {
            match PeopleFile::open(text.as_bytes(), &fields) {
                Ok(file) => {
                    // Rows that are blank are none.
                    let rows = u64::try_from(file.entries().count()).unwrap();
                    assert!(rows <= file.row_count, "{text:?}");
                }
                Err(problem) => {
                    assert!(problem.line >= 1 && !problem.description.is_empty(), "{text:?}");
                }
            }
        }
    });
}

#[test]
fn secrets() {
    let organisation = muster_runtime::id::OrganisationId::new();
    let good = secret::generate(Kind::ApiKey, organisation);
    let inputs = (0..good.len(), any::<char>(), text(&["muster_", "_", "0", "Az", " "], 20));
    for_a_while("secrets", inputs, |(at, letter, text)| {
        assert!(secret::parse(Kind::ApiKey, text).is_none(), "{text}");
        let mut changed = good.clone();
        changed.replace_range(at..=at, letter.encode_utf8(&mut [0; 4]));
        let parsed = secret::parse(Kind::ApiKey, &changed);
        assert_eq!(parsed.is_some(), changed == good, "{changed}");
    });
}
