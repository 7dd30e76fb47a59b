//! Changes of members that came together, in one transaction.

use std::collections::{BTreeMap, BTreeSet};

use muster_runtime::clock;
use muster_runtime::feed;
use muster_runtime::gathering::Made;
use muster_runtime::id::{GroupId, OrganisationId, UserId};
use sqlx::PgConnection;

use super::group::{self, Row, Update, Written, refuse};
use super::{membership, person};
use crate::Error;
use crate::group::{ExternalId, MemberIds, Members, Presence};

/// The most members of a change that goes with others.
const MOST_MEMBERS: usize = 100;

/// What one of several updates comes to.
struct Planned {
    group: GroupId,
    add: BTreeSet<UserId>,
    remove: BTreeSet<UserId>,
    unknown: BTreeSet<String>,
}

/// Applies updates of one actor, each with the `traceparent` of its request, that say who comes and
/// who goes, and nothing else. What depends on another of them, on what others have locked, or on a
/// user of whom nothing is known, is left out.
pub(crate) async fn update(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    updates: &[(Update, Option<String>)],
) -> Result<Vec<Made<Written, Error>>, Error> {
    let Some((Update { actor, .. }, _)) = updates.first() else { return Ok(Vec::new()) };
    let mut taken = BTreeSet::new();
    let deltas: Vec<_> = updates.iter().map(|(update, _)| delta(update, &mut taken)).collect();
    let added = deltas.iter().flatten().flat_map(|(add, _)| &add.users);
    let added: BTreeSet<UserId> = added.copied().collect();
    let persons = person::lock_free(connection, organisation, added.into_iter().collect()).await?;
    let groups = deltas.iter().zip(updates).filter(|(delta, _)| delta.is_some());
    let groups: BTreeSet<GroupId> = groups.map(|(_, (update, _))| update.id).collect();
    let groups = group::lock_free(connection, organisation, groups.into_iter().collect()).await?;
    let mut rows: BTreeMap<GroupId, Row> =
        groups.into_iter().map(|row| (row.group_id, row)).collect();
    let plans: Vec<Option<Result<Planned, Error>>> = deltas
        .into_iter()
        .zip(updates)
        .map(|(delta, (update, _))| {
            plan(update, delta.filter(|_| rows.contains_key(&update.id))?, &persons)
        })
        .collect();

    let pairs = |of: fn(&Planned) -> &BTreeSet<UserId>| {
        let planned = plans.iter().flatten().flatten();
        planned.flat_map(|plan| of(plan).iter().map(|user| (plan.group, *user))).collect()
    };
    let came = membership::add_pairs(connection, organisation, pairs(|plan| &plan.add)).await?;
    let went = membership::remove_pairs(connection, organisation, pairs(|plan| &plan.remove));
    let went = went.await?;
    let (mut made, mut changes, mut causes) = (Vec::new(), Vec::new(), Vec::new());
    let mut touched = BTreeSet::new();
    for (plan, (update, cause)) in plans.into_iter().zip(updates) {
        made.push(plan.map(|plan| {
            let Planned { group, add, remove, unknown } = plan?;
            let those = |users: BTreeSet<UserId>, moved: &BTreeSet<(GroupId, UserId)>| {
                users.into_iter().filter(|user| moved.contains(&(group, *user))).collect()
            };
            let (added, removed): (Vec<UserId>, Vec<UserId>) =
                (those(add, &came), those(remove, &went));
            let old = rows.get(&group).ok_or(Error::NotFound)?;
            let row = Row { origin: old.origin_after(actor), ..old.clone() };
            if let Some((row, change)) = old.written(row, &added, &removed, update.now) {
                changes.push(change);
                causes.push(cause.clone());
                touched.insert(group);
                rows.insert(group, row);
            }
            let row = rows.get(&group).ok_or(Error::NotFound)?.clone();
            Ok((row.into_group(organisation), unknown))
        }));
    }
    if !changes.is_empty() {
        let rows: Vec<Row> = rows.into_values().filter(|r| touched.contains(&r.group_id)).collect();
        group::put(connection, organisation, &rows).await?;
        let now = clock::now();
        feed::append_caused(connection, organisation, actor, now, &changes, &causes).await?;
    }
    Ok(made)
}

/// Who comes and who goes, where that is all that an update says, and nobody does so whom one before
/// it moves.
fn delta<'u>(
    update: &'u Update,
    taken: &mut BTreeSet<(GroupId, UserId)>,
) -> Option<(&'u MemberIds, &'u MemberIds)> {
    let Update { expected: None, name: None, external_id: ExternalId::Keep, members, .. } = update
    else {
        return None;
    };
    let Members::Delta { add, remove } = members else { return None };
    let moved = || add.users.iter().chain(&remove.users).map(|user| (update.id, *user));
    let those: BTreeSet<(GroupId, UserId)> = moved().collect();
    let apart = those.len() == moved().count() && those.is_disjoint(taken);
    if !apart || those.len() > MOST_MEMBERS {
        return None;
    }
    taken.extend(those);
    Some((add, remove))
}

fn plan(
    update: &Update,
    (add, remove): (&MemberIds, &MemberIds),
    persons: &BTreeMap<UserId, Presence>,
) -> Option<Result<Planned, Error>> {
    let mut plan = Planned {
        group: update.id,
        add: BTreeSet::new(),
        remove: remove.users.clone(),
        unknown: add.unknown.clone(),
    };
    for user in &add.users {
        match persons.get(user)? {
            Presence::Exists => drop(plan.add.insert(*user)),
            Presence::Deleted => drop(plan.unknown.insert(user.to_string())),
        }
    }
    Some(refuse(&plan.unknown, update.refuse_unknown).map(|()| plan))
}
