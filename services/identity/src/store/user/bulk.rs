//! Many users at once: what a file of people would do, and doing it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use muster_proto::identity::v1::{Origin, User};
use muster_runtime::feed::NewChange;
use muster_runtime::id::{OrganisationId, Revision, UserId};
use serde_json::Value;
use sqlx::PgConnection;
use sqlx::types::Json;
use time::OffsetDateTime;

use super::{Planned, Row};
use crate::Error;
use crate::people_file::{Entry, Problem};
use crate::user::{Write, prepare};

/// The people whom earlier rows of a file are about: the line of each.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    names: HashMap<String, u64>,
    emails: HashMap<String, u64>,
    users: HashMap<UserId, u64>,
}

/// What rows of a file come to.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub planned: Vec<Planned>,
    pub unchanged: i64,
    pub problems: Vec<Problem>,
}

impl Plan {
    /// How many it creates.
    pub(crate) fn created(&self) -> i64 {
        let created = self.planned.iter().filter(|planned| planned.old.is_none()).count();
        i64::try_from(created).unwrap_or(i64::MAX)
    }

    /// How many it updates.
    pub(crate) fn updated(&self) -> i64 {
        i64::try_from(self.planned.len()).unwrap_or(i64::MAX) - self.created()
    }
}

/// Who has these names and addresses.
#[derive(Debug, Default)]
struct Owners {
    names: BTreeMap<String, UserId>,
    emails: BTreeMap<String, UserId>,
}

/// Plans what some rows of a file come to; with `locks`, those who are there are locked.
pub(crate) async fn plan(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    entries: &[Entry],
    seen: &mut Seen,
    default_locale: &str,
    now: OffsetDateTime,
    locks: bool,
) -> Result<Plan, Error> {
    let owners = owners(connection, organisation, entries).await?;
    let matched: Vec<Option<UserId>> = entries.iter().map(|entry| owners.of(entry)).collect();
    let ids: BTreeSet<UserId> = matched.iter().flatten().copied().collect();
    let ids: Vec<UserId> = ids.into_iter().collect();
    let rows = if locks {
        lock_many(connection, organisation, ids).await?
    } else {
        read_many(connection, organisation, ids).await?
    };
    let mut old: BTreeMap<UserId, Row> = rows.into_iter().map(|row| (row.user_id, row)).collect();
    let mut plan = Plan::default();
    for (entry, matched) in entries.iter().zip(matched) {
        let old = matched.and_then(|id| old.remove(&id));
        match plan_one(entry, matched, old, &owners, seen, default_locale, now) {
            Ok(Some(planned)) => plan.planned.push(planned),
            Ok(None) => plan.unchanged += 1,
            Err(what) => plan.problems.push(Problem::of_line(entry.line, what)),
        }
    }
    Ok(plan)
}

/// What one row comes to; none where the person is so already.
fn plan_one(
    entry: &Entry,
    matched: Option<UserId>,
    old: Option<Row>,
    owners: &Owners,
    seen: &mut Seen,
    default_locale: &str,
    now: OffsetDateTime,
) -> Result<Option<Planned>, String> {
    if entry.keys() == (None, None) {
        return Err("There is neither an e-mail address nor a user name. Fill in one.".to_owned());
    }
    if let Some(id) = matched
        && let Some(line) = seen.users.insert(id, entry.line)
    {
        return Err(format!("This is the person of line {line} again. Remove one of the lines."));
    }
    let base = old.as_ref().map_or_else(User::default, |old| old.document.0.clone());
    let write = if old.is_some() { Write::Exact } else { Write::Create };
    let prepared =
        prepare(entry.apply(base)?, &write, default_locale).map_err(|error| match error {
            Error::Invalid { field, description } => format!("{} {description}.", column(field)),
            other => format!("{other}."),
        })?;
    let is_taken = |owner: Option<&UserId>| owner.is_some_and(|owner| matched != Some(*owner));
    let name = &prepared.user_name_key;
    let email = prepared.primary_email_key.as_ref();
    if is_taken(owners.names.get(name)) {
        return Err("Somebody else has this user name. Correct it, or that person.".to_owned());
    }
    if email.is_some_and(|email| is_taken(owners.emails.get(email))) {
        let what = "Somebody else has this e-mail address. Correct it, or that person.";
        return Err(what.to_owned());
    }
    let earlier = seen.names.insert(name.clone(), entry.line);
    let earlier =
        earlier.or_else(|| email.and_then(|email| seen.emails.insert(email.clone(), entry.line)));
    if let Some(line) = earlier {
        return Err(format!("This is the person of line {line} again. Remove one of the lines."));
    }
    let planned = if let Some(old) = old {
        let origin = old.origin;
        Planned::updated(old, prepared, origin, now)
    } else {
        Planned::created(prepared, Origin::Csv, default_locale.to_owned(), now)
    };
    Ok(Some(planned).filter(Planned::is_other))
}

/// A field in the words of a file's columns.
fn column(field: &str) -> &str {
    match field {
        "user_name" => "The user name",
        "country_code" => "The country",
        "emails.value" => "The e-mail address",
        "external_id" => "The external id",
        other => other,
    }
}

impl Owners {
    /// Whom a row is about: whoever has its `user name`, else its e-mail address.
    fn of(&self, entry: &Entry) -> Option<UserId> {
        let (name, email) = entry.keys();
        let by_name = name.and_then(|name| self.names.get(&name));
        by_name.or_else(|| email.and_then(|email| self.emails.get(&email))).copied()
    }
}

async fn owners(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    entries: &[Entry],
) -> Result<Owners, sqlx::Error> {
    let (mut names, mut emails) = (Vec::new(), Vec::new());
    for (name, email) in entries.iter().map(Entry::keys) {
        // Without a user name the e-mail address becomes it.
        names.extend(name.or_else(|| email.clone()));
        emails.extend(email);
    }
    let rows = sqlx::query!(
        r#"SELECT user_id AS "user_id!: UserId", user_name_key AS "user_name_key!", primary_email_key
             FROM identity.users
            WHERE organisation_id = $1 AND user_name_key = ANY ($2)
           UNION
           SELECT user_id, user_name_key, primary_email_key
             FROM identity.users
            WHERE organisation_id = $1 AND primary_email_key = ANY ($3)"#,
        organisation as OrganisationId,
        &names,
        &emails,
    )
    .fetch_all(connection)
    .await?;
    let mut owners = Owners::default();
    for row in rows {
        owners.names.insert(row.user_name_key, row.user_id);
        if let Some(email) = row.primary_email_key {
            owners.emails.insert(email, row.user_id);
        }
    }
    Ok(owners)
}

async fn read_many(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    ids: Vec<UserId>,
) -> Result<Vec<Row>, sqlx::Error> {
    rows!("u.user_id = ANY ($2)", organisation as OrganisationId, ids as Vec<UserId>,)
        .fetch_all(connection)
        .await
}

async fn lock_many(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    ids: Vec<UserId>,
) -> Result<Vec<Row>, sqlx::Error> {
    rows!(
        "u.user_id = ANY ($2) ORDER BY u.user_id FOR UPDATE OF u",
        organisation as OrganisationId,
        ids as Vec<UserId>,
    )
    .fetch_all(connection)
    .await
}

/// Writes planned users of an import; the changes that tell of it.
pub(crate) async fn write(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    planned: &[Planned],
) -> Result<Vec<NewChange>, Error> {
    if let Err(error) = put(connection, organisation, planned).await {
        return Err(match Error::constraint(&error) {
            // Somebody took a name since it was looked up.
            Some(_) => Error::Busy,
            None => error.into(),
        });
    }
    Ok(planned.iter().map(Planned::change).collect())
}

/// Writes planned users.
pub(super) async fn put(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    planned: &[Planned],
) -> Result<(), sqlx::Error> {
    if planned.is_empty() {
        return Ok(());
    }
    put_users(connection, organisation, planned).await?;
    let moved = planned.iter().filter(|planned| planned.has_other_emails()).collect();
    put_emails(connection, organisation, moved).await
}

async fn put_users(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    planned: &[Planned],
) -> Result<(), sqlx::Error> {
    fn each<'p, T>(planned: &'p [Planned], value: impl Fn(&'p Planned) -> T) -> Vec<T> {
        planned.iter().map(value).collect()
    }
    let field = |at: usize| each(planned, move |p| p.prepared.listed.custom_fields[at].clone());
    let key = |at: usize| each(planned, move |p| p.prepared.listed.custom_field_keys[at].clone());
    sqlx::query!(
        "WITH put AS (
             INSERT INTO identity.users
                    (organisation_id, user_id, revision, created_at, updated_at, origin, active,
                     user_name_key, primary_email_key, external_id, display_name_key, document,
                     search)
             SELECT $1, *
               FROM unnest($2::uuid[], $3::bigint[], $4::timestamptz[], $5::timestamptz[],
                           $6::smallint[], $7::boolean[], $8::text[], $9::text[], $10::text[],
                           $11::text[], $12::jsonb[], $13::jsonb[])
             ON CONFLICT (organisation_id, user_id) DO UPDATE
                SET revision = EXCLUDED.revision, updated_at = EXCLUDED.updated_at,
                    origin = EXCLUDED.origin, active = EXCLUDED.active,
                    user_name_key = EXCLUDED.user_name_key,
                    primary_email_key = EXCLUDED.primary_email_key,
                    external_id = EXCLUDED.external_id,
                    display_name_key = EXCLUDED.display_name_key,
                    document = EXCLUDED.document, search = EXCLUDED.search
         )
         INSERT INTO identity.listed_user
                (organisation_id, user_id, origin, active, content_region, unknown_country,
                 custom_field_1, custom_field_2, custom_field_3, custom_field_1_key,
                 custom_field_2_key, custom_field_3_key, words)
         SELECT $1, user_id, origin, active, content_region, unknown_country, custom_field_1,
                custom_field_2, custom_field_3, custom_field_1_key, custom_field_2_key,
                custom_field_3_key, words
           FROM unnest($2::uuid[], $6::smallint[], $7::boolean[], $14::smallint[], $15::text[],
                       $16::text[], $17::text[], $18::text[], $19::text[], $20::text[],
                       $21::text[], $22::text[], $23::boolean[])
                AS n (user_id, origin, active, content_region, unknown_country, custom_field_1,
                      custom_field_2, custom_field_3, custom_field_1_key, custom_field_2_key,
                      custom_field_3_key, words, is_listed_otherwise)
          WHERE is_listed_otherwise
         ON CONFLICT (organisation_id, user_id) DO UPDATE
            SET active = EXCLUDED.active, origin = EXCLUDED.origin,
                content_region = EXCLUDED.content_region,
                unknown_country = EXCLUDED.unknown_country,
                custom_field_1 = EXCLUDED.custom_field_1,
                custom_field_2 = EXCLUDED.custom_field_2,
                custom_field_3 = EXCLUDED.custom_field_3,
                custom_field_1_key = EXCLUDED.custom_field_1_key,
                custom_field_2_key = EXCLUDED.custom_field_2_key,
                custom_field_3_key = EXCLUDED.custom_field_3_key, words = EXCLUDED.words",
        organisation as OrganisationId,
        each(planned, |p| p.row.user_id) as Vec<UserId>,
        each(planned, |p| p.row.revision) as Vec<Revision>,
        &each(planned, |p| p.row.created_at),
        &each(planned, |p| p.row.updated_at),
        &each(planned, |p| p.row.origin),
        &each(planned, |p| p.prepared.active),
        &each(planned, |p| p.prepared.user_name_key.clone()),
        &each(planned, |p| p.prepared.primary_email_key.clone()) as &[Option<String>],
        &each(planned, |p| p.prepared.document.external_id.clone()) as &[Option<String>],
        &each(planned, |p| p.prepared.display_name_key.clone()) as &[Option<String>],
        each(planned, |p| Json(&p.prepared.document)) as Vec<Json<&User>>,
        each(planned, |p| Json(&p.prepared.search)) as Vec<Json<&Value>>,
        &each(planned, |p| p.prepared.listed.content_region),
        &each(planned, |p| p.prepared.listed.unknown_country.clone()) as &[Option<String>],
        &field(0) as &[Option<String>],
        &field(1) as &[Option<String>],
        &field(2) as &[Option<String>],
        &key(0) as &[Option<String>],
        &key(1) as &[Option<String>],
        &key(2) as &[Option<String>],
        &each(planned, |p| p.prepared.listed.words.clone()),
        &each(planned, Planned::is_listed_otherwise),
    )
    .execute(connection)
    .await
    .map(drop)
}

async fn put_emails(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    planned: Vec<&Planned>,
) -> Result<(), sqlx::Error> {
    if planned.is_empty() {
        return Ok(());
    }
    let updated = planned.iter().filter(|planned| planned.old.is_some());
    let updated: Vec<UserId> = updated.map(|planned| planned.row.user_id).collect();
    if !updated.is_empty() {
        sqlx::query!(
            "DELETE FROM identity.user_email WHERE organisation_id = $1 AND user_id = ANY ($2)",
            organisation as OrganisationId,
            updated as Vec<UserId>,
        )
        .execute(&mut *connection)
        .await?;
    }
    let emails = planned.iter().flat_map(|planned| {
        planned.prepared.email_keys.iter().map(|key| (planned.row.user_id, key.clone()))
    });
    let (users, keys): (Vec<UserId>, Vec<String>) = emails.unzip();
    sqlx::query!(
        "INSERT INTO identity.user_email (organisation_id, user_id, email_key)
         SELECT $1, * FROM unnest($2::uuid[], $3::text[])",
        organisation as OrganisationId,
        users as Vec<UserId>,
        &keys,
    )
    .execute(connection)
    .await
    .map(drop)
}
