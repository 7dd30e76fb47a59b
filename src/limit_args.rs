//! What the gateway lets clients do.

use std::time::Duration;

use clap::Args;
use muster_runtime::http_server;

/// What holds of bodies, filters and operations unless it is set otherwise.
const SCIM: muster_scim::Limits = muster_scim::Limits::DEFAULT;

/// Limits; docs/limits.md says what happens past each.
#[derive(Debug, Clone, Args)]
pub struct LimitArgs {
    /// The most bytes of a request's body
    #[arg(long, env = "MUSTER_MAX_BODY_BYTES", default_value_t = 1024 * 1024, value_name = "BYTES")]
    max_body_bytes: usize,
    /// The same of a group, which holds its members
    #[arg(
        long,
        env = "MUSTER_MAX_GROUP_BYTES",
        default_value_t = 16 * 1024 * 1024,
        value_name = "BYTES"
    )]
    max_group_bytes: usize,
    /// The most members of a group in one request
    #[arg(long, env = "MUSTER_MAX_MEMBERS", default_value_t = SCIM.members, value_name = "NUMBER")]
    max_members: usize,
    /// How deep a body's arrays and objects may nest
    #[arg(
        long,
        env = "MUSTER_MAX_JSON_DEPTH",
        default_value_t = 32,
        value_parser = clap::value_parser!(u8).range(6..=100),
        value_name = "LEVELS"
    )]
    max_json_depth: u8,
    /// The most values of a body, with those inside of others
    #[arg(
        long,
        env = "MUSTER_MAX_JSON_VALUES",
        default_value_t = SCIM.json_values,
        value_name = "NUMBER"
    )]
    max_json_values: usize,
    /// The longest filter or path
    #[arg(
        long,
        env = "MUSTER_MAX_FILTER_BYTES",
        default_value_t = SCIM.filter_bytes,
        value_name = "BYTES"
    )]
    max_filter_bytes: usize,
    /// How deep a filter may nest
    #[arg(
        long,
        env = "MUSTER_MAX_FILTER_DEPTH",
        default_value_t = 16,
        value_parser = clap::value_parser!(u8).range(1..=100),
        value_name = "LEVELS"
    )]
    max_filter_depth: u8,
    /// The most comparisons of a filter
    #[arg(
        long,
        env = "MUSTER_MAX_FILTER_COMPARISONS",
        default_value_t = SCIM.filter_comparisons,
        value_name = "NUMBER"
    )]
    max_filter_comparisons: usize,
    /// The most operations of a PATCH
    #[arg(
        long,
        env = "MUSTER_MAX_PATCH_OPERATIONS",
        default_value_t = SCIM.patch_operations,
        value_name = "NUMBER"
    )]
    max_patch_operations: usize,
    /// The most bytes of a bulk request's body
    #[arg(
        long,
        env = "MUSTER_MAX_BULK_BYTES",
        default_value_t = 4 * 1024 * 1024,
        value_name = "BYTES"
    )]
    max_bulk_bytes: usize,
    /// The most operations of a bulk request
    #[arg(
        long,
        env = "MUSTER_MAX_BULK_OPERATIONS",
        default_value_t = 1_000,
        value_name = "NUMBER"
    )]
    max_bulk_operations: usize,
    /// The most resources of a list
    #[arg(long, env = "MUSTER_MAX_RESULTS", default_value_t = 200, value_name = "NUMBER")]
    max_results: u64,
    /// How many seconds a request may take altogether
    #[arg(
        long,
        env = "MUSTER_REQUEST_SECONDS",
        default_value_t = 30,
        value_parser = clap::value_parser!(u64).range(1..),
        value_name = "SECONDS"
    )]
    request_seconds: u64,
    /// How many seconds a request's body may take to arrive
    #[arg(
        long,
        env = "MUSTER_BODY_SECONDS",
        default_value_t = 30,
        value_parser = clap::value_parser!(u64).range(1..),
        value_name = "SECONDS"
    )]
    body_seconds: u64,
    /// How many seconds a request's header may take to arrive
    #[arg(
        long,
        env = "MUSTER_HEADER_SECONDS",
        default_value_t = 10,
        value_parser = clap::value_parser!(u64).range(1..),
        value_name = "SECONDS"
    )]
    header_seconds: u64,
    /// The most bytes of a request's header
    #[arg(
        long,
        env = "MUSTER_MAX_HEADER_BYTES",
        default_value_t = 64 * 1024,
        value_parser = clap::value_parser!(u64).range(8 * 1024..),
        value_name = "BYTES"
    )]
    max_header_bytes: u64,
    /// The most connections at once; more wait
    #[arg(
        long,
        env = "MUSTER_MAX_CONNECTIONS",
        default_value_t = 4_096,
        value_parser = clap::value_parser!(u32).range(1..),
        value_name = "NUMBER"
    )]
    max_connections: u32,
    /// The most requests a second of one organisation, in each gateway; 0 for any number
    #[arg(long, env = "MUSTER_ORGANISATION_RATE", default_value_t = 0, value_name = "NUMBER")]
    organisation_rate: u32,
    /// The most requests a second with one API key, in each gateway; 0 for any number
    #[arg(long, env = "MUSTER_KEY_RATE", default_value_t = 0, value_name = "NUMBER")]
    key_rate: u32,
    /// How many requests of one organisation are under way at once, in each gateway; more wait
    #[arg(
        long,
        env = "MUSTER_ORGANISATION_IN_FLIGHT",
        default_value_t = 16,
        value_parser = clap::value_parser!(u32).range(1..=10_000),
        value_name = "NUMBER"
    )]
    organisation_in_flight: u32,
    /// The same while others have requests, too [default: half of the cores]
    #[arg(
        long,
        env = "MUSTER_ORGANISATION_IN_FLIGHT_BESIDE",
        value_parser = clap::value_parser!(u32).range(1..=10_000),
        value_name = "NUMBER"
    )]
    organisation_in_flight_beside: Option<u32>,
    /// For how many milliseconds a key is not looked up again: so much later a revocation holds
    #[arg(
        long,
        env = "MUSTER_KEY_CACHE_MILLISECONDS",
        default_value_t = 1_000,
        value_parser = clap::value_parser!(u64).range(..=10_000),
        value_name = "MILLISECONDS"
    )]
    key_cache_milliseconds: u64,
}

impl LimitArgs {
    /// The limits of requests.
    #[must_use]
    pub fn requests(&self) -> muster_gateway::Limits {
        let others = muster_gateway::Limits::default();
        muster_gateway::Limits {
            group_bytes: self.max_group_bytes,
            scim: muster_scim::Limits {
                json_depth: usize::from(self.max_json_depth),
                json_values: self.max_json_values,
                filter_bytes: self.max_filter_bytes,
                filter_depth: usize::from(self.max_filter_depth),
                filter_comparisons: self.max_filter_comparisons,
                patch_operations: self.max_patch_operations,
                members: self.max_members,
            },
            organisation_in_flight_beside: self
                .organisation_in_flight_beside
                .map_or(others.organisation_in_flight_beside, |number| {
                    usize::try_from(number).unwrap_or(1)
                }),
            body_bytes: self.max_body_bytes,
            body_time: Duration::from_secs(self.body_seconds),
            request_time: Duration::from_secs(self.request_seconds),
            max_results: self.max_results,
            bulk_bytes: self.max_bulk_bytes,
            bulk_operations: self.max_bulk_operations,
            key_rate: self.key_rate,
            organisation_rate: self.organisation_rate,
            organisation_in_flight: usize::try_from(self.organisation_in_flight).unwrap_or(1),
            key_time: Duration::from_millis(self.key_cache_milliseconds),
            ..others
        }
    }

    /// The limits of connections.
    #[must_use]
    pub fn connections(&self) -> http_server::Limits {
        http_server::Limits {
            header_time: Duration::from_secs(self.header_seconds),
            header_bytes: usize::try_from(self.max_header_bytes).unwrap_or(usize::MAX),
            connections: usize::try_from(self.max_connections).unwrap_or(usize::MAX),
            ..http_server::Limits::default()
        }
    }
}
