//! The Postgres pool, and the one function that opens transactions.

use std::str::FromStr as _;
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Histogram};
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{PgConnection, PgPool, Postgres};
use tokio::task::JoinError;
use tracing::Instrument as _;

use crate::id::OrganisationId;
use crate::life::Life;
use crate::metrics::{self, number};

mod lasting;
mod point;
mod transaction;

use lasting::Lasting;
use point::Points;
use transaction::End;

/// How to reach a service's schema.
#[derive(Clone)]
pub struct Settings {
    /// `postgres://…`.
    pub url: String,
    /// The schema, first on the search path.
    pub schema: &'static str,
    /// The role to act as, where the URL names another that may; none where the URL's is right.
    pub role: Option<&'static str>,
    /// The most connections to hold.
    pub max_connections: u32,
}

/// A service's pool. Cloning it is cheap.
#[derive(Debug, Clone)]
pub struct Database {
    pool: PgPool,
    /// None on Citus, whose workers hear of the organisation by `SET LOCAL` only.
    points: Option<Points>,
    /// None on Citus, where every `COMMIT` waits for the disk.
    lasting: Option<Lasting>,
    life: Life,
    metrics: Metrics,
}

/// How long transactions wait for connections.
#[derive(Debug, Clone)]
struct Metrics {
    wait: Histogram<f64>,
    timeouts: Counter<u64>,
    pool: [KeyValue; 1],
}

impl Metrics {
    fn of(settings: &Settings) -> Self {
        Self {
            wait: metrics::POOL_WAIT.histogram(),
            timeouts: metrics::POOL_TIMEOUTS.counter(),
            pool: [pool_name(settings)],
        }
    }

    /// Notes how long a connection was waited for, and whether in vain.
    fn acquired(&self, begun: Instant, error: Option<&sqlx::Error>) {
        self.wait.record(begun.elapsed().as_secs_f64(), &self.pool);
        if matches!(error, Some(sqlx::Error::PoolTimedOut)) {
            self.timeouts.add(1, &self.pool);
        }
    }
}

fn pool_name(settings: &Settings) -> KeyValue {
    KeyValue::new("db.client.connection.pool.name", settings.schema)
}

/// The server bounds time, since a dropped future must not: see [`Database::write`].
///
/// And it makes one plan for all values of a statement, once: what writes, and what reads one row, is
/// a look-up by key, which under row-level security takes longer to plan than to run. Lists are
/// planned for their values: see [`Database::read`].
///
/// No plan reads a table, or all of an organisation, where an index leads to the rows: made while they
/// were few, as a plan that is kept may be, it would still be followed when they are many. And no
/// statement is worth compiling.
const LIMITS: [(&str, &str); 7] = [
    ("plan_cache_mode", "force_generic_plan"),
    ("enable_seqscan", "off"),
    ("random_page_cost", "1.1"),
    ("jit", "off"),
    ("statement_timeout", "5000"),
    ("lock_timeout", "5000"),
    ("idle_in_transaction_session_timeout", "5000"),
];

/// How long a caller waits for a connection of the pool.
const ACQUIRE: Duration = Duration::from_secs(3);

impl Database {
    /// Connects, and fails where the database cannot be reached or would lose what it has
    /// confirmed.
    pub async fn connect(settings: &Settings, life: &Life) -> Result<Self, sqlx::Error> {
        let mut options = PgConnectOptions::from_str(&settings.url)?
            .application_name(&format!("muster {}", settings.schema))
            .options([("search_path", settings.schema)])
            .options(LIMITS);
        if let Some(role) = settings.role {
            options = options.options([("role", role)]);
        }
        // Half of them for transactions, half for reads of one statement.
        let most = settings.max_connections.div_ceil(2);
        let pool = PgPoolOptions::new()
            .max_connections(most)
            .acquire_timeout(ACQUIRE)
            // One that has gone is noticed by its `BEGIN`, without a round trip before it.
            .test_before_acquire(false)
            .connect_with(options.clone())
            .await?;
        let citus: bool =
            sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_extension WHERE extname = 'citus')")
                .fetch_one(&pool)
                .await?;
        let points = (!citus).then(|| Points::new(options, most, ACQUIRE));
        let lasting = (!citus).then(Lasting::default);
        let metrics = Metrics::of(settings);
        let database = Self { pool, points, lasting, life: life.clone(), metrics };
        database.tell(settings);
        let needed = database.clone();
        life.needs("the database", move || {
            let database = needed.clone();
            async move { database.ping().await.is_ok() }
        });
        let (commit, role, unbound): (String, String, bool) = sqlx::query_as(
            "SELECT current_setting('synchronous_commit'), rolname::text, rolsuper OR rolbypassrls
               FROM pg_roles WHERE rolname = current_user",
        )
        .fetch_one(&database.pool)
        .await?;
        if unbound {
            return Err(sqlx::Error::Configuration(
                format!(
                    "the role {role} is not bound by row-level security; log in as the service's \
                     own role"
                )
                .into(),
            ));
        }
        if commit == "off" {
            return Err(sqlx::Error::Configuration(
                "synchronous_commit is off for this role: a change could be watched and then lost \
                 by a crash; set it to on"
                    .into(),
            ));
        }
        Ok(database)
    }

    /// Has the metrics tell how many connections there are.
    fn tell(&self, settings: &Settings) {
        let state =
            |state| vec![pool_name(settings), KeyValue::new("db.client.connection.state", state)];
        let (idle, used) = (self.clone(), self.clone());
        metrics::POOL_CONNECTIONS.gauge(state("idle"), move || {
            let points = idle.points.as_ref().map_or(0, Points::idle);
            Some(number(idle.pool.num_idle() + points))
        });
        let most = settings.max_connections.div_ceil(2);
        metrics::POOL_CONNECTIONS.gauge(state("used"), move || {
            let points = used.points.as_ref().map_or(0, |points| points.used(most));
            Some(number(used.pool.size() + points) - number(used.pool.num_idle()))
        });
        let most = number(settings.max_connections);
        metrics::POOL_MAX.gauge([pool_name(settings)], move || Some(most));
    }

    /// Fails where the tables are older than this build, which is made for those of `newest`: the
    /// version of its last migration. Newer ones are taken: a migration comes before the processes
    /// that need it.
    pub async fn migrated(&self, newest: Option<i64>) -> Result<(), sqlx::Error> {
        let there: Option<i64> =
            sqlx::query_scalar("SELECT max(version) FROM _sqlx_migrations WHERE success")
                .fetch_one(&self.pool)
                .await?;
        if there >= newest {
            return Ok(());
        }
        let (there, newest) = (there.unwrap_or_default(), newest.unwrap_or_default());
        Err(sqlx::Error::Configuration(
            format!(
                "the tables are of version {there}, and this needs {newest}: run muster migrate"
            )
            .into(),
        ))
    }

    /// Runs `work` in one transaction that sees and writes the organisation's rows only, and
    /// commits where it succeeds. What is committed is on disk when this returns.
    ///
    /// It commits first, which frees its locks, and then waits for the disk together with whoever
    /// else does: an organisation's writers wait for each other's statements, not for each other's
    /// flush. `docs/decisions/0022-commit-then-flush.md`.
    ///
    /// The transaction runs in a task of its own, which goes on when the caller hangs up: a
    /// `BEGIN` that is cancelled half-way would leave a connection inside someone's transaction,
    /// and the next write on it would be lost. `docs/decisions/0002-cancel-safe-transactions.md`.
    pub async fn write<T, E, F>(&self, organisation: OrganisationId, work: F) -> Result<T, E>
    where
        F: for<'c> FnOnce(&'c mut PgConnection) -> BoxFuture<'c, Result<T, E>> + Send + 'static,
        T: Send + 'static,
        E: From<sqlx::Error> + Send + 'static,
    {
        self.run(self.begin(organisation), End::Lasting(organisation), work).await
    }

    /// Runs `work` as [`Database::write`] does, and returns when it is committed, on disk or not: for
    /// what would be done again if a crash undid it. Whoever reads what it appends to the feed waits
    /// for the disk before they tell of it.
    pub async fn apply<T, E, F>(&self, organisation: OrganisationId, work: F) -> Result<T, E>
    where
        F: for<'c> FnOnce(&'c mut PgConnection) -> BoxFuture<'c, Result<T, E>> + Send + 'static,
        T: Send + 'static,
        E: From<sqlx::Error> + Send + 'static,
    {
        self.run(self.begin(organisation), End::Repeatable, work).await
    }

    /// Begins a transaction that writes.
    fn begin(&self, organisation: OrganisationId) -> String {
        // A parsed UUID, so nothing to inject; text, because `set_config()` does not reach the
        // workers of a Citus cluster.
        let begin = format!("BEGIN; SET LOCAL muster.organisation_id = '{organisation}'");
        let later =
            if self.lasting.is_some() { "; SET LOCAL synchronous_commit = off" } else { "" };
        begin + later
    }

    /// Waits until the organisation's changes up to a sequence, which were read, are on disk: those
    /// of other replicas need not be.
    pub(crate) async fn lasting(
        &self,
        organisation: OrganisationId,
        last: i64,
    ) -> Result<(), sqlx::Error> {
        let Some(lasting) = &self.lasting else { return Ok(()) };
        if !lasting.reaches(organisation, last) {
            lasting::flush(&mut *self.acquire().await?).await?;
            lasting.note(organisation, last);
        }
        Ok(())
    }

    /// Runs `work` in one read-only transaction that sees the organisation's rows only, all of them
    /// as they are at its first statement: a group with the members of its revision.
    pub async fn read<T, E, F>(&self, organisation: OrganisationId, work: F) -> Result<T, E>
    where
        F: for<'c> FnOnce(&'c mut PgConnection) -> BoxFuture<'c, Result<T, E>> + Send + 'static,
        T: Send + 'static,
        E: From<sqlx::Error> + Send + 'static,
    {
        let begin = format!(
            "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; \
             SET LOCAL muster.organisation_id = '{organisation}'; \
             SET LOCAL plan_cache_mode = auto"
        );
        self.run(begin, End::Nothing, work).await
    }

    /// Runs `work`, one statement that reads, on a connection that sees the organisation's rows only:
    /// in one round trip. What takes more than one statement needs [`Database::read`], to see all as
    /// it is at one moment.
    pub async fn point<T, E, F>(&self, organisation: OrganisationId, work: F) -> Result<T, E>
    where
        F: for<'c> FnOnce(&'c mut PgConnection) -> BoxFuture<'c, Result<T, E>>
            + Clone
            + Send
            + 'static,
        T: Send + 'static,
        E: From<sqlx::Error> + Send + 'static,
    {
        let Some(points) = self.points.clone() else { return self.read(organisation, work).await };
        // In the caller's own task: where that hangs up, the connection is closed.
        points.read(organisation, &self.metrics, work).await
    }

    /// Runs `work` in one read-only transaction that belongs to no organisation: it sees nothing
    /// but what the policies show to everybody (the organisations themselves, the feeds' names).
    pub async fn read_shared<T, E, F>(&self, work: F) -> Result<T, E>
    where
        F: for<'c> FnOnce(&'c mut PgConnection) -> BoxFuture<'c, Result<T, E>> + Send + 'static,
        T: Send + 'static,
        E: From<sqlx::Error> + Send + 'static,
    {
        self.run("BEGIN READ ONLY".to_owned(), End::Nothing, work).await
    }

    async fn run<T, E, F>(&self, begin: String, end: End, work: F) -> Result<T, E>
    where
        F: for<'c> FnOnce(&'c mut PgConnection) -> BoxFuture<'c, Result<T, E>> + Send + 'static,
        T: Send + 'static,
        E: From<sqlx::Error> + Send + 'static,
    {
        let database = self.clone();
        #[cfg(feature = "failpoints")]
        if crate::failpoint::is_on("mistake-cancellable") {
            return transaction::run(database, begin, end, work).await;
        }
        let task = self.life.spawn(transaction::run(database, begin, end, work).in_current_span());
        task.await.unwrap_or_else(failed)
    }

    async fn acquire(&self) -> Result<PoolConnection<Postgres>, sqlx::Error> {
        let begun = Instant::now();
        let acquired = self.pool.acquire().await;
        self.metrics.acquired(begun, acquired.as_ref().err());
        acquired
    }

    /// A small pool beside this one, for what holds its connection: `LISTEN`. It connects when it
    /// is used.
    pub(crate) fn beside(&self, max_connections: u32) -> PgPool {
        PgPoolOptions::new()
            .max_connections(max_connections)
            .acquire_timeout(ACQUIRE)
            .connect_lazy_with((*self.pool.connect_options()).clone())
    }

    /// Whether the database answers.
    pub async fn ping(&self) -> Result<(), sqlx::Error> {
        sqlx::query("SELECT 1").execute(&self.pool).await.map(drop)
    }

    /// Closes every connection, after the transactions under way.
    pub async fn close(&self) {
        self.pool.close().await;
        if let Some(points) = &self.points {
            points.close().await;
        }
    }
}

/// Whether the database undid a transaction of several writes because of one of them: of what it
/// says, or of what others write at the same time. Of any other failure it is not known whether the
/// transaction is committed.
pub(crate) fn is_of_one(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    code.is_some_and(|code| ["22", "23", "40", "55"].iter().any(|class| code.starts_with(class)))
}

/// What comes of a task that has not ended by itself.
fn failed<T, E: From<sqlx::Error>>(failure: JoinError) -> Result<T, E> {
    match failure.try_into_panic() {
        Ok(panic) => std::panic::resume_unwind(panic),
        // Nobody aborts these tasks; only a runtime that is shutting down does.
        Err(_) => Err(sqlx::Error::PoolClosed.into()),
    }
}
