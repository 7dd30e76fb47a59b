//! The change feed: one table a service, written in the transaction that makes the change, in
//! commit order and without gaps per organisation.
//!
//! Each service's schema has the tables `feed_lock`, `feed_key` and `change`, all alike. The
//! transaction's last statements lock the organisation's row in `feed_lock`, read the newest
//! sequence and insert the change with the next one. A transaction leaves the list of running ones
//! before it frees its locks, so whoever gets the lock next sees the previous change: sequence
//! order is commit order (`docs/decisions/0003-feed-by-row-lock.md` has what was rejected).

mod erase;
mod keys;
mod list;
mod page;
mod read;
mod retention;
mod rpc;
mod service;
mod settings;
mod tail;
mod token;
mod wake;
mod watch;

use std::cell::Cell;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::{RawValue, to_raw_value};
use sqlx::PgConnection;
use sqlx::types::Json;
use time::OffsetDateTime;
use uuid::Uuid;

pub use self::erase::{erase, history};
pub use self::list::{Pages, Read, Tokens};
pub use self::page::{InvalidPageToken, LIFETIME as PAGE_TOKEN_LIFETIME, Page, Place};
pub use self::rpc::{HistoryRequest, Messages};
pub use self::service::Feed;
pub use self::settings::Settings;
pub use self::token::{Position, TokenKey, token_position};
pub use self::watch::{Watch, Watched};
use crate::clock;
use crate::id::{AdminId, ApiKeyId, OrganisationId, Revision};
use crate::telemetry;
use muster_proto::feed::v1 as proto;

/// Who made a change.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Actor {
    /// An API key of the organisation.
    ApiKey(ApiKeyId),
    /// An admin of the organisation.
    Admin(AdminId),
    /// An operator or an internal service.
    Caller(String),
}

impl Actor {
    /// Reads the actor of a request; a request that names none is the caller's own.
    pub fn from_proto(actor: Option<proto::Actor>) -> Result<Self, crate::id::InvalidId> {
        use proto::actor::Kind;
        Ok(match actor.and_then(|actor| actor.kind) {
            Some(Kind::ApiKeyId(id)) => Self::ApiKey(id.parse()?),
            Some(Kind::AdminId(id)) => Self::Admin(id.parse()?),
            Some(Kind::Caller(name)) => Self::Caller(name),
            None => Self::Caller(String::new()),
        })
    }

    /// The actor as answers hold it.
    #[must_use]
    pub fn to_proto(&self) -> proto::Actor {
        use proto::actor::Kind;
        proto::Actor {
            kind: Some(match self {
                Self::ApiKey(id) => Kind::ApiKeyId(id.to_string()),
                Self::Admin(id) => Kind::AdminId(id.to_string()),
                Self::Caller(name) => Kind::Caller(name.clone()),
            }),
        }
    }

    /// The actor as a column holds it: `api_key:…`, `admin:…`, `caller:…`.
    #[must_use]
    pub fn to_column(&self) -> String {
        match self {
            Self::ApiKey(id) => format!("api_key:{id}"),
            Self::Admin(id) => format!("admin:{id}"),
            Self::Caller(name) => format!("caller:{name}"),
        }
    }

    /// Reads what `to_column` wrote.
    #[must_use]
    pub fn from_column(text: &str) -> Self {
        let parsed = match text.split_once(':') {
            Some(("api_key", id)) => id.parse().ok().map(Self::ApiKey),
            Some(("admin", id)) => id.parse().ok().map(Self::Admin),
            Some(("caller", name)) => Some(Self::Caller(name.to_owned())),
            _ => None,
        };
        parsed.unwrap_or_else(|| Self::Caller(text.to_owned()))
    }
}

/// What happened to the subject of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::Type)]
#[repr(i16)]
pub enum Kind {
    /// It was created.
    Created = 1,
    /// It was updated.
    Updated = 2,
    /// It was deleted.
    Deleted = 3,
    /// What was still kept of it was erased.
    Erased = 4,
}

impl Kind {
    /// The kind as answers hold it.
    #[must_use]
    pub fn to_proto(self) -> proto::ChangeKind {
        match self {
            Self::Created => proto::ChangeKind::Created,
            Self::Updated => proto::ChangeKind::Updated,
            Self::Deleted => proto::ChangeKind::Deleted,
            Self::Erased => proto::ChangeKind::Erased,
        }
    }
}

/// The JSON that a change keeps of its subject: as text, since nobody looks into it on the way.
pub type Payload = Box<RawValue>;

/// Writes a payload.
///
/// # Panics
///
/// Where a map in it has names that are no strings, which no structure has.
pub fn payload(of: &impl Serialize) -> Payload {
    to_raw_value(of).expect("names are strings")
}

/// A change to append.
#[derive(Debug, Clone)]
pub struct NewChange {
    /// What happened.
    pub kind: Kind,
    /// The user or group.
    pub subject: Uuid,
    /// The subject's revision after it.
    pub revision: Revision,
    /// The subject before it; none where created.
    pub before: Option<Payload>,
    /// The subject after it; none where deleted.
    pub after: Option<Payload>,
    /// What it adds to the number of subjects.
    pub total: i64,
    /// What it adds to the number of active subjects.
    pub active: i64,
}

/// A committed change.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct Change {
    /// The organisation.
    pub organisation_id: OrganisationId,
    /// Its place: 1, 2, 3, ….
    pub sequence: i64,
    /// Random.
    pub change_id: Uuid,
    /// When it was written.
    pub written_at: OffsetDateTime,
    /// What happened.
    pub kind: Kind,
    /// The user or group.
    pub subject_id: Uuid,
    /// The subject's revision after it.
    pub revision: Revision,
    /// The subject before it, as JSON.
    pub before: Option<String>,
    /// The subject after it, as JSON.
    pub after: Option<String>,
    /// Who made it, as [`Actor::to_column`] writes it.
    pub actor: String,
    /// The W3C `traceparent` of the request that made it.
    pub traceparent: Option<String>,
}

impl Change {
    /// Where a watch resumes after it.
    #[must_use]
    pub fn position(&self) -> Position {
        Position { sequence: self.sequence, change_id: self.change_id }
    }

    /// The subject before it; none where it was created, or the payload was erased.
    #[must_use]
    pub fn before<T: DeserializeOwned>(&self) -> Option<T> {
        serde_json::from_str(self.before.as_deref()?).ok()
    }

    /// The subject after it; none where it was deleted, or the payload was erased.
    #[must_use]
    pub fn after<T: DeserializeOwned>(&self) -> Option<T> {
        serde_json::from_str(self.after.as_deref()?).ok()
    }

    /// About how much memory it takes.
    fn bytes(&self) -> usize {
        let payload = |json: &Option<String>| json.as_ref().map_or(0, String::len);
        size_of::<Self>() + payload(&self.before) + payload(&self.after)
    }

    /// What every service's change message says of its place.
    #[must_use]
    pub fn metadata(&self) -> proto::ChangeMetadata {
        proto::ChangeMetadata {
            organisation_id: self.organisation_id.to_string(),
            sequence: self.sequence,
            change_id: self.change_id.to_string(),
            write_time: Some(clock::timestamp(self.written_at)),
            actor: Some(Actor::from_column(&self.actor).to_proto()),
            traceparent: self.traceparent.clone().unwrap_or_default(),
        }
    }
}

/// The newest change of an organisation's feed, and the totals after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Where a watch would resume after it.
    pub position: Position,
    /// How many subjects there are.
    pub total: i64,
    /// How many of them are active.
    pub active: i64,
}

/// A transaction, as [`append`] looks at it.
struct Appending {
    /// Whether it runs on Citus.
    distributed: bool,
    /// The last sequence that it has appended; 0 before it knows.
    last: Cell<Option<i64>>,
}

tokio::task_local! {
    /// The transaction that this task runs. Whoever runs none of `Database` (a test) has none, and
    /// looks after what it appends.
    static APPENDING: Appending;
}

/// Runs a transaction's work, in which [`append`] may be called once, and tells the last sequence
/// that it has appended.
pub(crate) async fn in_transaction<F: Future>(
    distributed: bool,
    work: F,
) -> (F::Output, Option<i64>) {
    let noted = async {
        let done = work.await;
        (done, APPENDING.with(|appending| appending.last.get()))
    };
    APPENDING.scope(Appending { distributed, last: Cell::new(None) }, noted).await
}

/// Notes what the transaction has appended.
fn appended(last: i64) -> i64 {
    let _ = APPENDING.try_with(|appending| appending.last.set(Some(last)));
    last
}

/// Appends changes at `written_at`, made by the request of the current span, and returns the
/// sequence of the last.
///
/// Call it once in a transaction, as its last statement: it takes the organisation's feed lock,
/// and a lock taken after it could wait for someone who waits for the feed. A second call fails,
/// and so do changes that would not follow the newest: the order of the feed is what everything
/// that follows it rests on, so it is looked after in production.
pub async fn append(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    actor: &Actor,
    written_at: OffsetDateTime,
    changes: &[NewChange],
) -> Result<i64, sqlx::Error> {
    let causes = vec![telemetry::traceparent(); changes.len()];
    append_caused(connection, organisation, actor, written_at, changes, &causes).await
}

/// The same for changes that several requests made: the W3C `traceparent` of the one that made each.
pub async fn append_caused(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    actor: &Actor,
    written_at: OffsetDateTime,
    changes: &[NewChange],
    causes: &[Option<String>],
) -> Result<i64, sqlx::Error> {
    appends_once()?;
    if changes.is_empty() {
        return Err(broken("a transaction appends something"));
    }
    #[cfg(feature = "failpoints")]
    crate::failpoint::leave_transaction(connection, organisation).await?;
    #[cfg(feature = "failpoints")]
    if let Some(last) =
        crate::failpoint::append_by_counter(connection, organisation, actor, written_at, changes)
            .await?
    {
        return Ok(last);
    }
    #[cfg(feature = "failpoints")]
    crate::failpoint::crash("feed-before-lock");
    // Two statements, each of which sees what was committed before it: a server's function runs
    // them in one round trip, which Citus does not.
    let at_once = !APPENDING.try_with(|appending| appending.distributed).unwrap_or(false);
    #[cfg(feature = "failpoints")]
    let at_once = at_once && !crate::failpoint::is_on("feed-after-lock");
    if at_once {
        let append = "SELECT * FROM feed_append($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)";
        let last =
            append_by(append, connection, organisation, actor, written_at, changes, causes).await?;
        return Ok(appended(last));
    }
    lock(connection, organisation).await?;
    #[cfg(feature = "failpoints")]
    crate::failpoint::crash("feed-after-lock");
    append_by(INSERT, connection, organisation, actor, written_at, changes, causes)
        .await
        .map(appended)
}

/// Changes that the transaction has kept in a table of the service's, since they are too many to
/// hold in memory.
#[derive(Debug, Clone, Copy)]
pub struct Kept {
    /// Selects them for the organisation `$1` and `of` `$2`: `position` (1, 2, 3, …), `change_id`,
    /// `kind`, `subject_id`, `revision`, `before`, `after`, `total` and `active`.
    pub source: &'static str,
    /// Which of them.
    pub of: Uuid,
    /// How many there are.
    pub count: i64,
}

/// How many kept changes one statement appends.
const KEPT_BATCH: i64 = 5_000;

/// Appends kept changes: under one lock, and without a look at what they hold, so that the lock is
/// short. As with [`append`], nothing comes after it in the transaction that can wait or fail.
pub async fn append_kept(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    actor: &Actor,
    written_at: OffsetDateTime,
    kept: Kept,
) -> Result<(), sqlx::Error> {
    appends_once()?;
    if kept.count == 0 {
        return Ok(());
    }
    lock(connection, organisation).await?;
    let statement = format!(
        "INSERT INTO change (organisation_id, sequence, change_id, written_at, kind, subject_id,
                             revision, before, after, actor, traceparent, total, active)
         SELECT $1, $8 + n.position - $6, n.change_id, $3, n.kind, n.subject_id, n.revision,
                n.before, n.after, $4, $5, $9 + sum(n.total) OVER (ORDER BY n.position),
                $10 + sum(n.active) OVER (ORDER BY n.position)
           FROM ({}) AS n
          WHERE n.position > $6 AND n.position <= $7",
        kept.source
    );
    let mut done = 0;
    while done < kept.count {
        // Read before, not joined: a join would look at it once a row.
        let last = head(connection, organisation).await?;
        // The text is a constant of the service's, nothing that came from outside.
        let inserted = sqlx::query(sqlx::AssertSqlSafe(statement.clone()))
            .bind(organisation)
            .bind(kept.of)
            .bind(written_at)
            .bind(actor.to_column())
            .bind(telemetry::traceparent())
            .bind(done)
            .bind(done + KEPT_BATCH)
            .bind(last.position.sequence)
            .bind(last.total)
            .bind(last.active)
            .execute(&mut *connection)
            .await?
            .rows_affected();
        let expected = KEPT_BATCH.min(kept.count - done);
        if i64::try_from(inserted) != Ok(expected) {
            return Err(broken("kept changes are as many as were kept"));
        }
        done += expected;
        appended(last.position.sequence + expected);
    }
    Ok(())
}

/// Notes that the transaction appends; what it had appended before stood without the lock.
fn appends_once() -> Result<(), sqlx::Error> {
    let before = APPENDING.try_with(|appending| appending.last.replace(Some(0)));
    if before.is_ok_and(|before| before.is_some()) {
        Err(broken("a transaction appends once"))
    } else {
        Ok(())
    }
}

/// Inserts changes after the newest, under the lock, and tells their sequences. The function
/// `feed_append` has the same.
const INSERT: &str =
    "INSERT INTO change (organisation_id, sequence, change_id, written_at, kind, subject_id,
                         revision, before, after, actor, traceparent, total, active)
     SELECT $1, coalesce(last.sequence, 0) + n.position, n.change_id, $2, n.kind, n.subject_id,
            n.revision, n.before, n.after, $3, n.cause,
            coalesce(last.total, 0) + sum(n.total) OVER (ORDER BY n.position),
            coalesce(last.active, 0) + sum(n.active) OVER (ORDER BY n.position)
       FROM unnest($4::text[], $5::uuid[], $6::smallint[], $7::uuid[], $8::bigint[], $9::jsonb[],
                   $10::jsonb[], $11::bigint[], $12::bigint[])
            WITH ORDINALITY AS n (cause, change_id, kind, subject_id, revision, before, after,
                                  total, active, position)
       LEFT JOIN (SELECT sequence, total, active FROM change
                   WHERE organisation_id = $1 ORDER BY sequence DESC LIMIT 1) AS last ON true
     RETURNING sequence";

/// Runs the statement that appends; the last one's sequence.
async fn append_by(
    statement: &'static str,
    connection: &mut PgConnection,
    organisation: OrganisationId,
    actor: &Actor,
    written_at: OffsetDateTime,
    changes: &[NewChange],
    causes: &[Option<String>],
) -> Result<i64, sqlx::Error> {
    let mut sequences: Vec<i64> = sqlx::query_scalar(statement)
        .bind(organisation)
        .bind(written_at)
        .bind(actor.to_column())
        .bind(causes)
        .bind(changes.iter().map(|_| Uuid::new_v4()).collect::<Vec<_>>())
        .bind(changes.iter().map(|c| c.kind as i16).collect::<Vec<_>>())
        .bind(changes.iter().map(|c| c.subject).collect::<Vec<_>>())
        .bind(changes.iter().map(|c| c.revision.0).collect::<Vec<_>>())
        .bind(changes.iter().map(|c| c.before.as_ref().map(Json)).collect::<Vec<_>>())
        .bind(changes.iter().map(|c| c.after.as_ref().map(Json)).collect::<Vec<_>>())
        .bind(changes.iter().map(|c| c.total).collect::<Vec<_>>())
        .bind(changes.iter().map(|c| c.active).collect::<Vec<_>>())
        .fetch_all(&mut *connection)
        .await?;
    sequences.sort_unstable();
    let last = sequences.last().copied().unwrap_or_default();
    let count = i64::try_from(changes.len()).unwrap_or(i64::MAX);
    if sequences.iter().copied().eq(last - count + 1..=last) && last >= count {
        Ok(last)
    } else {
        Err(broken("changes follow the newest without a gap"))
    }
}

fn broken(rule: &'static str) -> sqlx::Error {
    tracing::error!(rule, "the feed's rule would be broken; the transaction is undone");
    sqlx::Error::Protocol(rule.to_owned())
}

/// Takes the organisation's feed lock, until the transaction ends.
async fn lock(
    connection: &mut PgConnection,
    organisation: OrganisationId,
) -> Result<(), sqlx::Error> {
    let lock = "SELECT true FROM feed_lock WHERE organisation_id = $1 FOR NO KEY UPDATE";
    let locked: Option<bool> =
        sqlx::query_scalar(lock).bind(organisation).fetch_optional(&mut *connection).await?;
    if locked.is_none() {
        // The organisation's first change in this service. Whoever inserts the row holds it.
        sqlx::query(
            "INSERT INTO feed_lock (organisation_id) VALUES ($1) \
             ON CONFLICT (organisation_id) DO NOTHING",
        )
        .bind(organisation)
        .execute(&mut *connection)
        .await?;
        sqlx::query(lock).bind(organisation).execute(connection).await?;
    }
    Ok(())
}

/// Sets the totals after the newest change to what `count` counts; whether they were others.
///
/// Nobody appends meanwhile: the feed is locked, so what is counted is what the newest change left.
/// Call it as [`append`], once and last.
pub async fn recount(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    count: impl AsyncFnOnce(&mut PgConnection) -> Result<(i64, i64), sqlx::Error>,
) -> Result<bool, sqlx::Error> {
    lock(connection, organisation).await?;
    let (total, active) = count(connection).await?;
    let updated = sqlx::query(
        "UPDATE change SET total = $2, active = $3
          WHERE organisation_id = $1 AND (total, active) <> ($2, $3)
            AND sequence = (SELECT max(sequence) FROM change WHERE organisation_id = $1)",
    )
    .bind(organisation)
    .bind(total)
    .bind(active)
    .execute(connection)
    .await?;
    Ok(updated.rows_affected() > 0)
}

/// The newest change of an organisation.
pub async fn head(
    connection: &mut PgConnection,
    organisation: OrganisationId,
) -> Result<Head, sqlx::Error> {
    let row: Option<(i64, Uuid, i64, i64)> = sqlx::query_as(
        "SELECT sequence, change_id, total, active FROM change
          WHERE organisation_id = $1 ORDER BY sequence DESC LIMIT 1",
    )
    .bind(organisation)
    .fetch_optional(connection)
    .await?;
    Ok(match row {
        Some((sequence, change_id, total, active)) => {
            Head { position: Position { sequence, change_id }, total, active }
        }
        None => Head { position: Position::START, total: 0, active: 0 },
    })
}
