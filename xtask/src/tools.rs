//! What the tests need beside Rust, installed where it is missing.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, bail};

use crate::{root, run};

const BUF: &str = "@bufbuild/buf@1.75.0";
const AXE: &str = "axe-core@4.14.1";

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

/// Installs Chromium and its driver by apt where they are missing.
pub(crate) fn ensure_chromium() -> anyhow::Result<()> {
    if is_there("chromedriver", &["--version"]) || !is_there("apt-get", &["--version"]) {
        return Ok(());
    }
    println!("── Installing Chromium by apt, for the tests of the console");
    run(Command::new("apt-get").args(["update", "--quiet"]))?;
    run(Command::new("apt-get")
        .args(["install", "--yes", "--quiet", "--no-install-recommends"])
        .args(["chromium", "chromium-driver", "fonts-dejavu-core"])
        .env("DEBIAN_FRONTEND", "noninteractive"))
}

/// Installs axe-core by npm below `target/`, where the tests of the console find it.
pub(crate) fn ensure_axe() -> anyhow::Result<()> {
    ensure_npm(AXE, "node_modules/axe-core/axe.min.js", "the accessibility of the console")?;
    Ok(())
}

/// Installs buf by npm below `target/`, and returns its path.
pub(crate) fn ensure_buf() -> anyhow::Result<PathBuf> {
    ensure_npm(BUF, "node_modules/.bin/buf", "the contracts")
}

/// Installs a package by npm below `target/`, and returns the path of its file.
fn ensure_npm(package: &str, file: &str, what_for: &str) -> anyhow::Result<PathBuf> {
    let folder = root().join("target/tools");
    let file = folder.join(file);
    if file.exists() {
        return Ok(file);
    }
    if !is_there("npm", &["--version"]) {
        bail!("npm is missing, by which {package} is installed: install Node.js");
    }
    println!("── Installing {package} by npm into target/tools, for {what_for}");
    std::fs::create_dir_all(&folder).with_context(|| format!("{}", folder.display()))?;
    run(Command::new("npm")
        .args(["install", "--no-fund", "--no-audit", "--silent", "--prefix"])
        .arg(&folder)
        .arg(package))?;
    Ok(file)
}

/// Installs scim2-tester by pip below `target/`, and returns the path of its command.
pub(crate) fn ensure_scim2() -> anyhow::Result<PathBuf> {
    const PACKAGES: [&str; 4] =
        ["scim2-cli==0.6.0", "scim2-tester==0.5.2", "scim2-client==0.13.2", "scim2-models==0.12.3"];
    let folder = root().join("target/tools/scim2");
    let scim2 = folder.join("bin/scim2");
    if scim2.exists() {
        return Ok(scim2);
    }
    if !is_there("python3", &["-m", "venv", "--help"]) {
        bail!(
            "Python's venv is missing, into which scim2-tester is installed: install python3-venv"
        );
    }
    println!("── Installing scim2-tester by pip into target/tools/scim2, for the SCIM protocol");
    run(Command::new("python3").args(["-m", "venv"]).arg(&folder))?;
    run(Command::new(folder.join("bin/pip"))
        .args(["install", "--quiet", "--disable-pip-version-check", "httpx"])
        .args(PACKAGES))?;
    Ok(scim2)
}

fn is_there(program: &str, args: &[&str]) -> bool {
    Command::new(program).args(args).output().is_ok_and(|output| output.status.success())
}
