//! How a part's process begins and ends.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use muster_runtime::health;
use muster_runtime::life::Life;
use tokio::net::TcpListener;

/// Health, and the way to the end.
#[derive(Debug, Args)]
pub struct LifeArgs {
    /// Where to answer /livez and /readyz over HTTP
    #[arg(long, env = "MUSTER_HEALTH_LISTEN", value_name = "ADDRESS")]
    pub health_listen: Option<SocketAddr>,
    /// For how many seconds to go on, not ready any more, after being told to stop
    #[arg(long, env = "MUSTER_DRAIN_DELAY", default_value_t = 5, value_name = "SECONDS")]
    pub drain_delay: u64,
    /// After how many seconds from then on to end whatever is still under way
    #[arg(long, env = "MUSTER_DRAIN_LIMIT", default_value_t = 20, value_name = "SECONDS")]
    pub drain_limit: u64,
}

impl LifeArgs {
    /// A life that ends with Ctrl-C or SIGTERM, and tells of its health until then.
    pub async fn begin(&self) -> anyhow::Result<Life> {
        let drain = Drain {
            delay: Duration::from_secs(self.drain_delay),
            limit: Duration::from_secs(self.drain_limit),
        };
        let life = stopped_by_signals(drain);
        if let Some(address) = self.health_listen {
            let listener = TcpListener::bind(address)
                .await
                .with_context(|| format!("cannot listen on {address}"))?;
            println!("Health address  {}", listener.local_addr()?);
            tokio::spawn(health::serve(listener, life.clone()));
        }
        Ok(life)
    }
}

/// How a process ends that is told to.
#[derive(Debug, Clone, Copy)]
pub struct Drain {
    /// How long it goes on first, not ready any more: until whoever sends it requests has heard.
    pub delay: Duration,
    /// How long what is under way may take from then on.
    pub limit: Duration,
}

impl Drain {
    /// For a process that nobody balances load to.
    pub const AT_ONCE: Self = Self { delay: Duration::ZERO, limit: Duration::from_secs(25) };
}

/// A life that ends with Ctrl-C or SIGTERM; a second one of them ends it at once.
#[must_use]
pub fn stopped_by_signals(drain: Drain) -> Life {
    let life = Life::new();
    let stopping = life.clone();
    tokio::spawn(async move {
        told_to_stop().await;
        stopping.leave();
        tokio::select! {
            () = tokio::time::sleep(drain.delay) => {}
            () = told_to_stop() => {}
        }
        stopping.stop();
        tokio::select! {
            () = tokio::time::sleep(drain.limit) => {
                tracing::error!("what was still under way was ended: it took too long");
            }
            () = told_to_stop() => {}
        }
        std::process::exit(1);
    });
    life
}

async fn told_to_stop() {
    use tokio::signal::unix::{SignalKind, signal};
    let terminate = async {
        match signal(SignalKind::terminate()) {
            Ok(mut terminate) => terminate.recv().await,
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate => {}
    }
}
