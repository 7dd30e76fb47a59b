//! Taking users' newest states, and all that follows from them.
//!
//! Whoever takes states holds the organisation's cursor, so there is one of them at a time, and
//! changes are taken in the order in which identity made them.

use std::collections::{BTreeMap, BTreeSet};

use muster_follower::{Existence, FollowedUser, Take};
use muster_proto::approver::v1::{Approver, ApproverState};
use muster_runtime::clock;
use muster_runtime::feed::{self, Kind, NewChange};
use muster_runtime::id::{OrganisationId, Revision, UserId};
use sqlx::PgConnection;

use super::person::{self, Stored};
use super::{approver, declaration};
use crate::declaration::{Person, Snapshot};

/// A user whose state is taken, and what was known of them.
struct Taken {
    person: Person,
    old: Option<Stored>,
}

impl Taken {
    fn redeclared(&self) -> bool {
        let before = self.old.as_ref().map_or(&[][..], |old| &old.declared);
        before != self.person.declared
    }

    /// Whether others see something else of the user than before: also of one who had neither an
    /// address nor was active, and is gone.
    fn moved(&self) -> bool {
        let seen = self.old.as_ref().map(|old| (old.active, &old.email));
        self.person.gone || seen != Some((self.person.active, &self.person.email))
    }

    /// The addresses that are or were the user's.
    fn own_keys(&self) -> impl Iterator<Item = &String> {
        let old = self.old.as_ref().and_then(|old| old.email_key.as_ref());
        self.person.email_key.iter().chain(old)
    }
}

/// Takes states of users, of one organisation and told of by one actor, in the order in which they
/// were told; whether anybody's approvers changed by it. One that is not taken, or is the same
/// again, changes nothing.
///
/// A new user for whom nobody was declared and nobody waited costs three statements.
pub(crate) async fn apply(
    connection: &mut PgConnection,
    users: Vec<FollowedUser>,
    take: Take,
) -> Result<bool, sqlx::Error> {
    let Some(FollowedUser { organisation, actor, .. }) = users.last().cloned() else {
        return Ok(false);
    };
    let erased = users.iter().filter(|user| user.existence == Existence::Erased);
    let erased: BTreeSet<UserId> = erased.map(|user| user.id).collect();
    for user in &erased {
        feed::erase(connection, organisation, user.uuid()).await?;
    }
    let persons: Vec<Person> = users.into_iter().map(Person::from).collect();
    let ids: BTreeSet<UserId> = persons.iter().map(|person| person.id).collect();
    let mut stored = person::get(connection, organisation, ids.into_iter().collect()).await?;
    let segments = match take {
        Take::Any => vec![persons.into_iter().map(|person| (person.id, person)).collect()],
        Take::Newer => segments(persons, &stored),
    };
    let mut changes = Vec::new();
    for segment in segments {
        changes.extend(apply_at_once(connection, organisation, segment, &mut stored).await?);
    }
    if changes.is_empty() {
        return Ok(false);
    }
    // What they were before they were erased may be told of here for the first time.
    for change in changes.iter_mut().filter(|change| erased.contains(&change.subject.into())) {
        (change.before, change.after) = (None, None);
    }
    feed::append(connection, organisation, &actor, clock::now(), &changes).await?;
    Ok(true)
}

/// Parts of a batch, each of which can be taken at once: a user changes once in it, and nobody gives
/// up an address that somebody declared or got before in it. A declaration stands for whoever had
/// the address when it was made, and goes with that person from then on.
fn segments(
    persons: Vec<Person>,
    stored: &BTreeMap<UserId, Stored>,
) -> Vec<BTreeMap<UserId, Person>> {
    let mut owned: BTreeMap<UserId, Option<String>> = stored
        .iter()
        .map(|(id, stored)| (*id, stored.email_key.clone().filter(|_| stored.active)))
        .collect();
    let mut segments = vec![BTreeMap::new()];
    let mut touched = BTreeSet::new();
    for person in persons {
        if stored.get(&person.id).is_some_and(|stored| stored.revision >= person.revision) {
            continue;
        }
        let owns = person.email_key.clone().filter(|_| person.active);
        let owned_before = owned.insert(person.id, owns.clone()).flatten();
        let lost = owned_before.filter(|key| owns.as_ref() != Some(key));
        let mut segment = segments.pop().unwrap_or_default();
        if segment.contains_key(&person.id) || lost.is_some_and(|key| touched.contains(&key)) {
            segments.push(std::mem::take(&mut segment));
            touched.clear();
        }
        touched.extend(owns);
        touched.extend(person.declared.iter().map(|declared| declared.key.clone()));
        segment.insert(person.id, person);
        segments.push(segment);
    }
    segments
}

/// Takes states of users who do not depend on each other's order; the changes to append. `stored`
/// is what is stored of them before, and then after it.
async fn apply_at_once(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    segment: BTreeMap<UserId, Person>,
    stored: &mut BTreeMap<UserId, Stored>,
) -> Result<Vec<NewChange>, sqlx::Error> {
    let taken = meet(connection, organisation, segment, stored).await?;
    let telling: Vec<&Taken> = taken.iter().filter(|t| t.redeclared() || t.moved()).collect();
    let gone: Vec<UserId> = telling.iter().filter(|t| t.person.gone).map(|t| t.person.id).collect();
    let waiting = concerned(connection, organisation, &telling).await?;
    let declaring = telling.iter().filter(|t| t.redeclared()).map(|t| t.person.id);
    let concerned: BTreeSet<UserId> = declaring.chain(waiting.iter().copied()).collect();
    // New rows are there already; before, nobody could see them, and they had nobody.
    let new: BTreeSet<UserId> =
        taken.iter().filter(|t| t.old.is_none()).map(|t| t.person.id).collect();
    let had = &concerned - &new;
    let before = lists(connection, organisation, &had, new.into_iter().collect()).await?;
    let known = taken.iter().filter(|t| t.old.is_some()).map(|t| &t.person).collect();
    person::update(connection, organisation, known).await?;
    if concerned.is_empty() {
        return Ok(Vec::new());
    }
    declare(connection, organisation, &telling).await?;
    if !waiting.is_empty() {
        relink(connection, organisation, &telling, gone).await?;
    }
    let after = lists(connection, organisation, &concerned, Vec::new()).await?;
    Ok(changes(&concerned, &before, &after))
}

/// Notes the users who are not known; with each what was known before.
async fn meet(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    segment: BTreeMap<UserId, Person>,
    stored: &mut BTreeMap<UserId, Stored>,
) -> Result<Vec<Taken>, sqlx::Error> {
    let unknown: Vec<&Person> =
        segment.values().filter(|person| !stored.contains_key(&person.id)).collect();
    if !unknown.is_empty() {
        person::insert(connection, organisation, unknown).await?;
    }
    let taken = segment
        .into_values()
        .map(|person| Taken { old: stored.insert(person.id, Stored::of(&person)), person });
    Ok(taken.collect())
}

/// The users whose approvers may change because others moved: those linked to one who did, and those
/// who declared an address that is or was such a user's.
async fn concerned(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    taken: &[&Taken],
) -> Result<Vec<UserId>, sqlx::Error> {
    let moved: Vec<&&Taken> = taken.iter().filter(|t| t.moved()).collect();
    if moved.is_empty() {
        return Ok(Vec::new());
    }
    let ids = moved.iter().map(|t| t.person.id).collect();
    let keys: Vec<String> = moved.iter().flat_map(|t| t.own_keys()).cloned().collect();
    declaration::concerned(connection, organisation, ids, &keys).await
}

/// Brings the declarations of those who declare otherwise in line.
async fn declare(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    taken: &[&Taken],
) -> Result<(), sqlx::Error> {
    let redeclared = || taken.iter().filter(|t| t.redeclared());
    let persons: Vec<&Person> = redeclared().map(|t| &t.person).collect();
    let known = redeclared().filter(|t| t.old.is_some()).map(|t| t.person.id).collect();
    declaration::declare(connection, organisation, &persons, known).await
}

/// Brings the links of those who had declared these users in line with who the users are now.
async fn relink(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    taken: &[&Taken],
    gone: Vec<UserId>,
) -> Result<(), sqlx::Error> {
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

/// How many approvers are declared, and how many of them are in force: what the feed keeps the
/// totals of.
fn counts(approvers: &[Approver]) -> (i64, i64) {
    let in_force = approvers.iter().filter(|a| a.state() == ApproverState::InForce);
    let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    (count(approvers.len()), count(in_force.count()))
}

/// One change for each user whose approvers are not what they were.
fn changes(
    concerned: &BTreeSet<UserId>,
    before: &BTreeMap<UserId, Vec<Approver>>,
    after: &BTreeMap<UserId, Vec<Approver>>,
) -> Vec<NewChange> {
    let payload = |approvers: &[Approver]| {
        feed::payload(&approvers.iter().map(Snapshot::from).collect::<Vec<_>>())
    };
    let mut changes = Vec::new();
    for user in concerned {
        let list = |lists: &BTreeMap<UserId, Vec<Approver>>| lists.get(user).cloned();
        let (before, after) = (list(before).unwrap_or_default(), list(after).unwrap_or_default());
        if before != after {
            let (before_counts, after_counts) = (counts(&before), counts(&after));
            changes.push(NewChange {
                kind: Kind::Updated,
                subject: user.uuid(),
                revision: Revision(0),
                before: Some(payload(&before)),
                after: Some(payload(&after)),
                total: after_counts.0 - before_counts.0,
                active: after_counts.1 - before_counts.1,
            });
        }
    }
    changes
}

#[cfg(test)]
mod tests {
    use muster_runtime::feed::Actor;

    use super::*;

    fn person(id: UserId, revision: i64, email: &str, declared: &[&str]) -> Person {
        Person::from(FollowedUser {
            organisation: OrganisationId::new(),
            id,
            revision: Revision(revision),
            existence: Existence::Exists,
            active: true,
            released: false,
            primary_email: email.into(),
            declared_approvers: declared.iter().map(|email| (*email).to_owned()).collect(),
            actor: Actor::Caller(String::new()),
        })
    }

    /// How many are taken at once, segment by segment, where the first of them is known already.
    fn sizes(known: &Person, persons: Vec<Person>) -> Vec<usize> {
        let stored = Stored::of(known);
        let stored = BTreeMap::from([(known.id, stored)]);
        segments(persons, &stored).iter().map(BTreeMap::len).collect()
    }

    #[test]
    fn a_batch_is_taken_at_once_unless_its_order_matters() {
        let [ann, bo, cy, dee] = [(); 4].map(|()| UserId::new());
        let before = person(ann, 1, "x@a.example", &[]);
        let moves = || person(ann, 2, "y@a.example", &[]);
        let declares = |id| person(id, 1, "", &["X@a.example"]);
        // Many who declare an address, and whoever gets it: at once.
        let persons = vec![declares(bo), declares(cy), person(dee, 1, "z@a.example", &[])];
        assert_eq!(sizes(&before, persons), [3]);
        // Who declared it before it was given up means the one who had it.
        assert_eq!(sizes(&before, vec![declares(bo), moves(), declares(cy)]), [1, 2]);
        // Who declares it afterwards does not.
        let persons = vec![moves(), declares(bo), person(dee, 1, "x@a.example", &[])];
        assert_eq!(sizes(&before, persons), [3]);
        // One user twice.
        let persons = vec![declares(bo), person(bo, 2, "", &[])];
        assert_eq!(sizes(&before, persons), [1, 1]);
        // What is known already is no change.
        assert_eq!(sizes(&before, vec![declares(bo), before.clone(), declares(cy)]), [2]);
    }
}
