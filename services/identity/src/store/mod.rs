//! All SQL of the service.

pub(crate) mod admin;
pub(crate) mod api_key;
pub(crate) mod import;
pub(crate) mod organisation;
pub(crate) mod report;
pub(crate) mod search;
pub(crate) mod session;
pub(crate) mod user;
