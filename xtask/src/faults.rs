//! The long run of faults: `cargo xtask faults --minutes 10 --seed 7`.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use anyhow::{Context as _, bail, ensure};

/// Runs the test, passes on what it prints and ends with its last word.
pub(crate) fn run(args: &[String]) -> anyhow::Result<()> {
    let (mut minutes, mut seed) = (10_u64, None);
    let mut args = args.iter();
    while let Some(name) = args.next() {
        let value = args.next().with_context(|| format!("{name} has no value"))?;
        let number = value.parse().with_context(|| format!("{name} {value} is no number"))?;
        match name.as_str() {
            "--minutes" => minutes = number,
            "--seed" => seed = Some(number),
            _ => bail!("there is no option {name}; there are --minutes and --seed"),
        }
    }
    let test = "faults::long_run";
    let mut command = super::cargo(&["test", "--locked", "--test", "e2e", "--", test]);
    command.args(["--exact", "--ignored", "--nocapture"]).stdout(Stdio::piped());
    command.env("MUSTER_MINUTES", minutes.to_string());
    if let Some(seed) = seed {
        command.env("MUSTER_SEED", seed.to_string());
    }
    let mut test = command.spawn().context("the test does not start")?;
    let output = test.stdout.take().context("the test's output")?;
    let mut last = None;
    for line in BufReader::new(output).lines() {
        let line = line.context("the test's output")?;
        println!("{line}");
        if line.ends_with(" violations") {
            last = Some(line);
        }
    }
    let status = test.wait().context("the test's end")?;
    let last = last.context("the run ended without a result")?;
    println!("{last}");
    ensure!(status.success(), "the run failed");
    Ok(())
}
