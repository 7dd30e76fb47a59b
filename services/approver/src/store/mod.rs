//! All SQL of the service.

pub(crate) mod apply;
pub(crate) mod approver;
pub(crate) mod declaration;
pub(crate) mod list;
pub(crate) mod person;
