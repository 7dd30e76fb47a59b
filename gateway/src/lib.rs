//! The gateway: SCIM over HTTP and the admin console, in front of the services. It keeps no state and knows no SQL.

mod admission;
mod auth;
mod client_address;
mod console;
mod docs;
mod errors;
mod failure;
mod oidc;
mod parts;
mod provisioning_log;
mod requests;
mod scim;
mod server;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::any;
use muster_runtime::life::Life;
use muster_runtime::transport::Transport;

use admission::Admission;
pub use oidc::Config as OidcConfig;
pub use parts::Parts;
use provisioning_log::Log;
use requests::Requests;

/// Limits of requests; `docs/limits.md` lists them.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The most bytes of a request body.
    pub body_bytes: usize,
    /// The same of a group, whose members are in it.
    pub group_bytes: usize,
    /// Of bodies, filters and operations.
    pub scim: muster_scim::Limits,
    /// How long a body may take to arrive.
    pub body_time: Duration,
    /// How long a request may take altogether; Okta waits 60 s.
    pub request_time: Duration,
    /// The most resources in a list.
    pub max_results: u64,
    /// The most bytes of a bulk request.
    pub bulk_bytes: usize,
    /// The most operations of a bulk request.
    pub bulk_operations: usize,
    /// How long an answer waits for a follower to take a change before the feed brings it.
    pub settle_time: Duration,
    /// The most requests a second with one API key; any number where it is 0.
    pub key_rate: u32,
    /// The most requests a second of one organisation; any number where it is 0.
    pub organisation_rate: u32,
    /// How many requests of one organisation may be under way; more wait their turn.
    pub organisation_in_flight: usize,
    /// How many while other organisations have requests, too.
    pub organisation_in_flight_beside: usize,
    /// For how long a key that identity let pass is let pass without asking: so much later a
    /// revocation holds.
    pub key_time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes: 1024 * 1024,
            group_bytes: 16 * 1024 * 1024,
            scim: muster_scim::Limits::DEFAULT,
            body_time: Duration::from_secs(30),
            request_time: Duration::from_secs(30),
            max_results: 200,
            bulk_bytes: 4 * 1024 * 1024,
            bulk_operations: 1_000,
            settle_time: Duration::from_secs(2),
            key_rate: 0,
            organisation_rate: 0,
            organisation_in_flight: 16,
            organisation_in_flight_beside: half_of_the_cores(),
            key_time: Duration::from_secs(1),
        }
    }
}

/// So that one organisation's requests leave the other half to the others.
fn half_of_the_cores() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| cores.get().div_ceil(2))
}

/// What the gateway needs.
#[derive(Debug, Clone)]
pub struct Config {
    /// The address that clients use, without a slash at the end: `https://muster.example.com`.
    pub public_url: String,
    /// The identity service.
    pub identity: Transport,
    /// The group service.
    pub group: Transport,
    /// The approver service.
    pub approver: Transport,
    /// Limits of requests.
    pub limits: Limits,
    /// Whether requests go on with the trace that their `traceparent` names: where a proxy of our
    /// own in front sets it. Otherwise a request has a trace of its own, linked to the one named.
    pub trusts_traceparent: bool,
    /// What the provisioning log is written with ends with it.
    pub life: Life,
    /// Whether `X-Forwarded-For` says who the client is: where a proxy of our own in front adds to
    /// it. Otherwise it is whoever is at the other end of the connection.
    pub trusts_forwarded_for: bool,
    /// The identity provider that admins may sign in with beside their passwords.
    pub oidc: Option<OidcConfig>,
}

/// Whether an address is one of this machine, where plain text is let pass.
#[must_use]
pub fn is_loopback(url: &str) -> bool {
    oidc::is_loopback(url)
}

/// Everything that the gateway serves.
pub fn router(config: Config) -> Router {
    let limits = config.limits;
    server::needs_identity(&config.life, &config.identity);
    let gateway = Gateway {
        scim_url: format!("{}/scim/v2", config.public_url).into(),
        public_url: config.public_url.as_str().into(),
        trusts_traceparent: config.trusts_traceparent,
        log: Log::start(config.identity.clone(), &config.life),
        life: config.life.clone(),
        trusts_forwarded_for: config.trusts_forwarded_for,
        oidc: config.oidc.clone().map(|provider| {
            oidc::Oidc::new(provider, format!("{}{}", config.public_url, console::BACK))
        }),
        admission: Arc::new(Admission::new(limits)),
        parts: Arc::new(Parts::new(config)),
        limits,
        requests: Requests::new(),
    };
    Router::new()
        .nest("/scim/v2", scim::routes())
        // `nest` takes the prefix alone, but not with a slash behind it.
        .route("/scim/v2/", any(scim::no_such_endpoint))
        .merge(console::routes(&gateway))
        .merge(docs::routes())
        .merge(server::routes())
        .layer(axum::middleware::from_fn_with_state(gateway.clone(), server::observe))
        .with_state(gateway)
}

/// What requests share. Cloning it is cheap.
#[derive(Debug, Clone)]
struct Gateway {
    /// The address that clients use, without a slash at the end.
    public_url: Arc<str>,
    /// The SCIM base URL, which every `meta.location` begins with.
    scim_url: Arc<str>,
    parts: Arc<Parts>,
    admission: Arc<Admission>,
    limits: Limits,
    oidc: Option<oidc::Oidc>,
    trusts_traceparent: bool,
    log: Log,
    requests: Requests,
    life: Life,
    trusts_forwarded_for: bool,
}
