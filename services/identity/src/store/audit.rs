//! Who did what. Rows are added and read, never changed.

use muster_proto::identity::v1::{AuditAction, AuditEvent};
use muster_runtime::clock::timestamp;
use muster_runtime::feed::Actor;
use muster_runtime::id::OrganisationId;
use muster_runtime::telemetry;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::Error;

/// What happened.
#[derive(Debug, Clone)]
pub(crate) struct Event {
    pub actor: Actor,
    pub action: AuditAction,
    /// To whom or what, in words.
    pub subject: String,
    pub client_address: String,
}

struct Row {
    audit_id: Uuid,
    happened_at: OffsetDateTime,
    actor: String,
    actor_name: String,
    action: i16,
    subject: String,
    client_address: String,
    trace_id: String,
}

impl Row {
    fn into_event(self, organisation: OrganisationId) -> AuditEvent {
        AuditEvent {
            id: self.audit_id.to_string(),
            organisation_id: organisation.to_string(),
            create_time: Some(timestamp(self.happened_at)),
            actor: Some(Actor::from_column(&self.actor).to_proto()),
            actor_name: self.actor_name,
            action: self.action.into(),
            subject: self.subject,
            client_address: self.client_address,
            trace_id: self.trace_id,
        }
    }
}

/// Adds an event, in the transaction of what happened.
pub(crate) async fn add(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    event: Event,
    now: OffsetDateTime,
) -> Result<AuditEvent, Error> {
    let admin = match &event.actor {
        Actor::Admin(id) => Some(id.uuid()),
        Actor::ApiKey(_) | Actor::Caller(_) => None,
    };
    let row = sqlx::query_as!(
        Row,
        "INSERT INTO identity.audit
                (organisation_id, audit_id, happened_at, actor, actor_name, action, subject,
                 client_address, trace_id)
         VALUES ($1, $2, $3, $4,
                 coalesce((SELECT display_name FROM identity.admin
                            WHERE organisation_id = $1 AND admin_id = $5), ''),
                 $6, $7, $8, $9)
         RETURNING audit_id, happened_at, actor, actor_name, action, subject, client_address,
                   trace_id",
        organisation as OrganisationId,
        Uuid::now_v7(),
        now,
        event.actor.to_column(),
        admin,
        i16::try_from(i32::from(event.action)).unwrap_or_default(),
        event.subject,
        event.client_address,
        telemetry::trace_id().unwrap_or_default(),
    )
    .fetch_one(connection)
    .await?;
    Ok(row.into_event(organisation))
}

/// Those before `before`, newest first.
pub(crate) async fn list(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    before: Option<Uuid>,
    limit: i64,
) -> Result<Vec<AuditEvent>, Error> {
    let rows = sqlx::query_as!(
        Row,
        "SELECT audit_id, happened_at, actor, actor_name, action, subject, client_address, trace_id
           FROM identity.audit
          WHERE organisation_id = $1 AND ($2::uuid IS NULL OR audit_id < $2)
          ORDER BY audit_id DESC LIMIT $3",
        organisation as OrganisationId,
        before,
        limit,
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(|row| row.into_event(organisation)).collect())
}
