//! All SQL of the service.

pub(crate) mod apply;
pub(crate) mod approver;
mod declaration;
pub(crate) mod list;
pub(crate) mod person;
