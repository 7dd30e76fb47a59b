//! Requests, counted and measured: OpenTelemetry's semantic conventions for HTTP.

use std::time::Instant;

use http::{Method, StatusCode};
use muster_runtime::metrics::{self, Counted};
use opentelemetry::KeyValue;
use opentelemetry::metrics::{Histogram, UpDownCounter};

/// The methods that have a time series of their own.
const METHODS: [Method; 7] = [
    Method::DELETE,
    Method::GET,
    Method::HEAD,
    Method::OPTIONS,
    Method::PATCH,
    Method::POST,
    Method::PUT,
];

/// The instruments. Cloning them gives the same.
#[derive(Debug, Clone)]
pub(crate) struct Requests {
    active: UpDownCounter<i64>,
    duration: Histogram<f64>,
}

/// A request under way.
pub(crate) struct Measured {
    attributes: Vec<KeyValue>,
    duration: Histogram<f64>,
    begun: Instant,
    _active: Counted,
}

impl Requests {
    pub(crate) fn new() -> Self {
        Self {
            active: metrics::HTTP_ACTIVE.up_down_counter(),
            duration: metrics::HTTP_DURATION.histogram(),
        }
    }

    /// A request to a route; none where there is no such.
    pub(crate) fn begin(&self, method: &Method, route: Option<&str>) -> Measured {
        let known = METHODS.contains(method);
        let method = if known { method.as_str().to_owned() } else { "_OTHER".to_owned() };
        let mut attributes = vec![KeyValue::new("http.request.method", method)];
        attributes.extend(route.map(|route| KeyValue::new("http.route", route.to_owned())));
        Measured {
            attributes,
            duration: self.duration.clone(),
            begun: Instant::now(),
            _active: Counted::begin(&self.active),
        }
    }
}

impl Measured {
    pub(crate) fn answered(mut self, status: StatusCode) {
        let code = i64::from(status.as_u16());
        self.attributes.push(KeyValue::new("http.response.status_code", code));
        if status.is_server_error() {
            self.attributes.push(KeyValue::new("error.type", code.to_string()));
        }
        self.duration.record(self.begun.elapsed().as_secs_f64(), &self.attributes);
    }
}
