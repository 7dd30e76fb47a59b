//! `muster rehearse`: plays the guide against any SCIM server and says step by step what worked.

use std::io::{Write, stdout};

use anyhow::{Context, bail};
use clap::Args;

use crate::{
    rehearsal::{self, Dialect, Progress},
    scim_client::ScimClient,
};

/// Play the customers' guide against a SCIM server, as Okta would, and say what worked.
///
/// Assigns 26 invented people, syncs, imports, pushes groups, deactivates and verifies. Nothing is
/// cleaned up, and it can be run again: use an organisation made for trying.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  muster rehearse --url http://127.0.0.1:8080/scim/v2 --token \"Static muster_…\" --dialect put")]
pub struct RehearseArgs {
    /// SCIM base URL, as one types it into Okta
    #[arg(long, value_name = "URL")]
    pub url: String,

    /// API key: `Static KEY`, `Bearer KEY`, or the key alone, which is sent as `Static KEY`
    #[arg(long, env = "MUSTER_TOKEN", hide_env_values = true)]
    pub token: Token,

    /// Write as an app made in Okta's wizard (put) or as one of Okta's catalog (patch)
    #[arg(long, value_enum, default_value_t = Dialect::Patch)]
    pub dialect: Dialect,
}

/// What goes into the `Authorization` header. Its `Debug` shows nothing.
#[derive(Clone)]
pub struct Token(String);

impl From<&str> for Token {
    fn from(typed: &str) -> Self {
        let typed = typed.trim();
        if typed.contains(' ') { Self(typed.to_owned()) } else { Self(format!("Static {typed}")) }
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(…)")
    }
}

/// Runs the rehearsal, prints each step and, at the end, `N passed, N failed`.
///
/// Fails if a step did, or if the arguments make no client.
pub async fn run(args: RehearseArgs) -> anyhow::Result<()> {
    let client = ScimClient::new(args.url, args.token.0)?;
    let mut part = String::new();
    let mut printed = Ok(());
    let report = rehearsal::play(&client, args.dialect, |progress| {
        if printed.is_ok() {
            printed = print_step(&mut part, &progress);
        }
    })
    .await;
    printed.context("standard output")?;
    let (passed, failed) = (report.passed(), report.failed());
    writeln!(stdout(), "\n{passed} passed, {failed} failed").context("standard output")?;
    if failed > 0 {
        bail!("the server does not do all that the guide says");
    }
    Ok(())
}

fn print_step(part: &mut String, progress: &Progress<'_>) -> std::io::Result<()> {
    let mut out = stdout().lock();
    if part != progress.part {
        progress.part.clone_into(part);
        writeln!(out, "\n{part}")?;
    }
    let mark = if progress.failures.is_empty() { '✓' } else { '✗' };
    writeln!(out, "  {mark} {}", progress.what)?;
    for failure in progress.failures {
        writeln!(out, "      {failure}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_key_is_sent_as_okta_is_told_to() {
        for (typed, sent) in [
            ("muster_1", "Static muster_1"),
            (" muster_1\n", "Static muster_1"),
            ("Static muster_1", "Static muster_1"),
            ("Bearer muster_1", "Bearer muster_1"),
        ] {
            assert_eq!(Token::from(typed).0, sent);
        }
    }

    #[test]
    fn arguments_show_no_token() {
        assert!(!format!("{:?}", Token::from("s3cret")).contains("s3cret"));
    }
}
