//! All SQL of the service.

pub(crate) mod admin;
pub(crate) mod api_key;
pub(crate) mod audit;
pub(crate) mod import;
pub(crate) mod invitation;
pub(crate) mod organisation;
pub(crate) mod provisioning_log;
pub(crate) mod report;
pub(crate) mod search;
pub(crate) mod session;
pub(crate) mod sign_in;
pub(crate) mod user;
