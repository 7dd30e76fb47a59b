//! Secrets that come in files, as orchestrators mount them.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::Args;

/// The database.
#[derive(Clone, Args)]
pub struct DatabaseArgs {
    /// The database, with the role that this needs
    #[arg(
        long,
        env = "DATABASE_URL",
        hide_env_values = true,
        value_name = "URL",
        required_unless_present = "database_url_file",
        conflicts_with = "database_url_file"
    )]
    database_url: Option<String>,
    /// A file that holds the URL instead
    #[arg(long, env = "MUSTER_DATABASE_URL_FILE", value_name = "FILE")]
    database_url_file: Option<PathBuf>,
}

impl std::fmt::Debug for DatabaseArgs {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // A URL may hold a password.
        formatter.debug_struct("DatabaseArgs").finish_non_exhaustive()
    }
}

impl DatabaseArgs {
    /// The URL, wherever it stands.
    pub fn url(&self) -> anyhow::Result<String> {
        match secret(self.database_url.as_deref(), self.database_url_file.as_deref())? {
            Some(url) => Ok(url),
            None => bail!("there is neither --database-url nor --database-url-file"),
        }
    }
}

/// A secret that is given, or stands in a file.
pub(crate) fn secret(given: Option<&str>, file: Option<&Path>) -> anyhow::Result<Option<String>> {
    let Some(file) = file else { return Ok(given.map(str::to_owned)) };
    let text = std::fs::read_to_string(file)
        .with_context(|| format!("{} cannot be read", file.display()))?;
    let text = text.trim();
    if text.is_empty() {
        bail!("{} is empty", file.display());
    }
    Ok(Some(text.to_owned()))
}
