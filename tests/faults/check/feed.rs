//! What readers saw of a feed while they were cut off and resumed.

use muster_proto::feed::v1::ChangeMetadata;

use super::I4;
use crate::faults::watchers::Watcher;

/// Checks what one reader saw against the feed of its organisation.
pub(crate) fn check(
    watcher: &Watcher,
    organisation: &str,
    feed: &[ChangeMetadata],
    violations: &mut Vec<String>,
) {
    let name = watcher.feed;
    let mut seen = vec![false; feed.len()];
    for sighting in &watcher.sightings {
        if sighting.refused {
            let after = sighting.after;
            violations.push(format!("{I4}: Resumable: the token of {name} {after} was refused"));
        }
        let mut next = sighting.after + 1;
        for change in &sighting.changes {
            if change.organisation_id != organisation {
                violations
                    .push(format!("{I4}: Isolated: {name} told {organisation} of {change:?}"));
            }
            if change.sequence != next {
                let what = if change.sequence > next { "Gapless" } else { "Ordered" };
                let is = change.sequence;
                violations.push(format!("{I4}: {what}: {name} went to {is}, not to {next}"));
            }
            next = change.sequence + 1;
            let at = usize::try_from(change.sequence - 1).ok();
            match at.and_then(|at| feed.get(at).zip(seen.get_mut(at))) {
                Some((kept, seen)) if kept.change_id == change.change_id => *seen = true,
                kept => violations.push(format!(
                    "{I4}: Durable: {name} told of {change:?}; now there is {:?}",
                    kept.map(|(kept, _)| kept)
                )),
            }
        }
    }
    if let Some(at) = seen.iter().position(|seen| !seen) {
        violations.push(format!("{I4}: Reliable: a reader of {name} never saw change {}", at + 1));
    }
}
