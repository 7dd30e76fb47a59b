//! How a part, or an operator, shows who it is.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::Args;
use muster_runtime::caller::Policy;
use muster_runtime::grpc;
use muster_runtime::life::Life;
use muster_runtime::tls::{Files, Tls};
use muster_runtime::transport::Transport;
use tokio::net::TcpListener;
use tonic::service::Routes;

use crate::life_args::LifeArgs;

/// The certificate of who calls.
#[derive(Debug, Clone, Args)]
pub struct TlsArgs {
    /// The certificate to call others with, and to be called by, in PEM
    #[arg(
        long,
        env = "MUSTER_TLS_CERTIFICATE",
        value_name = "FILE",
        requires_all = ["tls_key", "tls_ca"]
    )]
    pub tls_certificate: Option<PathBuf>,
    /// Its private key, in PEM
    #[arg(long, env = "MUSTER_TLS_KEY", value_name = "FILE", requires = "tls_certificate")]
    pub tls_key: Option<PathBuf>,
    /// The authorities that sign the others' certificates, in PEM
    #[arg(long, env = "MUSTER_TLS_CA", value_name = "FILE", requires = "tls_certificate")]
    pub tls_ca: Option<PathBuf>,
}

/// How a part is called.
#[derive(Debug, Args)]
pub struct PartArgs {
    /// Its certificate
    #[command(flatten)]
    pub tls: TlsArgs,
    /// Talk in plain text, with this machine only
    #[arg(long, env = "MUSTER_PLAIN_TEXT", conflicts_with = "tls_certificate")]
    pub plain_text: bool,
    /// The largest gRPC message it takes
    #[arg(
        long,
        env = "MUSTER_MAX_MESSAGE_BYTES",
        default_value_t = 32 * 1024 * 1024,
        value_parser = clap::value_parser!(u32).range(64 * 1024..=1024 * 1024 * 1024),
        value_name = "BYTES"
    )]
    pub max_message_bytes: u32,
    /// How it begins and ends
    #[command(flatten)]
    pub life: LifeArgs,
}

/// How a service is called, and by whom.
#[derive(Debug, Args)]
pub struct ServiceArgs {
    /// As every part
    #[command(flatten)]
    pub part: PartArgs,
    /// Who may call what: a file of callers and methods (docs/certificates.md)
    #[arg(long, env = "MUSTER_POLICY", value_name = "FILE", requires = "tls_certificate")]
    pub policy: Option<PathBuf>,
}

impl TlsArgs {
    /// The certificate; none where there is none.
    pub fn open(&self) -> anyhow::Result<Option<Tls>> {
        match (&self.tls_certificate, &self.tls_key, &self.tls_ca) {
            (Some(certificate), Some(key), Some(authorities)) => Ok(Some(Tls::open(Files {
                certificate: certificate.clone(),
                key: key.clone(),
                authorities: authorities.clone(),
            })?)),
            _ => Ok(None),
        }
    }

    /// Calls whoever listens at `url`: in plain text where that is `http`, which only this machine
    /// is called by.
    pub fn connect(&self, url: &str) -> anyhow::Result<Transport> {
        connect(url, self.open()?)
    }
}

impl PartArgs {
    /// Begins the life of the process, with its limits.
    pub async fn begin(&self) -> anyhow::Result<Life> {
        grpc::limit_messages(usize::try_from(self.max_message_bytes)?);
        self.life.begin().await
    }

    /// The certificate; none where the part talks in plain text because it was told to.
    pub fn open(&self) -> anyhow::Result<Option<Tls>> {
        let tls = self.tls.open()?;
        if tls.is_none() && !self.plain_text {
            bail!(
                "a part needs --tls-certificate, --tls-key and --tls-ca (muster certificates makes \
                 a set to try), or --plain-text to talk with this machine only"
            );
        }
        Ok(tls)
    }

    /// Calls another part.
    pub fn connect(&self, url: &str) -> anyhow::Result<Transport> {
        let tls = self.open()?;
        if tls.is_some() && url.starts_with("http:") {
            bail!(
                "{url} would be called in plain text: use https, or --plain-text and no certificate"
            );
        }
        connect(url, tls)
    }
}

impl ServiceArgs {
    /// Refuses what cannot be served, before anything else is done.
    pub fn check(&self, address: SocketAddr) -> anyhow::Result<()> {
        if self.part.open()?.is_none() {
            return Ok(grpc::plain_text_at(address)?);
        }
        self.open_policy().map(drop)
    }

    fn open_policy(&self) -> anyhow::Result<Policy> {
        let Some(policy) = self.policy.clone() else {
            bail!("a service that is called over TLS needs --policy, which says who may call what");
        };
        Ok(Policy::open(policy, muster_proto::FILE_DESCRIPTOR_SET)?)
    }

    /// Serves `routes` at `address` until the life ends.
    pub async fn serve(
        &self,
        address: SocketAddr,
        routes: Routes,
        life: Life,
    ) -> anyhow::Result<()> {
        let tls = self.part.open()?;
        let Some(tls) = tls else {
            let listener =
                grpc::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
            println!("gRPC address  {}", listener.local_addr()?);
            return Ok(grpc::serve(listener, routes, life).await?);
        };
        let policy = self.open_policy()?;
        let listener = TcpListener::bind(address)
            .await
            .with_context(|| format!("cannot listen on {address}"))?;
        println!("gRPC address  {}", listener.local_addr()?);
        Ok(grpc::serve_mutual(listener, routes, tls, policy, life).await?)
    }
}

/// Calls whoever listens at `urls`, one or several with commas between them, with this certificate
/// where they are `https`.
pub fn connect(urls: &str, tls: Option<Tls>) -> anyhow::Result<Transport> {
    let is_https = urls.split(',').all(|url| url.trim().starts_with("https:"));
    for url in urls.split(',') {
        let parsed: http::Uri =
            url.trim().parse().with_context(|| format!("{url:?} is no address"))?;
        match parsed.scheme_str() {
            Some("https") if tls.is_none() => bail!(
                "{url} is called over TLS, which needs --tls-certificate, --tls-key and --tls-ca"
            ),
            Some("https") if !is_https => bail!("{urls} are of two kinds: use https for each"),
            Some("https") => {}
            Some("http") if is_loopback(parsed.host().unwrap_or_default()) => {}
            Some("http") => {
                bail!("{url} is on another machine, which is not called in plain text: use https")
            }
            _ => bail!("{url:?} is no address to call, such as https://identity:50051"),
        }
    }
    match tls {
        Some(tls) if is_https => Ok(Transport::connect_mutual(urls, tls)?),
        _ => Ok(Transport::connect(urls)?),
    }
}

fn is_loopback(host: &str) -> bool {
    let host = host.trim_matches(['[', ']']);
    host == "localhost" || host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
}
