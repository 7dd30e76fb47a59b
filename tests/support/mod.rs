//! What the end-to-end tests share.

pub(crate) mod browser;
pub(crate) mod collector;
pub(crate) mod feed;
pub(crate) mod feed_proxy;
pub(crate) mod following;
pub(crate) mod process;
pub(crate) mod provider;
pub(crate) mod session;
pub(crate) mod system;
pub(crate) mod tls;

/// How many of something a test does: so many, or with `MUSTER_FULL` (`cargo xtask faults --full`)
/// many more.
pub(crate) fn size(short: usize, full: usize) -> usize {
    if std::env::var_os("MUSTER_FULL").is_some() { full } else { short }
}

/// The commit under test, for the messages of failed tests.
pub(crate) fn commit() -> String {
    let output = std::process::Command::new("git")
        .args(["rev-parse", "--short", "HEAD"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output();
    output.map_or_else(
        |_| "unknown".into(),
        |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
    )
}
