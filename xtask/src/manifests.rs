//! The manifests of `deploy/kubernetes`: rendered, held against the schemas of Kubernetes, and
//! against what Muster promises and takes.

use std::fs;
use std::process::Command;

use anyhow::{Context as _, ensure};

use crate::{root, run, tools};

const OVERLAYS: [&str; 2] = ["development", "production"];

/// Checks every overlay, with the program that was built.
pub(crate) fn check() -> anyhow::Result<()> {
    let kubectl = tools::ensure_kubectl()?;
    let python = tools::ensure_kubernetes_validate()?;
    let folder = root().join("target/manifests");
    fs::create_dir_all(&folder)?;
    let policies = ["src/policy.toml", "deploy/kubernetes/base/policy.toml"];
    let [ours, deployed] = policies.map(|path| fs::read_to_string(root().join(path)));
    ensure!(ours? == deployed?, "{} and {} are two", policies[0], policies[1]);
    let mut rendered = Vec::new();
    for overlay in OVERLAYS {
        let output = Command::new(kubectl)
            .arg("kustomize")
            .arg(root().join("deploy/kubernetes/overlays").join(overlay))
            .output()
            .with_context(|| format!("{kubectl} does not start"))?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let file = folder.join(format!("{overlay}.yaml"));
        fs::write(&file, output.stdout)?;
        // What it has no schema of (cert-manager's) it only warns of.
        run(Command::new(python.with_file_name("kubernetes-validate"))
            .args(["--quiet", "--no-warn", "--strict"])
            .arg(&file))?;
        rendered.push(format!("{overlay}={}", file.display()));
    }
    run(Command::new(&python)
        .arg(root().join("xtask/manifests.py"))
        .arg(root().join("target/debug/muster"))
        .args(rendered))
}
