//! Certificates of this run, and calls with them.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use muster_runtime::tls::{Files, Tls};
use muster_runtime::transport::Transport;

use super::process::MUSTER;
use super::system::scratch;

/// What tests may beside what the parts may: everything.
const TESTS: &str = r#"
[callers.tests]
methods = [
    "muster.identity.v1.AdminService/*",
    "muster.identity.v1.ApiKeyService/*",
    "muster.identity.v1.AuditService/*",
    "muster.identity.v1.ImportService/*",
    "muster.identity.v1.OrganisationService/*",
    "muster.identity.v1.ProvisioningLogService/*",
    "muster.identity.v1.ReportService/*",
    "muster.identity.v1.SessionService/*",
    "muster.identity.v1.UserService/*",
    "muster.group.v1.GroupService/*",
    "muster.approver.v1.ApproverService/*",
]
organisations = "any"
names_actors = true
"#;

/// The folder of this run's certificates, as `muster certificates` makes them.
pub(crate) fn certificates() -> &'static Path {
    static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
        let folder = scratch().join("certificates");
        let made = Command::new(MUSTER)
            .args(["certificates", "--name", "tests", "--out"])
            .arg(&folder)
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
        let mut policy = OpenOptions::new().append(true).open(folder.join("policy.toml")).unwrap();
        policy.write_all(TESTS.as_bytes()).unwrap();
        folder
    });
    &FOLDER
}

/// Files of a set, of one name.
pub(crate) fn files(folder: &Path, name: &str) -> Files {
    Files {
        certificate: folder.join(format!("{name}.pem")),
        key: folder.join(format!("{name}.key")),
        authorities: folder.join("ca.pem"),
    }
}

/// The variables by which the program has a name's certificate.
pub(crate) fn variables(name: &str) -> Vec<(&'static str, String)> {
    let Files { certificate, key, authorities } = files(certificates(), name);
    let text = |path: PathBuf| path.to_str().unwrap().to_owned();
    vec![
        ("MUSTER_TLS_CERTIFICATE", text(certificate)),
        ("MUSTER_TLS_KEY", text(key)),
        ("MUSTER_TLS_CA", text(authorities)),
    ]
}

/// Calls a part, with the tests' certificate where it is called over TLS.
pub(crate) fn connect(url: &str) -> Transport {
    static TESTS: LazyLock<Tls> =
        LazyLock::new(|| Tls::open(files(certificates(), "tests")).unwrap());
    if url.starts_with("https:") {
        Transport::connect_mutual(url, TESTS.clone()).unwrap()
    } else {
        Transport::connect(url).unwrap()
    }
}
