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
    install("PostgreSQL", &["postgresql"])
}

/// Installs a browser and its driver by apt where there is none.
pub(crate) fn ensure_browser() -> anyhow::Result<()> {
    if is_there("chromedriver", &["--version"]) && is_there("chromium", &["--version"]) {
        return Ok(());
    }
    if !is_there("apt-get", &["--version"]) {
        bail!("Chromium or its driver is missing: install chromium and chromedriver");
    }
    install("Chromium", &["chromium", "chromium-driver", "fonts-dejavu-core"])
}

fn install(name: &str, packages: &[&str]) -> anyhow::Result<()> {
    println!("── Installing {name} by apt, for the tests");
    run(Command::new("apt-get").args(["update", "--quiet"]))?;
    run(Command::new("apt-get")
        .args(["install", "--yes", "--quiet", "--no-install-recommends"])
        .args(packages)
        .env("DEBIAN_FRONTEND", "noninteractive"))
}

/// Installs buf by npm below `target/`, and returns its path.
pub(crate) fn ensure_buf() -> anyhow::Result<PathBuf> {
    let buf = modules().join(".bin/buf");
    if !buf.exists() {
        install_packages("the contracts")?;
    }
    Ok(buf)
}

/// Installs axe-core by npm below `target/`, where the tests of pages look for it.
pub(crate) fn ensure_axe() -> anyhow::Result<()> {
    if modules().join("axe-core/axe.min.js").exists() {
        return Ok(());
    }
    install_packages("the pages")
}

/// Installs all that is installed by npm, since npm removes what it is not told of.
fn install_packages(what_for: &str) -> anyhow::Result<()> {
    if !is_there("npm", &["--version"]) {
        bail!("npm is missing, by which {BUF} and {AXE} are installed: install Node.js");
    }
    println!("── Installing {BUF} and {AXE} by npm into target/tools, for {what_for}");
    let folder = root().join("target/tools");
    std::fs::create_dir_all(&folder).with_context(|| format!("{}", folder.display()))?;
    run(Command::new("npm")
        .args(["install", "--no-fund", "--no-audit", "--silent", "--prefix"])
        .arg(&folder)
        .args([BUF, AXE]))
}

fn modules() -> PathBuf {
    root().join("target/tools/node_modules")
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

/// Installs kubectl by apt where there is none, and returns its name.
pub(crate) fn ensure_kubectl() -> anyhow::Result<&'static str> {
    const KUBECTL: &str = "kubectl";
    if is_there(KUBECTL, &["version", "--client"]) {
        return Ok(KUBECTL);
    }
    if !is_there("apt-get", &["--version"]) {
        bail!("kubectl is missing, which renders the manifests: install it");
    }
    install("kubectl", &["kubernetes-client"])?;
    Ok(KUBECTL)
}

/// Installs the schemas of Kubernetes by pip below `target/`, and returns the Python that has them.
pub(crate) fn ensure_kubernetes_validate() -> anyhow::Result<PathBuf> {
    let folder = root().join("target/tools/kubernetes-validate");
    if !folder.join("bin/kubernetes-validate").exists() {
        println!("── Installing kubernetes-validate by pip into target/tools, for the manifests");
        run(Command::new("python3").args(["-m", "venv"]).arg(&folder))?;
        run(Command::new(folder.join("bin/pip"))
            .args(["install", "--quiet", "--disable-pip-version-check"])
            .args(["kubernetes-validate==1.37.0", "PyYAML==6.0.4"]))?;
    }
    Ok(folder.join("bin/python"))
}

/// Fetches Prometheus' package by apt and takes promtool out of it, below `target/`; its path.
pub(crate) fn ensure_promtool() -> anyhow::Result<PathBuf> {
    let folder = root().join("target/tools/prometheus");
    let promtool = folder.join("usr/bin/promtool");
    if promtool.exists() {
        return Ok(promtool);
    }
    if is_there("promtool", &["--version"]) {
        return Ok("promtool".into());
    }
    if !is_there("apt-get", &["--version"]) {
        bail!("promtool is missing, which checks the alerts: install Prometheus");
    }
    println!("── Fetching promtool by apt into target/tools, for the alerts");
    std::fs::create_dir_all(&folder).with_context(|| format!("{}", folder.display()))?;
    run(Command::new("apt-get").args(["update", "--quiet"]))?;
    run(Command::new("apt-get").args(["download", "--quiet", "prometheus"]).current_dir(&folder))?;
    let files = std::fs::read_dir(&folder)?.filter_map(|file| Some(file.ok()?.path()));
    let package = files.into_iter().find(|file| file.extension().is_some_and(|e| e == "deb"));
    let package = package.context("apt-get fetched no package")?;
    run(Command::new("dpkg-deb").arg("--extract").arg(&package).arg(&folder))?;
    Ok(promtool)
}

/// Installs cargo-deny by cargo below `target/`, and returns its path.
pub(crate) fn ensure_deny() -> anyhow::Result<PathBuf> {
    let folder = root().join("target/tools/cargo-deny");
    let deny = folder.join("bin/cargo-deny");
    if !deny.exists() {
        println!("── Installing cargo-deny by cargo into target/tools, for the dependencies");
        run(crate::cargo(&[
            "install",
            "cargo-deny",
            "--version",
            "0.20.2",
            "--locked",
            "--debug",
        ])
        .arg("--quiet")
        .arg("--root")
        .arg(&folder)
        .env("CARGO_PROFILE_DEV_DEBUG", "0"))?;
    }
    Ok(deny)
}

fn is_there(program: &str, args: &[&str]) -> bool {
    Command::new(program).args(args).output().is_ok_and(|output| output.status.success())
}
