//! The parts of the program `muster` that its tests use as well.

pub mod rehearsal;
pub mod rehearse;
pub mod scim_client;
