//! The provisioning log: what of it can be set, and deleting what need not be kept any more.

use std::time::Duration;

use muster_proto::identity::v1::{ProvisioningLogEntry, ProvisioningOutcome};
use muster_runtime::clock;
use muster_runtime::grpc::database_status;
use muster_runtime::id::{ApiKeyId, LogEntryId, OrganisationId};
use muster_runtime::life::Life;
use muster_runtime::postgres::Database;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::Error;
use crate::store::{organisation, provisioning_log as store};

/// How many organisations are looked at in one read.
const CHUNK: i64 = 1_000;

/// How long the log is kept.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// How long an entry is kept.
    pub keep_age: Duration,
    /// How often what need not be kept is deleted.
    pub prune: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self { keep_age: Duration::from_hours(30 * 24), prune: Duration::from_hours(1) }
    }
}

/// An entry as it is appended.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub organisation: OrganisationId,
    pub id: LogEntryId,
    pub requested_at: OffsetDateTime,
    pub duration_us: i64,
    pub api_key: Option<ApiKeyId>,
    /// A UUID: what a client sends as an id may be none, and then it names nobody.
    pub subject_id: Option<Uuid>,
    pub message: ProvisioningLogEntry,
}

impl TryFrom<ProvisioningLogEntry> for Entry {
    type Error = Error;

    fn try_from(message: ProvisioningLogEntry) -> Result<Self, Error> {
        let invalid = |field, description: &str| Error::Invalid {
            field,
            description: description.to_owned(),
        };
        let organisation = message
            .organisation_id
            .parse()
            .map_err(|_| invalid("organisation_id", "is not a UUID"))?;
        let requested_at = message
            .request_time
            .and_then(clock::time_of)
            .ok_or_else(|| invalid("request_time", "is missing or out of range"))?;
        let duration = message.duration.unwrap_or_default();
        let duration_us = duration
            .seconds
            .saturating_mul(1_000_000)
            .saturating_add((duration.nanos / 1_000).into());
        if message.outcome() == ProvisioningOutcome::Unspecified {
            return Err(invalid("outcome", "is not said"));
        }
        Ok(Self {
            organisation,
            id: message.id.parse().map_err(|_| invalid("id", "is not a UUID"))?,
            requested_at,
            duration_us,
            api_key: message.api_key_id.parse().ok(),
            subject_id: Uuid::try_parse(&message.subject_id).ok(),
            message,
        })
    }
}

/// Deletes for ever what need not be kept. Replicas that do so at once do it twice in vain, and
/// nothing worse.
pub(crate) async fn prune_for_ever(database: Database, settings: Settings, life: Life) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(settings.prune.mul_f64(rand::random_range(0.8..=1.2))) => {}
            () = life.stopped() => return,
        }
        if let Err(error) = prune(&database, settings.keep_age).await {
            drop(database_status(&error));
        }
    }
}

async fn prune(database: &Database, keep_age: Duration) -> Result<(), sqlx::Error> {
    let age = time::Duration::try_from(keep_age).unwrap_or(time::Duration::MAX);
    let since = clock::now().checked_sub(age).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let first_kept = LogEntryId::first_at(since);
    let mut after = None;
    loop {
        let read = database.read_shared(move |c| Box::pin(organisation::ids(c, after, CHUNK)));
        let ids: Vec<OrganisationId> = read.await?;
        for organisation in &ids {
            prune_one(database, *organisation, first_kept).await?;
        }
        match ids.last() {
            Some(last) => after = Some(*last),
            None => return Ok(()),
        }
    }
}

/// Deletes what need not be kept of one organisation, in ranges.
async fn prune_one(
    database: &Database,
    organisation: OrganisationId,
    first_kept: LogEntryId,
) -> Result<(), sqlx::Error> {
    loop {
        let last = database
            .read(organisation, move |c| Box::pin(store::prunable(c, organisation, first_kept)))
            .await?;
        let Some(last) = last else { return Ok(()) };
        database
            .write(organisation, move |c| Box::pin(store::delete(c, organisation, last)))
            .await?;
    }
}
