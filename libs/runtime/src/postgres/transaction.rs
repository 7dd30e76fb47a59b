//! How a transaction begins and ends.

use futures::future::BoxFuture;
use sqlx::pool::PoolConnection;
use sqlx::{AssertSqlSafe, Executor as _, PgConnection, Postgres};

use super::{Database, lasting};
use crate::feed;
use crate::id::OrganisationId;

/// What comes after a `COMMIT`.
#[derive(Debug, Clone, Copy)]
pub(super) enum End {
    /// Nothing: nothing was written.
    Nothing,
    /// What was written comes on disk.
    Lasting(OrganisationId),
    /// What was written comes on disk some time: it would be done again.
    Repeatable,
}

pub(super) async fn run<T, E, F>(
    database: Database,
    begin: String,
    end: End,
    mut work: F,
) -> Result<T, E>
where
    F: for<'c> FnOnce(&'c mut PgConnection) -> BoxFuture<'c, Result<T, E>>,
    E: From<sqlx::Error>,
{
    // As many as there may be may lead to a server that has gone.
    let mut more = database.pool.size();
    loop {
        let mut connection = database.acquire().await?;
        let error;
        (error, work) = match attempt(&database, &mut connection, &begin, end, work).await {
            Ok(done) => return done,
            Err(not_begun) => not_begun,
        };
        // It may be inside a transaction that failed; the next borrower must not get it.
        drop(connection.close().await);
        if more == 0 || !has_gone(&error) {
            return Err(error.into());
        }
        more -= 1;
    }
}

/// Whether what a connection led to is no longer there.
fn has_gone(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    matches!(error, sqlx::Error::Io(_)) || matches!(code.as_deref(), Some("57P01" | "57P02"))
}

/// Runs the work in a transaction; gives it back where that could not begin.
async fn attempt<T, E, F>(
    database: &Database,
    connection: &mut PoolConnection<Postgres>,
    begin: &str,
    end: End,
    work: F,
) -> Result<Result<T, E>, (sqlx::Error, F)>
where
    F: for<'c> FnOnce(&'c mut PgConnection) -> BoxFuture<'c, Result<T, E>>,
    E: From<sqlx::Error>,
{
    let open = Open { connection, ended: false };
    if let Err(error) = open.connection.execute(AssertSqlSafe(begin.to_owned())).await {
        return Err((error, work));
    }
    let work = work(&mut *open.connection);
    let (done, appended) = feed::in_transaction(database.lasting.is_none(), work).await;
    let ended = match done {
        Ok(_) => open.commit(database, end, appended).await,
        Err(_) => open.roll_back().await,
    };
    Ok(ended.map_err(E::from).and(done))
}

/// A transaction that has begun. Where it does not end, its connection is closed: nobody else may
/// get it.
struct Open<'c> {
    connection: &'c mut PoolConnection<Postgres>,
    ended: bool,
}

impl Open<'_> {
    async fn commit(
        mut self,
        database: &Database,
        end: End,
        appended: Option<i64>,
    ) -> Result<(), sqlx::Error> {
        #[cfg(feature = "failpoints")]
        if !matches!(end, End::Nothing) {
            crate::failpoint::crash("commit-before");
        }
        let lasts = match end {
            End::Lasting(organisation) => database.lasting.as_ref().zip(Some(organisation)),
            End::Nothing | End::Repeatable => None,
        };
        let committed = if lasts.is_some() {
            // In one message: the statement after `COMMIT` is a transaction of its own.
            let commit = format!("COMMIT; {}", lasting::FLUSH);
            sqlx::raw_sql(AssertSqlSafe(commit)).execute(&mut **self.connection).await
        } else {
            self.connection.execute("COMMIT").await
        };
        if let Err(error) = committed {
            drop(self.roll_back().await);
            return Err(error);
        }
        self.ended = true;
        if let (Some((lasting, organisation)), Some(last)) = (lasts, appended) {
            lasting.note(organisation, last);
        }
        #[cfg(feature = "failpoints")]
        if !matches!(end, End::Nothing) {
            crate::failpoint::crash("commit-after");
        }
        Ok(())
    }

    async fn roll_back(mut self) -> Result<(), sqlx::Error> {
        self.connection.execute("ROLLBACK").await?;
        self.ended = true;
        Ok(())
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        #[cfg(feature = "failpoints")]
        if crate::failpoint::is_on("mistake-cancellable") {
            return;
        }
        if !self.ended {
            self.connection.close_on_drop();
        }
    }
}
