//! What a developer runs: `cargo xtask test` and its parts.

mod bench;
mod deny;
mod faults;
mod manifests;
mod monitoring;
mod reference;
mod sbom;
mod statements;
mod tester;
mod tools;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context as _, bail, ensure};

const HELP: &str = "\
cargo xtask test          format, lints, contracts, SQL and every test; installs what is missing
cargo xtask scim2-tester  scim2-tester alone, against target/debug/muster
cargo xtask sqlx          brings .sqlx up to date with the statements in services/*/src/store
cargo xtask docs          brings the reference in docs/grpc.md up to date with the contracts
cargo xtask manifests     renders deploy/kubernetes and checks it, with target/debug/muster
cargo xtask monitoring    checks the alerts and the dashboard with Prometheus' own tool
cargo xtask bench         loads Muster and the bare PostgreSQL below it in turn, and prints the
                          ratios; bench telemetry: what tracing costs; --help for more
cargo xtask deny          licences, sources and doubles among dependencies; with --advisories what
                          RustSec knows of, too
cargo xtask sbom          prints what the program is made of, as CycloneDX
cargo xtask faults        kills, cuts and stops parts at random under load, and checks that nothing
                          is lost: --minutes N (10), --seed S; or every race, cut and crash of the
                          tests many times over: --full";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (task, options) = args.split_first().map_or(("", &[][..]), |(task, rest)| (task, rest));
    let result = match task {
        "test" => test(),
        "scim2-tester" => scim2_tester(),
        "sqlx" => statements::write(),
        "docs" => reference::write(),
        "sbom" => sbom::print(),
        "bench" => bench::run_with(options),
        "deny" => deny::check(options),
        "manifests" => manifests::check(),
        "monitoring" => monitoring::check(),
        "faults" => faults::run(options),
        _ => Err(anyhow::anyhow!("there is no task {task:?}\n{HELP}")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn scim2_tester() -> anyhow::Result<()> {
    tools::ensure_postgres()?;
    tester::run(&tools::ensure_scim2()?)
}

fn test() -> anyhow::Result<()> {
    tools::ensure_postgres()?;
    tools::ensure_browser()?;
    tools::ensure_axe()?;
    let buf = tools::ensure_buf()?;
    let scim2 = tools::ensure_scim2()?;
    step("rustfmt", cargo(&["fmt", "--all", "--check"]))?;
    step(
        "clippy",
        cargo(&[
            "clippy",
            "--workspace",
            "--all-targets",
            "--features",
            "muster/failpoints",
            "--locked",
            "--",
            "-D",
            "warnings",
        ]),
    )?;
    timed("cargo deny", || deny::check(&[]))?;
    step("buf lint", in_proto(&buf, &["lint"]))?;
    step("buf format", in_proto(&buf, &["format", "--diff", "--exit-code"]))?;
    step("buf breaking", in_proto(&buf, &["breaking", "--against", "base.binpb"]))?;
    timed("docs/grpc.md against the contracts", reference::check)?;
    step("build", cargo(&["build", "--locked"]))?;
    timed("manifests", manifests::check)?;
    timed("alerts and dashboard", monitoring::check)?;
    timed("SQL against the tables", statements::check)?;
    timed("scim2-tester", || tester::run(&scim2))?;
    // A binary of its own, beside the other: the tests of crashes and mistakes run it.
    let fail_points =
        ["build", "--locked", "--features", "failpoints", "--bin", "muster-failpoints"];
    step("build with fail points", cargo(&fail_points))?;
    step("tests", cargo(&["test", "--workspace", "--locked"]))
}

/// The root of the workspace.
fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_owned()
}

fn cargo(args: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(args).current_dir(root()).env_remove("DATABASE_URL");
    command
}

fn in_proto(program: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(args).current_dir(root().join("proto"));
    command
}

/// Runs a command, which must succeed, and says how long it took.
fn step(name: &str, mut command: Command) -> anyhow::Result<()> {
    timed(name, || {
        let status = command.status().with_context(|| format!("{name} does not start"))?;
        ensure!(status.success(), "{name} failed");
        Ok(())
    })
}

fn timed(name: &str, work: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
    println!("── {name}");
    let start = Instant::now();
    let result = work();
    println!(
        "── {name}: {} after {:.0?}",
        if result.is_ok() { "ok" } else { "failed" },
        start.elapsed()
    );
    result
}

/// Runs a command that is part of another step.
fn run(command: &mut Command) -> anyhow::Result<()> {
    let status = command.status().with_context(|| format!("{command:?} does not start"))?;
    if !status.success() {
        bail!("{command:?} failed");
    }
    Ok(())
}
