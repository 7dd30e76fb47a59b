//! All SQL of the service.

pub(crate) mod approver;
pub(crate) mod person;
mod settle;
