//! End-to-end tests: the running program, over HTTP, gRPC and the command line, as one process and
//! as four.

#![allow(clippy::unwrap_used, reason = "a test that fails panics")]

mod support;

mod accounts;
mod architecture;
mod around;
mod bulk;
mod canary;
mod check;
mod command_line;
mod console;
mod console_speed;
mod csv;
mod docs;
mod faults;
mod feed;
mod feed_following;
mod feed_keeping;
mod feed_reading;
mod feed_restored;
mod feed_waking;
mod filters;
mod fuzz;
mod guessing;
mod guide;
mod hang_ups;
mod hostile_grpc;
mod isolation;
mod large;
mod leavers;
mod letters;
mod limits;
mod lists;
mod local_postgres;
mod log;
mod log_page;
mod manifests;
mod model;
mod monitoring;
mod mutual_tls;
mod people;
mod personal_data;
mod provider;
mod races;
mod raw_sockets;
mod rolling;
mod scans;
mod schemas;
mod sequential;
mod sessions;
mod set_up;
mod settings;
mod statements;
mod telemetry;
mod words;
mod writes_together;
