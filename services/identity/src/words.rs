//! The index of words that people are searched by.
//!
//! What is written of it goes to a list first, since the index itself takes ten times as long. Every
//! search reads that list; and whoever writes when it is full has to work it off, for a transaction's
//! other writes, too: 30 ms for 400 people. So it is worked off beside them, while it is short.

use std::time::Duration;

use muster_runtime::grpc::database_status;
use muster_runtime::life::Life;
use muster_runtime::postgres::Database;

use crate::store::search;

/// How long what was written is in the list.
const PAUSE: Duration = Duration::from_secs(1);

/// Works the list off for ever. Replicas that do so at once wait for each other.
pub(crate) async fn index_for_ever(database: Database, life: Life) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(PAUSE) => {}
            () = life.stopped() => return,
        }
        // It changes nothing that a reader sees, so it may be done in a transaction that reads.
        let indexed = database.read_shared(|c| Box::pin(search::index_words(c))).await;
        if let Err(error) = indexed {
            drop(database_status(&error));
        }
    }
}
