//! `cargo xtask bench`: Muster and the bare PostgreSQL below it, loaded in turn.

use std::process::Command;

use crate::{cargo, root, run, tools};

/// Builds both and runs the benchmark with these options.
pub(crate) fn run_with(options: &[String]) -> anyhow::Result<()> {
    tools::ensure_postgres()?;
    run(&mut cargo(&["build", "--release", "--locked", "--bin", "muster", "--package", "muster"]))?;
    run(&mut cargo(&["build", "--release", "--locked", "--package", "muster-bench"]))?;
    let built = root().join("target/release");
    run(Command::new(built.join("muster-bench"))
        .args(options)
        .env("MUSTER", built.join("muster"))
        .current_dir(root()))
}
