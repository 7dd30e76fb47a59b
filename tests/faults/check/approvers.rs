//! The approvers at the end are those that the feed of users leads to.

use std::collections::BTreeMap;

use muster_proto::approver::v1::{ApproverChange, UserApprovers};

use super::{I3, I4};
use crate::model::Model;
use crate::model::change::{approver_lines, told_lines};

/// Checks the states at the end, and that the feed tells how they came about.
pub(crate) fn check(
    model: &Model,
    last: &[UserApprovers],
    feed: &[ApproverChange],
    violations: &mut Vec<String>,
) {
    let (is, wanted) = (told_lines(last), approver_lines(model));
    if is != wanted {
        let differing: Vec<_> = is.iter().filter(|line| !wanted.contains(line)).collect();
        let missing: Vec<_> = wanted.iter().filter(|line| !is.contains(line)).collect();
        violations.push(format!("{I3}: of approvers there are {differing:?}, not {missing:?}"));
    }
    let mut told: BTreeMap<&str, &[_]> = BTreeMap::new();
    for (at, change) in feed.iter().enumerate() {
        let sequence = change.metadata.as_ref().map(|metadata| metadata.sequence);
        if sequence != i64::try_from(at + 1).ok() {
            violations.push(format!("{I4}: change {} of approvers is {sequence:?}", at + 1));
            return;
        }
        let before = told.insert(&change.user_id, &change.after).unwrap_or_default();
        if before != change.before {
            violations.push(format!(
                "{I4}: before approver change {} was {before:?}, not {:?}",
                at + 1,
                change.before
            ));
        }
    }
    for user in last {
        let after = told.get(user.user_id.as_str()).copied().unwrap_or_default();
        if after != user.approvers {
            violations
                .push(format!("{I4}: the feed of approvers ends with {after:?}, not {user:?}"));
        }
    }
}
