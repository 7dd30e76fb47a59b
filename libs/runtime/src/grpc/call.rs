//! A gRPC call, as traces and metrics tell of it: OpenTelemetry's semantic conventions for RPC.

use std::time::Instant;

use http::HeaderMap;
use opentelemetry::KeyValue;
use opentelemetry::metrics::Histogram;
use tonic::{Code, Status};
use tower::BoxError;
use tracing::{Span, field, info_span};

/// A call under way, at one of its ends.
pub(crate) struct Call {
    pub(crate) span: Span,
    method: String,
    is_server: bool,
    begun: Instant,
    duration: Histogram<f64>,
}

impl Call {
    /// Begins a call to `path`, `/muster.identity.v1.UserService/GetUser`; `kind` is `client` or
    /// `server`.
    pub(crate) fn begin(kind: &'static str, path: &str, duration: Histogram<f64>) -> Self {
        let method = path.trim_start_matches('/').to_owned();
        let span = info_span!(
            "rpc",
            otel.name = method,
            otel.kind = kind,
            otel.status_code = field::Empty,
            rpc.system.name = "grpc",
            rpc.method = method,
            rpc.response.status_code = field::Empty,
            error.type = field::Empty,
        );
        Self { span, method, is_server: kind == "server", begun: Instant::now(), duration }
    }

    /// Notes the answer; of a stream, that it is open.
    pub(crate) fn ended(self, answer: Result<&HeaderMap, &BoxError>) {
        let code = match answer {
            // An error is in the headers; a status that is to follow is none.
            Ok(headers) => Status::from_header_map(headers).map_or(Code::Ok, |s| s.code()),
            Err(error) => error.downcast_ref::<Status>().map_or(Code::Unavailable, Status::code),
        };
        let name = name(code);
        self.span.record("rpc.response.status_code", name);
        // Whoever asks for what there is not makes no new time series.
        let method = if code == Code::Unimplemented { "_OTHER".to_owned() } else { self.method };
        let mut attributes = vec![
            KeyValue::new("rpc.system.name", "grpc"),
            KeyValue::new("rpc.method", method),
            KeyValue::new("rpc.response.status_code", name),
        ];
        if is_error(code, self.is_server) {
            self.span.record("error.type", name);
            self.span.record("otel.status_code", "error");
            attributes.push(KeyValue::new("error.type", name));
        }
        self.duration.record(self.begun.elapsed().as_secs_f64(), &attributes);
    }
}

/// Whether a status is an error of who says it: a server's own fault, at a client anything.
fn is_error(code: Code, is_server: bool) -> bool {
    match code {
        Code::Ok => false,
        Code::Unknown
        | Code::DeadlineExceeded
        | Code::Unimplemented
        | Code::Internal
        | Code::Unavailable
        | Code::DataLoss => true,
        _ => !is_server,
    }
}

/// A status as the protocol writes it.
fn name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_says_no_without_being_at_fault() {
        assert!(!is_error(Code::NotFound, true) && is_error(Code::NotFound, false));
        assert!(is_error(Code::Internal, true) && !is_error(Code::Ok, false));
    }
}
