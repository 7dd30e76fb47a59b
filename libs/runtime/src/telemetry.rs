//! Traces, metrics and logs by OpenTelemetry; logs on standard error as well.
//!
//! All three are exported by OTLP where `OTEL_EXPORTER_OTLP_ENDPOINT` is set, by the standard
//! variables; without it spans still carry ids, which errors and logs tell.

use std::io::IsTerminal as _;

use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator as _};
use opentelemetry::trace::{TraceContextExt as _, TracerProvider as _};
use opentelemetry::{Context, KeyValue};
use opentelemetry_appender_tracing::layer::OpenTelemetryTracingBridge;
use opentelemetry_otlp::{ExporterBuildError, LogExporter, MetricExporter, SpanExporter};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::logs::SdkLoggerProvider;
use opentelemetry_sdk::metrics::SdkMeterProvider;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

mod lines;
mod recorded;

use lines::Lines;
use recorded::Recorded;

/// How logs are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// One line for a person.
    Text,
    /// One JSON object a line, with the ids of the trace and the span.
    Json,
}

/// Held while the process runs; dropping it sends what is still queued.
#[derive(Debug)]
pub struct Telemetry {
    spans: SdkTracerProvider,
    /// None where metrics go nowhere.
    meters: Option<SdkMeterProvider>,
    /// None where logs go to standard error only.
    logs: Option<SdkLoggerProvider>,
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        told("spans", self.spans.shutdown());
        told("metrics", self.meters.as_ref().map_or(Ok(()), SdkMeterProvider::shutdown));
        told("logs", self.logs.as_ref().map_or(Ok(()), SdkLoggerProvider::shutdown));
    }
}

fn told(signal: &str, ended: OTelSdkResult) {
    if let Err(error) = ended {
        tracing::debug!(signal, %error, "the last were not exported");
    }
}

/// Starts telemetry for a process; `service` becomes `service.name` unless `OTEL_SERVICE_NAME` is
/// set. What is logged follows `MUSTER_LOG` (as `RUST_LOG` does), `default_filter` without it.
pub fn start(service: &str, format: LogFormat, default_filter: &str) -> Result<Telemetry, String> {
    let service = std::env::var("OTEL_SERVICE_NAME").unwrap_or_else(|_| service.to_owned());
    let resource = Resource::builder()
        .with_attributes([
            KeyValue::new("service.name", service),
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            KeyValue::new("service.instance.id", uuid::Uuid::new_v4().to_string()),
        ])
        .build();
    let meters = meters(resource.clone())?;
    let logs = logs(resource.clone())?;
    let spans = SdkTracerProvider::builder().with_resource(resource);
    let exported = exports("TRACES");
    let spans = if exported {
        let exporter = SpanExporter::builder().with_tonic().build();
        spans.with_batch_exporter(exporter.map_err(|error| cannot("traces", error))?)
    } else {
        spans
    };
    let spans = spans.build();
    let tracer = spans.tracer("muster");
    let filter = std::env::var("MUSTER_LOG").unwrap_or_else(|_| default_filter.to_owned());
    let logged: Targets =
        filter.parse().map_err(|error| format!("MUSTER_LOG is {filter:?}: {error}"))?;
    let lines = match format {
        LogFormat::Text => tracing_subscriber::fmt::layer()
            .with_writer(std::io::stderr)
            .with_target(false)
            .with_ansi(std::io::stderr().is_terminal())
            .boxed(),
        LogFormat::Json => json_subscriber::fmt::layer()
            .with_writer(std::io::stderr)
            .with_span_list(false)
            .with_opentelemetry_ids(true)
            .boxed(),
    };
    tracing_subscriber::registry()
        .with(Recorded::new(logged, logs.is_some(), exported.then(|| tracer.clone())))
        .with(
            tracing_opentelemetry::layer()
                .with_tracer(tracer)
                .with_location(false)
                .with_threads(false)
                .with_tracked_inactivity(false),
        )
        .with(logs.as_ref().map(OpenTelemetryTracingBridge::new))
        .with(Lines(lines))
        .try_init()
        .map_err(|error| error.to_string())?;
    Ok(Telemetry { spans, meters, logs })
}

/// Whether a signal is exported: to the address for all, or to one of its own.
fn exports(signal: &str) -> bool {
    ["OTEL_EXPORTER_OTLP_ENDPOINT", &format!("OTEL_EXPORTER_OTLP_{signal}_ENDPOINT")]
        .iter()
        .any(|name| std::env::var(name).is_ok_and(|value| !value.is_empty()))
}

fn cannot(signal: &str, error: ExporterBuildError) -> String {
    format!("cannot export {signal} by OTLP: {error}")
}

/// Starts the export of metrics, every minute or as `OTEL_METRIC_EXPORT_INTERVAL` says.
fn meters(resource: Resource) -> Result<Option<SdkMeterProvider>, String> {
    if !exports("METRICS") {
        return Ok(None);
    }
    let exporter = MetricExporter::builder().with_tonic().build();
    let meters = SdkMeterProvider::builder()
        .with_resource(resource)
        .with_periodic_exporter(exporter.map_err(|error| cannot("metrics", error))?)
        .build();
    opentelemetry::global::set_meter_provider(meters.clone());
    Ok(Some(meters))
}

/// Starts the export of logs.
fn logs(resource: Resource) -> Result<Option<SdkLoggerProvider>, String> {
    if !exports("LOGS") {
        return Ok(None);
    }
    let exporter = LogExporter::builder().with_tonic().build();
    let logs = SdkLoggerProvider::builder()
        .with_resource(resource)
        .with_batch_exporter(exporter.map_err(|error| cannot("logs", error))?)
        .build();
    Ok(Some(logs))
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
