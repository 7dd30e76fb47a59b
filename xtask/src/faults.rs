//! The long runs of faults: `cargo xtask faults --minutes 10 --seed 7` makes faults at random for so
//! long; `cargo xtask faults --full` plays the races, cuts and crashes of the tests many times over.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use anyhow::{Context as _, bail, ensure};

/// Runs the test, passes on what it prints and ends with its last word.
pub(crate) fn run(args: &[String]) -> anyhow::Result<()> {
    let (mut minutes, mut seed) = (10_u64, None);
    if args == ["--full"] {
        return full();
    }
    let mut args = args.iter();
    while let Some(name) = args.next() {
        let value = args.next().with_context(|| format!("{name} has no value"))?;
        let number = value.parse().with_context(|| format!("{name} {value} is no number"))?;
        match name.as_str() {
            "--minutes" => minutes = number,
            "--seed" => seed = Some(number),
            _ => bail!("there is no option {name}; there are --minutes and --seed, or --full"),
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

/// The tests that have a size.
const FULL: [&str; 5] = [
    "sequential::",
    "faults::commit::",
    "faults::points::",
    "faults::rounds::",
    "feed_reading::every_reader",
];

fn full() -> anyhow::Result<()> {
    let mut command = super::cargo(&["test", "--locked", "--test", "e2e", "--"]);
    command.args(FULL).args(["--nocapture", "--test-threads", "1"]).env("MUSTER_FULL", "1");
    let status = command.status().context("the tests do not start")?;
    ensure!(status.success(), "a test failed");
    Ok(())
}
