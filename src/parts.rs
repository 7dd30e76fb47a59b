//! The parts of Muster, as processes of their own.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use muster_runtime::life::Life;
use muster_runtime::postgres::Settings;
use muster_runtime::{grpc, http_server};
use tokio::net::TcpListener;
use tonic::service::Routes;

use crate::feed_args::FeedArgs;
use crate::limit_args::LimitArgs;
use crate::log_args::LogArgs;
use crate::oidc_args::OidcArgs;
use crate::secret_file::DatabaseArgs;
use crate::tls_args::{PartArgs, ServiceArgs};

/// How many connections each service holds at most.
pub const CONNECTIONS: u32 = 16;

/// What identity needs.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  muster identity --plain-text \\
      --database-url postgres://muster_identity@localhost/muster")]
pub struct IdentityArgs {
    /// Where to listen for gRPC
    #[arg(
        long,
        env = "MUSTER_GRPC_LISTEN",
        default_value = "127.0.0.1:50051",
        value_name = "ADDRESS"
    )]
    pub grpc_listen: SocketAddr,
    /// The database
    #[command(flatten)]
    pub database: DatabaseArgs,
    /// The feed
    #[command(flatten)]
    pub feed: FeedArgs,
    /// The provisioning log
    #[command(flatten)]
    pub log: LogArgs,
    /// How many passwords are checked at once, each with 19 MiB and a core for about 30 ms; more
    /// wait [default: as many as there are cores, at most 8]
    #[arg(
        long,
        env = "MUSTER_SIGN_INS_AT_ONCE",
        value_parser = clap::value_parser!(u16).range(1..=1_000),
        value_name = "NUMBER"
    )]
    pub sign_ins_at_once: Option<u16>,
    /// Who may call
    #[command(flatten)]
    pub service: ServiceArgs,
}

/// What a service needs that follows identity.
#[derive(Debug, Args)]
pub struct FollowerArgs {
    /// Where to listen for gRPC
    #[arg(long, env = "MUSTER_GRPC_LISTEN", value_name = "ADDRESS")]
    pub grpc_listen: SocketAddr,
    /// The database
    #[command(flatten)]
    pub database: DatabaseArgs,
    /// Where identity listens
    #[arg(
        long,
        env = "MUSTER_IDENTITY_URL",
        default_value = "http://127.0.0.1:50051",
        value_name = "URL"
    )]
    pub identity_url: String,
    /// The feed
    #[command(flatten)]
    pub feed: FeedArgs,
    /// Who may call
    #[command(flatten)]
    pub service: ServiceArgs,
}

/// What the gateway needs.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  muster gateway --plain-text --identity-url http://127.0.0.1:50051 \\
      --group-url http://127.0.0.1:50052 --approver-url http://127.0.0.1:50053")]
pub struct GatewayArgs {
    /// Where to listen for HTTP
    #[arg(long, env = "MUSTER_LISTEN", default_value = "127.0.0.1:8080", value_name = "ADDRESS")]
    pub listen: SocketAddr,
    /// The address that clients use, where it is another, such as <https://muster.example.com>
    #[arg(long, env = "MUSTER_PUBLIC_URL", value_name = "URL")]
    pub public_url: Option<String>,
    /// Where identity listens
    #[arg(
        long,
        env = "MUSTER_IDENTITY_URL",
        default_value = "http://127.0.0.1:50051",
        value_name = "URL"
    )]
    pub identity_url: String,
    /// Where the group service listens
    #[arg(
        long,
        env = "MUSTER_GROUP_URL",
        default_value = "http://127.0.0.1:50052",
        value_name = "URL"
    )]
    pub group_url: String,
    /// Where the approver service listens
    #[arg(
        long,
        env = "MUSTER_APPROVER_URL",
        default_value = "http://127.0.0.1:50053",
        value_name = "URL"
    )]
    pub approver_url: String,
    /// Limits
    #[command(flatten)]
    pub limits: LimitArgs,
    /// Go on with the trace that a request's traceparent names; only behind a proxy that sets it
    #[arg(long, env = "MUSTER_TRUST_TRACEPARENT")]
    pub trust_traceparent: bool,
    /// Take the client's address from X-Forwarded-For; only behind a proxy that adds to it
    #[arg(long, env = "MUSTER_TRUST_FORWARDED_FOR")]
    pub trust_forwarded_for: bool,
    /// The identity provider
    #[command(flatten)]
    pub oidc: OidcArgs,
    /// Its certificate
    #[command(flatten)]
    pub part: PartArgs,
}

/// Runs identity until the process is told to stop.
pub async fn identity(args: IdentityArgs) -> anyhow::Result<()> {
    args.service.check(args.grpc_listen)?;
    let life = args.service.part.begin().await?;
    let settings = settings(args.database.url()?, muster_identity::SCHEMA);
    let (at_once, log) = (args.sign_ins_at_once.map(usize::from), args.log.settings());
    let start = || muster_identity::start(&settings, args.feed.settings(), log, at_once, &life);
    let Some(routes) = once_the_database_answers(&life, start).await? else { return Ok(()) };
    serve(&args.service, args.grpc_listen, routes, muster_identity::SERVICES, life).await
}

/// Runs the group service until the process is told to stop.
pub async fn group(args: FollowerArgs) -> anyhow::Result<()> {
    args.service.check(args.grpc_listen)?;
    let life = args.service.part.begin().await?;
    let settings = settings(args.database.url()?, muster_group::SCHEMA);
    let identity = args.service.part.connect(&args.identity_url)?;
    let start = || muster_group::start(&settings, args.feed.settings(), identity.clone(), &life);
    let Some(routes) = once_the_database_answers(&life, start).await? else { return Ok(()) };
    serve(&args.service, args.grpc_listen, routes, muster_group::SERVICES, life).await
}

/// Runs the approver service until the process is told to stop.
pub async fn approver(args: FollowerArgs) -> anyhow::Result<()> {
    args.service.check(args.grpc_listen)?;
    let life = args.service.part.begin().await?;
    let settings = settings(args.database.url()?, muster_approver::SCHEMA);
    let identity = args.service.part.connect(&args.identity_url)?;
    let start = || muster_approver::start(&settings, args.feed.settings(), identity.clone(), &life);
    let Some(routes) = once_the_database_answers(&life, start).await? else { return Ok(()) };
    serve(&args.service, args.grpc_listen, routes, muster_approver::SERVICES, life).await
}

/// Runs the gateway until the process is told to stop.
pub async fn gateway(args: GatewayArgs) -> anyhow::Result<()> {
    let life = args.part.begin().await?;
    let listener = TcpListener::bind(args.listen)
        .await
        .with_context(|| format!("cannot listen on {}", args.listen))?;
    let public_url = match args.public_url {
        Some(url) => url.trim_end_matches('/').to_owned(),
        None => format!("http://{}", listener.local_addr()?),
    };
    let router = muster_gateway::router(muster_gateway::Config {
        public_url: public_url.clone(),
        identity: args.part.connect(&args.identity_url)?,
        group: args.part.connect(&args.group_url)?,
        approver: args.part.connect(&args.approver_url)?,
        limits: args.limits.requests(),
        trusts_traceparent: args.trust_traceparent,
        life: life.clone(),
        trusts_forwarded_for: args.trust_forwarded_for,
        oidc: args.oidc.config()?,
    });
    life.started();
    println!("HTTP address  {}", listener.local_addr()?);
    println!("SCIM base URL  {public_url}/scim/v2");
    http_server::serve(listener, router, args.limits.connections(), life.clone()).await?;
    // What is left of the provisioning log.
    life.drain().await;
    Ok(())
}

/// The settings of a service's database, logged in as the role of the URL.
fn settings(url: String, schema: &'static str) -> Settings {
    Settings { url, schema, role: None, max_connections: CONNECTIONS }
}

async fn serve(
    service: &ServiceArgs,
    address: SocketAddr,
    routes: Routes,
    services: &[&'static str],
    life: Life,
) -> anyhow::Result<()> {
    life.started();
    let descriptors = muster_proto::FILE_DESCRIPTOR_SET;
    let routes = grpc::with_health_and_reflection(routes, services, descriptors, &life).await?;
    service.serve(address, routes, life.clone()).await?;
    life.drain().await;
    Ok(())
}

/// How long a database that does not answer is left alone.
const AGAIN: Duration = Duration::from_secs(1);

/// Starts a service, once its database can be reached: parts start in any order. None where the
/// process is told to stop before that.
async fn once_the_database_answers<F>(
    life: &Life,
    start: impl Fn() -> F,
) -> anyhow::Result<Option<Routes>>
where
    F: Future<Output = Result<Routes, sqlx::Error>>,
{
    loop {
        match start().await {
            Ok(routes) => return Ok(Some(routes)),
            Err(error) if is_away(&error) => {
                tracing::warn!("the database cannot be reached; trying again");
            }
            Err(error) => return Err(database_error(error)),
        }
        tokio::select! {
            () = tokio::time::sleep(AGAIN) => {}
            () = life.left() => return Ok(None),
        }
    }
}

/// Whether the database may answer later.
fn is_away(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    matches!(error, sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut)
        // It starts, stops, or has no connection left.
        || matches!(code.as_deref(), Some("57P01" | "57P02" | "57P03" | "53300"))
}

/// What is wrong with the database, in words.
#[must_use]
pub fn database_error(error: sqlx::Error) -> anyhow::Error {
    let code = error
        .as_database_error()
        .and_then(sqlx::error::DatabaseError::code)
        .map(std::borrow::Cow::into_owned);
    let advice = match (&error, code.as_deref()) {
        (_, Some("42P01" | "3F000" | "42501")) => {
            "the tables are not there or not this role's: run muster migrate, and log in as the \
             service's own role"
        }
        (sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut, _) => {
            "the database cannot be reached; is DATABASE_URL right?"
        }
        _ => "the database does not serve",
    };
    anyhow::Error::new(error).context(advice)
}
