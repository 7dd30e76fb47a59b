//! Traces and metrics by OpenTelemetry, logs on standard error.
//!
//! Both are exported by OTLP where `OTEL_EXPORTER_OTLP_ENDPOINT` is set, by the standard
//! variables; without it spans still carry ids, which errors and logs tell.

use std::io::IsTerminal as _;

use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator as _};
use opentelemetry::trace::{TraceContextExt as _, TracerProvider as _};
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::{MetricExporter, SpanExporter};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::SdkMeterProvider;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// How logs are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// One line for a person.
    Text,
    /// One JSON object a line.
    Json,
}

/// Held while the process runs; dropping it sends what is still queued.
#[derive(Debug)]
pub struct Telemetry {
    provider: SdkTracerProvider,
    /// None where metrics go nowhere.
    meters: Option<SdkMeterProvider>,
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        if let Err(error) = self.provider.shutdown() {
            tracing::debug!(%error, "the last spans were not exported");
        }
        if let Some(Err(error)) = self.meters.as_ref().map(SdkMeterProvider::shutdown) {
            tracing::debug!(%error, "the last metrics were not exported");
        }
    }
}

/// Starts telemetry for a process; `service` becomes `service.name` unless `OTEL_SERVICE_NAME` is
/// set. What is logged follows `MUSTER_LOG` (as `RUST_LOG` does), `default_filter` without it.
pub fn start(service: &str, format: LogFormat, default_filter: &str) -> Result<Telemetry, String> {
    let service = std::env::var("OTEL_SERVICE_NAME").unwrap_or_else(|_| service.to_owned());
    let resource =
        Resource::builder().with_attribute(KeyValue::new("service.name", service)).build();
    let meters = meters(resource.clone())?;
    let mut provider = SdkTracerProvider::builder().with_resource(resource);
    if exported("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") {
        let exporter = SpanExporter::builder()
            .with_tonic()
            .build()
            .map_err(|error| format!("cannot export traces by OTLP: {error}"))?;
        provider = provider.with_batch_exporter(exporter);
    }
    let provider = provider.build();
    let filter = std::env::var("MUSTER_LOG").unwrap_or_else(|_| default_filter.to_owned());
    let logged: Targets =
        filter.parse().map_err(|error| format!("MUSTER_LOG is {filter:?}: {error}"))?;
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(false);
    let lines = match format {
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).boxed(),
        LogFormat::Json => lines.json().with_span_list(false).boxed(),
    };
    let spans = tracing_opentelemetry::layer()
        .with_tracer(provider.tracer("muster"))
        .with_location(false)
        .with_threads(false);
    // Our spans exist for traces whatever the logs show. One filter for both layers: with a filter
    // each, what one decides of an event that is never sent is taken for the next span's.
    let filter = filter_fn(move |metadata| {
        if metadata.is_span() {
            metadata.target().starts_with("muster")
        } else {
            logged.would_enable(metadata.target(), metadata.level())
        }
    });
    tracing_subscriber::registry()
        .with(filter)
        .with(spans)
        .with(lines)
        .try_init()
        .map_err(|error| error.to_string())?;
    Ok(Telemetry { provider, meters })
}

/// Whether a signal is exported: to the address for all, or to one of its own.
fn exported(own: &str) -> bool {
    ["OTEL_EXPORTER_OTLP_ENDPOINT", own]
        .iter()
        .any(|name| std::env::var(name).is_ok_and(|value| !value.is_empty()))
}

/// Starts the export of metrics, every minute or as `OTEL_METRIC_EXPORT_INTERVAL` says.
fn meters(resource: Resource) -> Result<Option<SdkMeterProvider>, String> {
    if !exported("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT") {
        return Ok(None);
    }
    let exporter = MetricExporter::builder()
        .with_tonic()
        .build()
        .map_err(|error| format!("cannot export metrics by OTLP: {error}"))?;
    let meters = SdkMeterProvider::builder()
        .with_resource(resource)
        .with_periodic_exporter(exporter)
        .build();
    opentelemetry::global::set_meter_provider(meters.clone());
    Ok(Some(meters))
}

/// The trace id of the current span, as 32 hexadecimal digits; none outside a trace.
#[must_use]
pub fn trace_id() -> Option<String> {
    let context = Span::current().context();
    let id = context.span().span_context().trace_id();
    (id != opentelemetry::trace::TraceId::INVALID).then(|| id.to_string())
}

/// The W3C `traceparent` of the current span; none outside a trace.
#[must_use]
pub fn traceparent() -> Option<String> {
    let mut headers = http::HeaderMap::new();
    inject(&mut headers);
    headers.remove("traceparent").and_then(|value| value.to_str().ok().map(str::to_owned))
}

/// Writes the current span's context into the headers of a call that goes out.
pub(crate) fn inject(headers: &mut http::HeaderMap) {
    let span = Span::current();
    if !span.is_none() {
        TraceContextPropagator::new().inject_context(&span.context(), &mut Headers(headers));
    }
}

/// The context in the headers of a call that came in.
#[must_use]
pub fn extract(headers: &http::HeaderMap) -> Context {
    TraceContextPropagator::new().extract(&HeadersRef(headers))
}

/// Makes `span` a child of the context in the headers of a call from another part of Muster, or
/// from a proxy that is trusted.
pub fn continue_trace(span: &Span, headers: &http::HeaderMap) {
    if !span.is_none() && headers.contains_key("traceparent") {
        // Fails only where the span has started already, and then it has its parent.
        drop(span.set_parent(extract(headers)));
    }
}

/// Links `span`, the root of a trace of its own, to the context that a client outside sent.
pub fn link_trace(span: &Span, headers: &http::HeaderMap) {
    if !span.is_none() && headers.contains_key("traceparent") {
        let context = extract(headers).span().span_context().clone();
        if context.is_valid() {
            span.add_link(context);
        }
    }
}

/// Links `span` to the span of another trace, by its W3C `traceparent`; nothing where it is none.
pub fn link(span: &Span, traceparent: &str) {
    if span.is_none() {
        return;
    }
    let mut headers = http::HeaderMap::new();
    if let Ok(value) = http::HeaderValue::from_str(traceparent) {
        headers.insert("traceparent", value);
        link_trace(span, &headers);
    }
}

struct Headers<'a>(&'a mut http::HeaderMap);

impl Injector for Headers<'_> {
    fn set(&mut self, key: &str, value: String) {
        if let (Ok(name), Ok(value)) =
            (http::HeaderName::from_bytes(key.as_bytes()), http::HeaderValue::from_str(&value))
        {
            self.0.insert(name, value);
        }
    }
}

struct HeadersRef<'a>(&'a http::HeaderMap);

impl Extractor for HeadersRef<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).and_then(|value| value.to_str().ok())
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(http::HeaderName::as_str).collect()
    }
}
