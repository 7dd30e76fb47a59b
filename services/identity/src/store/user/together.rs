//! Creations and updates that came together, in one transaction.

use std::collections::{BTreeMap, BTreeSet};

use muster_proto::identity::v1::User;
use muster_runtime::clock;
use muster_runtime::feed::{self, Actor};
use muster_runtime::gathering::Made;
use muster_runtime::id::{OrganisationId, Revision, UserId};
use sqlx::PgConnection;
use sqlx::types::Json;

use super::{Create, Planned, Row, Update, bulk};
use crate::Error;
use crate::store::organisation;
use crate::user::{Write as Rule, prepare};

/// A write of a user.
#[derive(Debug, Clone)]
pub(crate) enum Write {
    /// Creates one, or revives an inactive one of the same name.
    Create(Create),
    /// Replaces one.
    Update(Update),
}

impl Write {
    /// Who makes it.
    pub(crate) fn actor(&self) -> &Actor {
        match self {
            Self::Create(create) => &create.actor,
            Self::Update(update) => &update.actor,
        }
    }
}

/// Makes writes of one actor, each with the `traceparent` of its request. What depends on another of
/// them, or on what others have locked, and who gets other addresses or another name, is left out.
///
/// Where it fails nothing is written, and it is not known which of them is to blame: a name that is
/// taken is, too.
pub(crate) async fn write(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    writes: &[(Write, Option<String>)],
) -> Result<Vec<Made<User, Error>>, Error> {
    let Some((first, _)) = writes.first() else { return Ok(Vec::new()) };
    let mut rows = lock_free(connection, organisation, writes).await?;
    // An update has it with its row.
    let locale = if writes.iter().any(|(write, _)| matches!(write, Write::Create(_))) {
        organisation::get(connection, organisation).await?.default_locale
    } else {
        String::new()
    };
    let mut new = BTreeSet::new();
    let (mut made, mut planned, mut causes) = (Vec::new(), Vec::new(), Vec::new());
    for (write, cause) in writes {
        let plan = match write {
            Write::Create(create) => plan_creation(create, &locale, &mut new),
            Write::Update(update) => {
                rows.remove(&update.id).and_then(|old| plan_update(update, old))
            }
        };
        made.push(plan.map(|plan| {
            let plan = plan?;
            let user = plan.row.clone().into_user(organisation);
            if plan.is_other() {
                planned.push(plan);
                causes.push(cause.clone());
            }
            Ok(user)
        }));
    }
    if !planned.is_empty() {
        bulk::put(connection, organisation, &planned).await?;
        let changes: Vec<_> = planned.iter().map(Planned::change).collect();
        let (actor, now) = (first.actor(), clock::now());
        feed::append_caused(connection, organisation, actor, now, &changes, &causes).await?;
    }
    Ok(made)
}

/// The users to update, but for those whom somebody else has locked: who waits holds nobody up.
async fn lock_free(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    writes: &[(Write, Option<String>)],
) -> Result<BTreeMap<UserId, Row>, sqlx::Error> {
    let ids: BTreeSet<UserId> = writes
        .iter()
        .filter_map(|(write, _)| match write {
            Write::Update(update) => Some(update.id),
            Write::Create(_) => None,
        })
        .collect();
    if ids.is_empty() {
        return Ok(BTreeMap::new());
    }
    let rows = rows!(
        "u.user_id = ANY ($2) FOR UPDATE OF u SKIP LOCKED",
        organisation as OrganisationId,
        ids.into_iter().collect::<Vec<_>>() as Vec<UserId>,
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(|row| (row.user_id, row)).collect())
}

fn plan_creation(
    create: &Create,
    default_locale: &str,
    new: &mut BTreeSet<(&'static str, String)>,
) -> Option<Result<Planned, Error>> {
    let prepared = match prepare(create.user.clone(), &Rule::Create, default_locale) {
        Ok(prepared) => prepared,
        Err(refusal) => return Some(Err(refusal)),
    };
    let email = prepared.primary_email_key.clone();
    let keys =
        [Some(("user_name", prepared.user_name_key.clone())), email.map(|key| ("email", key))];
    if keys.iter().flatten().any(|key| new.contains(key)) {
        return None;
    }
    new.extend(keys.into_iter().flatten());
    let planned = Planned::created(prepared, create.origin, default_locale.to_owned(), create.now);
    Some(Ok(planned))
}

fn plan_update(update: &Update, old: Row) -> Option<Result<Planned, Error>> {
    let prepared = match update.prepare(&old) {
        Ok(prepared) => prepared,
        Err(refusal) => return Some(Err(refusal)),
    };
    let is_found_as_before = old.document.user_name == prepared.document.user_name
        && old.document.emails == prepared.document.emails;
    let origin = old.origin_after(&update.actor);
    is_found_as_before.then(|| Ok(Planned::updated(old, prepared, origin, update.now)))
}
