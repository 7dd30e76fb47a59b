//! What is recorded: Muster's own spans, always; events as the log filter says; and, in a trace that
//! is sampled, one span for each SQL statement.
//!
//! sqlx makes no spans, but tells of each statement when it is over, by an event. The span is made
//! of that, so no statement needs a line of its own, and none can be forgotten.

use std::time::{Duration, SystemTime};

use opentelemetry::trace::{SpanBuilder, SpanKind, TraceContextExt as _, Tracer as _};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::SdkTracer;
use tracing::field::{Field, Visit};
use tracing::subscriber::Interest;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer;

/// Where sqlx tells of statements.
const STATEMENTS: &str = "sqlx::query";

/// What sends logs by OTLP; at `debug` it would send a log of the sending of each.
const SENDING: [&str; 6] = ["h2", "hyper", "hyper_util", "opentelemetry", "tonic", "tower"];

/// One filter for all layers: with a filter each, what one decides of an event that is never sent
/// is taken for the next span's.
pub(super) struct Recorded {
    logged: Targets,
    logs_are_exported: bool,
    /// None where traces go nowhere.
    tracer: Option<SdkTracer>,
}

impl Recorded {
    pub(super) fn new(logged: Targets, logs_are_exported: bool, tracer: Option<SdkTracer>) -> Self {
        Self { logged, logs_are_exported, tracer }
    }

    fn logs(&self, metadata: &Metadata<'_>) -> bool {
        let crate_name = metadata.target().split("::").next().unwrap_or_default();
        let sends = self.logs_are_exported
            && *metadata.level() > Level::INFO
            && SENDING.contains(&crate_name);
        !sends && self.logged.would_enable(metadata.target(), metadata.level())
    }

    fn traces(&self, metadata: &Metadata<'_>) -> bool {
        self.tracer.is_some() && metadata.target() == STATEMENTS
    }
}

impl<S: Subscriber> Layer<S> for Recorded {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if metadata.is_span() {
            return if metadata.target().starts_with("muster") {
                Interest::always()
            } else {
                Interest::never()
            };
        }
        match (self.logs(metadata), self.traces(metadata)) {
            (true, _) => Interest::always(),
            (false, true) => Interest::sometimes(),
            (false, false) => Interest::never(),
        }
    }

    fn enabled(&self, metadata: &Metadata<'_>, _: layer::Context<'_, S>) -> bool {
        if metadata.is_span() {
            return metadata.target().starts_with("muster");
        }
        self.logs(metadata) || (self.traces(metadata) && sampled())
    }

    /// The last word on whether the layers see an event: a statement is a line in the log only where
    /// the filter says so.
    fn event_enabled(&self, event: &Event<'_>, _: layer::Context<'_, S>) -> bool {
        if let Some(tracer) = &self.tracer
            && event.metadata().target() == STATEMENTS
            && sampled()
        {
            let mut statement = Statement::default();
            event.record(&mut statement);
            statement.trace(tracer);
        }
        self.logs(event.metadata())
    }
}

/// Whether the trace that is under way is one of those that are exported.
fn sampled() -> bool {
    Context::map_current(|context| context.span().span_context().is_sampled())
}

/// What sqlx tells of a statement.
#[derive(Default)]
struct Statement {
    /// Its first words; all of it where it has no more.
    summary: String,
    /// The whole; empty where the summary is.
    text: String,
    seconds: f64,
    rows: u64,
}

impl Visit for Statement {
    fn record_debug(&mut self, _: &Field, _: &dyn std::fmt::Debug) {}

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "summary" => value.clone_into(&mut self.summary),
            "db.statement" => value.trim().clone_into(&mut self.text),
            _ => {}
        }
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        if field.name() == "elapsed_secs" {
            self.seconds = value;
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        if field.name() == "rows_returned" {
            self.rows = value;
        }
    }
}

impl Statement {
    /// Makes the span that has just ended. Its text has placeholders where values are; only `BEGIN`
    /// and `SET` have an organisation in the text, and are shown without.
    fn trace(self, tracer: &SdkTracer) {
        let text = if self.text.is_empty() { &self.summary } else { &self.text };
        let (operation, target) = operation_and_target(text);
        let summary = match target {
            Some(target) => format!("{operation} {target}"),
            None => operation.clone(),
        };
        let mut attributes = vec![
            KeyValue::new("db.system.name", "postgresql"),
            KeyValue::new("db.query.summary", summary.clone()),
        ];
        if !["BEGIN", "SET"].contains(&&*operation) {
            attributes.push(KeyValue::new("db.query.text", text.clone()));
            attributes.push(KeyValue::new(
                "db.response.returned_rows",
                i64::try_from(self.rows).unwrap_or(i64::MAX),
            ));
        }
        if let Some(target) = target {
            attributes.push(KeyValue::new("db.collection.name", target.to_owned()));
        }
        attributes.push(KeyValue::new("db.operation.name", operation));
        let end = SystemTime::now();
        let elapsed = Duration::try_from_secs_f64(self.seconds).unwrap_or_default();
        let span = SpanBuilder::from_name(summary)
            .with_kind(SpanKind::Client)
            .with_start_time(end.checked_sub(elapsed).unwrap_or(end))
            .with_attributes(attributes);
        drop(tracer.build_with_context(span, &Context::current()));
    }
}

/// What a statement does, and to which table or with which function first: `SELECT` and `app_user`.
fn operation_and_target(text: &str) -> (String, Option<&str>) {
    const OPERATIONS: [&str; 4] = ["SELECT", "INSERT", "UPDATE", "DELETE"];
    let mut words = text.split(|c: char| c.is_whitespace() || c == ';').filter(|w| !w.is_empty());
    let first = words.clone().next().unwrap_or_default();
    let operation = if first.eq_ignore_ascii_case("WITH") {
        let bare = words.clone().map(|word| word.trim_matches(['(', ')']));
        let is_one = |word: &str| OPERATIONS.iter().any(|o| word.eq_ignore_ascii_case(o));
        bare.into_iter().find(|word| is_one(word)).unwrap_or(first)
    } else {
        first
    };
    let operation = operation.to_ascii_uppercase();
    if !OPERATIONS.contains(&&*operation) {
        return (operation, None);
    }
    let before = if operation == "UPDATE" { "UPDATE" } else { "FROM INTO" };
    let mut target = None;
    while let (None, Some(word)) = (target, words.next()) {
        if before.split(' ').any(|keyword| word.eq_ignore_ascii_case(keyword)) {
            let named = words.clone().next().unwrap_or_default();
            let name = named.split('(').next().unwrap_or_default().trim_end_matches([',', ')']);
            target = (!name.is_empty()).then_some(name);
        }
    }
    (operation, target)
}

#[cfg(test)]
mod tests {
    use super::operation_and_target;

    #[test]
    fn a_statement_is_named_by_what_it_does_to_what() {
        for (text, operation, target) in [
            ("SELECT id FROM app_user WHERE id = $1 FOR UPDATE", "SELECT", Some("app_user")),
            ("select count(*) from list_users($1, $2)", "SELECT", Some("list_users")),
            ("SELECT x FROM (SELECT 1) AS y JOIN z USING (x)", "SELECT", None),
            ("INSERT INTO app_group\n  (id) VALUES ($1)", "INSERT", Some("app_group")),
            ("UPDATE app_user SET x = $1", "UPDATE", Some("app_user")),
            ("DELETE FROM membership WHERE id = $1", "DELETE", Some("membership")),
            ("WITH gone AS (DELETE FROM a RETURNING id) SELECT 1 FROM b", "DELETE", Some("a")),
            ("BEGIN; SET LOCAL muster.organisation_id = 'x'", "BEGIN", None),
            ("COMMIT", "COMMIT", None),
            ("", "", None),
        ] {
            assert_eq!(operation_and_target(text), (operation.to_owned(), target), "{text}");
        }
    }
}
