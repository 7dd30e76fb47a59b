//! Identity's feed, played through the model: each change a legal step, each answer right.
//!
//! A PATCH that names approvers names them as the approver service shows them, and that may be
//! behind or ahead of the feed where a hand-over failed or came early. So which of the declared ones
//! an address names is not held against it here; `sequential.rs` does, where there are no faults.

use muster_proto::identity::v1::{User, UserChange};

use super::{ANSWER, I1, I4, Joined, LEGAL, join, trace_of};
use crate::faults::clients::identity_part;
use crate::faults::cluster::PUBLIC_URL;
use crate::faults::history::Record;
use crate::model::change::same_users;
use crate::model::key::same;
use crate::model::{Expected, Model, Op, UserEdit, same_json};

/// Checks the requests about users against the feed and the final state; the model at its end.
pub(crate) fn check(
    records: &[Record],
    feed: &[UserChange],
    last: &[User],
    violations: &mut Vec<String>,
) -> Model {
    let traces: Vec<String> =
        feed.iter().map(|change| trace_of(change.metadata.as_ref()).to_owned()).collect();
    let joined = join(records, &traces, violations);
    let mut open: Vec<&Joined<'_>> = joined
        .iter()
        .filter(|one| one.changes.is_empty() && one.record.status().is_some())
        .collect();
    open.sort_by_key(|one| one.from);

    let mut model = Model::new(&format!("{PUBLIC_URL}/scim/v2"), false);
    settle(&mut open, &model, 0, violations);
    for (at, change) in feed.iter().enumerate() {
        let sequence = at + 1;
        if change.metadata.as_ref().is_none_or(|m| m.sequence != i64::try_from(sequence).unwrap()) {
            violations.push(format!("{I4}: change {sequence} of users is {:?}", change.metadata));
            return model;
        }
        let asked = joined.iter().find(|one| one.changes.contains(&sequence));
        match asked {
            None => violations.push(format!("{LEGAL}: nobody asked for user change {sequence}")),
            Some(one) => step(&model, one, change, violations),
        }
        if let Err(why) = model.follow(change) {
            violations.push(format!("{LEGAL}: user change {sequence}: {why}"));
            return model;
        }
        settle(&mut open, &model, sequence, violations);
    }
    for one in open {
        violations.push(unexplained(one));
    }
    if let Err(why) = same_users(&model, last) {
        violations.push(format!("{I1}: the users are not what their feed says: {why}"));
    }
    model
}

/// Whether a change is what its request asks for in this state, and was answered so.
fn step(model: &Model, one: &Joined<'_>, change: &UserChange, violations: &mut Vec<String>) {
    let record = one.record;
    let mut followed = model.clone();
    // What is wrong with the step itself is said where it is taken.
    if followed.follow(change).is_err() {
        return;
    }
    let state =
        |model: &Model| model.user(&change.user_id).map(|user| (user.revision, user.doc.clone()));
    let is_asked_for = |(expected, asked): &(Expected, Model)| {
        expected.changed && state(asked) == state(&followed)
    };
    let mut asked = ask(model, record, &change.user_id);
    let found = asked.iter().position(is_asked_for);
    if found.is_none() {
        violations.push(format!(
            "{LEGAL}: {record} asks for {:?}, and changed to {:?}",
            state(&asked[0].1),
            state(&followed)
        ));
    }
    let (expected, _) = asked.swap_remove(found.unwrap_or_default());
    if let Err(why) = right(&expected, record) {
        violations.push(format!("{ANSWER}: {record}: {why}"));
    }
}

/// What a request leads to in this state, with each view of approvers that it may have had; the
/// right one first.
fn ask(model: &Model, record: &Record, created: &str) -> Vec<(Expected, Model)> {
    let mut views = vec![Vec::new()];
    if let Op::PatchUser { id, edits, .. } = &record.op
        && let Some(user) = model.user(id)
    {
        let named: Vec<&String> = edits.iter().flat_map(UserEdit::named_approvers).collect();
        for (shown, declared) in model.shown_approvers(user) {
            let mut options = vec![shown];
            for email in named.iter().copied().chain([&declared]) {
                if !options.iter().any(|known| same(known, email)) {
                    options.push(email.clone());
                }
            }
            // Only what is named makes a difference.
            options.truncate(if named.is_empty() { 1 } else { 6 });
            let with = |view: &Vec<(String, String)>, shown: &String| {
                let mut view = view.clone();
                view.push((shown.clone(), declared.clone()));
                view
            };
            views = options.iter().flat_map(|o| views.iter().map(move |v| with(v, o))).collect();
            views.truncate(1_000);
        }
    }
    let asked = views.into_iter().map(|view| {
        let mut asked = model.clone();
        (asked.apply_as_shown(&record.op, created, &view), asked)
    });
    asked.collect()
}

/// Takes from `open` those that are right in this state, and tells of those that no state is left
/// for.
fn settle(
    open: &mut Vec<&Joined<'_>>,
    model: &Model,
    sequence: usize,
    violations: &mut Vec<String>,
) {
    open.retain(|one| {
        if one.from > sequence {
            return true;
        }
        let is_right = |(expected, _): &(Expected, Model)| {
            !expected.changed && right(expected, one.record).is_ok()
        };
        if ask(model, one.record, "").iter().any(is_right) {
            return false;
        }
        if one.to > sequence {
            return true;
        }
        violations.push(unexplained(one));
        false
    });
}

/// Whether an answer is as expected, as far as identity says it.
fn right(expected: &Expected, record: &Record) -> Result<(), String> {
    let Some(status) = record.status() else { return Ok(()) };
    let expected = Expected { body: expected.body.as_ref().map(identity_part), ..expected.clone() };
    if status >= 400 {
        return Model::compare(&expected, status, record.body());
    }
    let body = identity_part(record.body());
    Model::compare(&Expected { body: None, ..expected.clone() }, status, &body)?;
    expected.body.map_or(Ok(()), |wanted| same_json("", &body, &wanted))
}

fn unexplained(one: &Joined<'_>) -> String {
    let body = one.record.body();
    if one.record.succeeded() && one.record.op.is_write() {
        return format!(
            "{I1}: no change of {}, which changes every state ({} to {}): {body}",
            one.record, one.from, one.to
        );
    }
    format!("{ANSWER}: {} in no state from {} to {}: {body}", one.record, one.from, one.to)
}
