//! `scim2-tester`, a conformance tester of somebody else's, against a Muster of its own.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, ensure};

use crate::root;

/// The checks that fail where the tester is given no example of an approver, and the attribute
/// that each is about. It declares a random text as an approver and expects it back; Muster answers
/// the approvers in force, and a text that is nobody's address is pending (docs/approvers.md).
const EXPECTED: [(&str, &str); 4] = [
    ("check_add_attribute", "'urn:learnerbly:params:scim:schemas:2.0:User'"),
    ("check_add_attribute", "'urn:learnerbly:params:scim:schemas:2.0:User:approvers'"),
    ("check_replace_attribute", "'urn:learnerbly:params:scim:schemas:2.0:User'"),
    ("check_replace_attribute", "'urn:learnerbly:params:scim:schemas:2.0:User:approvers'"),
];

/// Runs the tester as it is, and fails on everything that it finds wrong but what is expected; then
/// with the address of a user who exists as an example of an approver, and fails on everything.
pub(crate) fn run(scim2: &Path) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let muster = Muster::start(folder.path())?;
    println!("  as it is:");
    check(muster.test(Command::new(scim2).arg("test"), "plain")?, &EXPECTED)?;
    println!("  with an example of an approver:");
    let script = folder.path().join("tester_with_example.py");
    std::fs::write(&script, include_str!("tester_with_example.py"))?;
    let python = scim2.with_file_name("python");
    check(muster.test(Command::new(python).arg(script), "example")?, &[])
}

fn check(report: String, expected: &[(&str, &str)]) -> anyhow::Result<()> {
    let results = results(&report);
    let passed = results.iter().filter(|(status, _)| *status == "SUCCESS").count();
    ensure!(passed > 100, "the tester has done little:\n{report}");
    let failed = results.iter().filter(|(status, _)| !matches!(*status, "SUCCESS" | "SKIPPED"));
    let is_expected = |text: &str| {
        let about = |(check, urn): &(&str, &str)| text.contains(check) && text.contains(urn);
        // All that differs is that nobody is in force.
        let nobody = text.ends_with("Returned value: None") || text.contains("approvers=None");
        expected.iter().any(about) && nobody
    };
    let (known, unexpected): (Vec<_>, Vec<_>) = failed.partition(|(_, text)| is_expected(text));
    ensure!(unexpected.is_empty(), "scim2-tester found: {unexpected:#?}");
    ensure!(known.len() == expected.len(), "expected were {expected:#?}; it found {known:#?}");
    for (check, urn) in expected {
        println!("  as expected, {check} fails for {urn}");
    }
    println!("  {passed} checks passed, {} failed", known.len());
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
    /// What the tester prints, run in an organisation of its own.
    fn test(&self, tester: &mut Command, organisation: &str) -> anyhow::Result<String> {
        self.operate(&["organisation", "create", "--slug", organisation, "--name", "Tester"])?;
        let key =
            self.operate(&["api-key", "create", "--organisation", organisation, "--label", "t"])?;
        let output = tester
            .env("SCIM_CLI_URL", &self.scim_url)
            .env("SCIM_CLI_HEADERS", format!("Authorization: Static {key}"))
            .output()
            .with_context(|| format!("{tester:?} does not start"))?;
        // Its exit code says that something failed; what, and whether that is right, its lines do.
        let (report, errors) = (output.stdout, output.stderr);
        Ok(format!("{}{}", String::from_utf8_lossy(&report), String::from_utf8_lossy(&errors)))
    }

    fn operate(&self, args: &[&str]) -> anyhow::Result<String> {
        let output = Command::new(program())
            .args(args)
            .env("MUSTER_IDENTITY_URL", &self.grpc_url)
            .output()
            .context("muster does not start")?;
        ensure!(output.status.success(), "muster {args:?}: {output:?}");
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    }

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
