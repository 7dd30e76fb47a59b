//! The parts of the program `muster` that its tests use as well.

pub mod scim_client;
