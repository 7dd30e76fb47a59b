//! What the process of every part needs: ids, the Postgres pool with its organisation-scoped
//! transaction, the change feed, calls between parts, servers, telemetry and graceful shutdown.

pub mod caller;
pub mod clock;
pub mod deadline;
#[cfg(feature = "failpoints")]
pub mod failpoint;
pub mod feed;
pub mod filter_sql;
pub mod gathering;
pub mod grpc;
pub mod health;
pub mod http_server;
pub mod id;
pub mod life;
pub mod metrics;
pub mod postgres;
pub mod telemetry;
pub mod tls;
pub mod transport;

pub use futures::future::BoxFuture;
