//! The feed of groups, played through the model.
//!
//! The feeds of users and groups have no order between them: a member who was deleted at some time
//! may be left out of a group at any time, and must not be in one at the end.

use std::collections::BTreeSet;

use muster_proto::feed::v1::ChangeKind;
use muster_proto::group::v1::{Group as Message, GroupChange};

use super::{ANSWER, I1, I3, I4, Joined, LEGAL, Origin, join};
use crate::faults::cluster::PUBLIC_URL;
use crate::faults::history::Record;
use crate::model::{Doc, Expected, Group, Model, Op, User};

/// The users that there ever were, and those of them who were deleted.
#[derive(Debug, Default)]
pub(crate) struct People {
    pub(crate) all: BTreeSet<String>,
    pub(crate) deleted: BTreeSet<String>,
}

/// Checks the requests about groups against the feed and the final state.
pub(crate) fn check(
    records: &[Record],
    feed: &[GroupChange],
    people: &People,
    last: &[Message],
    is_strict: bool,
    violations: &mut Vec<String>,
) {
    let origins: Vec<Origin<'_>> =
        feed.iter().map(|change| Origin::of(change.metadata.as_ref(), &change.group_id)).collect();
    let joined = join(records, &origins, violations);
    let mut open: Vec<&Joined<'_>> = joined
        .iter()
        .filter(|one| one.changes.is_empty() && one.record.status().is_some())
        .collect();

    let mut model = Model::new(&format!("{PUBLIC_URL}/scim/v2"), is_strict);
    // Members need be users; what else they are is no matter here.
    let user = |id: &String| User {
        id: id.clone(),
        revision: 1,
        doc: Doc::default(),
        declared: Vec::new(),
    };
    model.users = people.all.iter().map(user).collect();
    settle(&mut open, &model, 0, people, violations);
    for (at, change) in feed.iter().enumerate() {
        let sequence = at + 1;
        if change.metadata.as_ref().is_none_or(|m| m.sequence != i64::try_from(sequence).unwrap()) {
            violations.push(format!("{I4}: change {sequence} of groups is {:?}", change.metadata));
            return;
        }
        let before = model.clone();
        if let Err(why) = follow(&mut model, change) {
            violations.push(format!("{LEGAL}: group change {sequence}: {why}"));
            return;
        }
        match joined.iter().find(|one| one.changes.contains(&sequence)) {
            Some(one) => step(&before, &model, one, change, people, violations),
            None if is_leaving(change, people) => {}
            None => violations.push(format!("{LEGAL}: nobody asked for group change {change:?}")),
        }
        settle(&mut open, &model, sequence, people, violations);
    }
    for one in open {
        violations.push(unexplained(one));
    }
    end(&model, people, last, violations);
}

/// Whether users who were deleted leave a group, and nothing else happens.
fn is_leaving(change: &GroupChange, people: &People) -> bool {
    let name = |group: &Option<Message>| group.clone().map(|g| (g.display_name, g.external_id));
    change.kind() == ChangeKind::Updated
        && name(&change.before) == name(&change.after)
        && change.added_member_ids.is_empty()
        && change.removed_member_ids.iter().all(|id| people.deleted.contains(id))
}

/// Takes a change, which must follow from the state before it.
fn follow(model: &mut Model, change: &GroupChange) -> Result<(), String> {
    let id = &change.group_id;
    let old = model.group(id).cloned();
    let before = old.as_ref().map(|g| (g.revision, g.name.clone(), g.external_id.clone()));
    let told =
        change.before.as_ref().map(|g| (g.revision, g.display_name.clone(), g.external_id.clone()));
    if before != told {
        return Err(format!("the group before it was {before:?}, not {told:?}"));
    }
    let revision = before.map_or(0, |(revision, ..)| revision) + 1;
    if change.revision != revision {
        return Err(format!("the revision is {}, not {revision}", change.revision));
    }
    model.groups.retain(|group| group.id != *id);
    let Some(after) = &change.after else {
        return old.map(drop).ok_or_else(|| "what was not there is deleted".to_owned());
    };
    let mut members = old.map(|group| group.members).unwrap_or_default();
    for id in &change.removed_member_ids {
        let at = members.iter().position(|member| member == id);
        members.remove(at.ok_or_else(|| format!("{id} left without being in"))?);
    }
    for id in &change.added_member_ids {
        if members.contains(id) {
            return Err(format!("{id} came in, and was in already"));
        }
        members.push(id.clone());
    }
    members.sort();
    let (name, external_id) = (after.display_name.clone(), after.external_id.clone());
    model.groups.push(Group { id: id.clone(), revision, name, external_id, members });
    Ok(())
}

/// Whether a change is what its request asks for, and was answered so.
fn step(
    before: &Model,
    after: &Model,
    one: &Joined<'_>,
    change: &GroupChange,
    people: &People,
    violations: &mut Vec<String>,
) {
    let record = one.record;
    let mut asked = before.clone();
    let expected = asked.apply(&record.op, &change.group_id);
    let (wanted, is) = (asked.group(&change.group_id), after.group(&change.group_id));
    if !expected.changed || !same(wanted, is, people) {
        violations.push(format!("{LEGAL}: {record} asks for {wanted:?}, and changed to {is:?}"));
    }
    let body = after.group_json(&change.group_id).filter(|_| expected.body.is_some());
    if let Err(why) = right(&Expected { body, ..expected }, record) {
        violations.push(format!("{ANSWER}: {record}: {why}"));
    }
}

/// Whether a group is as wanted, but for members who were deleted at some time.
fn same(wanted: Option<&Group>, is: Option<&Group>, people: &People) -> bool {
    let (Some(wanted), Some(is)) = (wanted, is) else { return wanted.is_none() && is.is_none() };
    let missing = wanted.members.iter().filter(|id| !is.members.contains(id));
    (wanted.revision, &wanted.name, &wanted.external_id) == (is.revision, &is.name, &is.external_id)
        && is.members.iter().all(|id| wanted.members.contains(id))
        && missing.into_iter().all(|id| people.deleted.contains(id))
}

fn settle(
    open: &mut Vec<&Joined<'_>>,
    model: &Model,
    sequence: usize,
    people: &People,
    violations: &mut Vec<String>,
) {
    open.retain(|one| {
        if one.from > sequence {
            return true;
        }
        if is_right_here(model, one.record, people) {
            return false;
        }
        if one.to > sequence {
            return true;
        }
        violations.push(unexplained(one));
        false
    });
}

/// Whether an answer that changed nothing is right in this state.
fn is_right_here(model: &Model, record: &Record, people: &People) -> bool {
    let is_right = |model: &Model| is_right_of_these(model, record, people);
    if !model.refuses_unknown_members {
        return is_right(model);
    }
    // Whether those who were deleted at some time were by then is not known here.
    let mut without = model.clone();
    without.users.retain(|user| !people.deleted.contains(&user.id));
    is_right(model) || is_right(&without)
}

fn is_right_of_these(model: &Model, record: &Record, people: &People) -> bool {
    let mut asked = model.clone();
    let mut expected = asked.apply(&record.op, "");
    if expected.changed {
        // Nothing but deleted users would have come in.
        let (Some(id), true) = (group_id(record), expected.status < 300) else { return false };
        let Some(is) = model.group(id) else { return false };
        let wanted = asked.group(id).cloned();
        let wanted = wanted.map(|group| Group { revision: is.revision, ..group });
        if !same(wanted.as_ref(), Some(is), people) {
            return false;
        }
        expected.body = expected.body.and_then(|_| model.group_json(id));
    }
    right(&expected, record).is_ok()
}

fn group_id(record: &Record) -> Option<&str> {
    match &record.op {
        Op::PutGroup { .. } | Op::PatchGroup { .. } => record.op.subject(),
        _ => None,
    }
}

fn right(expected: &Expected, record: &Record) -> Result<(), String> {
    let expected = record.expected(expected.clone());
    record.status().map_or(Ok(()), |status| Model::compare(&expected, status, record.body()))
}

fn unexplained(one: &Joined<'_>) -> String {
    let (record, body) = (one.record, one.record.body());
    let what = if record.succeeded() && record.op.is_write() { I1 } else { ANSWER };
    format!("{what}: {record} in no state from {} to {}: {body}", one.from, one.to)
}

/// The groups at the end are what their feed says, and nobody is in one who is not there.
fn end(model: &Model, people: &People, last: &[Message], violations: &mut Vec<String>) {
    let mut wanted = model.groups.clone();
    wanted.sort_by(|a, b| a.id.cmp(&b.id));
    let mut is: Vec<Group> = last
        .iter()
        .map(|group| Group {
            id: group.id.clone(),
            revision: group.revision,
            name: group.display_name.clone(),
            external_id: group.external_id.clone(),
            members: group.member_ids.clone(),
        })
        .collect();
    is.sort_by(|a, b| a.id.cmp(&b.id));
    for group in &mut is {
        group.members.sort();
    }
    if wanted != is {
        violations.push(format!("{I1}: the groups are {is:?}; their feed says {wanted:?}"));
    }
    for group in &is {
        for id in group.members.iter().filter(|id| people.deleted.contains(*id)) {
            violations.push(format!("{I3}: {id} was deleted and is in group {}", group.id));
        }
    }
}
