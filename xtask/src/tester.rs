//! `scim2-tester`, a conformance tester of somebody else's, against a Muster of its own.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, ensure};

use crate::root;

/// What it finds wrong that is right: each part of a failure's text, and why.
const EXPECTED: [(&str, &str); 1] = [(
    "approvers",
    "it declares a random text as an approver and expects it back; Muster answers the approvers in \
     force, and a text that is nobody's address is pending (docs/approvers.md)",
)];

/// Runs the tester, and fails on everything that it finds wrong but what is expected.
pub(crate) fn run(scim2: &Path) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let muster = Muster::start(folder.path())?;
    let operate = |args: &[&str]| -> anyhow::Result<String> {
        let output = Command::new(program())
            .args(args)
            .env("MUSTER_IDENTITY_URL", &muster.grpc_url)
            .output()
            .context("muster does not start")?;
        ensure!(output.status.success(), "muster {args:?}: {output:?}");
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    };
    operate(&["organisation", "create", "--slug", "tester", "--name", "Tester"])?;
    let key = operate(&["api-key", "create", "--organisation", "tester", "--label", "tester"])?;
    let output = Command::new(scim2)
        .args(["--url", &muster.scim_url, "test"])
        .env("SCIM_CLI_HEADERS", format!("Authorization: Static {key}"))
        .output()
        .with_context(|| format!("{} does not start", scim2.display()))?;
    let report = String::from_utf8_lossy(&output.stdout).into_owned();
    let results = results(&report);
    let passed = results.iter().filter(|(status, _)| *status == "SUCCESS").count();
    ensure!(passed > 100, "the tester has done little:\n{report}");
    let mut unexpected = Vec::new();
    for (status, text) in &results {
        let expected = EXPECTED.iter().find(|(part, _)| text.contains(part));
        match (*status, expected) {
            ("SUCCESS" | "SKIPPED", _) => {}
            (_, Some((part, why))) => println!("  as expected, about {part}: {why}"),
            _ => unexpected.push(format!("{status} {text}")),
        }
    }
    ensure!(unexpected.is_empty(), "scim2-tester found:\n{}", unexpected.join("\n"));
    println!("  {passed} checks passed");
    Ok(())
}

/// The tester's results: a status, and the text up to the next.
fn results(report: &str) -> Vec<(&str, String)> {
    let mut results: Vec<(&str, String)> = Vec::new();
    for line in report.lines() {
        let word = line.split_whitespace().next().unwrap_or_default();
        let is_status = word.len() > 4 && word.chars().all(|c| c.is_ascii_uppercase());
        if is_status && line.starts_with(word) {
            results.push((word, line.to_owned()));
        } else if let Some((_, text)) = results.last_mut() {
            text.push('\n');
            text.push_str(line);
        }
    }
    results
}

fn program() -> std::path::PathBuf {
    root().join("target/debug/muster")
}

/// An empty Muster on ports of its own choice.
struct Muster {
    process: Child,
    scim_url: String,
    grpc_url: String,
}

impl Muster {
    fn start(data_dir: &Path) -> anyhow::Result<Self> {
        let mut process = Command::new(program())
            .args([
                "--empty",
                "--listen",
                "127.0.0.1:0",
                "--grpc-listen",
                "127.0.0.1:0",
                "--data-dir",
            ])
            .arg(data_dir)
            .env_remove("DATABASE_URL")
            .stdout(Stdio::piped())
            .spawn()
            .context("target/debug/muster does not start")?;
        let output = process.stdout.take().context("standard output")?;
        let mut this = Self { process, scim_url: String::new(), grpc_url: String::new() };
        for line in BufReader::new(output).lines() {
            let line = line?;
            if let Some(url) = line.trim().strip_prefix("SCIM base URL") {
                url.trim().clone_into(&mut this.scim_url);
            }
            if let Some(address) = line.trim().strip_prefix("gRPC") {
                this.grpc_url = format!("http://{}", address.trim());
            }
            if !this.scim_url.is_empty() && !this.grpc_url.is_empty() {
                return Ok(this);
            }
        }
        anyhow::bail!("muster ended before it was running")
    }
}

impl Drop for Muster {
    fn drop(&mut self) {
        // In order, so that its Postgres ends too.
        drop(Command::new("kill").args(["-INT", &self.process.id().to_string()]).status());
        drop(self.process.wait());
    }
}
