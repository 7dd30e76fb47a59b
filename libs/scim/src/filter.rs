//! Filters (RFC 7644 §3.4.2.2): a typed tree, checked against the schema as it is parsed.

mod evaluate;
mod parse;

use std::fmt;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

pub use self::evaluate::{matches, matches_value, sort_key};
pub use self::parse::{parse, parse_among, parse_values};
use crate::path::AttributePath;

/// A condition on a resource, or on one value of a multi-valued attribute.
#[derive(Debug, Clone, PartialEq)]
pub enum Filter {
    /// All of them hold.
    And(Vec<Filter>),
    /// At least one of them holds.
    Or(Vec<Filter>),
    /// It does not hold.
    Not(Box<Filter>),
    /// The attribute has a value (`pr`).
    Present(AttributePath),
    /// The attribute compares so with a value.
    Compare {
        /// The attribute.
        path: AttributePath,
        /// How.
        operator: Operator,
        /// The value.
        operand: Operand,
    },
    /// One value of a multi-valued attribute meets all of a condition:
    /// `emails[type eq "work" and value co "@example.com"]`.
    Values {
        /// The attribute.
        path: AttributePath,
        /// The condition; its paths are relative to the value.
        filter: Box<Filter>,
    },
}

impl Filter {
    /// How many comparisons it makes at most.
    #[must_use]
    pub fn comparisons(&self) -> usize {
        match self {
            Self::And(filters) | Self::Or(filters) => filters.iter().map(Self::comparisons).sum(),
            Self::Not(filter) | Self::Values { filter, .. } => filter.comparisons(),
            Self::Present(_) | Self::Compare { .. } => 1,
        }
    }
}

/// How an attribute is compared (RFC 7644 §3.4.2.2, table 3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    /// `eq`.
    Equal,
    /// `ne`: not `eq`, so true where there is no value.
    NotEqual,
    /// `co`.
    Contains,
    /// `sw`.
    StartsWith,
    /// `ew`.
    EndsWith,
    /// `gt`.
    Greater,
    /// `ge`.
    GreaterOrEqual,
    /// `lt`.
    Less,
    /// `le`.
    LessOrEqual,
}

impl Operator {
    /// The operator as filters have it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Equal => "eq",
            Self::NotEqual => "ne",
            Self::Contains => "co",
            Self::StartsWith => "sw",
            Self::EndsWith => "ew",
            Self::Greater => "gt",
            Self::GreaterOrEqual => "ge",
            Self::Less => "lt",
            Self::LessOrEqual => "le",
        }
    }

    fn from_str(text: &str) -> Option<Self> {
        [
            Self::Equal,
            Self::NotEqual,
            Self::Contains,
            Self::StartsWith,
            Self::EndsWith,
            Self::Greater,
            Self::GreaterOrEqual,
            Self::Less,
            Self::LessOrEqual,
        ]
        .into_iter()
        .find(|operator| operator.as_str().eq_ignore_ascii_case(text))
    }
}

/// What an attribute is compared with, of the attribute's type.
#[derive(Debug, Clone, PartialEq)]
pub enum Operand {
    /// No value.
    Null,
    /// A truth value.
    Boolean(bool),
    /// A whole number.
    Integer(i64),
    /// A number.
    Decimal(f64),
    /// Text.
    String(String),
    /// A moment.
    DateTime(OffsetDateTime),
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let join = |f: &mut fmt::Formatter<'_>, filters: &[Filter], word: &str| {
            for (position, filter) in filters.iter().enumerate() {
                f.write_str(if position == 0 { "(" } else { word })?;
                write!(f, "{filter}")?;
            }
            f.write_str(")")
        };
        match self {
            Self::And(filters) => join(f, filters, " and "),
            Self::Or(filters) => join(f, filters, " or "),
            Self::Not(filter) => write!(f, "not ({filter})"),
            Self::Present(path) => write!(f, "{path} pr"),
            Self::Compare { path, operator, operand } => {
                write!(f, "{path} {} {operand}", operator.as_str())
            }
            Self::Values { path, filter } => write!(f, "{path}[{filter}]"),
        }
    }
}

impl fmt::Display for Operand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Boolean(value) => value.fmt(f),
            Self::Integer(value) => value.fmt(f),
            Self::Decimal(value) => write!(f, "{value:?}"),
            Self::String(text) => serde_json::Value::from(text.as_str()).fmt(f),
            Self::DateTime(moment) => {
                write!(f, "\"{}\"", moment.format(&Rfc3339).map_err(|_| fmt::Error)?)
            }
        }
    }
}
