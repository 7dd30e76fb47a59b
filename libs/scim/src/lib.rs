//! The SCIM protocol as pure functions (RFC 7643, RFC 7644): no I/O, no HTTP, no SQL.

pub mod error;
pub mod schema;

pub use error::{Error, ScimType};
