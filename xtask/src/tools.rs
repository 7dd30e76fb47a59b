//! What the tests need beside Rust, installed where it is missing.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, bail};

use crate::{root, run};

const BUF: &str = "@bufbuild/buf@1.75.0";

/// Installs PostgreSQL by apt where there is none. Where there is no apt, Muster itself says what
/// to install.
pub(crate) fn ensure_postgres() -> anyhow::Result<()> {
    let packaged = std::fs::read_dir("/usr/lib/postgresql").is_ok_and(|mut d| d.next().is_some());
    let on_path = is_there("postgres", &["--version"]);
    if packaged || on_path || !is_there("apt-get", &["--version"]) {
        return Ok(());
    }
    println!("── Installing PostgreSQL by apt, for the tests");
    run(Command::new("apt-get").args(["update", "--quiet"]))?;
    run(Command::new("apt-get")
        .args(["install", "--yes", "--quiet", "--no-install-recommends", "postgresql"])
        .env("DEBIAN_FRONTEND", "noninteractive"))
}

/// Installs buf by npm below `target/`, and returns its path.
pub(crate) fn ensure_buf() -> anyhow::Result<PathBuf> {
    let folder = root().join("target/tools");
    let buf = folder.join("node_modules/.bin/buf");
    if buf.exists() {
        return Ok(buf);
    }
    if !is_there("npm", &["--version"]) {
        bail!("npm is missing, by which buf is installed: install Node.js");
    }
    println!("── Installing {BUF} by npm into target/tools, for the contracts");
    std::fs::create_dir_all(&folder).with_context(|| format!("{}", folder.display()))?;
    run(Command::new("npm")
        .args(["install", "--no-fund", "--no-audit", "--silent", "--prefix"])
        .arg(&folder)
        .arg(BUF))?;
    Ok(buf)
}

fn is_there(program: &str, args: &[&str]) -> bool {
    Command::new(program).args(args).output().is_ok_and(|output| output.status.success())
}
