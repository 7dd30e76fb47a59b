//! The folder of the server's socket. Whoever reaches the socket is let in, so nobody else may.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::{private_folder, remove_folder};

/// Part of the socket's name; nothing listens on a port.
pub(super) const PORT: u16 = 5432;
/// The longest path of a Unix socket: Linux takes 107 bytes, macOS 103.
const LONGEST_PATH: usize = 103;

#[derive(Debug)]
pub(super) enum SocketFolder {
    InDataFolder(PathBuf),
    /// Where the data folder's path is too long for a socket.
    Short(tempfile::TempDir),
}

impl SocketFolder {
    /// Makes an empty folder of mode 0700: a socket's lock file that a killed server left, with a
    /// number that is another process by now, would keep the next one from starting.
    pub(super) fn make(data_dir: &Path) -> anyhow::Result<Self> {
        let folder = data_dir.join("socket");
        remove_folder(&folder)?;
        if folder.join(format!(".s.PGSQL.{PORT}")).as_os_str().len() <= LONGEST_PATH {
            private_folder(&folder)?;
            return Ok(Self::InDataFolder(folder));
        }
        // Not `TMPDIR`, which may be long itself.
        tempfile::Builder::new()
            .prefix("muster-")
            .permissions(Permissions::from_mode(0o700))
            .tempdir_in("/tmp")
            .map(Self::Short)
            .context("no folder for PostgreSQL's socket can be made in /tmp")
    }

    pub(super) fn path(&self) -> &Path {
        match self {
            Self::InDataFolder(folder) => folder,
            Self::Short(folder) => folder.path(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_its_owner_reaches_a_socket() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("a-long-name/".repeat(12));
        for data_dir in [folder.path(), &deep] {
            let socket = SocketFolder::make(data_dir).unwrap();
            let mode = socket.path().metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o700, "{socket:?}");
            assert!(socket.path().as_os_str().len() + "/.s.PGSQL.5432".len() <= LONGEST_PATH);
        }
    }
}
