//! What a request asks for, by its method, path and query.

use http::Method;
use muster_proto::identity::v1::{ProvisioningAction as Action, ProvisioningSubject as Subject};

/// A list of no more than this is a test of the connection: Okta asks for one or two.
const TEST: u64 = 2;

/// What a request asks for, and of whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Asked<'a> {
    pub action: Action,
    pub subject: Subject,
    pub subject_id: Option<&'a str>,
}

/// `target` is the path below the base URL with the query; `to_the_end` says whether the answer is
/// the last page of a list.
pub(super) fn asked<'a>(method: &Method, target: &'a str, to_the_end: bool) -> Asked<'a> {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut segments = path.trim_matches('/').splitn(2, '/');
    let (kind, id) = (segments.next().unwrap_or_default(), segments.next());
    let of = |action, subject| Asked { action, subject, subject_id: id };
    let many = |action| Asked { action, subject: Subject::Unspecified, subject_id: None };
    match (kind, id, method.as_str()) {
        ("Users", Some(".search"), _) | (".search", ..) => many(Action::FindUsers),
        ("Groups", Some(".search"), _) => many(Action::FindGroups),
        ("Users", None, "GET") => many(list(query, to_the_end, USERS)),
        ("Groups", None, "GET") => many(list(query, to_the_end, GROUPS)),
        ("Users", None, "POST") => of(Action::CreateUser, Subject::User),
        ("Users", Some(_), "GET") => of(Action::GetUser, Subject::User),
        ("Users", Some(_), "PUT") => of(Action::ReplaceUser, Subject::User),
        ("Users", Some(_), "PATCH") => of(Action::PatchUser, Subject::User),
        ("Users", Some(_), "DELETE") => of(Action::DeleteUser, Subject::User),
        ("Groups", None, "POST") => of(Action::CreateGroup, Subject::Group),
        ("Groups", Some(_), "GET") => of(Action::GetGroup, Subject::Group),
        ("Groups", Some(_), "PUT") => of(Action::ReplaceGroup, Subject::Group),
        ("Groups", Some(_), "PATCH") => of(Action::PatchGroup, Subject::Group),
        ("Groups", Some(_), "DELETE") => of(Action::DeleteGroup, Subject::Group),
        ("Bulk", ..) => many(Action::Bulk),
        ("ServiceProviderConfig" | "ResourceTypes" | "Schemas", ..) => many(Action::Discover),
        _ => many(Action::Unspecified),
    }
}

/// What a list is of: some, all up to the end, and those that a filter matches.
type Lists = (Action, Action, Action);
const USERS: Lists = (Action::ListUsers, Action::ImportUsers, Action::FindUsers);
const GROUPS: Lists = (Action::ListGroups, Action::ListGroups, Action::FindGroups);

fn list(query: &str, to_the_end: bool, (some, all, matched): Lists) -> Action {
    let parameter = |name: &str| {
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.into_iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    };
    if parameter("filter").is_some_and(|filter| !filter.is_empty()) {
        return matched;
    }
    let count: Option<u64> = parameter("count").and_then(|count| count.parse().ok());
    match count {
        Some(count) if count <= TEST => Action::Test,
        _ if to_the_end => all,
        _ => some,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_okta_sends_is_told_apart() {
        for (method, target, to_the_end, action, subject, id) in [
            ("GET", "/Users?startIndex=1&count=2", true, Action::Test, 0, None),
            ("GET", "/Groups?startIndex=1&count=1", true, Action::Test, 0, None),
            (
                "GET",
                "/Users?filter=userName%20eq%20%22a%22&count=1",
                true,
                Action::FindUsers,
                0,
                None,
            ),
            ("GET", "/Users?startIndex=1&count=100", false, Action::ListUsers, 0, None),
            ("GET", "/Users?startIndex=101&count=100", true, Action::ImportUsers, 0, None),
            ("GET", "/Users", true, Action::ImportUsers, 0, None),
            ("POST", "/Users", false, Action::CreateUser, 1, None),
            ("PUT", "/Users/x", false, Action::ReplaceUser, 1, Some("x")),
            ("PATCH", "/Groups/x?a=b", false, Action::PatchGroup, 2, Some("x")),
            ("DELETE", "/Groups/x", false, Action::DeleteGroup, 2, Some("x")),
            ("POST", "/Users/.search", false, Action::FindUsers, 0, None),
            ("POST", "/Bulk", false, Action::Bulk, 0, None),
            ("GET", "/Schemas/x", false, Action::Discover, 0, None),
            ("GET", "/nothing/of/it", false, Action::Unspecified, 0, None),
            ("GET", "", false, Action::Unspecified, 0, None),
        ] {
            let asked = asked(&method.parse().unwrap(), target, to_the_end);
            let subject = Subject::try_from(subject).unwrap();
            assert_eq!(asked, Asked { action, subject, subject_id: id }, "{method} {target}");
        }
    }
}
