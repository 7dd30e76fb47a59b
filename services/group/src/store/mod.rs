//! All SQL of the service.

pub(crate) mod change;
pub(crate) mod filter;
pub(crate) mod group;
pub(crate) mod list;
pub(crate) mod membership;
pub(crate) mod person;
pub(crate) mod together;
