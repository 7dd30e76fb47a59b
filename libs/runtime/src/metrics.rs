//! Every metric there is. Those that have a name in OpenTelemetry's semantic conventions have that;
//! ours begin with `muster`. Dashboards and alerts may name these only: `tests/telemetry.rs`.
//!
//! An instrument that is made before telemetry starts, or where metrics are exported nowhere, does
//! nothing.

use opentelemetry::KeyValue;
use opentelemetry::global;
use opentelemetry::metrics::{Counter, Histogram, UpDownCounter};

/// What is measured, by which name.
#[derive(Debug)]
pub struct Metric {
    /// Its name in OTLP. Prometheus has `_` for `.`, and the unit and `_total` behind it.
    pub name: &'static str,
    /// The unit as UCUM writes it.
    pub unit: &'static str,
    /// What it is of.
    pub kind: Kind,
    /// What it says.
    pub description: &'static str,
    /// What tells its series apart.
    pub attributes: &'static [&'static str],
}

/// How a metric goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Durations in seconds, in buckets.
    Histogram,
    /// It only grows.
    Counter,
    /// A number of things that come and go.
    UpDownCounter,
    /// What is, when it is looked at.
    Gauge,
}

/// Requests over HTTP. `error.type` where it is our fault.
pub const HTTP_DURATION: Metric = Metric {
    name: "http.server.request.duration",
    unit: "s",
    kind: Kind::Histogram,
    description: "How long requests over HTTP took",
    attributes: &["http.request.method", "http.route", "http.response.status_code", "error.type"],
};

/// Requests under way.
pub const HTTP_ACTIVE: Metric = Metric {
    name: "http.server.active_requests",
    unit: "{request}",
    kind: Kind::UpDownCounter,
    description: "Requests over HTTP that are under way",
    attributes: &[],
};

/// Calls that came in. A stream: until it was open.
pub const RPC_SERVER_DURATION: Metric = Metric {
    name: "rpc.server.call.duration",
    unit: "s",
    kind: Kind::Histogram,
    description: "How long gRPC calls took that came in",
    attributes: &["rpc.system.name", "rpc.method", "rpc.response.status_code", "error.type"],
};

/// Calls that went out, with their retries. A stream: until it was open.
pub const RPC_CLIENT_DURATION: Metric = Metric {
    name: "rpc.client.call.duration",
    unit: "s",
    kind: Kind::Histogram,
    description: "How long gRPC calls took that went out to another process",
    attributes: &["rpc.system.name", "rpc.method", "rpc.response.status_code", "error.type"],
};

/// Connections; the state is `used` or `idle`.
pub const POOL_CONNECTIONS: Metric = Metric {
    name: "db.client.connection.count",
    unit: "{connection}",
    kind: Kind::Gauge,
    description: "Connections to Postgres",
    attributes: &["db.client.connection.pool.name", "db.client.connection.state"],
};

/// The pool's size.
pub const POOL_MAX: Metric = Metric {
    name: "db.client.connection.max",
    unit: "{connection}",
    kind: Kind::Gauge,
    description: "The most connections to Postgres that the pool may hold",
    attributes: &["db.client.connection.pool.name"],
};

/// How long transactions waited for one of the pool's connections.
pub const POOL_WAIT: Metric = Metric {
    name: "db.client.connection.wait_time",
    unit: "s",
    kind: Kind::Histogram,
    description: "How long a transaction waited for a connection",
    attributes: &["db.client.connection.pool.name"],
};

/// Transactions that waited in vain.
pub const POOL_TIMEOUTS: Metric = Metric {
    name: "db.client.connection.timeouts",
    unit: "{timeout}",
    kind: Kind::Counter,
    description: "Transactions that got no connection in time",
    attributes: &["db.client.connection.pool.name"],
};

/// How late a follower is.
pub const FEED_LAG: Metric = Metric {
    name: "muster.feed.lag",
    unit: "s",
    kind: Kind::Gauge,
    description: "Age of the oldest change of identity that is not applied",
    attributes: &["muster.follower"],
};

/// How much it has before it.
pub const FEED_LAG_CHANGES: Metric = Metric {
    name: "muster.feed.lag.changes",
    unit: "{change}",
    kind: Kind::Gauge,
    description: "Changes of identity that are not applied",
    attributes: &["muster.follower"],
};

/// Who follows.
pub const FEED_STREAMS: Metric = Metric {
    name: "muster.feed.streams",
    unit: "{stream}",
    kind: Kind::Gauge,
    description: "Readers who watch a feed",
    attributes: &["muster.feed"],
};

/// `muster.result` is `hit`, or `miss` where identity was asked.
pub const KEY_LOOKUPS: Metric = Metric {
    name: "muster.api_key.lookups",
    unit: "{lookup}",
    kind: Kind::Counter,
    description: "Looks for an API key among those that were let pass a moment ago",
    attributes: &["muster.result"],
};

/// Requests that wait for a place of their organisation.
pub const PLACES_WAITING: Metric = Metric {
    name: "muster.organisation.requests.waiting",
    unit: "{request}",
    kind: Kind::UpDownCounter,
    description: "Requests that wait because so many of their organisation are under way",
    attributes: &[],
};

/// Requests of clients who go faster than they may; `muster.limit` says of whom.
pub const RATE_REFUSED: Metric = Metric {
    name: "muster.rate.refused",
    unit: "{request}",
    kind: Kind::Counter,
    description: "Requests refused because there were too many in that second",
    attributes: &["muster.limit"],
};

/// The queue of the provisioning log.
pub const LOG_QUEUE: Metric = Metric {
    name: "muster.provisioning_log.queue",
    unit: "{request}",
    kind: Kind::Gauge,
    description: "SCIM requests that wait to be written to the provisioning log",
    attributes: &[],
};

/// `muster.reason` is `full`, `refused` or `stopped`.
pub const LOG_LOST: Metric = Metric {
    name: "muster.provisioning_log.lost",
    unit: "{request}",
    kind: Kind::Counter,
    description: "SCIM requests that are missing from the provisioning log",
    attributes: &["muster.reason"],
};

/// Sign-ins that wait for a core.
pub const PASSWORDS_WAITING: Metric = Metric {
    name: "muster.password.waiting",
    unit: "{password}",
    kind: Kind::UpDownCounter,
    description: "Passwords that wait to be checked",
    attributes: &[],
};

/// The process' own certificate, of mutual TLS.
pub const CERTIFICATE_LEFT: Metric = Metric {
    name: "muster.certificate.left",
    unit: "s",
    kind: Kind::Gauge,
    description: "How long the certificate is still valid that the process shows to other parts",
    attributes: &[],
};

/// All of them.
pub const ALL: [&Metric; 18] = [
    &HTTP_DURATION,
    &HTTP_ACTIVE,
    &RPC_SERVER_DURATION,
    &RPC_CLIENT_DURATION,
    &POOL_CONNECTIONS,
    &POOL_MAX,
    &POOL_WAIT,
    &POOL_TIMEOUTS,
    &FEED_LAG,
    &FEED_LAG_CHANGES,
    &FEED_STREAMS,
    &KEY_LOOKUPS,
    &PLACES_WAITING,
    &RATE_REFUSED,
    &LOG_QUEUE,
    &LOG_LOST,
    &PASSWORDS_WAITING,
    &CERTIFICATE_LEFT,
];

/// The buckets that the conventions advise for durations.
const SECONDS: [f64; 14] =
    [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];

impl Metric {
    /// An instrument for durations.
    #[must_use]
    pub fn histogram(&self) -> Histogram<f64> {
        global::meter("muster")
            .f64_histogram(self.name)
            .with_unit(self.unit)
            .with_description(self.description)
            .with_boundaries(SECONDS.to_vec())
            .build()
    }

    /// An instrument that counts, and is there before there is anything to count.
    #[must_use]
    pub fn counter(&self) -> Counter<u64> {
        let counter = global::meter("muster")
            .u64_counter(self.name)
            .with_unit(self.unit)
            .with_description(self.description)
            .build();
        counter.add(0, &[]);
        counter
    }

    /// The same to and fro.
    #[must_use]
    pub fn up_down_counter(&self) -> UpDownCounter<i64> {
        let counter = global::meter("muster")
            .i64_up_down_counter(self.name)
            .with_unit(self.unit)
            .with_description(self.description)
            .build();
        counter.add(0, &[]);
        counter
    }

    /// Asks `look` whenever metrics are exported; none says nothing.
    pub fn gauge(
        &self,
        attributes: impl Into<Vec<KeyValue>>,
        look: impl Fn() -> Option<f64> + Send + Sync + 'static,
    ) {
        let attributes = attributes.into();
        global::meter("muster")
            .f64_observable_gauge(self.name)
            .with_unit(self.unit)
            .with_description(self.description)
            .with_callback(move |gauge| {
                if let Some(value) = look() {
                    gauge.observe(value, &attributes);
                }
            })
            .build();
    }
}

/// A count as gauges have it.
#[must_use]
pub fn number(count: impl TryInto<u32>) -> f64 {
    f64::from(count.try_into().unwrap_or(u32::MAX))
}

/// Counts one up as long as it lives.
#[derive(Debug)]
pub struct Counted {
    counter: UpDownCounter<i64>,
}

impl Counted {
    /// Begins to count.
    #[must_use]
    pub fn begin(counter: &UpDownCounter<i64>) -> Self {
        counter.add(1, &[]);
        Self { counter: counter.clone() }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.counter.add(-1, &[]);
    }
}
