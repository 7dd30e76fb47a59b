//! Taking a user's newest state, and all that follows from it.
//!
//! Locks are taken in one order by everybody, so that no two wait for each other: the user's own
//! row, then the addresses concerned (those not seen before are inserted, then all are locked,
//! both in the order of their keys), then the feed. A declaration is written only under the lock
//! of its address, so whoever declares an address and whoever appears with it see each other.

use std::collections::{BTreeMap, BTreeSet};

use muster_proto::approver::v1::Approver;
use muster_runtime::clock;
use muster_runtime::feed::{self, Kind, NewChange};
use muster_runtime::id::{OrganisationId, Revision, UserId};
use sqlx::PgConnection;

use super::{approver, settle};
use crate::declaration::{Before, Declared, Person, Snapshot, Step};

/// What is stored of a person.
struct Stored {
    revision: Revision,
    active: bool,
    email: String,
    email_key: Option<String>,
}

/// Takes a user's newest state before the feed brings it; whether anybody's approvers changed by it.
/// An older state, or the same again, changes nothing.
///
/// A new user for whom nobody was declared and nobody waited costs five statements.
pub(crate) async fn hand_over(
    connection: &mut PgConnection,
    person: Person,
) -> Result<bool, sqlx::Error> {
    apply(connection, None, person).await
}

/// Takes a change of identity's feed, each once and in order; whether anybody's approvers changed by
/// it.
pub(crate) async fn follow(connection: &mut PgConnection, step: Step) -> Result<bool, sqlx::Error> {
    apply(connection, Some(&step.before), step.after).await
}

/// `before` is the state before a change of the feed, none for a hand-over.
async fn apply(
    connection: &mut PgConnection,
    before: Option<&Before>,
    person: Person,
) -> Result<bool, sqlx::Error> {
    let organisation = person.organisation;
    let old = match lock(connection, &person).await? {
        None if insert(connection, &person).await? => None,
        // Someone else inserted the row meanwhile.
        None => lock(connection, &person).await?,
        old => old,
    };
    let is_news = old.as_ref().is_none_or(|old| old.revision < person.revision);
    let declared_before = match old {
        Some(_) if is_news => declarations(connection, organisation, person.id).await?,
        _ => Vec::new(),
    };
    let redeclared = is_news && declared_before != person.declared;
    // What others see of this user.
    let seen = |old: &Stored| (old.active, old.email.clone());
    let moved = is_news && old.as_ref().map(seen) != Some((person.active, person.email.clone()));
    if is_news && old.is_some() {
        update(connection, &person).await?;
    }
    if before.is_some() {
        settle::note(connection, &person).await?;
    } else if !redeclared && !moved {
        return Ok(false);
    }

    let mut keys: BTreeSet<String> = BTreeSet::new();
    keys.extend(person.email_key.clone());
    keys.extend(old.and_then(|old| old.email_key));
    keys.extend(declared_before.iter().chain(&person.declared).map(|d| d.key.clone()));
    if let Some(before) = before {
        keys.extend(before.email_key.clone());
        keys.extend(before.keys().map(str::to_owned));
    }
    if person.deleted || before.is_some() {
        keys.extend(linked_keys(connection, organisation, person.id).await?);
    }
    let keys: Vec<String> = keys.into_iter().collect();
    lock_addresses(connection, organisation, &keys).await?;

    let mut concerned = if moved || before.is_some() {
        concerned(connection, organisation, person.id, &keys).await?
    } else {
        Vec::new()
    };
    let declares = !person.declared.is_empty() || before.is_some_and(Before::declares_anyone);
    if redeclared || declares || !declared_before.is_empty() {
        concerned.push(person.id);
    }
    if concerned.is_empty() {
        return Ok(false);
    }
    if redeclared {
        declare(connection, &person).await?;
    }
    if let (true, true, Some(key)) = (is_news, person.active, &person.email_key) {
        link(connection, organisation, person.id, key).await?;
    }
    if is_news && person.deleted {
        unlink(connection, organisation, person.id).await?;
    }
    let shown = match before {
        Some(before) => settle::settle(connection, before, &person).await?,
        None => false,
    };
    if !redeclared && !moved && !shown {
        return Ok(false);
    }
    // Somebody else's approvers may change by several people at once, who lock different
    // addresses: what they were told to be and what they are is read under the lock of the feed.
    lock_feed(connection, organisation).await?;
    let told = told(connection, organisation, concerned.clone()).await?;
    let after = approver::batch_get(connection, organisation, concerned.clone()).await?;
    let changes = changes(&concerned, &told, &after.into_iter().collect());
    if changes.is_empty() {
        return Ok(false);
    }
    feed::append(connection, organisation, &person.actor, clock::now(), &changes).await?;
    Ok(true)
}

/// One change for each user whose approvers are no longer what was last told.
fn changes(
    concerned: &[UserId],
    before: &BTreeMap<UserId, Vec<Approver>>,
    after: &BTreeMap<UserId, Vec<Approver>>,
) -> Vec<NewChange> {
    let payload = |approvers: &[Approver]| {
        let snapshots: Vec<Snapshot> = approvers.iter().map(Snapshot::from).collect();
        serde_json::to_value(snapshots).expect("an approver has string keys only")
    };
    let mut changes = Vec::new();
    for user in concerned {
        let list = |lists: &BTreeMap<UserId, Vec<Approver>>| lists.get(user).cloned();
        let (before, after) = (list(before).unwrap_or_default(), list(after).unwrap_or_default());
        if before != after {
            changes.push(NewChange {
                kind: Kind::Updated,
                subject: user.uuid(),
                revision: Revision(0),
                before: Some(payload(&before)),
                after: Some(payload(&after)),
                total: 0,
                active: 0,
            });
        }
    }
    changes
}

/// Locks the organisation's feed before the changes are known; what follows only reads and appends.
async fn lock_feed(
    connection: &mut PgConnection,
    organisation: OrganisationId,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "INSERT INTO approver.feed_lock (organisation_id) VALUES ($1)
         ON CONFLICT (organisation_id) DO NOTHING",
        organisation as OrganisationId,
    )
    .execute(&mut *connection)
    .await?;
    sqlx::query!(
        "SELECT true AS locked FROM approver.feed_lock
          WHERE organisation_id = $1 FOR NO KEY UPDATE",
        organisation as OrganisationId,
    )
    .fetch_all(connection)
    .await
    .map(drop)
}

/// What the feed last told of these users' approvers.
async fn told(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    users: Vec<UserId>,
) -> Result<BTreeMap<UserId, Vec<Approver>>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"SELECT asked.user_id AS "user_id!: UserId", last.after AS "after?"
             FROM unnest($2::uuid[]) AS asked (user_id)
             JOIN LATERAL (SELECT c.after FROM approver.change AS c
                            WHERE c.organisation_id = $1 AND c.subject_id = asked.user_id
                            ORDER BY c.sequence DESC LIMIT 1) AS last ON true"#,
        organisation as OrganisationId,
        users as Vec<UserId>,
    )
    .fetch_all(connection)
    .await?;
    let list = |payload: Option<serde_json::Value>| -> Vec<Approver> {
        let snapshots: Option<Vec<Snapshot>> =
            payload.and_then(|payload| serde_json::from_value(payload).ok());
        snapshots.unwrap_or_default().into_iter().map(Approver::from).collect()
    };
    Ok(rows.into_iter().map(|row| (row.user_id, list(row.after))).collect())
}

async fn lock(
    connection: &mut PgConnection,
    person: &Person,
) -> Result<Option<Stored>, sqlx::Error> {
    sqlx::query_as!(
        Stored,
        r#"SELECT revision AS "revision: Revision", active, email, email_key
             FROM approver.person WHERE organisation_id = $1 AND user_id = $2 FOR UPDATE"#,
        person.organisation as OrganisationId,
        person.id as UserId,
    )
    .fetch_optional(connection)
    .await
}

async fn insert(connection: &mut PgConnection, person: &Person) -> Result<bool, sqlx::Error> {
    let inserted = sqlx::query!(
        "INSERT INTO approver.person
                (organisation_id, user_id, revision, active, deleted, email, email_key)
         VALUES ($1, $2, $3, $4, $5, $6, $7)
         ON CONFLICT (organisation_id, user_id) DO NOTHING",
        person.organisation as OrganisationId,
        person.id as UserId,
        person.revision as Revision,
        person.active,
        person.deleted,
        person.email,
        person.email_key,
    )
    .execute(connection)
    .await?;
    Ok(inserted.rows_affected() == 1)
}

async fn update(connection: &mut PgConnection, person: &Person) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE approver.person
            SET revision = $3, active = $4, deleted = $5, email = $6, email_key = $7
          WHERE organisation_id = $1 AND user_id = $2",
        person.organisation as OrganisationId,
        person.id as UserId,
        person.revision as Revision,
        person.active,
        person.deleted,
        person.email,
        person.email_key,
    )
    .execute(connection)
    .await
    .map(drop)
}

async fn declarations(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    user: UserId,
) -> Result<Vec<Declared>, sqlx::Error> {
    sqlx::query_as!(
        Declared,
        "SELECT email, email_key AS key FROM approver.declaration
          WHERE organisation_id = $1 AND user_id = $2 ORDER BY position",
        organisation as OrganisationId,
        user as UserId,
    )
    .fetch_all(connection)
    .await
}

async fn linked_keys(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    user: UserId,
) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar!(
        "SELECT DISTINCT email_key FROM approver.declaration
          WHERE organisation_id = $1 AND (approver_id = $2 OR settled_approver_id = $2)",
        organisation as OrganisationId,
        user as UserId,
    )
    .fetch_all(connection)
    .await
}

async fn lock_addresses(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    keys: &[String],
) -> Result<(), sqlx::Error> {
    if keys.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "INSERT INTO approver.address (organisation_id, email_key)
         SELECT $1, key FROM unnest($2::text[]) AS key ORDER BY key COLLATE \"C\"
         ON CONFLICT (organisation_id, email_key) DO NOTHING",
        organisation as OrganisationId,
        keys,
    )
    .execute(&mut *connection)
    .await?;
    sqlx::query!(
        "SELECT email_key FROM approver.address
          WHERE organisation_id = $1 AND email_key = ANY ($2)
          ORDER BY email_key FOR NO KEY UPDATE",
        organisation as OrganisationId,
        keys,
    )
    .fetch_all(connection)
    .await
    .map(drop)
}

/// The others whose approvers may change with this user: those linked to them, and those who
/// declared an address that is or was theirs.
async fn concerned(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    user: UserId,
    keys: &[String],
) -> Result<Vec<UserId>, sqlx::Error> {
    sqlx::query_scalar!(
        r#"SELECT user_id AS "user_id!: UserId" FROM approver.declaration
            WHERE organisation_id = $1 AND (approver_id = $2 OR settled_approver_id = $2)
              AND user_id <> $2
           UNION
           SELECT user_id FROM approver.declaration
            WHERE organisation_id = $1 AND email_key = ANY ($3) AND user_id <> $2"#,
        organisation as OrganisationId,
        user as UserId,
        keys,
    )
    .fetch_all(connection)
    .await
}

/// Makes a user's declarations what was declared. Those that were there keep their link; a new one
/// is linked where the address belongs to an active user.
async fn declare(connection: &mut PgConnection, person: &Person) -> Result<(), sqlx::Error> {
    let keys: Vec<String> = person.declared.iter().map(|d| d.key.clone()).collect();
    let emails: Vec<String> = person.declared.iter().map(|d| d.email.clone()).collect();
    sqlx::query!(
        "DELETE FROM approver.declaration
          WHERE organisation_id = $1 AND user_id = $2 AND email_key <> ALL ($3)",
        person.organisation as OrganisationId,
        person.id as UserId,
        &keys,
    )
    .execute(&mut *connection)
    .await?;
    if keys.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "INSERT INTO approver.declaration
                (organisation_id, user_id, email_key, position, email, approver_id)
         SELECT $1, $2, n.key, n.position, n.email,
                (SELECT p.user_id FROM approver.person AS p
                  WHERE p.organisation_id = $1 AND p.email_key = n.key AND p.active
                    AND p.user_id <> $2
                  ORDER BY p.user_id LIMIT 1)
           FROM unnest($3::text[], $4::text[]) WITH ORDINALITY AS n (key, email, position)
         ON CONFLICT (organisation_id, user_id, email_key) DO UPDATE
            SET position = EXCLUDED.position, email = EXCLUDED.email",
        person.organisation as OrganisationId,
        person.id as UserId,
        &keys,
        &emails,
    )
    .execute(connection)
    .await
    .map(drop)
}

/// Links everybody's declarations of an address to the active user who has it.
async fn link(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    user: UserId,
    key: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE approver.declaration SET approver_id = $2
          WHERE organisation_id = $1 AND email_key = $3 AND approver_id IS NULL AND user_id <> $2",
        organisation as OrganisationId,
        user as UserId,
        key,
    )
    .execute(connection)
    .await
    .map(drop)
}

/// Unlinks everybody's declarations from a deleted user, and links each to the active user who has
/// the address now, if there is one.
async fn unlink(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    user: UserId,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE approver.declaration AS d
            SET approver_id = (SELECT p.user_id FROM approver.person AS p
                                WHERE p.organisation_id = $1 AND p.email_key = d.email_key
                                  AND p.active AND p.user_id <> d.user_id
                                ORDER BY p.user_id LIMIT 1)
          WHERE d.organisation_id = $1 AND d.approver_id = $2",
        organisation as OrganisationId,
        user as UserId,
    )
    .execute(connection)
    .await
    .map(drop)
}
