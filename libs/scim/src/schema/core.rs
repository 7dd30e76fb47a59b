//! The core schemas of RFC 7643 §4 and the common attributes of §3.1.

use super::{Attribute, Mutability, Returned, Schema, Type, Uniqueness};

/// See [`super::COMMON`].
pub static COMMON: [Attribute; 4] = [
    Attribute {
        kind: Type::Reference,
        multi_valued: true,
        required: true,
        case_exact: true,
        returned: Returned::Always,
        reference_types: &["uri"],
        ..text("schemas", "The URNs of the schemas that the resource has attributes of.")
    },
    Attribute {
        case_exact: true,
        mutability: Mutability::ReadOnly,
        returned: Returned::Always,
        uniqueness: Uniqueness::Server,
        ..text("id", "The id that we gave the resource, a UUID. It never changes.")
    },
    Attribute { case_exact: true, ..text("externalId", "The client's own id of the resource.") },
    Attribute {
        kind: Type::Complex,
        mutability: Mutability::ReadOnly,
        sub_attributes: &[
            Attribute {
                case_exact: true,
                mutability: Mutability::ReadOnly,
                ..text("resourceType", "The kind of resource.")
            },
            Attribute {
                kind: Type::DateTime,
                mutability: Mutability::ReadOnly,
                ..text("created", "When the resource was created.")
            },
            Attribute {
                kind: Type::DateTime,
                mutability: Mutability::ReadOnly,
                ..text("lastModified", "When the resource last changed.")
            },
            Attribute {
                kind: Type::Reference,
                case_exact: true,
                mutability: Mutability::ReadOnly,
                reference_types: &["uri"],
                ..text("location", "The resource's address.")
            },
            Attribute {
                case_exact: true,
                mutability: Mutability::ReadOnly,
                ..text("version", "The resource's version, as the ETag header has it.")
            },
        ],
        ..text("meta", "What we keep of the resource itself.")
    },
];

/// `urn:ietf:params:scim:schemas:core:2.0:User` (RFC 7643 §4.1).
pub static USER: Schema = Schema {
    id: "urn:ietf:params:scim:schemas:core:2.0:User",
    name: "User",
    description: "A person of the organisation.",
    attributes: &[
        Attribute {
            required: true,
            uniqueness: Uniqueness::Server,
            ..text(
                "userName",
                "The name that identifies the user, unique in the organisation without regard to \
                 case. Where it is left out, it becomes the primary or work e-mail address.",
            )
        },
        Attribute {
            kind: Type::Complex,
            sub_attributes: &[
                text("formatted", "The whole name, as it is shown."),
                text("familyName", "The family name."),
                text("givenName", "The given name."),
                text("middleName", "The middle name."),
                text("honorificPrefix", "A title before the name, such as Dr."),
                text("honorificSuffix", "A suffix after the name, such as III."),
            ],
            ..text("name", "The parts of the user's name.")
        },
        text("displayName", "The name as it is shown to people."),
        text("nickName", "What the user is called in everyday life."),
        Attribute {
            kind: Type::Reference,
            case_exact: true,
            reference_types: &["external"],
            ..text("profileUrl", "The address of the user's profile.")
        },
        text("title", "The user's title, such as Vice President."),
        text("userType", "The relation to the organisation, such as Employee or Contractor."),
        text(
            "preferredLanguage",
            "The preferred languages, as an Accept-Language header has them.",
        ),
        text("locale", "The locale for dates and numbers, a BCP 47 tag such as en-GB or en_GB."),
        text("timezone", "The time zone, such as Europe/London."),
        Attribute {
            kind: Type::Boolean,
            ..text("active", "Whether the user is active. One who left stays, inactive.")
        },
        Attribute {
            case_exact: true,
            mutability: Mutability::WriteOnly,
            returned: Returned::Never,
            ..text("password", "Accepted and dropped: never stored, logged or returned.")
        },
        Attribute {
            kind: Type::Complex,
            multi_valued: true,
            sub_attributes: &[
                text("value", "The e-mail address."),
                text("display", "A name for people."),
                Attribute {
                    canonical_values: &["work", "home", "other"],
                    ..text("type", "What kind of address it is.")
                },
                PRIMARY,
            ],
            ..text(
                "emails",
                "E-mail addresses. The one marked primary, else the work one, else the first is \
                 unique in the organisation; approvers are found by it.",
            )
        },
        Attribute {
            kind: Type::Complex,
            multi_valued: true,
            sub_attributes: &[
                text("value", "The phone number."),
                text("display", "A name for people."),
                Attribute {
                    canonical_values: &["work", "home", "mobile", "fax", "pager", "other"],
                    ..text("type", "What kind of number it is.")
                },
                PRIMARY,
            ],
            ..text("phoneNumbers", "Phone numbers.")
        },
        Attribute {
            kind: Type::Complex,
            multi_valued: true,
            sub_attributes: &[
                text("value", "The instant-messaging address."),
                text("display", "A name for people."),
                Attribute {
                    canonical_values: &[
                        "aim", "gtalk", "icq", "xmpp", "msn", "skype", "qq", "yahoo",
                    ],
                    ..text("type", "What kind of address it is.")
                },
                PRIMARY,
            ],
            ..text("ims", "Instant-messaging addresses.")
        },
        Attribute {
            kind: Type::Complex,
            multi_valued: true,
            sub_attributes: &[
                Attribute {
                    kind: Type::Reference,
                    case_exact: true,
                    reference_types: &["external"],
                    ..text("value", "The address of the photo.")
                },
                text("display", "A name for people."),
                Attribute {
                    canonical_values: &["photo", "thumbnail"],
                    ..text("type", "What kind of photo it is.")
                },
                PRIMARY,
            ],
            ..text("photos", "Photos of the user.")
        },
        Attribute {
            kind: Type::Complex,
            multi_valued: true,
            sub_attributes: &[
                text("formatted", "The whole address, as it is shown; may have several lines."),
                text("streetAddress", "Street and number; may have several lines."),
                text("locality", "City."),
                text("region", "State or region."),
                text("postalCode", "Postal code."),
                text("country", "Country, an ISO 3166-1 alpha-2 code."),
                Attribute {
                    canonical_values: &["work", "home", "other"],
                    ..text("type", "What kind of address it is.")
                },
                PRIMARY,
            ],
            ..text("addresses", "Postal addresses.")
        },
        Attribute {
            kind: Type::Complex,
            multi_valued: true,
            mutability: Mutability::ReadOnly,
            sub_attributes: &[
                Attribute { mutability: Mutability::ReadOnly, ..text("value", "The group's id.") },
                Attribute {
                    kind: Type::Reference,
                    case_exact: true,
                    mutability: Mutability::ReadOnly,
                    reference_types: &["Group"],
                    ..text("$ref", "The group's address.")
                },
                Attribute {
                    mutability: Mutability::ReadOnly,
                    ..text("display", "The group's name.")
                },
                Attribute {
                    mutability: Mutability::ReadOnly,
                    canonical_values: &["direct"],
                    ..text("type", "How the user is in it.")
                },
            ],
            ..text("groups", "The groups that the user is in. Changed through the groups.")
        },
        Attribute {
            kind: Type::Complex,
            multi_valued: true,
            sub_attributes: &[
                text("value", "The entitlement."),
                text("display", "A name for people."),
                text("type", "What kind of entitlement it is."),
                PRIMARY,
            ],
            ..text("entitlements", "What the user is entitled to.")
        },
        Attribute {
            kind: Type::Complex,
            multi_valued: true,
            sub_attributes: &[
                text("value", "The role."),
                text("display", "A name for people."),
                text("type", "What kind of role it is."),
                PRIMARY,
            ],
            ..text("roles", "The user's roles.")
        },
        Attribute {
            kind: Type::Complex,
            multi_valued: true,
            sub_attributes: &[
                Attribute {
                    kind: Type::Binary,
                    case_exact: true,
                    ..text("value", "The certificate, DER in Base64.")
                },
                text("display", "A name for people."),
                text("type", "What kind of certificate it is."),
                PRIMARY,
            ],
            ..text("x509Certificates", "X.509 certificates.")
        },
    ],
};

/// `urn:ietf:params:scim:schemas:core:2.0:Group` (RFC 7643 §4.2).
pub static GROUP: Schema = Schema {
    id: "urn:ietf:params:scim:schemas:core:2.0:Group",
    name: "Group",
    description: "A group of users.",
    attributes: &[
        Attribute {
            required: true,
            uniqueness: Uniqueness::Server,
            ..text(
                "displayName",
                "The group's name, unique in the organisation without regard to case.",
            )
        },
        Attribute {
            kind: Type::Complex,
            multi_valued: true,
            sub_attributes: &[
                Attribute { mutability: Mutability::Immutable, ..text("value", "The user's id.") },
                Attribute {
                    kind: Type::Reference,
                    case_exact: true,
                    mutability: Mutability::Immutable,
                    reference_types: &["User"],
                    ..text("$ref", "The user's address.")
                },
                Attribute {
                    mutability: Mutability::Immutable,
                    canonical_values: &["User"],
                    ..text("type", "The kind of member: users only, groups in groups are refused.")
                },
            ],
            ..text("members", "The users in the group.")
        },
    ],
};

/// The flag of the preferred value of a multi-valued attribute (RFC 7643 §2.4).
const PRIMARY: Attribute = Attribute {
    kind: Type::Boolean,
    ..text("primary", "Whether it is the preferred one; at most one is.")
};

/// An attribute with the defaults of RFC 7643 §2.2.
pub(super) const fn text(name: &'static str, description: &'static str) -> Attribute {
    Attribute { name, description, ..Attribute::DEFAULT }
}
