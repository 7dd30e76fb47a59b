//! Users, and the changes that tell of them.

use std::borrow::Cow;
use std::slice;

use muster_proto::identity::v1::{Origin, User, UserChange, WatchChangesResponse};
use muster_runtime::clock::timestamp;
use muster_runtime::feed::{self, Actor, Change, Kind, NewChange, Payload, Watched};
use muster_runtime::id::{OrganisationId, Revision, UserId};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use sqlx::types::Json;
use time::OffsetDateTime;

use crate::Error;
use crate::listed::Listed;
use crate::user::{
    Prepared, Write, fill_computed, is_rehire, masked, prepare, primary_email, released,
};

/// Selects stored users of the organisation `$1` of whom a condition is true; `u` is the user.
macro_rules! rows {
    ($condition:literal, $($argument:tt)*) => {
        sqlx::query_as!(
            $crate::store::user::Row,
            r#"SELECT u.user_id AS "user_id: UserId", u.revision AS "revision: Revision",
                      u.created_at, u.updated_at, u.origin, u.document AS "document: Json<User>",
                      o.default_locale
                 FROM identity.users AS u
                 JOIN identity.organisation AS o ON o.organisation_id = u.organisation_id
                WHERE u.organisation_id = $1 AND "# + $condition,
            $($argument)*
        )
    };
}
pub(crate) mod bulk;
pub(crate) mod erase;
mod filter;
mod list;
mod places;
pub(crate) mod together;

pub(crate) use list::{Listing, list};
pub(crate) use places::Places;

/// A stored user.
#[derive(Debug, Clone)]
struct Row {
    user_id: UserId,
    revision: Revision,
    created_at: OffsetDateTime,
    updated_at: OffsetDateTime,
    origin: i16,
    document: Json<User>,
    default_locale: String,
}

impl Row {
    fn into_user(self, organisation: OrganisationId) -> User {
        let mut user = User {
            id: self.user_id.to_string(),
            organisation_id: organisation.to_string(),
            revision: self.revision.0,
            create_time: Some(timestamp(self.created_at)),
            update_time: Some(timestamp(self.updated_at)),
            origin: self.origin.into(),
            ..self.document.0
        };
        fill_computed(&mut user, &self.default_locale);
        user
    }

    /// Where the user comes from after a write: the first by SCIM adopts one whom the console or a
    /// CSV file made.
    fn origin_after(&self, actor: &Actor) -> i16 {
        match actor {
            Actor::ApiKey(_) => origin_column(Origin::Scim),
            Actor::Admin(_) | Actor::Caller(_) => self.origin,
        }
    }

    /// What a change keeps of the user.
    fn snapshot(&self) -> Payload {
        feed::payload(&Snapshot {
            revision: self.revision.0,
            created_at: self.created_at,
            updated_at: self.updated_at,
            origin: self.origin,
            default_locale: Cow::Borrowed(&self.default_locale),
            user: Cow::Borrowed(&self.document.0),
        })
    }
}

/// A user as they shall be.
#[derive(Debug)]
pub(crate) struct Planned {
    row: Row,
    /// None for one to create.
    old: Option<Row>,
    prepared: Prepared,
}

impl Planned {
    fn created(
        prepared: Prepared,
        origin: Origin,
        default_locale: String,
        now: OffsetDateTime,
    ) -> Self {
        let row = Row {
            user_id: UserId::new(),
            revision: Revision::FIRST,
            created_at: now,
            updated_at: now,
            origin: origin_column(origin),
            document: Json(prepared.document.clone()),
            default_locale,
        };
        Self { row, old: None, prepared }
    }

    /// An update; of one who stays the same, what is there.
    fn updated(old: Row, prepared: Prepared, origin: i16, now: OffsetDateTime) -> Self {
        let row = if old.document.0 == prepared.document && old.origin == origin {
            old.clone()
        } else {
            Row {
                revision: old.revision.next(),
                updated_at: now.max(old.updated_at),
                origin,
                document: Json(prepared.document.clone()),
                ..old.clone()
            }
        };
        Self { row, old: Some(old), prepared }
    }

    /// Whether there is anything to write.
    fn is_other(&self) -> bool {
        self.old.as_ref().is_none_or(|old| old.revision != self.row.revision)
    }

    /// Whether other addresses are kept of the user than before.
    fn has_other_emails(&self) -> bool {
        let old = self.old.as_ref().map(|old| &old.document.emails);
        old.map_or(&[][..], Vec::as_slice) != self.row.document.emails
    }

    /// Whether lists, searches and reports see something else of the user than before.
    fn is_listed_otherwise(&self) -> bool {
        self.old.as_ref().is_none_or(|old| {
            old.origin != self.row.origin
                || old.document.active != self.row.document.active
                || Listed::of(&old.document) != self.prepared.listed
        })
    }

    /// What tells of it.
    fn change(&self) -> NewChange {
        let old = self.old.as_ref();
        let was_active = old.is_some_and(|old| old.document.active == Some(true));
        NewChange {
            kind: if old.is_some() { Kind::Updated } else { Kind::Created },
            subject: self.row.user_id.uuid(),
            revision: self.row.revision,
            before: old.map(Row::snapshot),
            after: Some(self.row.snapshot()),
            total: old.is_none().into(),
            active: i64::from(self.prepared.active) - i64::from(was_active),
        }
    }
}

/// A user as a change keeps them.
#[derive(Debug, Serialize, Deserialize)]
struct Snapshot<'a> {
    revision: i64,
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    updated_at: OffsetDateTime,
    origin: i16,
    default_locale: Cow<'a, str>,
    user: Cow<'a, User>,
}

/// The change as readers of the feed get it; a payload that was erased is left out.
pub(crate) fn change_message(change: &Change) -> UserChange {
    let user_id = UserId::from(change.subject_id);
    let restore = |snapshot: Snapshot<'_>| {
        let row = Row {
            user_id,
            revision: Revision(snapshot.revision),
            created_at: snapshot.created_at,
            updated_at: snapshot.updated_at,
            origin: snapshot.origin,
            document: Json(snapshot.user.into_owned()),
            default_locale: snapshot.default_locale.into_owned(),
        };
        row.into_user(change.organisation_id)
    };
    UserChange {
        metadata: Some(change.metadata()),
        kind: change.kind.to_proto().into(),
        user_id: user_id.to_string(),
        revision: change.revision.0,
        before: change.before().map(restore),
        after: change.after().map(restore),
    }
}

/// What a watch tells.
pub(crate) fn watched_message(watched: &Watched) -> WatchChangesResponse {
    WatchChangesResponse {
        resume_token: watched.resume_token.clone(),
        change: watched.change.as_deref().map(change_message),
        head_sequence: watched.head_sequence,
        out_of_range_organisation_id: watched.out_of_range_id(),
    }
}

/// What a creation needs beside the user.
#[derive(Debug, Clone)]
pub(crate) struct Create {
    pub organisation: OrganisationId,
    pub user: User,
    pub actor: Actor,
    pub origin: Origin,
    pub now: OffsetDateTime,
}

/// How often a creation is tried whose name changes hands all the time.
const TRIES: u32 = 10;

/// Creates a user, or revives an inactive one of the same name.
pub(crate) async fn create(connection: &mut PgConnection, create: Create) -> Result<User, Error> {
    let Create { organisation, user, actor, origin, now } = create;
    let default_locale = super::organisation::get(connection, organisation).await?.default_locale;
    let prepared = prepare(user, &Write::Create, &default_locale)?;
    let planned = Planned::created(prepared, origin, default_locale, now);
    let mut tries = 0;
    while !insert(connection, organisation, &planned).await? {
        let prepared = &planned.prepared;
        if let Some(user) = revive(connection, organisation, prepared, &actor, now).await? {
            return Ok(user);
        }
        // Whoever had the name or the address has just given it up.
        tries += 1;
        if tries == TRIES {
            return Err(Error::Busy);
        }
    }
    feed::append(connection, organisation, &actor, now, &[planned.change()]).await?;
    Ok(planned.row.into_user(organisation))
}

/// Whether the user was inserted: not where the name or the primary address is taken.
async fn insert(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    Planned { row, prepared, .. }: &Planned,
) -> Result<bool, Error> {
    let listed = &prepared.listed;
    let [one, two, three] = &listed.custom_fields;
    let [one_key, two_key, three_key] = &listed.custom_field_keys;
    let inserted = sqlx::query_scalar!(
        "WITH created AS (
             INSERT INTO identity.users
                    (organisation_id, user_id, revision, created_at, updated_at, origin, active,
                     user_name_key, primary_email_key, external_id, display_name_key, document,
                     search)
             VALUES ($1, $2, $3, $4, $4, $5, $6, $7, $8, $9, $10, $11, $13)
             ON CONFLICT DO NOTHING
             RETURNING user_id
         ), emails AS (
             INSERT INTO identity.user_email (organisation_id, email_key, user_id)
             SELECT $1, email_key, user_id FROM created, unnest($12::text[]) AS email_key
         ), listed AS (
             INSERT INTO identity.listed_user
                    (organisation_id, user_id, active, origin, content_region, unknown_country,
                     custom_field_1, custom_field_2, custom_field_3, custom_field_1_key,
                     custom_field_2_key, custom_field_3_key, words)
             SELECT $1, user_id, $6, $5, $14, $15, $16, $17, $18, $19, $20, $21, $22 FROM created
         )
         SELECT true FROM created",
        organisation as OrganisationId,
        row.user_id as UserId,
        row.revision as Revision,
        row.created_at,
        row.origin,
        prepared.active,
        prepared.user_name_key,
        prepared.primary_email_key,
        prepared.document.external_id,
        prepared.display_name_key,
        &row.document as &Json<User>,
        &prepared.email_keys,
        prepared.search,
        listed.content_region,
        listed.unknown_country,
        one.clone(),
        two.clone(),
        three.clone(),
        one_key.clone(),
        two_key.clone(),
        three_key.clone(),
        listed.words,
    )
    .fetch_optional(connection)
    .await?;
    Ok(inserted.is_some())
}

/// A creation whose name or address is taken: a rehire, a namesake or a clash. None where neither
/// is taken any more: nothing is known of whoever had it until they are locked.
async fn revive(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    prepared: &Prepared,
    actor: &Actor,
    now: OffsetDateTime,
) -> Result<Option<User>, Error> {
    let user_name = prepared.document.user_name.clone().unwrap_or_default();
    let holder = sqlx::query!(
        r#"SELECT user_id AS "user_id: UserId", user_name_key = $2 AS "has_name!"
             FROM identity.users
            WHERE organisation_id = $1 AND (user_name_key = $2 OR primary_email_key = $3)
            ORDER BY 2 DESC LIMIT 1"#,
        organisation as OrganisationId,
        prepared.user_name_key,
        prepared.primary_email_key,
    )
    .fetch_optional(&mut *connection)
    .await?;
    let Some(holder) = holder else { return Ok(None) };
    if !holder.has_name {
        let email = primary_email(&prepared.document.emails).unwrap_or_default();
        return Err(Error::Taken { attribute: "emails.value", value: email.to_owned() });
    }
    let old = match lock(connection, organisation, holder.user_id).await {
        Err(Error::NotFound(_)) => return Ok(None),
        old => old?,
    };
    let name = old.document.user_name.as_deref().unwrap_or_default();
    if muster_scim::caseless::key(name) != prepared.user_name_key {
        return Ok(None);
    }
    if old.document.active == Some(true) {
        return Err(Error::Taken { attribute: "user_name", value: user_name });
    }
    if !is_rehire(&old.document, &prepared.document) {
        return Err(Error::Namesake { user_name });
    }
    replace(connection, organisation, old, prepared.clone(), actor, now).await.map(Some)
}

/// What an update needs beside the user.
#[derive(Debug, Clone)]
pub(crate) struct Update {
    pub organisation: OrganisationId,
    pub id: UserId,
    pub user: User,
    pub expected: Option<Revision>,
    pub assign_defaults: bool,
    /// The fields to replace; all where there are none.
    pub mask: Vec<String>,
    pub actor: Actor,
    pub now: OffsetDateTime,
}

impl Update {
    /// What the user becomes, where they are still of the revision that is expected.
    fn prepare(&self, old: &Row) -> Result<Prepared, Error> {
        expect(old, self.expected)?;
        let rule = if self.assign_defaults {
            Write::Replace { active: old.document.active }
        } else {
            Write::Exact
        };
        let user = if self.mask.is_empty() {
            self.user.clone()
        } else {
            masked(old.document.0.clone(), &self.user, &self.mask)?
        };
        prepare(user, &rule, &old.default_locale)
    }
}

/// Replaces a user; one who stays the same is not written.
pub(crate) async fn update(connection: &mut PgConnection, update: Update) -> Result<User, Error> {
    let organisation = update.organisation;
    let old = lock(connection, organisation, update.id).await?;
    let prepared = update.prepare(&old)?;
    replace(connection, organisation, old, prepared, &update.actor, update.now).await
}

/// Gives an inactive user another name, and takes their addresses away.
pub(crate) async fn release(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    id: UserId,
    expected: Option<Revision>,
    actor: &Actor,
    now: OffsetDateTime,
) -> Result<User, Error> {
    let old = lock(connection, organisation, id).await?;
    expect(&old, expected)?;
    if old.document.active == Some(true) {
        return Err(Error::StillActive);
    }
    let user = released(old.document.0.clone(), id);
    let prepared = prepare(user, &Write::Exact, &old.default_locale)?;
    replace(connection, organisation, old, prepared, actor, now).await
}

async fn replace(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    old: Row,
    prepared: Prepared,
    actor: &Actor,
    now: OffsetDateTime,
) -> Result<User, Error> {
    let origin = old.origin_after(actor);
    let planned = Planned::updated(old, prepared, origin, now);
    if !planned.is_other() {
        return Ok(planned.row.into_user(organisation));
    }
    if let Err(error) = bulk::put(connection, organisation, slice::from_ref(&planned)).await {
        let Planned { prepared: Prepared { document, .. }, .. } = planned;
        return Err(match Error::constraint(&error) {
            Some("users_user_name") => Error::Taken {
                attribute: "user_name",
                value: document.user_name.unwrap_or_default(),
            },
            Some("users_primary_email") => Error::Taken {
                attribute: "emails.value",
                value: primary_email(&document.emails).unwrap_or_default().to_owned(),
            },
            _ => error.into(),
        });
    }
    feed::append(connection, organisation, actor, now, &[planned.change()]).await?;
    Ok(planned.row.into_user(organisation))
}

/// Deletes a user and returns the revision of the deletion.
pub(crate) async fn delete(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    id: UserId,
    expected: Option<Revision>,
    actor: &Actor,
    now: OffsetDateTime,
) -> Result<Revision, Error> {
    let old = lock(connection, organisation, id).await?;
    expect(&old, expected)?;
    sqlx::query!(
        "WITH emails AS (
             DELETE FROM identity.user_email WHERE organisation_id = $1 AND user_id = $2
         ), listed AS (
             DELETE FROM identity.listed_user WHERE organisation_id = $1 AND user_id = $2
         )
         DELETE FROM identity.users WHERE organisation_id = $1 AND user_id = $2",
        organisation as OrganisationId,
        id as UserId,
    )
    .execute(&mut *connection)
    .await?;
    let revision = old.revision.next();
    let change = NewChange {
        kind: Kind::Deleted,
        subject: id.uuid(),
        revision,
        before: Some(old.snapshot()),
        after: None,
        total: -1,
        active: -i64::from(old.document.active == Some(true)),
    };
    feed::append(connection, organisation, actor, now, &[change]).await?;
    Ok(revision)
}

pub(crate) async fn get(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    id: UserId,
) -> Result<User, Error> {
    batch_get(connection, organisation, vec![id]).await?.pop().ok_or(Error::NotFound("user"))
}

/// Counts the users anew; whether the totals were others.
pub(crate) async fn recount(
    connection: &mut PgConnection,
    organisation: OrganisationId,
) -> Result<bool, Error> {
    let count = async |connection: &mut PgConnection| {
        let row = sqlx::query!(
            r#"SELECT count(*) AS "total!", count(*) FILTER (WHERE active) AS "active!"
                 FROM identity.users WHERE organisation_id = $1"#,
            organisation as OrganisationId,
        )
        .fetch_one(connection)
        .await?;
        Ok((row.total, row.active))
    };
    Ok(feed::recount(connection, organisation, count).await?)
}

/// Those that exist, by id.
pub(crate) async fn batch_get(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    ids: Vec<UserId>,
) -> Result<Vec<User>, Error> {
    let rows = rows!(
        "u.user_id = ANY ($2) ORDER BY u.user_id",
        organisation as OrganisationId,
        ids as Vec<UserId>,
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(|row| row.into_user(organisation)).collect())
}

/// Those who have one of these `user_name`s, given as keys, by id.
pub(crate) async fn batch_get_named(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    keys: Vec<String>,
) -> Result<Vec<User>, Error> {
    let rows = rows!(
        "u.user_name_key = ANY ($2) ORDER BY u.user_id",
        organisation as OrganisationId,
        &keys,
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(|row| row.into_user(organisation)).collect())
}

/// The ids and revisions of those that exist, and whether they are active, by id.
pub(crate) async fn batch_get_revisions(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    ids: Vec<UserId>,
) -> Result<Vec<User>, Error> {
    let rows = sqlx::query!(
        r#"SELECT user_id AS "user_id: UserId", revision, active FROM identity.users
            WHERE organisation_id = $1 AND user_id = ANY ($2) ORDER BY user_id"#,
        organisation as OrganisationId,
        ids as Vec<UserId>,
    )
    .fetch_all(connection)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| User {
            id: row.user_id.to_string(),
            organisation_id: organisation.to_string(),
            revision: row.revision,
            active: Some(row.active),
            ..User::default()
        })
        .collect())
}

async fn lock(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    id: UserId,
) -> Result<Row, Error> {
    rows!("u.user_id = $2 FOR UPDATE OF u", organisation as OrganisationId, id as UserId,)
        .fetch_optional(connection)
        .await?
        .ok_or(Error::NotFound("user"))
}

fn expect(row: &Row, expected: Option<Revision>) -> Result<(), Error> {
    #[cfg(feature = "failpoints")]
    if muster_runtime::failpoint::is_on("mistake-no-revision-guard") {
        return Ok(());
    }
    match expected {
        Some(expected) if expected != row.revision => {
            Err(Error::RevisionMismatch { current: row.revision.0 })
        }
        _ => Ok(()),
    }
}

fn origin_column(origin: Origin) -> i16 {
    // The contract's numbers are the column's.
    i16::try_from(origin as i32).unwrap_or_default()
}
