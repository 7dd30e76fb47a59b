//! Taking users' newest states, and all that follows from them.
//!
//! Locks are taken in one order by everybody, so that no two wait for each other: the users' own
//! rows, then the addresses concerned (those not seen before are inserted, then all are locked,
//! both in the order of their keys), then the feed. Whoever takes several users at once holds the
//! organisation's cursor, so there is one of them. A declaration is written only under the lock of
//! its address, so whoever declares an address and whoever appears with it see each other.

use std::collections::{BTreeMap, BTreeSet};

use muster_follower::{FollowedUser, Take};
use muster_proto::approver::v1::Approver;
use muster_runtime::clock;
use muster_runtime::feed::{self, Kind, NewChange};
use muster_runtime::id::{OrganisationId, Revision, UserId};
use sqlx::PgConnection;

use super::person::{self, Stored};
use super::{approver, declaration};
use crate::declaration::{Declared, Person, Snapshot};

/// A user whose state is taken, and what was known of them.
struct Taken {
    person: Person,
    old: Option<Stored>,
    declared_before: Vec<Declared>,
}

impl Taken {
    fn redeclared(&self) -> bool {
        self.declared_before != self.person.declared
    }

    /// Whether others see something else of the user than before.
    fn moved(&self) -> bool {
        let seen = self.old.as_ref().map(|old| (old.active, &old.email));
        seen != Some((self.person.active, &self.person.email))
    }

    /// The addresses that are or were the user's.
    fn own_keys(&self) -> impl Iterator<Item = &String> {
        let old = self.old.as_ref().and_then(|old| old.email_key.as_ref());
        self.person.email_key.iter().chain(old)
    }

    fn declared_keys(&self) -> impl Iterator<Item = &String> {
        self.declared_before.iter().chain(&self.person.declared).map(|declared| &declared.key)
    }
}

/// Takes states of users, of one organisation and told of by one actor; whether anybody's approvers
/// changed by it. Of several states of one user the last counts; one that is not taken, or is the
/// same again, changes nothing.
///
/// A new user for whom nobody was declared and nobody waited costs five statements.
pub(crate) async fn apply(
    connection: &mut PgConnection,
    users: Vec<FollowedUser>,
    take: Take,
) -> Result<bool, sqlx::Error> {
    let Some(FollowedUser { organisation, actor, .. }) = users.last().cloned() else {
        return Ok(false);
    };
    let newest = users.into_iter().map(|user| (user.id, Person::from(user)));
    let taken = meet(connection, organisation, newest.collect(), take).await?;
    let telling: Vec<&Taken> = taken.iter().filter(|t| t.redeclared() || t.moved()).collect();
    let gone: Vec<UserId> = telling.iter().filter(|t| t.person.gone).map(|t| t.person.id).collect();
    lock_addresses(connection, organisation, &telling, &gone).await?;
    let concerned = concerned(connection, organisation, &telling).await?;
    // New rows are there already; before, nobody could see them.
    let new = taken.iter().filter(|t| t.old.is_none()).map(|t| t.person.id).collect();
    let before = lists(connection, organisation, &concerned, new).await?;
    let known = taken.iter().filter(|t| t.old.is_some()).map(|t| &t.person).collect();
    person::update(connection, organisation, known).await?;
    if concerned.is_empty() {
        return Ok(false);
    }
    relink(connection, organisation, &telling, gone).await?;
    let after = lists(connection, organisation, &concerned, Vec::new()).await?;
    let changes = changes(&concerned, &before, &after);
    if changes.is_empty() {
        return Ok(false);
    }
    feed::append(connection, organisation, &actor, clock::now(), &changes).await?;
    Ok(true)
}

/// Locks the users' rows, inserting those that are not there; the users whose states are taken.
async fn meet(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    mut newest: BTreeMap<UserId, Person>,
    take: Take,
) -> Result<Vec<Taken>, sqlx::Error> {
    let mut stored =
        person::lock(connection, organisation, newest.keys().copied().collect()).await?;
    let unknown: Vec<&Person> =
        newest.values().filter(|person| !stored.contains_key(&person.id)).collect();
    let mut inserted = BTreeSet::new();
    if !unknown.is_empty() {
        let ids: BTreeSet<UserId> = unknown.iter().map(|person| person.id).collect();
        inserted = person::insert(connection, organisation, unknown).await?;
        // Someone else inserted these meanwhile.
        let late: Vec<UserId> = ids.difference(&inserted).copied().collect();
        if !late.is_empty() {
            stored.extend(person::lock(connection, organisation, late).await?);
        }
    }
    newest.retain(|id, person| {
        let known = stored.get(id).map(|stored| stored.revision);
        take == Take::Any || known.is_none_or(|known| known < person.revision)
    });
    let known: Vec<UserId> = newest.keys().filter(|id| !inserted.contains(id)).copied().collect();
    let mut declared = declaration::of(connection, organisation, known).await?;
    let taken = newest.into_values().map(|person| Taken {
        old: stored.remove(&person.id),
        declared_before: declared.remove(&person.id).unwrap_or_default(),
        person,
    });
    Ok(taken.collect())
}

async fn lock_addresses(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    taken: &[&Taken],
    gone: &[UserId],
) -> Result<(), sqlx::Error> {
    let mut keys: BTreeSet<String> =
        taken.iter().flat_map(|t| t.own_keys().chain(t.declared_keys())).cloned().collect();
    keys.extend(declaration::linked_keys(connection, organisation, gone).await?);
    declaration::lock(connection, organisation, &keys.into_iter().collect::<Vec<_>>()).await
}

/// The users whose approvers may change: those who declare otherwise, those linked to a user who
/// moved, and those who declared an address that is or was such a user's.
async fn concerned(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    taken: &[&Taken],
) -> Result<BTreeSet<UserId>, sqlx::Error> {
    let declaring = taken.iter().filter(|t| t.redeclared() || !t.declared_before.is_empty());
    let mut concerned: BTreeSet<UserId> = declaring.map(|t| t.person.id).collect();
    let moved: Vec<&&Taken> = taken.iter().filter(|t| t.moved()).collect();
    if !moved.is_empty() {
        let ids = moved.iter().map(|t| t.person.id).collect();
        let keys: Vec<String> = moved.iter().flat_map(|t| t.own_keys()).cloned().collect();
        concerned.extend(declaration::concerned(connection, organisation, ids, &keys).await?);
    }
    Ok(concerned)
}

/// Brings the declarations and their links in line with who the users are now.
async fn relink(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    taken: &[&Taken],
    gone: Vec<UserId>,
) -> Result<(), sqlx::Error> {
    let redeclared: Vec<&Person> =
        taken.iter().filter(|t| t.redeclared()).map(|t| &t.person).collect();
    declaration::declare(connection, organisation, &redeclared).await?;
    let active: Vec<(UserId, String)> = taken
        .iter()
        .filter(|t| t.person.active)
        .filter_map(|t| Some((t.person.id, t.person.email_key.clone()?)))
        .collect();
    declaration::link(connection, organisation, active).await?;
    declaration::unlink(connection, organisation, gone).await
}

/// The approvers of each of these users, as if the `hidden` ones did not exist.
async fn lists(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    users: &BTreeSet<UserId>,
    hidden: Vec<UserId>,
) -> Result<BTreeMap<UserId, Vec<Approver>>, sqlx::Error> {
    if users.is_empty() {
        return Ok(BTreeMap::new());
    }
    let users = users.iter().copied().collect();
    Ok(approver::batch_get(connection, organisation, users, hidden).await?.into_iter().collect())
}

/// One change for each user whose approvers are not what they were.
fn changes(
    concerned: &BTreeSet<UserId>,
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
