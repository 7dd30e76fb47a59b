//! The SCIM protocol as pure functions (RFC 7643, RFC 7644): no I/O, no HTTP, no SQL.
//!
//! A resource is a JSON object in canonical form: attributes spelt as the schema spells them,
//! extensions under their URN, what is unassigned absent (no nulls, no empty arrays).

pub mod bulk;
pub mod caseless;
pub mod discovery;
pub mod error;
pub mod filter;
pub mod json;
mod limits;
pub mod list;
pub mod members;
pub mod patch;
pub mod path;
pub mod projection;
pub mod resource;
pub mod schema;

pub use error::{Error, ScimType};
pub use limits::Limits;

/// A JSON object.
pub type Object = serde_json::Map<String, serde_json::Value>;
