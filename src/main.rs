//! The program `muster`.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use muster::certificates::CertificatesArgs;
use muster::check::CheckArgs;
use muster::everything::{Everything, Options};
use muster::feed_args::FeedArgs;
use muster::life_args::{Drain, stopped_by_signals};
use muster::limit_args::LimitArgs;
use muster::log_args::LogArgs;
use muster::migrate::MigrateArgs;
use muster::oidc_args::OidcArgs;
use muster::operate::{AdminCommand, ApiKeyCommand, OrganisationCommand};
use muster::parts::{FollowerArgs, GatewayArgs, IdentityArgs};
use muster::rehearse::RehearseArgs;
use muster::user::UserCommand;
use muster::watch::WatchArgs;
use muster::{certificates, check, demonstration, migrate, operate, parts, rehearse, user, watch};
use muster_runtime::telemetry::{self, LogFormat};
use tokio::runtime::Builder;

/// A fifth of the time of a list went into the system's allocator. Without huge pages, of which most
/// would be empty, this one takes half of the memory: docs/performance.md.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Receives an organisation's people from Okta by SCIM, and serves them over gRPC.
///
/// Without a command it runs everything in one process on a Postgres of its own; on an empty data
/// folder it makes a demonstration organisation and plays the guide into it.
#[derive(Debug, Parser)]
#[command(
    version,
    args_conflicts_with_subcommands = true,
    after_help = "Example:
  muster --listen 127.0.0.1:8080 --data-dir .muster

MUSTER_LOG says what is logged, such as info or muster=debug; MUSTER_LOG_FORMAT=json how."
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: RunArgs,
}

#[derive(Debug, Args)]
struct RunArgs {
    /// Where to listen for HTTP
    #[arg(long, env = "MUSTER_LISTEN", default_value = "127.0.0.1:8080", value_name = "ADDRESS")]
    listen: SocketAddr,
    /// Where to listen for gRPC; plain text, so on this machine only
    #[arg(
        long,
        env = "MUSTER_GRPC_LISTEN",
        default_value = "127.0.0.1:50051",
        value_name = "ADDRESS"
    )]
    grpc_listen: SocketAddr,
    /// Where to keep the data
    #[arg(long, env = "MUSTER_DATA_DIR", default_value = ".muster", value_name = "FOLDER")]
    data_dir: PathBuf,
    /// Make no demonstration organisation
    #[arg(long, env = "MUSTER_EMPTY")]
    empty: bool,
    /// A PostgreSQL to use instead of one of our own, with a role that may create roles
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, value_name = "URL")]
    database_url: Option<String>,
    /// The address that clients use, where it is another than --listen
    #[arg(long, env = "MUSTER_PUBLIC_URL", value_name = "URL")]
    public_url: Option<String>,
    #[command(flatten)]
    oidc: OidcArgs,
    #[command(flatten)]
    feed: FeedArgs,
    #[command(flatten)]
    log: LogArgs,
    #[command(flatten)]
    limits: LimitArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway: SCIM over HTTP
    Gateway(GatewayArgs),
    /// Run the identity service: organisations, keys and users
    Identity(IdentityArgs),
    /// Run the group service
    #[command(after_help = "Example:
  muster group --plain-text --grpc-listen 127.0.0.1:50052 \\
      --database-url postgres://muster_group@localhost/muster")]
    Group(FollowerArgs),
    /// Run the approver service
    #[command(after_help = "Example:
  muster approver --plain-text --grpc-listen 127.0.0.1:50053 \\
      --database-url postgres://muster_approver@localhost/muster")]
    Approver(FollowerArgs),
    Migrate(MigrateArgs),
    Certificates(CertificatesArgs),
    /// Create organisations
    #[command(subcommand)]
    Organisation(OrganisationCommand),
    /// Create admins, and let them set another password
    #[command(subcommand)]
    Admin(AdminCommand),
    /// Create, list and revoke API keys
    #[command(subcommand)]
    ApiKey(ApiKeyCommand),
    /// Hand out or erase what is kept of one person
    #[command(subcommand)]
    User(UserCommand),
    Check(CheckArgs),
    Rehearse(RehearseArgs),
    Watch(WatchArgs),
}

/// The whole program; also of the build with fail points (`tests/failpoints.rs`).
pub(crate) fn main() -> ExitCode {
    let cli = Cli::parse();
    let mut runtime = Builder::new_multi_thread();
    if let Some(threads) = threads(cli.command.as_ref()) {
        runtime.worker_threads(threads);
    }
    match runtime.enable_all().build() {
        Ok(runtime) => runtime.block_on(program(cli)),
        Err(error) => fail(&format!("no threads can be started: {error}")),
    }
}

/// How many threads work where it is not one for each processor, or as `TOKIO_WORKER_THREADS` says:
/// half as many for a part, which shares the processors with the others. What one thread hands to
/// another costs more than half the processors are worth then: docs/performance.md.
fn threads(command: Option<&Command>) -> Option<usize> {
    use Command::{Approver, Gateway, Group, Identity};
    let is_part = matches!(command, Some(Gateway(_) | Identity(_) | Group(_) | Approver(_)));
    let is_said = std::env::var_os("TOKIO_WORKER_THREADS").is_some();
    let processors = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    (is_part && !is_said).then(|| processors.div_ceil(2))
}

async fn program(cli: Cli) -> ExitCode {
    let format = match std::env::var("MUSTER_LOG_FORMAT").as_deref() {
        Ok("json") => LogFormat::Json,
        _ => LogFormat::Text,
    };
    let telemetry = match telemetry::start(
        service_name(cli.command.as_ref()),
        format,
        "warn,reqwest_retry=off",
    ) {
        Ok(telemetry) => telemetry,
        Err(error) => return fail(&error),
    };
    let result = run(cli).await;
    // Exports what is queued; it blocks.
    drop(tokio::task::spawn_blocking(move || drop(telemetry)).await);
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&format!("{error:#}")),
    }
}

fn fail(error: &str) -> ExitCode {
    eprintln!("muster: {error}");
    ExitCode::FAILURE
}

fn service_name(command: Option<&Command>) -> &'static str {
    match command {
        Some(Command::Gateway(_)) => "muster-gateway",
        Some(Command::Identity(_)) => "muster-identity",
        Some(Command::Group(_)) => "muster-group",
        Some(Command::Approver(_)) => "muster-approver",
        _ => "muster",
    }
}

async fn run(cli: Cli) -> anyhow::Result<()> {
    match cli.command {
        None => everything(cli.run).await,
        Some(Command::Gateway(args)) => parts::gateway(args).await,
        Some(Command::Identity(args)) => parts::identity(args).await,
        Some(Command::Group(args)) => parts::group(args).await,
        Some(Command::Approver(args)) => parts::approver(args).await,
        Some(Command::Migrate(args)) => migrate::run(args).await,
        Some(Command::Certificates(args)) => certificates::run(args),
        Some(Command::Organisation(command)) => operate::organisation(command).await,
        Some(Command::Admin(command)) => operate::admin(command).await,
        Some(Command::ApiKey(command)) => operate::api_key(command).await,
        Some(Command::User(command)) => user::run(command).await,
        Some(Command::Check(args)) => check::run(args).await,
        Some(Command::Rehearse(args)) => rehearse::run(args).await,
        Some(Command::Watch(args)) => watch::run(args).await,
    }
}

async fn everything(args: RunArgs) -> anyhow::Result<()> {
    let life = stopped_by_signals(Drain::AT_ONCE);
    let options = Options {
        listen: args.listen,
        grpc_listen: args.grpc_listen,
        data_dir: args.data_dir.clone(),
        database_url: args.database_url,
        public_url: args.public_url,
        oidc: args.oidc.config()?,
        feed: args.feed.settings(),
        log: args.log.settings(),
        limits: args.limits,
    };
    let everything = Everything::start(options, life.clone()).await?;
    let shown = tokio::select! {
        shown = show(&everything, &args.data_dir, args.empty) => shown,
        () = life.stopped() => Ok(()),
    };
    if shown.is_err() {
        life.stop();
    }
    everything.finish().await?;
    shown
}

/// Makes the demonstration, unless nobody wants one, and says where everything is.
async fn show(
    everything: &Everything,
    data_dir: &std::path::Path,
    empty: bool,
) -> anyhow::Result<()> {
    let demonstration =
        if empty { None } else { Some(demonstration::ensure(everything, data_dir).await?) };
    let mut text = String::new();
    if let Some((passed, failed, failures)) = demonstration.as_ref().and_then(|d| d.played.as_ref())
    {
        for failure in failures {
            writeln!(text, "  ✗ {failure}")?;
        }
        writeln!(text, "Played the guide as Okta would: {passed} passed, {failed} failed")?;
    }
    writeln!(text, "Muster is running")?;
    writeln!(text, "  Console        {}/admin", everything.public_url)?;
    match &demonstration {
        Some(demonstration) => {
            let (email, password) = (demonstration::ADMIN, &demonstration.password);
            writeln!(text, "  Sign in        {email}, password {password}")?;
        }
        None => writeln!(
            text,
            "  Sign in        muster organisation create --slug SLUG --name NAME\n\
             {:17}muster admin create --organisation SLUG --email ADDRESS --name NAME",
            ""
        )?,
    }
    writeln!(text, "  SCIM base URL  {}", everything.scim_url())?;
    match &demonstration {
        Some(demonstration) => writeln!(text, "  Token          Static {}", demonstration.key)?,
        None => writeln!(
            text,
            "  Token          muster api-key create --organisation SLUG --label TEXT"
        )?,
    }
    writeln!(text, "  gRPC           {}", everything.grpc_address)?;
    writeln!(text, "Ctrl-C stops it.")?;
    // Whoever reads it may have gone; Muster runs on.
    drop(std::io::stdout().write_all(text.as_bytes()));
    Ok(())
}
