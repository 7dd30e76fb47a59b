//! What the program is made of, held against `deny.toml` by cargo-deny.

use std::process::Command;

use anyhow::bail;

use crate::{root, run, tools};

/// Checks licences, sources and versions that are there twice; with `--advisories` what `RustSec`
/// knows of, too, which is fetched from GitHub.
pub(crate) fn check(options: &[String]) -> anyhow::Result<()> {
    let mut checks = vec!["licenses", "bans", "sources"];
    match options {
        [] => {}
        [option] if option == "--advisories" => checks.push("advisories"),
        _ => bail!("it takes --advisories and nothing else"),
    }
    let mut deny = Command::new(tools::ensure_deny()?);
    run(deny.args(["--locked", "check"]).args(checks).current_dir(root()))
}
