//! End-to-end tests: the running program, over HTTP, gRPC and the command line, as one process and
//! as four.

#![allow(clippy::unwrap_used, reason = "a test that fails panics")]

mod support;

mod architecture;
mod bulk;
mod command_line;
mod faults;
mod feed;
mod filters;
mod guide;
mod isolation;
mod lists;
mod local_postgres;
mod model;
mod races;
mod sequential;
mod sessions;
