//! Entries of the provisioning log as people read them.

use std::collections::HashMap;

use muster_proto::identity::v1::{
    ApiKey, ProvisioningAction as Action, ProvisioningLogEntry, ProvisioningOutcome as Outcome,
    ProvisioningSubject as Subject,
};
use percent_encoding::percent_decode_str;

use super::super::moment::{Moment, exact_moment};
use crate::errors;

/// An entry, for a row of the list and for its page.
#[derive(Debug)]
pub(in crate::console) struct Shown {
    pub id: String,
    /// In UTC.
    pub when: Moment,
    pub what: &'static str,
    pub method: String,
    pub path: String,
    /// The name of who or what it was about, or what was looked for; may be empty.
    pub who: String,
    /// The page of who it was about; empty where there is none.
    pub who_page: String,
    pub subject_id: String,
    pub badge: &'static str,
    pub outcome: &'static str,
    pub status: i32,
    pub duration: String,
    pub key: String,
    pub key_id: String,
    pub scim_type: String,
    pub detail: String,
    /// What to do about it; empty where nothing is to be done.
    pub advice: &'static str,
    /// Where the documentation has more.
    pub advice_page: String,
    pub unknown_ids: Vec<String>,
    pub unknown_count: i32,
    pub trace_id: String,
    pub user_agent: String,
}

/// What keys are called, by id.
pub(in crate::console) fn labels(keys: Vec<ApiKey>) -> HashMap<String, String> {
    keys.into_iter().map(|key| (key.id, key.label)).collect()
}

impl Shown {
    pub(in crate::console) fn of(
        entry: ProvisioningLogEntry,
        keys: &HashMap<String, String>,
    ) -> Self {
        let (action, outcome, subject) = (entry.action(), entry.outcome(), entry.subject());
        let gone = matches!(action, Action::DeleteUser | Action::DeleteGroup)
            && outcome == Outcome::Applied;
        let section = match subject {
            Subject::User => "people",
            Subject::Group => "groups",
            Subject::Unspecified => "",
        };
        let linked = !section.is_empty() && !gone && entry.subject_id.len() == 36;
        let known = (outcome == Outcome::Failed)
            .then(|| errors::find(u16::try_from(entry.status).ok()?, &entry.scim_type))
            .flatten();
        let reads = entry.method == "GET";
        Self {
            when: exact_moment(entry.request_time.as_ref()).unwrap_or_default(),
            what: what(action),
            who: who(&entry),
            who_page: if linked {
                format!("/admin/{section}/{}", entry.subject_id)
            } else {
                String::new()
            },
            badge: match outcome {
                Outcome::Failed => "bad",
                Outcome::AppliedInPart => "wait",
                _ if reads => "info",
                _ => "good",
            },
            outcome: match outcome {
                Outcome::Failed => "Failed",
                Outcome::AppliedInPart => "Applied in part",
                _ if reads => "Answered",
                _ => "Applied",
            },
            duration: duration(entry.duration.unwrap_or_default()),
            key: keys.get(&entry.api_key_id).cloned().unwrap_or_default(),
            advice: match outcome {
                Outcome::AppliedInPart => IN_PART,
                _ => known.map_or("", |known| known.advice),
            },
            advice_page: known
                .map_or_else(String::new, |known| format!("/docs/errors#{}", known.anchor())),
            id: entry.id,
            method: entry.method,
            path: entry.path,
            subject_id: entry.subject_id,
            status: entry.status,
            key_id: entry.api_key_id,
            scim_type: entry.scim_type,
            detail: entry.detail,
            unknown_ids: entry.unknown_member_ids,
            unknown_count: entry.unknown_member_count,
            trace_id: entry.trace_id,
            user_agent: entry.user_agent,
        }
    }

    /// How many of the unknown are not named.
    pub(in crate::console) fn unnamed_count(&self) -> i32 {
        self.unknown_count - i32::try_from(self.unknown_ids.len()).unwrap_or(i32::MAX)
    }
}

const IN_PART: &str = "These members are not in Muster, so they were left out; the others were \
    applied. In Okta, assign those people to the app, then push the group again: Push Groups, the \
    group’s Push Status, Push now.";

fn what(action: Action) -> &'static str {
    match action {
        Action::Unspecified => "Something else",
        Action::Test => "Test the connection",
        Action::Discover => "Read the schemas",
        Action::ListUsers => "List people",
        Action::ImportUsers => "List people to the end",
        Action::FindUsers => "Find a person",
        Action::GetUser => "Read a person",
        Action::CreateUser => "Create a person",
        Action::ReplaceUser => "Update a person",
        Action::PatchUser => "Change a person",
        Action::DeleteUser => "Delete a person",
        Action::ListGroups => "List groups",
        Action::FindGroups => "Find a group",
        Action::GetGroup => "Read a group",
        Action::CreateGroup => "Create a group",
        Action::ReplaceGroup => "Update a group",
        Action::PatchGroup => "Change a group",
        Action::DeleteGroup => "Delete a group",
        Action::Bulk => "Many at once",
        Action::RefusedKey => "Refused: the key may not be used",
    }
}

/// The name, else the id, else what was looked for.
fn who(entry: &ProvisioningLogEntry) -> String {
    if !entry.subject_name.is_empty() {
        return entry.subject_name.clone();
    }
    if !entry.subject_id.is_empty() {
        return entry.subject_id.clone();
    }
    let query = entry.path.split_once('?').map_or("", |(_, query)| query);
    let filter = query.split('&').filter_map(|pair| pair.split_once('='));
    let filter = filter.into_iter().find(|(name, _)| name.eq_ignore_ascii_case("filter"));
    filter.map_or_else(String::new, |(_, value)| {
        percent_decode_str(&value.replace('+', " ")).decode_utf8_lossy().into_owned()
    })
}

fn duration(duration: prost_types::Duration) -> String {
    let milliseconds = duration.seconds * 1_000 + i64::from(duration.nanos) / 1_000_000;
    match milliseconds {
        0 => "< 1 ms".to_owned(),
        1..1_000 => format!("{milliseconds} ms"),
        _ => format!("{}.{} s", milliseconds / 1_000, milliseconds % 1_000 / 100),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(entry: ProvisioningLogEntry) -> Shown {
        Shown::of(entry, &HashMap::from([("k".to_owned(), "Okta".to_owned())]))
    }

    #[test]
    fn a_search_shows_what_was_looked_for() {
        let path = "/Users?filter=userName%20eq+%22ann%22&startIndex=1";
        let entry = ProvisioningLogEntry { path: path.into(), ..Default::default() };
        assert_eq!(shown(entry).who, "userName eq \"ann\"");
    }

    #[test]
    fn a_failure_says_what_to_do() {
        let entry = ProvisioningLogEntry {
            outcome: Outcome::Failed.into(),
            status: 409,
            scim_type: "uniqueness".into(),
            api_key_id: "k".into(),
            duration: Some(prost_types::Duration { seconds: 1, nanos: 250_000_000 }),
            ..Default::default()
        };
        let shown = shown(entry);
        assert!(shown.advice.contains("Link Group"), "{}", shown.advice);
        assert_eq!(shown.advice_page, "/docs/errors#409-uniqueness");
        assert_eq!((shown.key.as_str(), shown.duration.as_str()), ("Okta", "1.2 s"));
    }
}
