//! The identity provider that admins may sign in with.

use std::path::PathBuf;

use anyhow::{Context as _, ensure};
use clap::Args;

/// The identity provider.
#[derive(Debug, Clone, Args)]
pub struct OidcArgs {
    /// The issuer of an identity provider that admins may sign in with, by `OpenID` Connect
    #[arg(
        long,
        env = "MUSTER_OIDC_ISSUER",
        value_name = "URL",
        requires_all = ["oidc_client_id", "oidc_client_secret_file"]
    )]
    pub oidc_issuer: Option<String>,
    /// What the identity provider calls this console
    #[arg(long, env = "MUSTER_OIDC_CLIENT_ID", value_name = "ID", requires = "oidc_issuer")]
    pub oidc_client_id: Option<String>,
    /// A file with the secret that the identity provider knows this console by
    #[arg(
        long,
        env = "MUSTER_OIDC_CLIENT_SECRET_FILE",
        value_name = "FILE",
        requires = "oidc_issuer"
    )]
    pub oidc_client_secret_file: Option<PathBuf>,
}

impl OidcArgs {
    /// The provider, where one is named. What cannot work is refused at once.
    pub fn config(self) -> anyhow::Result<Option<muster_gateway::OidcConfig>> {
        let (Some(issuer), Some(client_id), Some(client_secret_file)) =
            (self.oidc_issuer, self.oidc_client_id, self.oidc_client_secret_file)
        else {
            return Ok(None);
        };
        ensure!(
            issuer.starts_with("https://") || muster_gateway::is_loopback(&issuer),
            "--oidc-issuer was {issuer:?}; expected an address that begins with https://"
        );
        std::fs::metadata(&client_secret_file).with_context(|| {
            format!("--oidc-client-secret-file {} cannot be read", client_secret_file.display())
        })?;
        Ok(Some(muster_gateway::OidcConfig { issuer, client_id, client_secret_file }))
    }
}
