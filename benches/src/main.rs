//! Loads Muster, and the bare PostgreSQL below it, in turn on one machine, and prints what each
//! reached and the ratio. `cargo xtask bench` builds and runs it; docs/performance.md says how to read
//! what it prints.

mod bare;
mod bulk;
mod floor;
mod load;
mod operation;
mod seed;
mod sink;
mod system;
mod table;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::bail;
use clap::{Args, Parser, Subcommand};

use crate::load::Outcome;
use crate::operation::Operation;
use crate::seed::Seed;
use crate::system::{Composition, Machine};
use crate::table::{Row, Table};

#[derive(Debug, Parser)]
#[command(about, version)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: RunArgs,
    /// Where the database is kept from one run to the next
    #[arg(long, global = true, default_value = "target/bench", value_name = "FOLDER")]
    folder: PathBuf,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// What tracing one request in a hundred costs: rounds with and without it, in turn
    Telemetry(TelemetryArgs),
    /// What is done to many people at once, with an initial sync, groups and a file: how long it takes
    Bulk(BulkArgs),
    /// What any server of HTTP costs here: one that does nothing but the bare statements
    Floor(floor::FloorArgs),
    #[command(hide = true)]
    Serve(floor::ServeArgs),
    /// A bit of everything for a long time: how much memory the processes have, minute by minute
    Soak(SoakArgs),
}

#[derive(Debug, Args)]
struct BulkArgs {
    /// How many users the organisation has
    #[arg(long, default_value_t = 100_000, value_name = "NUMBER")]
    users: u32,
}

#[derive(Debug, Args)]
struct SoakArgs {
    /// How long
    #[arg(long, default_value_t = 20, value_name = "NUMBER")]
    minutes: u32,
    /// How many users the organisation has
    #[arg(long, default_value_t = 1_000, value_name = "NUMBER")]
    users: u32,
    /// Which composition
    #[arg(long, default_value = "one", value_name = "one|four")]
    composition: Composition,
}

#[derive(Debug, Args)]
struct RunArgs {
    /// How many users organisations have
    #[arg(long, value_delimiter = ',', default_value = "1000,100000", value_name = "NUMBERS")]
    users: Vec<u32>,
    /// An organisation of 1,000,000 as well
    #[arg(long)]
    large: bool,
    /// How many connections at once
    #[arg(long, value_delimiter = ',', default_value = "1,16,64", value_name = "NUMBERS")]
    connections: Vec<usize>,
    /// How many organisations of 1,000 users are written to at once, too; 1 for none
    #[arg(long, default_value_t = 16, value_name = "NUMBER")]
    organisations: u32,
    /// Which operations; all where none is said
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    only: Vec<String>,
    /// Which compositions
    #[arg(long, value_delimiter = ',', default_value = "one,four", value_name = "one,four")]
    compositions: Vec<Composition>,
    /// How long each is loaded
    #[arg(long, default_value_t = 5, value_name = "SECONDS")]
    seconds: u64,
    /// Where to write the table as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct TelemetryArgs {
    /// Which compositions
    #[arg(long, value_delimiter = ',', default_value = "one,four", value_name = "one,four")]
    compositions: Vec<Composition>,
    /// How many rounds of each
    #[arg(long, default_value_t = 8)]
    rounds: u32,
    /// How long a round is
    #[arg(long, default_value_t = 4, value_name = "SECONDS")]
    seconds: u64,
}

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    match cli.command {
        Some(Command::Serve(args)) => tokio::runtime::Runtime::new()?.block_on(floor::serve(args)),
        command => {
            let mut runtime = tokio::runtime::Builder::new_multi_thread();
            // The other core is for what is loaded.
            let runtime = runtime.worker_threads(1).enable_all().build()?;
            runtime.block_on(measure(cli.folder, command, cli.run))
        }
    }
}

async fn measure(folder: PathBuf, command: Option<Command>, args: RunArgs) -> anyhow::Result<()> {
    let machine = Machine::start(&folder).await?;
    match command {
        None => run(&machine, args).await?,
        Some(Command::Floor(args)) => floor::run(&machine, args).await?,
        Some(Command::Telemetry(args)) => telemetry(&machine, args).await?,
        Some(Command::Bulk(args)) => {
            bulk::run(&machine, &Seed::grow(&machine, args.users, 0).await?).await?;
        }
        Some(Command::Soak(args)) => {
            let seed = Seed::grow(&machine, args.users, 0).await?;
            let sink = sink::start().await?;
            bulk::soak(&machine, &seed, args.composition, args.minutes, &traced(&sink)).await?;
        }
        Some(Command::Serve(_)) => bail!("it serves what another process measures"),
    }
    machine.stop().await
}

async fn run(machine: &Machine, args: RunArgs) -> anyhow::Result<()> {
    let mut sizes = args.users.clone();
    sizes.extend(args.large.then_some(1_000_000));
    let mut seeds = Vec::new();
    for size in sizes {
        seeds.push(Seed::grow(machine, size, 0).await?);
    }
    let mut many = Vec::new();
    if args.organisations > 1 {
        for number in 1..=args.organisations {
            many.push(Seed::grow(machine, 1_000, number).await?);
        }
    }
    bare::prepare(machine, seeds.iter().chain(many.first())).await?;
    let mut table = Table::default();
    let sink = sink::start().await?;
    let traced = traced(&sink);
    let chosen =
        |operation: &&Operation| args.only.is_empty() || args.only.contains(&operation.name());
    let seconds = Duration::from_secs(args.seconds);
    for composition in args.compositions {
        let system = machine.run(composition, &traced)?;
        tokio::time::sleep(Duration::from_secs(2)).await;
        let idle = system.memory();
        let alone = seeds.iter().map(|seed| (std::slice::from_ref(seed), &operation::ALL[..]));
        let together = (!many.is_empty()).then_some((&many[..], &operation::WRITES[..]));
        for (seeds, operations) in alone.chain(together) {
            let fitting = operations.iter().filter(|operation| operation.fits(&seeds[0]));
            for &operation in fitting.filter(chosen) {
                for &connections in &args.connections {
                    let bare =
                        bare::rates(machine, operation, &seeds[0], connections, seconds).await?;
                    let cpu = system.cpu();
                    let outcome =
                        load::run(&system, operation, seeds, connections, seconds).await?;
                    let cpu = system.cpu().saturating_sub(cpu);
                    let row =
                        Row::new(composition, seeds, operation, connections, &outcome, cpu, bare);
                    eprintln!("{row}");
                    table.push(row);
                }
            }
        }
        table.remember(composition, idle, system.memory());
        system.check()?;
        system.stop()?;
    }
    println!("{table}");
    if let Some(file) = args.json {
        std::fs::write(file, table.to_json()?)?;
    }
    Ok(())
}

/// One trace in a hundred, all metrics and logs, to a collector.
fn traced(collector: &str) -> [(&str, &str); 4] {
    [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", collector),
        ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
        ("OTEL_TRACES_SAMPLER_ARG", "0.01"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "10000"),
    ]
}

/// Rounds with telemetry and without, in turn, so that what else the machine does falls on both.
async fn telemetry(machine: &Machine, args: TelemetryArgs) -> anyhow::Result<()> {
    let seed = Seed::grow(machine, 1_000, 0).await?;
    let sink = sink::start().await?;
    let exported = traced(&sink);
    let seconds = Duration::from_secs(args.seconds);
    for composition in args.compositions {
        let (with, without) =
            (machine.run(composition, &exported)?, machine.run(composition, &[])?);
        for operation in [Operation::GetUser, Operation::PatchActive] {
            let (mut rates, mut ratios) = ([0.0; 2], Vec::new());
            for round in 0..=args.rounds {
                let mut pair = [0.0; 2];
                // Who goes first changes, too.
                for at in if round % 2 == 0 { [0, 1] } else { [1, 0] } {
                    let system = [&without, &with][at];
                    let outcome: Outcome =
                        load::run(system, operation, std::slice::from_ref(&seed), 16, seconds)
                            .await?;
                    anyhow::ensure!(outcome.errors == 0, "{} errors", outcome.errors);
                    pair[at] = outcome.rate();
                }
                // The first round is to warm up.
                if round > 0 {
                    rates = [rates[0] + pair[0], rates[1] + pair[1]];
                    ratios.push(pair[1] / pair[0]);
                }
            }
            ratios.sort_by(f64::total_cmp);
            println!(
                "{composition}, {}: without {:.0}, with {:.0} requests a second; {:.1} % of the \
                 throughput is left, median of rounds {:.1} %",
                operation.name(),
                rates[0] / f64::from(args.rounds),
                rates[1] / f64::from(args.rounds),
                rates[1] / rates[0] * 100.0,
                ratios[ratios.len() / 2] * 100.0,
            );
        }
        with.stop()?;
        without.stop()?;
    }
    Ok(())
}
