//! Identity's feed, played through the model: each change a legal step, each answer right.
//!
//! A PATCH that names approvers names them as the approver service shows them, and that may be
//! behind or ahead of the user it is read with. So a declared approver may go by each address that it
//! has been shown by until the answer: the one that was declared, and whatever those are called or
//! were called who have had that address. `sequential.rs` allows the present one only, where there
//! are no faults.

use std::collections::BTreeMap;

use muster_proto::identity::v1::{User, UserChange};

use super::{ANSWER, I1, I4, Joined, LEGAL, Origin, join};
use crate::faults::clients::identity_part;
use crate::faults::cluster::PUBLIC_URL;
use crate::faults::history::Record;
use crate::model::change::same_users;
use crate::model::key::{key, same};
use crate::model::{Doc, Expected, Model, Op, UserEdit, same_json};

/// Checks the requests about users against the feed and the final state; the model at its end.
pub(crate) fn check(
    records: &[Record],
    feed: &[UserChange],
    last: &[User],
    violations: &mut Vec<String>,
) -> Model {
    let origins: Vec<Origin<'_>> =
        feed.iter().map(|change| Origin::of(change.metadata.as_ref(), &change.user_id)).collect();
    let joined = join(records, &origins, violations);
    let mut open: Vec<&Joined<'_>> = joined
        .iter()
        .filter(|one| one.changes.is_empty() && one.record.status().is_some())
        .collect();
    open.sort_by_key(|one| one.from);

    let names = Names::of(feed);
    let mut model = Model::new(&format!("{PUBLIC_URL}/scim/v2"), false);
    settle(&mut open, &model, &names, 0, violations);
    for (at, change) in feed.iter().enumerate() {
        let sequence = at + 1;
        if change.metadata.as_ref().is_none_or(|m| m.sequence != i64::try_from(sequence).unwrap()) {
            violations.push(format!("{I4}: change {sequence} of users is {:?}", change.metadata));
            return model;
        }
        let asked = joined.iter().find(|one| one.changes.contains(&sequence));
        match asked {
            None => violations.push(format!("{LEGAL}: nobody asked for user change {sequence}")),
            Some(one) => step(&model, &names, one, change, violations),
        }
        if let Err(why) = model.follow(change) {
            violations.push(format!("{LEGAL}: user change {sequence}: {why}"));
            return model;
        }
        settle(&mut open, &model, &names, sequence, violations);
    }
    for one in open {
        violations.push(unexplained(one));
    }
    if let Err(why) = same_users(&model, last) {
        violations.push(format!("{I1}: the users are not what their feed says: {why}"));
    }
    model
}

/// The primary addresses that users have had, each with who has had it, and since which change.
#[derive(Default)]
struct Names(BTreeMap<String, BTreeMap<String, usize>>);

impl Names {
    fn of(feed: &[UserChange]) -> Self {
        let mut names = Self::default();
        for (at, change) in feed.iter().enumerate() {
            let after = change.after.as_ref().map(Doc::of_message);
            if let Some(email) = after.as_ref().and_then(Doc::primary_email) {
                let holders = names.0.entry(key(email)).or_default();
                holders.entry(change.user_id.clone()).or_insert(at + 1);
            }
        }
        names
    }

    /// Whether, by a state, somebody who has had one of the addresses has had the other too.
    fn are_one_persons(&self, email: &str, other: &str, by: usize) -> bool {
        let holders = |email: &str| self.0.get(&key(email)).into_iter().flatten();
        let mut pairs = holders(email).flat_map(|one| holders(other).map(move |two| (one, two)));
        pairs
            .any(|((id, since), (other, other_since))| id == other && *since.max(other_since) <= by)
    }
}

/// Whether a change is what its request asks for in this state, and was answered so.
fn step(
    model: &Model,
    names: &Names,
    one: &Joined<'_>,
    change: &UserChange,
    violations: &mut Vec<String>,
) {
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
    let mut asked = ask(model, names, one, &change.user_id);
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
fn ask(model: &Model, names: &Names, one: &Joined<'_>, created: &str) -> Vec<(Expected, Model)> {
    let op = &one.record.op;
    let mut views = vec![Vec::new()];
    if let Op::PatchUser { id, edits, .. } = op
        && let Some(user) = model.user(id)
    {
        let named: Vec<&String> = edits.iter().flat_map(UserEdit::named_approvers).collect();
        for (shown, declared) in model.shown_approvers(user) {
            let mut options = vec![shown];
            // Only what is named makes a difference.
            for email in named.iter().copied().chain((!named.is_empty()).then_some(&declared)) {
                if !options.iter().any(|known| same(known, email))
                    && (same(email, &declared) || names.are_one_persons(email, &declared, one.to))
                {
                    options.push(email.clone());
                }
            }
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
        (asked.apply_as_shown(op, created, &view), asked)
    });
    asked.collect()
}

/// Takes from `open` those that are right in this state, and tells of those that no state is left
/// for.
fn settle(
    open: &mut Vec<&Joined<'_>>,
    model: &Model,
    names: &Names,
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
        if ask(model, names, one, "").iter().any(is_right) {
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
    let expected = record.expected(expected);
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
