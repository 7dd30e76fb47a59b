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

use std::sync::{Mutex, MutexGuard, PoisonError};

pub use futures::future::BoxFuture;

/// Locks what nobody leaves half changed, whatever happens while they hold it.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
