//! All SQL of the service.

pub(crate) mod approver;
pub(crate) mod list;
pub(crate) mod person;
