//! `muster migrate`: roles, schemas and tables, from one administrative connection.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr as _;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Args;
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _};

use crate::secret_file::{DatabaseArgs, secret};

/// Create or update roles, schemas and tables.
///
/// Safe to run again, and by two at once. The roles log in with the passwords given, or keep those
/// they have.
#[derive(Args)]
#[command(after_help = "Example:
  DATABASE_URL=postgres://postgres@db.example.com/muster muster migrate")]
pub struct MigrateArgs {
    /// A connection that may create roles and schemas
    #[command(flatten)]
    database: DatabaseArgs,
    /// The password of the role `muster_identity`
    #[arg(long, env = "MUSTER_IDENTITY_DATABASE_PASSWORD", hide_env_values = true)]
    identity_password: Option<String>,
    /// A file that holds it instead
    #[arg(long, value_name = "FILE", conflicts_with = "identity_password")]
    identity_password_file: Option<PathBuf>,
    /// The password of the role `muster_group`
    #[arg(long, env = "MUSTER_GROUP_DATABASE_PASSWORD", hide_env_values = true)]
    group_password: Option<String>,
    /// A file that holds it instead
    #[arg(long, value_name = "FILE", conflicts_with = "group_password")]
    group_password_file: Option<PathBuf>,
    /// The password of the role `muster_approver`
    #[arg(long, env = "MUSTER_APPROVER_DATABASE_PASSWORD", hide_env_values = true)]
    approver_password: Option<String>,
    /// A file that holds it instead
    #[arg(long, value_name = "FILE", conflicts_with = "approver_password")]
    approver_password_file: Option<PathBuf>,
}

impl fmt::Debug for MigrateArgs {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("MigrateArgs").finish_non_exhaustive()
    }
}

/// The passwords that the services' roles get; a role without one keeps what it has.
#[derive(Default)]
pub struct Passwords {
    identity: Option<String>,
    group: Option<String>,
    approver: Option<String>,
}

/// What a service owns in the database.
struct Owned<'a> {
    schema: &'static str,
    role: &'static str,
    migrator: &'static Migrator,
    password: Option<&'a str>,
}

/// Owns the views that show which organisations' feeds have moved. Nobody logs in as it.
const FEED_READER: &str = "muster_feed_reader";
/// Owns the function that finds people by parts of their words. Nobody logs in as it.
const SEARCHER: &str = "muster_searcher";

/// Owns the function that finds where an e-mail address signs in to. Nobody logs in as it.
const SIGN_IN: &str = "muster_sign_in";

/// The lock that keeps two migrations apart.
const LOCK: i64 = 0x006d_7573_7465_7200;

/// How long a statement of a migration waits for a lock, in milliseconds: while it waits, requests
/// queue behind it.
const LOCK_WAIT: &str = "2000";

/// For how long a migration is tried that finds the tables in use, and how often.
const PATIENCE: Duration = Duration::from_mins(5);
const AGAIN: Duration = Duration::from_secs(1);

/// Runs `muster migrate`.
pub async fn run(args: MigrateArgs) -> anyhow::Result<()> {
    let passwords = Passwords {
        identity: secret(
            args.identity_password.as_deref(),
            args.identity_password_file.as_deref(),
        )?,
        group: secret(args.group_password.as_deref(), args.group_password_file.as_deref())?,
        approver: secret(
            args.approver_password.as_deref(),
            args.approver_password_file.as_deref(),
        )?,
    };
    migrate(&args.database.url()?, &passwords).await?;
    println!("The schemas identity, groups and approver are up to date.");
    Ok(())
}

/// Creates or updates roles, schemas and tables.
pub async fn migrate(database_url: &str, passwords: &Passwords) -> anyhow::Result<()> {
    let options = PgConnectOptions::from_str(database_url)
        .context("the database URL is not of the form postgres://…")?;
    let mut admin = options.connect().await.context("the database cannot be reached")?;
    sqlx::query("SELECT pg_advisory_lock($1)").bind(LOCK).execute(&mut admin).await?;
    for role in [FEED_READER, SEARCHER, SIGN_IN] {
        ensure_role(&mut admin, role, "NOLOGIN").await.context("the roles cannot be created")?;
    }
    let owned = [
        Owned {
            schema: muster_identity::SCHEMA,
            role: muster_identity::ROLE,
            migrator: &muster_identity::MIGRATOR,
            password: passwords.identity.as_deref(),
        },
        Owned {
            schema: muster_group::SCHEMA,
            role: muster_group::ROLE,
            migrator: &muster_group::MIGRATOR,
            password: passwords.group.as_deref(),
        },
        Owned {
            schema: muster_approver::SCHEMA,
            role: muster_approver::ROLE,
            migrator: &muster_approver::MIGRATOR,
            password: passwords.approver.as_deref(),
        },
    ];
    for owned in owned {
        let schema = owned.schema;
        migrate_one(&mut admin, &options, owned)
            .await
            .with_context(|| format!("the schema {schema} cannot be brought up to date"))?;
    }
    // Closing the session frees the lock.
    admin.close().await?;
    Ok(())
}

async fn migrate_one(
    admin: &mut PgConnection,
    options: &PgConnectOptions,
    owned: Owned<'_>,
) -> anyhow::Result<()> {
    let Owned { schema, role, migrator, password } = owned;
    ensure_role(admin, role, "LOGIN NOINHERIT").await?;
    // Names are constants of ours, not input.
    let mut execute = async |statement: String| admin.execute(AssertSqlSafe(statement)).await;
    if let Some(password) = password {
        let password = password.replace('\'', "''");
        execute(format!("ALTER ROLE {role} PASSWORD E'{}'", password.replace('\\', "\\\\")))
            .await
            .map_err(|_| anyhow::anyhow!("the password of {role} was refused"))?;
    }
    execute(format!("CREATE SCHEMA IF NOT EXISTS {schema}")).await?;
    execute(format!("GRANT USAGE ON SCHEMA {schema} TO {role}")).await?;
    let options = options.clone().options([("search_path", schema), ("lock_timeout", LOCK_WAIT)]);
    let mut owner = options.connect().await?;
    let begun = Instant::now();
    while let Err(error) = migrator.run(&mut owner).await {
        if !is_locked(&error) || begun.elapsed() > PATIENCE {
            return Err(error.into());
        }
        eprintln!("The tables of {schema} are in use; the migration is tried again.");
        tokio::time::sleep(AGAIN).await;
    }
    owner
        .execute(AssertSqlSafe(format!("GRANT SELECT ON {schema}._sqlx_migrations TO {role}")))
        .await?;
    owner.close().await?;
    Ok(())
}

/// Whether a migration waited too long for a lock.
fn is_locked(error: &MigrateError) -> bool {
    let (MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _)) = error else {
        return false;
    };
    error.as_database_error().is_some_and(|error| error.code().as_deref() == Some("55P03"))
}

/// Creates a role that is not there, and makes the current one a member of it.
async fn ensure_role(admin: &mut PgConnection, role: &str, kind: &str) -> sqlx::Result<()> {
    let exists: Option<i32> = sqlx::query_scalar("SELECT 1 FROM pg_roles WHERE rolname = $1")
        .bind(role)
        .fetch_optional(&mut *admin)
        .await?;
    if exists.is_none() {
        admin.execute(AssertSqlSafe(format!("CREATE ROLE {role} {kind}"))).await?;
    }
    admin.execute(AssertSqlSafe(format!("GRANT {role} TO CURRENT_USER"))).await.map(drop)
}
