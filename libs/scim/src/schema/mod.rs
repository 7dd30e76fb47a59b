//! The schemas as data: `/Schemas`, validation, projection, filtering and the documentation all
//! read these (RFC 7643 §7).

mod core;
mod enterprise;
mod muster;

pub use self::core::{GROUP, USER};
pub use self::enterprise::ENTERPRISE_USER;
pub use self::muster::MUSTER_USER;

/// A schema: a URN and its attributes (RFC 7643 §7).
#[derive(Debug, PartialEq)]
pub struct Schema {
    /// The schema's URN.
    pub id: &'static str,
    /// The name in `/Schemas`.
    pub name: &'static str,
    /// One sentence for a person.
    pub description: &'static str,
    /// Its attributes, in the order in which they are shown.
    pub attributes: &'static [Attribute],
}

/// An attribute with its characteristics (RFC 7643 §7).
#[derive(Debug, PartialEq)]
pub struct Attribute {
    /// The name as the schema spells it; clients may use any letter case.
    pub name: &'static str,
    /// One or two sentences for a person.
    pub description: &'static str,
    /// The type of the value, or of each value.
    pub kind: Type,
    /// Whether it is an array of values.
    pub multi_valued: bool,
    /// Whether a resource must have it.
    pub required: bool,
    /// Whether comparison regards letter case.
    pub case_exact: bool,
    /// Whether and when a client may write it.
    pub mutability: Mutability,
    /// When an answer holds it.
    pub returned: Returned,
    /// Whether values must differ between resources.
    pub uniqueness: Uniqueness,
    /// Suggested values; others are accepted unless the attribute says otherwise.
    pub canonical_values: &'static [&'static str],
    /// For `Type::Reference`: what it may point to.
    pub reference_types: &'static [&'static str],
    /// For `Type::Complex`: the parts.
    pub sub_attributes: &'static [Attribute],
}

impl Attribute {
    /// An optional, single-valued, read-write string that ignores case: the defaults of
    /// RFC 7643 §2.2, for struct update syntax.
    pub const DEFAULT: Self = Self {
        name: "",
        description: "",
        kind: Type::String,
        multi_valued: false,
        required: false,
        case_exact: false,
        mutability: Mutability::ReadWrite,
        returned: Returned::Default,
        uniqueness: Uniqueness::None,
        canonical_values: &[],
        reference_types: &[],
        sub_attributes: &[],
    };

    /// The sub-attribute of that name, in any letter case.
    #[must_use]
    pub fn sub_attribute(&self, name: &str) -> Option<&'static Attribute> {
        self.sub_attributes.iter().find(|a| a.name.eq_ignore_ascii_case(name))
    }
}

/// Data types (RFC 7643 §2.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    /// Unicode text.
    String,
    /// `true` or `false`.
    Boolean,
    /// A number with a fraction.
    Decimal,
    /// A whole number.
    Integer,
    /// An RFC 3339 timestamp.
    DateTime,
    /// Base64-encoded bytes.
    Binary,
    /// A URI.
    Reference,
    /// An object of sub-attributes.
    Complex,
}

impl Type {
    /// As `/Schemas` spells it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::String => "string",
            Self::Boolean => "boolean",
            Self::Decimal => "decimal",
            Self::Integer => "integer",
            Self::DateTime => "dateTime",
            Self::Binary => "binary",
            Self::Reference => "reference",
            Self::Complex => "complex",
        }
    }
}

/// Whether and when a client may write an attribute (RFC 7643 §7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutability {
    /// Never written by clients.
    ReadOnly,
    /// Written at any time.
    ReadWrite,
    /// Written once, at creation.
    Immutable,
    /// Written, never read.
    WriteOnly,
}

impl Mutability {
    /// As `/Schemas` spells it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ReadOnly => "readOnly",
            Self::ReadWrite => "readWrite",
            Self::Immutable => "immutable",
            Self::WriteOnly => "writeOnly",
        }
    }
}

/// When an answer holds an attribute (RFC 7643 §7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Returned {
    /// In every answer.
    Always,
    /// In none.
    Never,
    /// Unless the request leaves it out.
    Default,
    /// Only when the request names it.
    Request,
}

impl Returned {
    /// As `/Schemas` spells it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Always => "always",
            Self::Never => "never",
            Self::Default => "default",
            Self::Request => "request",
        }
    }
}

/// Whether values must differ between resources (RFC 7643 §7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Uniqueness {
    /// Values may repeat.
    None,
    /// Unique in the organisation.
    Server,
    /// Unique everywhere.
    Global,
}

/// A kind of resource: its endpoint, core schema and extensions (RFC 7643 §6).
#[derive(Debug, PartialEq)]
pub struct ResourceType {
    /// `User` or `Group`.
    pub name: &'static str,
    /// The path below the base URL, `/Users`.
    pub endpoint: &'static str,
    /// One sentence for a person.
    pub description: &'static str,
    /// The core schema.
    pub schema: &'static Schema,
    /// The extensions, none of them required.
    pub extensions: &'static [&'static Schema],
}

/// Users, with the enterprise and the Muster extension.
pub static USER_TYPE: ResourceType = ResourceType {
    name: "User",
    endpoint: "/Users",
    description: "A person of the organisation.",
    schema: &USER,
    extensions: &[&ENTERPRISE_USER, &MUSTER_USER],
};

/// Groups of users.
pub static GROUP_TYPE: ResourceType = ResourceType {
    name: "Group",
    endpoint: "/Groups",
    description: "A group of users.",
    schema: &GROUP,
    extensions: &[],
};

/// The attributes that every resource has beside those of its schema: `schemas`, `id`,
/// `externalId`, `meta` (RFC 7643 §3.1).
pub use self::core::COMMON;

impl ResourceType {
    /// The top-level attribute of that name, in any letter case: of the common ones or the core
    /// schema.
    #[must_use]
    pub fn attribute(&self, name: &str) -> Option<&'static Attribute> {
        COMMON.iter().chain(self.schema.attributes).find(|a| a.name.eq_ignore_ascii_case(name))
    }

    /// The extension with that URN, in any letter case.
    #[must_use]
    pub fn extension(&self, urn: &str) -> Option<&'static Schema> {
        self.extensions.iter().copied().find(|s| s.id.eq_ignore_ascii_case(urn))
    }
}

impl Schema {
    /// The attribute of that name, in any letter case.
    #[must_use]
    pub fn attribute(&self, name: &str) -> Option<&'static Attribute> {
        self.attributes.iter().find(|a| a.name.eq_ignore_ascii_case(name))
    }
}
