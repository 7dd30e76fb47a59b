//! A client that makes its model from `/Schemas` alone creates, reads, patches and removes every
//! attribute that it declares (RFC 7643 §7).

use muster::scim_client::ScimClient;
use muster_scim::Object;
use serde_json::{Value, json};

use crate::support::system::both;

const CORE_USER: &str = "urn:ietf:params:scim:schemas:core:2.0:User";
const CORE_GROUP: &str = "urn:ietf:params:scim:schemas:core:2.0:Group";

/// What a client fills in where the schema leaves the value to it.
struct Model {
    /// A user to refer to, with an address of their own.
    user_id: String,
    user_email: String,
    /// Told apart by round.
    round: u32,
}

impl Model {
    fn value(&self, attribute: &Value) -> Value {
        let name = attribute["name"].as_str().unwrap();
        let one = match attribute["type"].as_str().unwrap() {
            "complex" => Value::Object(self.object(&attribute["subAttributes"])),
            "boolean" => self.round.is_multiple_of(2).into(),
            "binary" => "TUlJRA==".into(),
            "reference" => format!("https://photos.example/{}", self.round).into(),
            // Approvers are answered where they are in force: this one is.
            "string" if name == "approvers" => self.user_email.clone().into(),
            "string" => match attribute["canonicalValues"].as_array() {
                Some(values) => values[self.round as usize % values.len()].clone(),
                None => format!("{name}{}", self.round).into(),
            },
            other => panic!("{name} is of type {other}"),
        };
        if attribute["multiValued"] == true { json!([one]) } else { one }
    }

    /// The parts that a client writes; `$ref` follows from `value`, which is then a user's id.
    fn object(&self, attributes: &Value) -> Object {
        let attributes = attributes.as_array().unwrap();
        let refers = attributes.iter().any(|attribute| attribute["name"] == "$ref");
        let written = attributes.iter().filter(|a| is_written(a) && a["name"] != "$ref");
        written
            .map(|attribute| {
                let name = attribute["name"].as_str().unwrap();
                let user = refers && name == "value";
                let value = if user { json!(self.user_id) } else { self.value(attribute) };
                (name.to_owned(), value)
            })
            .collect()
    }
}

fn is_written(attribute: &Value) -> bool {
    matches!(attribute["mutability"].as_str().unwrap(), "readWrite" | "immutable")
}

/// Whether everything in `part` is in `whole`.
fn holds(whole: &Value, part: &Value) -> bool {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => {
            part.iter().all(|(key, part)| whole.get(key).is_some_and(|whole| holds(whole, part)))
        }
        (Value::Array(whole), Value::Array(part)) => {
            whole.len() == part.len() && whole.iter().zip(part).all(|(w, p)| holds(w, p))
        }
        _ => whole == part,
    }
}

async fn get(client: &ScimClient, path: &str) -> Value {
    let answer = client.get(path).await.unwrap();
    assert_eq!(answer.status, 200, "{path}: {}", answer.text);
    answer.body.unwrap()
}

async fn patch(client: &ScimClient, path: &str, operation: Value) -> Value {
    let body = json!({
        "schemas": ["urn:ietf:params:scim:api:messages:2.0:PatchOp"], "Operations": [operation],
    });
    let answer = client.patch(path, &body).await.unwrap();
    assert!(matches!(answer.status, 200 | 204), "{operation}: {}", answer.text);
    get(client, path).await
}

/// The parts of an attribute that are set one by one.
fn parts_to_patch(attribute: &Value) -> Vec<&Value> {
    let parts = attribute["subAttributes"].as_array().into_iter().flatten();
    let is_single = attribute["multiValued"] == false;
    parts.filter(|part| is_single && is_written(part) && part["name"] != "$ref").collect()
}

#[tokio::test]
async fn every_declared_attribute_can_be_created_read_patched_and_removed() {
    for system in both() {
        let client = system.tenant().await.client;
        let boss = json!({"userName": "boss", "emails": [{"value": "boss@a.example"}]});
        let boss = client.post("/Users", &boss).await.unwrap();
        let user_id = boss.at("/id").as_str().unwrap().to_owned();
        let model =
            |round| Model { user_id: user_id.clone(), user_email: "boss@a.example".into(), round };
        let resource_types = get(&client, "/ResourceTypes").await;
        let mut checked = 0;
        for resource_type in resource_types["Resources"].as_array().unwrap() {
            let core = resource_type["schema"].as_str().unwrap();
            let extensions = resource_type["schemaExtensions"].as_array().unwrap().iter();
            let urns: Vec<&str> = std::iter::once(core)
                .chain(extensions.map(|extension| extension["schema"].as_str().unwrap()))
                .collect();
            let mut schemas = Vec::new();
            for urn in &urns {
                schemas.push((*urn, get(&client, &format!("/Schemas/{urn}")).await));
            }
            // Everything at once.
            let mut document = json!({"schemas": urns});
            for (urn, schema) in &schemas {
                let parts = model(1).object(&schema["attributes"]);
                match *urn {
                    CORE_USER | CORE_GROUP => document.as_object_mut().unwrap().extend(parts),
                    extension => document[extension] = parts.into(),
                }
            }
            let endpoint = resource_type["endpoint"].as_str().unwrap();
            let created = client.post(endpoint, &document).await.unwrap();
            assert_eq!(created.status, 201, "{}", created.text);
            let path = format!("{endpoint}/{}", created.at("/id").as_str().unwrap());
            let read = get(&client, &path).await;
            document.as_object_mut().unwrap().remove("schemas");
            assert!(holds(&read, &document), "{read:#}\n{document:#}");
            // One after the other, by its path.
            for (urn, schema) in &schemas {
                let core = matches!(*urn, CORE_USER | CORE_GROUP);
                let attributes = schema["attributes"].as_array().unwrap();
                for attribute in attributes.iter().filter(|attribute| is_written(attribute)) {
                    let name = attribute["name"].as_str().unwrap();
                    let at = |resource: &Value| {
                        if core { resource[name].clone() } else { resource[*urn][name].clone() }
                    };
                    let value = model(2).value(attribute);
                    let replace =
                        json!({"op": "replace", "path": format!("{urn}:{name}"), "value": value});
                    let patched = patch(&client, &path, replace).await;
                    assert!(holds(&at(&patched), &value), "{name}: {patched:#}");
                    for part in parts_to_patch(attribute) {
                        let part_name = part["name"].as_str().unwrap();
                        let (part_path, value) =
                            (format!("{urn}:{name}.{part_name}"), model(3).value(part));
                        let replace = json!({"op": "replace", "path": part_path, "value": value});
                        let patched = at(&patch(&client, &path, replace).await);
                        assert!(holds(&patched[part_name], &value), "{part_path}: {patched:#}");
                        let remove = json!({"op": "remove", "path": part_path});
                        let patched = at(&patch(&client, &path, remove).await);
                        assert_eq!(patched[part_name], Value::Null, "{part_path}");
                    }
                    if attribute["required"] == false {
                        let remove = json!({"op": "remove", "path": format!("{urn}:{name}")});
                        let patched = patch(&client, &path, remove).await;
                        assert_eq!(at(&patched), Value::Null, "{name}");
                    }
                    checked += 1;
                }
            }
        }
        // 19 of User, 2 of Group, 6 of the enterprise extension and 5 of Muster's.
        assert_eq!(checked, 19 + 2 + 6 + 5);
    }
}
