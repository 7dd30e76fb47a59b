//! What is printed.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::bare::Rates;
use crate::load::Outcome;
use crate::operation::Operation;
use crate::seed::Seed;
use crate::system::{Composition, Memory};

/// One measurement.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    composition: String,
    organisations: usize,
    /// Of each of them.
    users: u32,
    operation: String,
    connections: usize,
    requests_per_second: f64,
    p50_milliseconds: f64,
    p99_milliseconds: f64,
    /// Of Muster's processes, without PostgreSQL's.
    cpu_milliseconds_per_request: f64,
    /// Of the plain statements.
    pgbench_per_second: f64,
    /// Of what pgbench reached.
    ratio: f64,
    /// Of the statements under row-level security.
    isolated_pgbench_per_second: f64,
    /// Of what pgbench reached so.
    ratio_to_isolated: f64,
    errors: usize,
}

/// All of them.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Table {
    rows: Vec<Row>,
    memory: Vec<Remembered>,
}

/// How much memory processes had, in MiB.
#[derive(Debug, Serialize)]
struct Remembered {
    composition: String,
    process: &'static str,
    idle: f64,
    after_load: f64,
}

impl Row {
    pub(crate) fn new(
        composition: impl fmt::Display,
        seeds: &[Seed],
        operation: Operation,
        connections: usize,
        outcome: &Outcome,
        cpu: Duration,
        bare: Rates,
    ) -> Self {
        let milliseconds = |time: Duration| time.as_secs_f64() * 1_000.0;
        Self {
            composition: composition.to_string(),
            organisations: seeds.len(),
            users: seeds[0].size,
            operation: operation.name(),
            connections,
            requests_per_second: outcome.rate(),
            p50_milliseconds: milliseconds(outcome.percentile(50)),
            p99_milliseconds: milliseconds(outcome.percentile(99)),
            cpu_milliseconds_per_request: milliseconds(cpu) / outcome.count(),
            pgbench_per_second: bare.plain,
            ratio: outcome.rate() / bare.plain,
            isolated_pgbench_per_second: bare.isolated,
            ratio_to_isolated: outcome.rate() / bare.isolated,
            errors: outcome.errors,
        }
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "| {} | {} × {} | {} | {} | {:.0} | {:.1} | {:.1} | {:.2} | {:.0} | {:.0} % | {:.0} | \
             {:.0} % | {} |",
            self.composition,
            self.organisations,
            self.users,
            self.operation,
            self.connections,
            self.requests_per_second,
            self.p50_milliseconds,
            self.p99_milliseconds,
            self.cpu_milliseconds_per_request,
            self.pgbench_per_second,
            self.ratio * 100.0,
            self.isolated_pgbench_per_second,
            self.ratio_to_isolated * 100.0,
            self.errors
        )
    }
}

impl Table {
    pub(crate) fn push(&mut self, row: Row) {
        self.rows.push(row);
    }

    pub(crate) fn remember(&mut self, composition: Composition, idle: Memory, loaded: Memory) {
        for ((process, idle), (_, after_load)) in idle.into_iter().zip(loaded) {
            let composition = composition.to_string();
            self.memory.push(Remembered { composition, process, idle, after_load });
        }
    }

    pub(crate) fn to_json(&self) -> anyhow::Result<String> {
        Ok(serde_json::to_string_pretty(self)?)
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "| composition | users | operation | connections | requests/s | p50 ms | p99 ms | CPU \
             ms/request | pgbench/s | ratio | with RLS/s | ratio | errors |\n\
             |---|---|---|---|---|---|---|---|---|---|---|---|---|"
        )?;
        for row in &self.rows {
            writeln!(f, "{row}")?;
        }
        writeln!(f, "\n| composition | process | MiB idle | MiB after load |\n|---|---|---|---|")?;
        for Remembered { composition, process, idle, after_load } in &self.memory {
            writeln!(f, "| {composition} | {process} | {idle:.0} | {after_load:.0} |")?;
        }
        Ok(())
    }
}
