//! Who the server runs as: PostgreSQL refuses root.

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context as _, bail, ensure};
use tokio::process::Command;

/// The user and group nobody.
const NOBODY: u32 = 65_534;

/// The account that `initdb` and the server run under.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Account {
    /// Ourselves, no root.
    Ours,
    /// Root outside, somebody else in a user namespace: works below any folder.
    Namespace {
        /// The number inside.
        user: u32,
    },
    /// Another user, who must be able to reach the folder.
    Other {
        /// The user's number.
        user: u32,
        /// The group's number.
        group: u32,
    },
}

impl Account {
    /// Chooses what works here. A cluster that is there already stays with its owner.
    pub(super) async fn choose(data_dir: &Path, cluster: &Path) -> anyhow::Result<Self> {
        if !rustix::process::geteuid().is_root() {
            return Ok(Self::Ours);
        }
        let namespace = Self::Namespace { user: listed_user() };
        let account = match fs::metadata(cluster) {
            Ok(owner) if owner.uid() != 0 => Self::Other { user: owner.uid(), group: owner.gid() },
            _ if namespace.runs("true", []).await => return Ok(namespace),
            Ok(_) => bail!(
                "PostgreSQL refuses to run as root, and {} belongs to root while `unshare --user` \
                 does not work here: run muster as another user with a data folder of its own",
                cluster.display()
            ),
            Err(_) => Self::nobody(),
        };
        account.admit(data_dir).await?;
        Ok(account)
    }

    pub(super) const fn nobody() -> Self {
        Self::Other { user: NOBODY, group: NOBODY }
    }

    /// Lets another user through the data folder, to what below it is that user's.
    pub(super) async fn admit(&self, data_dir: &Path) -> anyhow::Result<()> {
        let Self::Other { user, .. } = self else { return Ok(()) };
        fs::set_permissions(data_dir, Permissions::from_mode(0o711))
            .with_context(|| format!("{} cannot be opened to others", data_dir.display()))?;
        let inside = data_dir.join("lock");
        ensure!(
            self.runs("test", [OsStr::new("-e"), inside.as_os_str()]).await,
            "PostgreSQL refuses to run as root, `unshare --user` does not work here, and user \
             {user} cannot reach {}: use a data folder such as /var/lib/muster, or run muster as \
             another user",
            data_dir.display()
        );
        Ok(())
    }

    /// Gives a folder, just made and empty, to the account.
    pub(super) fn own(&self, folder: &Path) -> anyhow::Result<()> {
        let Self::Other { user, group } = self else { return Ok(()) };
        chown(folder, Some(*user), Some(*group))
            .with_context(|| format!("{} cannot be given to user {user}", folder.display()))
    }

    /// A command of the account, without the variables that would set up PostgreSQL differently.
    pub(super) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = match self {
            Self::Ours => Command::new(program),
            Self::Namespace { user } => {
                let mut command = Command::new("unshare");
                command
                    .arg("--user")
                    .arg(format!("--map-user={user}"))
                    .arg(format!("--map-group={user}"))
                    .arg(program);
                command
            }
            Self::Other { user, group } => {
                let mut command = Command::new(program);
                command.uid(*user).gid(*group);
                command
            }
        };
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(|name| name.starts_with("PG")) {
                command.env_remove(name);
            }
        }
        // Postgres starts from here, and the user may not be able to read where we are.
        command.current_dir("/");
        command
    }

    async fn runs<'a>(&self, program: &str, args: impl IntoIterator<Item = &'a OsStr>) -> bool {
        let mut command = self.command(program);
        command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().await.is_ok_and(|status| status.success())
    }
}

/// A user other than root that `/etc/passwd` lists: `initdb` refuses to run as one without a name.
fn listed_user() -> u32 {
    let text = fs::read_to_string("/etc/passwd").unwrap_or_default();
    text.lines()
        .filter_map(|line| line.split(':').nth(2)?.parse().ok())
        .find(|user| *user != 0)
        .unwrap_or(NOBODY)
}
