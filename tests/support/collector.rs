//! A collector of metrics, as OpenTelemetry's is.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use muster_runtime::grpc;
use muster_runtime::life::Life;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use tokio::net::TcpListener;
use tonic::service::Routes;
use tonic::{Request, Response, Status};

/// What the gauges said last, by name and follower.
type Gauges = Arc<Mutex<HashMap<(String, String), f64>>>;

pub(crate) struct Collector {
    pub(crate) url: String,
    gauges: Gauges,
}

impl Collector {
    /// Starts a collector; it ends with the test's runtime.
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let gauges = Gauges::default();
        let service = MetricsServiceServer::new(Service(gauges.clone()));
        tokio::spawn(grpc::serve(listener, Routes::new(service), Life::new()));
        Self { url, gauges }
    }

    /// Waits until a gauge says what is expected.
    pub(crate) async fn told(&self, name: &str, follower: &str, expected: impl Fn(f64) -> bool) {
        let key = (name.to_owned(), follower.to_owned());
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let last = self.gauges.lock().unwrap().get(&key).copied();
            if last.is_some_and(&expected) {
                return;
            }
            assert!(Instant::now() < deadline, "{key:?} is {last:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

struct Service(Gauges);

#[tonic::async_trait]
impl MetricsService for Service {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        let resources = request.into_inner().resource_metrics.into_iter();
        let scopes = resources.flat_map(|resource| resource.scope_metrics);
        for metric in scopes.flat_map(|scope| scope.metrics) {
            let Some(Data::Gauge(gauge)) = metric.data else { continue };
            for point in gauge.data_points {
                let follower = point.attributes.iter().find(|a| a.key == "muster.follower");
                let follower = follower.and_then(|a| a.value.as_ref()?.value.clone());
                let Some(Value::StringValue(follower)) = follower else { continue };
                let value = match point.value {
                    Some(Number::AsDouble(value)) => value,
                    Some(Number::AsInt(value)) => f64::from(i32::try_from(value).unwrap()),
                    None => continue,
                };
                self.0.lock().unwrap().insert((metric.name.clone(), follower), value);
            }
        }
        Ok(Response::new(ExportMetricsServiceResponse::default()))
    }
}
