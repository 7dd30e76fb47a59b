//! Everything in one process, on a Postgres of its own: for a laptop, a first look and the tests.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context as _;
use muster_identity::provisioning_log;
use muster_runtime::feed;
use muster_runtime::life::Life;
use muster_runtime::postgres::Settings;
use muster_runtime::transport::Transport;
use muster_runtime::{grpc, http_server};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tonic::service::Routes;

use crate::limit_args::LimitArgs;
use crate::migrate::{Passwords, migrate};
use crate::parts::{CONNECTIONS, database_error};
use muster_local_postgres::LocalPostgres;

/// Where to run and to listen.
#[derive(Debug, Clone)]
pub struct Options {
    /// The HTTP address.
    pub listen: SocketAddr,
    /// The gRPC address.
    pub grpc_listen: SocketAddr,
    /// Where the Postgres of our own has its data.
    pub data_dir: PathBuf,
    /// A database to use instead.
    pub database_url: Option<String>,
    /// The address that clients use, where it is another than `listen`.
    pub public_url: Option<String>,
    /// The identity provider that admins may sign in with.
    pub oidc: Option<muster_gateway::OidcConfig>,
    /// How the feeds are read and kept.
    pub feed: feed::Settings,
    /// How long the provisioning log is kept.
    pub log: provisioning_log::Settings,
    /// Limits.
    pub limits: LimitArgs,
}

/// Everything, running.
#[derive(Debug)]
pub struct Everything {
    /// The HTTP address, with the port that was chosen where 0 was asked for.
    pub http_address: SocketAddr,
    /// The gRPC address.
    pub grpc_address: SocketAddr,
    /// The address that clients use.
    pub public_url: String,
    /// Calls to identity, without a network between.
    pub identity: Transport,
    life: Life,
    servers: Vec<JoinHandle<anyhow::Result<()>>>,
    postgres: Option<LocalPostgres>,
}

impl Everything {
    /// Starts everything; `life` ends it.
    pub async fn start(options: Options, life: Life) -> anyhow::Result<Self> {
        // Before anything is made, so that a port in use leaves nothing behind.
        let http = TcpListener::bind(options.listen)
            .await
            .with_context(|| in_use("--listen", options.listen))?;
        let grpc = grpc::bind(options.grpc_listen)
            .await
            .with_context(|| in_use("--grpc-listen", options.grpc_listen))?;
        let (postgres, database_url) = if let Some(url) = options.database_url.clone() {
            (None, url)
        } else {
            let postgres = LocalPostgres::start(&options.data_dir).await?;
            let url = postgres.url("postgres", "muster");
            (Some(postgres), url)
        };
        match Self::start_parts(&options, database_url, http, grpc, life).await {
            Ok(everything) => Ok(Self { postgres, ..everything }),
            Err(error) => {
                if let Some(postgres) = postgres {
                    postgres.stop().await?;
                }
                Err(error)
            }
        }
    }

    async fn start_parts(
        options: &Options,
        url: String,
        http: TcpListener,
        grpc: TcpListener,
        life: Life,
    ) -> anyhow::Result<Self> {
        migrate(&url, &Passwords::default()).await?;
        let settings = |schema, role| Settings {
            url: url.clone(),
            schema,
            role: Some(role),
            max_connections: CONNECTIONS,
        };
        let feed = || options.feed.clone();
        let identity = settings(muster_identity::SCHEMA, muster_identity::ROLE);
        let identity = muster_identity::start(&identity, feed(), options.log, None, &life)
            .await
            .map_err(database_error)?;
        let to_identity = Transport::in_process(identity.clone());
        let group = settings(muster_group::SCHEMA, muster_group::ROLE);
        let group = muster_group::start(&group, feed(), to_identity.clone(), &life)
            .await
            .map_err(database_error)?;
        let approver = settings(muster_approver::SCHEMA, muster_approver::ROLE);
        let approver = muster_approver::start(&approver, feed(), to_identity.clone(), &life)
            .await
            .map_err(database_error)?;

        let (http_address, grpc_address) = (http.local_addr()?, grpc.local_addr()?);
        let public_url = match &options.public_url {
            Some(url) => url.trim_end_matches('/').to_owned(),
            None => format!("http://{http_address}"),
        };
        let router = muster_gateway::router(muster_gateway::Config {
            public_url: public_url.clone(),
            identity: to_identity.clone(),
            group: Transport::in_process(group.clone()),
            approver: Transport::in_process(approver.clone()),
            limits: options.limits.requests(),
            trusts_traceparent: false,
            life: life.clone(),
            trusts_forwarded_for: false,
            oidc: options.oidc.clone(),
        });
        let services =
            [muster_identity::SERVICES, muster_group::SERVICES, muster_approver::SERVICES].concat();
        let routes = grpc::with_health_and_reflection(
            together([identity, group, approver]),
            &services,
            muster_proto::FILE_DESCRIPTOR_SET,
            &life,
        )
        .await?;
        life.started();
        let limits = options.limits.connections();
        let (http_life, grpc_life) = (life.clone(), life.clone());
        let servers = vec![
            tokio::spawn(
                async move { Ok(http_server::serve(http, router, limits, http_life).await?) },
            ),
            tokio::spawn(async move { Ok(grpc::serve(grpc, routes, grpc_life).await?) }),
        ];
        Ok(Self {
            http_address,
            grpc_address,
            public_url,
            identity: to_identity,
            life,
            servers,
            postgres: None,
        })
    }

    /// The SCIM base URL.
    #[must_use]
    pub fn scim_url(&self) -> String {
        format!("{}/scim/v2", self.public_url)
    }

    /// Waits until the life ends, then for what is under way, and stops Postgres last.
    pub async fn finish(self) -> anyhow::Result<()> {
        self.life.stopped().await;
        let mut result = Ok(());
        for server in self.servers {
            result = result.and(server.await.context("a server")?);
        }
        self.life.drain().await;
        if let Some(postgres) = self.postgres {
            postgres.stop().await?;
        }
        result
    }
}

/// The services of several parts at one address.
fn together(parts: [Routes; 3]) -> Routes {
    parts
        .into_iter()
        // Each has a fallback of its own, for calls of no service.
        .map(|routes| routes.into_axum_router().reset_fallback())
        .reduce(|all, part| all.merge(part))
        .map_or_else(Routes::default, Routes::from)
}

fn in_use(flag: &str, address: SocketAddr) -> String {
    format!("cannot listen on {address}; {flag} names another address")
}
