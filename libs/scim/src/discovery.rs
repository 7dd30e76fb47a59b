//! What a client can find out of the service (RFC 7644 §4).

use serde_json::{Value, json};

use crate::schema::{
    Attribute, ENTERPRISE_USER, GROUP, GROUP_TYPE, MUSTER_USER, ResourceType, Schema, USER,
    USER_TYPE, Uniqueness,
};

/// What the service supports, and its limits.
#[derive(Debug, Clone, Copy)]
pub struct Support {
    /// The most resources in a list.
    pub max_results: u64,
    /// How many resources a list has that does not say, at most.
    pub default_results: u64,
    /// The most operations of a bulk request.
    pub bulk_operations: usize,
    /// The most bytes of a bulk request.
    pub bulk_bytes: usize,
    /// How long a cursor is good for, in seconds.
    pub cursor_seconds: i64,
}

/// The `ServiceProviderConfig` (RFC 7643 §5).
#[must_use]
pub fn service_provider_config(base_url: &str, support: Support) -> Value {
    json!({
        "schemas": ["urn:ietf:params:scim:schemas:core:2.0:ServiceProviderConfig"],
        "patch": {"supported": true},
        "bulk": {
            "supported": true,
            "maxOperations": support.bulk_operations,
            "maxPayloadSize": support.bulk_bytes,
        },
        "filter": {"supported": true, "maxResults": support.max_results},
        "changePassword": {"supported": false},
        "sort": {"supported": true},
        "etag": {"supported": true},
        // RFC 9865 §4.
        "pagination": {
            "cursor": true,
            "index": true,
            "defaultPaginationMethod": "index",
            "defaultPageSize": support.default_results,
            "maxPageSize": support.max_results,
            "cursorTimeout": support.cursor_seconds,
        },
        "authenticationSchemes": [{
            "type": "oauthbearertoken",
            "name": "API key",
            "description":
                "An API key of the organisation, in the Authorization header: Static KEY, Bearer \
                 KEY or Bearer Static KEY.",
            "specUri": "https://www.rfc-editor.org/info/rfc6750",
            "primary": true,
        }],
        "meta": {
            "resourceType": "ServiceProviderConfig",
            "location": format!("{base_url}/ServiceProviderConfig"),
        },
    })
}

/// The `ResourceType` resources (RFC 7643 §6).
#[must_use]
pub fn resource_types(base_url: &str) -> Vec<Value> {
    [&USER_TYPE, &GROUP_TYPE]
        .map(|resource_type| resource_type_json(resource_type, base_url))
        .into()
}

/// The `Schema` resources (RFC 7643 §7).
#[must_use]
pub fn schemas(base_url: &str) -> Vec<Value> {
    [&USER, &GROUP, &ENTERPRISE_USER, &MUSTER_USER]
        .map(|schema| schema_json(schema, base_url))
        .into()
}

fn resource_type_json(resource_type: &ResourceType, base_url: &str) -> Value {
    let extensions: Vec<Value> = resource_type
        .extensions
        .iter()
        .map(|extension| json!({"schema": extension.id, "required": false}))
        .collect();
    json!({
        "schemas": ["urn:ietf:params:scim:schemas:core:2.0:ResourceType"],
        "id": resource_type.name,
        "name": resource_type.name,
        "endpoint": resource_type.endpoint,
        "description": resource_type.description,
        "schema": resource_type.schema.id,
        "schemaExtensions": extensions,
        "meta": {
            "resourceType": "ResourceType",
            "location": format!("{base_url}/ResourceTypes/{}", resource_type.name),
        },
    })
}

fn schema_json(schema: &Schema, base_url: &str) -> Value {
    json!({
        "schemas": ["urn:ietf:params:scim:schemas:core:2.0:Schema"],
        "id": schema.id,
        "name": schema.name,
        "description": schema.description,
        "attributes": schema.attributes.iter().map(attribute_json).collect::<Vec<_>>(),
        "meta": {
            "resourceType": "Schema",
            "location": format!("{base_url}/Schemas/{}", schema.id),
        },
    })
}

fn attribute_json(attribute: &Attribute) -> Value {
    let mut json = json!({
        "name": attribute.name,
        "type": attribute.kind.name(),
        "multiValued": attribute.multi_valued,
        "description": attribute.description,
        "required": attribute.required,
        "caseExact": attribute.case_exact,
        "mutability": attribute.mutability.name(),
        "returned": attribute.returned.name(),
        "uniqueness": match attribute.uniqueness {
            Uniqueness::None => "none",
            Uniqueness::Server => "server",
            Uniqueness::Global => "global",
        },
    });
    if !attribute.canonical_values.is_empty() {
        json["canonicalValues"] = attribute.canonical_values.into();
    }
    if !attribute.reference_types.is_empty() {
        json["referenceTypes"] = attribute.reference_types.into();
    }
    if !attribute.sub_attributes.is_empty() {
        json["subAttributes"] = attribute.sub_attributes.iter().map(attribute_json).collect();
    }
    json
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::Type;

    #[test]
    fn every_schema_of_a_resource_type_is_served() {
        let served: Vec<Value> = schemas("https://x").iter().map(|s| s["id"].clone()).collect();
        for resource_type in resource_types("https://x") {
            assert!(served.contains(&resource_type["schema"]));
            for extension in resource_type["schemaExtensions"].as_array().unwrap() {
                assert!(served.contains(&extension["schema"]));
            }
        }
    }

    #[test]
    fn every_attribute_says_what_it_is_for() {
        fn check(attributes: &[Attribute]) {
            for attribute in attributes {
                assert!(attribute.description.ends_with('.'), "{}", attribute.name);
                assert_eq!(attribute.kind == Type::Complex, !attribute.sub_attributes.is_empty());
                let reference = attribute.kind == Type::Reference;
                assert_eq!(reference, !attribute.reference_types.is_empty(), "{}", attribute.name);
                check(attribute.sub_attributes);
            }
        }
        for schema in [&USER, &GROUP, &ENTERPRISE_USER, &MUSTER_USER] {
            check(schema.attributes);
        }
    }
}
