//! The enterprise extension (RFC 7643 §4.3).

use super::core::text;
use super::{Attribute, Mutability, Schema, Type};

/// `urn:ietf:params:scim:schemas:extension:enterprise:2.0:User`.
pub static ENTERPRISE_USER: Schema = Schema {
    id: "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User",
    name: "EnterpriseUser",
    description: "What organisations say of their employees.",
    attributes: &[
        text("employeeNumber", "The number that the organisation gave the user."),
        text("costCenter", "The cost centre."),
        text("organization", "The organisation or company."),
        text("division", "The division."),
        text("department", "The department."),
        Attribute {
            kind: Type::Complex,
            sub_attributes: &[
                text("value", "The manager's id."),
                Attribute {
                    kind: Type::Reference,
                    case_exact: true,
                    reference_types: &["User"],
                    ..text("$ref", "The manager's address.")
                },
                Attribute {
                    mutability: Mutability::ReadOnly,
                    ..text("displayName", "The manager's name.")
                },
            ],
            ..text("manager", "The user's manager. A bare id is accepted too.")
        },
    ],
};
