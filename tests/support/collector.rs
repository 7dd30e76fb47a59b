//! A collector of traces, metrics and logs, as OpenTelemetry's is.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use muster_runtime::grpc;
use muster_runtime::life::Life;
use muster_runtime::metrics::Kind;
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_server::{
    LogsService, LogsServiceServer,
};
use opentelemetry_proto::tonic::collector::logs::v1::{
    ExportLogsServiceRequest, ExportLogsServiceResponse,
};
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::metrics::v1::Metric;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use tokio::net::TcpListener;
use tonic::service::Routes;
use tonic::{Request, Response, Status};

/// How long what is expected may take to come.
const PATIENCE: Duration = Duration::from_secs(30);

/// Attributes by name, numbers as text.
pub(crate) type Attributes = BTreeMap<String, String>;

/// A span that has ended.
#[derive(Debug, Clone)]
pub(crate) struct Span {
    pub(crate) service: String,
    pub(crate) trace_id: String,
    pub(crate) id: String,
    /// Empty for a root.
    pub(crate) parent: String,
    pub(crate) name: String,
    pub(crate) kind: SpanKind,
    pub(crate) nanoseconds: (u64, u64),
    pub(crate) attributes: Attributes,
    /// Trace and span of what it is linked to.
    pub(crate) links: Vec<(String, String)>,
}

/// A record of a log.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    pub(crate) service: String,
    pub(crate) trace_id: String,
    pub(crate) span_id: String,
    pub(crate) severity: String,
    pub(crate) body: String,
    pub(crate) attributes: Attributes,
}

/// One series of a metric, as it was last told.
#[derive(Debug, Clone)]
pub(crate) struct Series {
    pub(crate) name: String,
    pub(crate) unit: String,
    pub(crate) kind: Kind,
    pub(crate) attributes: Attributes,
    /// Of a histogram, how many there were.
    pub(crate) value: f64,
}

#[derive(Default)]
struct Kept {
    spans: Vec<Span>,
    records: Vec<Record>,
    series: HashMap<(String, String, Attributes), Series>,
}

pub(crate) struct Collector {
    pub(crate) url: String,
    kept: Arc<Mutex<Kept>>,
}

impl Collector {
    /// Starts a collector; it ends with the test's runtime.
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let kept = Arc::<Mutex<Kept>>::default();
        let service = Service(kept.clone());
        let mut routes = Routes::builder();
        routes.add_service(TraceServiceServer::new(service.clone()));
        routes.add_service(MetricsServiceServer::new(service.clone()));
        routes.add_service(LogsServiceServer::new(service));
        tokio::spawn(grpc::serve(listener, routes.routes(), Life::new()));
        Self { url, kept }
    }

    pub(crate) fn spans(&self) -> Vec<Span> {
        self.kept.lock().unwrap().spans.clone()
    }

    pub(crate) fn records(&self) -> Vec<Record> {
        self.kept.lock().unwrap().records.clone()
    }

    pub(crate) fn series(&self) -> Vec<Series> {
        self.kept.lock().unwrap().series.values().cloned().collect()
    }

    /// Waits until `look` finds what it looks for in what has come.
    pub(crate) async fn until<T>(&self, what: &str, look: impl Fn(&Self) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = look(self) {
                return found;
            }
            if Instant::now() > deadline {
                for span in self.spans() {
                    eprintln!("{} {} {} < {}", span.service, span.name, span.id, span.parent);
                }
                panic!("{what} does not come");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until a follower's gauge says what is expected.
    pub(crate) async fn told(&self, name: &str, follower: &str, expected: impl Fn(f64) -> bool) {
        let of = |s: &Series| {
            s.name == name && s.attributes.get("muster.follower").is_some_and(|f| f == follower)
        };
        self.until(&format!("{name} of {follower}"), |collector| {
            let found = collector.series().into_iter().find(of)?;
            expected(found.value).then_some(())
        })
        .await;
    }
}

#[derive(Clone)]
struct Service(Arc<Mutex<Kept>>);

fn text(value: Option<AnyValue>) -> String {
    match value.and_then(|value| value.value) {
        Some(Value::StringValue(text)) => text,
        Some(Value::IntValue(number)) => number.to_string(),
        Some(Value::DoubleValue(number)) => number.to_string(),
        Some(Value::BoolValue(is)) => is.to_string(),
        other => format!("{other:?}"),
    }
}

fn attributes(attributes: Vec<KeyValue>) -> Attributes {
    attributes.into_iter().map(|a| (a.key, text(a.value))).collect()
}

fn service(resource: Option<Resource>) -> String {
    let attributes = attributes(resource.unwrap_or_default().attributes);
    attributes.get("service.name").cloned().unwrap_or_default()
}

fn hex(id: &[u8]) -> String {
    use std::fmt::Write as _;
    id.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[tonic::async_trait]
impl TraceService for Service {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        for resource in request.into_inner().resource_spans {
            let service = service(resource.resource);
            for span in resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                let links = span.links.iter().map(|l| (hex(&l.trace_id), hex(&l.span_id)));
                self.0.lock().unwrap().spans.push(Span {
                    service: service.clone(),
                    trace_id: hex(&span.trace_id),
                    id: hex(&span.span_id),
                    parent: hex(&span.parent_span_id),
                    kind: span.kind(),
                    nanoseconds: (span.start_time_unix_nano, span.end_time_unix_nano),
                    links: links.collect(),
                    name: span.name,
                    attributes: attributes(span.attributes),
                });
            }
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl LogsService for Service {
    async fn export(
        &self,
        request: Request<ExportLogsServiceRequest>,
    ) -> Result<Response<ExportLogsServiceResponse>, Status> {
        for resource in request.into_inner().resource_logs {
            let service = service(resource.resource);
            for record in resource.scope_logs.into_iter().flat_map(|scope| scope.log_records) {
                self.0.lock().unwrap().records.push(Record {
                    service: service.clone(),
                    trace_id: hex(&record.trace_id),
                    span_id: hex(&record.span_id),
                    severity: record.severity_text,
                    body: text(record.body),
                    attributes: attributes(record.attributes),
                });
            }
        }
        Ok(Response::new(ExportLogsServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl MetricsService for Service {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        for resource in request.into_inner().resource_metrics {
            let service = service(resource.resource);
            for metric in resource.scope_metrics.into_iter().flat_map(|scope| scope.metrics) {
                let (name, unit) = (metric.name.clone(), metric.unit.clone());
                for (kind, attributes, value) in points(metric) {
                    let key = (service.clone(), name.clone(), attributes.clone());
                    let (name, unit) = (name.clone(), unit.clone());
                    let series = Series { name, unit, kind, attributes, value };
                    self.0.lock().unwrap().series.insert(key, series);
                }
            }
        }
        Ok(Response::new(ExportMetricsServiceResponse::default()))
    }
}

fn points(metric: Metric) -> Vec<(Kind, Attributes, f64)> {
    let number = |value| match value {
        Some(Number::AsDouble(value)) => value,
        Some(Number::AsInt(value)) => f64::from(i32::try_from(value).unwrap()),
        None => f64::NAN,
    };
    match metric.data {
        Some(Data::Gauge(gauge)) => gauge
            .data_points
            .into_iter()
            .map(|point| (Kind::Gauge, attributes(point.attributes), number(point.value)))
            .collect(),
        Some(Data::Sum(sum)) => {
            let kind = if sum.is_monotonic { Kind::Counter } else { Kind::UpDownCounter };
            let points = sum.data_points.into_iter();
            points.map(|p| (kind, attributes(p.attributes), number(p.value))).collect()
        }
        Some(Data::Histogram(histogram)) => histogram
            .data_points
            .into_iter()
            .map(|point| {
                let count = f64::from(u32::try_from(point.count).unwrap());
                (Kind::Histogram, attributes(point.attributes), count)
            })
            .collect(),
        other => panic!("a metric of a kind that there is none of: {other:?}"),
    }
}
