//! The parts of the program `muster` that its tests use as well.

pub mod certificates;
pub mod check;
pub mod demonstration;
pub mod everything;
pub mod feed_args;
pub mod life_args;
pub mod limit_args;
pub mod log_args;
pub mod migrate;
pub mod oidc_args;
pub mod operate;
pub mod parts;
pub mod rehearsal;
pub mod rehearse;
pub mod scim_client;
pub mod secret_file;
pub mod tls_args;
pub mod user;
pub mod watch;
