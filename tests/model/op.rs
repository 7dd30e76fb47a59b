//! Operations, and the requests that they are sent as, in the forms that clients use.

use muster::scim_client::Method;
use serde_json::{Map, Value, json};

use super::edit::{GroupEdit, UserEdit, Wrong};
use super::list::Query;
use super::user::{ENTERPRISE, MUSTER, put};
use super::{Doc, Email};

/// What a client asks for. `form` chooses between the ways to say the same.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Op {
    CreateUser {
        doc: Doc,
        form: usize,
    },
    PutUser {
        id: String,
        doc: Doc,
        version: Option<i64>,
        form: usize,
    },
    PatchUser {
        id: String,
        edits: Vec<UserEdit>,
        version: Option<i64>,
        form: usize,
    },
    DeleteUser {
        id: String,
        version: Option<i64>,
    },
    GetUser {
        id: String,
    },
    CreateGroup {
        name: String,
        external_id: Option<String>,
        members: Vec<String>,
    },
    PutGroup {
        id: String,
        name: String,
        external_id: Option<String>,
        members: Vec<String>,
        version: Option<i64>,
    },
    PatchGroup {
        id: String,
        edits: Vec<GroupEdit>,
        version: Option<i64>,
        form: usize,
    },
    DeleteGroup {
        id: String,
        version: Option<i64>,
    },
    GetGroup {
        id: String,
    },
    List(Query),
}

/// An operation as HTTP has it.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) body: Option<Value>,
    pub(crate) if_match: Option<String>,
}

impl std::fmt::Display for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.method, self.path)?;
        if let Some(tag) = &self.if_match {
            write!(f, " If-Match: {tag}")?;
        }
        self.body.as_ref().map_or(Ok(()), |body| write!(f, " {body}"))
    }
}

impl Op {
    pub(crate) fn request(&self) -> Request {
        let (method, path, body, version) = match self {
            Self::CreateUser { doc, form } => {
                (Method::POST, "/Users".into(), Some(doc.to_body(*form)), None)
            }
            Self::PutUser { id, doc, version, form } => {
                (Method::PUT, format!("/Users/{id}"), Some(doc.to_body(*form)), *version)
            }
            Self::PatchUser { id, edits, version, form } => {
                let operations = edits.iter().map(|edit| edit.to_json(*form));
                (Method::PATCH, format!("/Users/{id}"), Some(patch(operations, *form)), *version)
            }
            Self::DeleteUser { id, version } => {
                (Method::DELETE, format!("/Users/{id}"), None, *version)
            }
            Self::GetUser { id } => (Method::GET, format!("/Users/{id}"), None, None),
            Self::CreateGroup { name, external_id, members } => {
                let body = group_body(name, external_id.as_deref(), members);
                (Method::POST, "/Groups".into(), Some(body), None)
            }
            Self::PutGroup { id, name, external_id, members, version } => {
                let body = group_body(name, external_id.as_deref(), members);
                (Method::PUT, format!("/Groups/{id}"), Some(body), *version)
            }
            Self::PatchGroup { id, edits, version, form } => {
                let operations = edits.iter().map(|edit| edit.to_json(id, *form));
                (Method::PATCH, format!("/Groups/{id}"), Some(patch(operations, *form)), *version)
            }
            Self::DeleteGroup { id, version } => {
                (Method::DELETE, format!("/Groups/{id}"), None, *version)
            }
            Self::GetGroup { id } => (Method::GET, format!("/Groups/{id}"), None, None),
            Self::List(query) => (Method::GET, query.path(), None, None),
        };
        let if_match = version.map(|version| format!("W/\"{version}\""));
        Request { method, path, body, if_match }
    }

    /// The id of the user or group that it is about; none where it makes one.
    pub(crate) fn subject(&self) -> Option<&str> {
        match self {
            Self::PutUser { id, .. }
            | Self::PatchUser { id, .. }
            | Self::DeleteUser { id, .. }
            | Self::GetUser { id }
            | Self::PutGroup { id, .. }
            | Self::PatchGroup { id, .. }
            | Self::DeleteGroup { id, .. }
            | Self::GetGroup { id } => Some(id),
            Self::CreateUser { .. } | Self::CreateGroup { .. } | Self::List(_) => None,
        }
    }

    /// Whether it asks for a change.
    pub(crate) fn is_write(&self) -> bool {
        !matches!(self, Self::GetUser { .. } | Self::GetGroup { .. } | Self::List(_))
    }

    /// Whether it is about groups.
    pub(crate) fn is_of_groups(&self) -> bool {
        !self.is_of_users() && !matches!(self, Self::List(_))
    }

    /// Whether it is about users.
    pub(crate) fn is_of_users(&self) -> bool {
        matches!(
            self,
            Self::CreateUser { .. }
                | Self::PutUser { .. }
                | Self::PatchUser { .. }
                | Self::DeleteUser { .. }
                | Self::GetUser { .. }
        )
    }
}

fn patch(operations: impl Iterator<Item = Value>, form: usize) -> Value {
    let mut operations: Vec<Value> = operations.collect();
    if form % 2 == 1 {
        // Entra ID's spelling.
        for operation in &mut operations {
            let name = operation["op"].as_str().unwrap_or_default();
            let capital = name[..1].to_uppercase() + &name[1..];
            operation["op"] = capital.into();
        }
    }
    json!({"schemas": ["urn:ietf:params:scim:api:messages:2.0:PatchOp"], "Operations": operations})
}

fn group_body(name: &str, external_id: Option<&str>, members: &[String]) -> Value {
    let mut body = Map::new();
    put(&mut body, "displayName", Some(name));
    put(&mut body, "externalId", external_id);
    body.insert("members".into(), member_list(members));
    body.into()
}

fn member_list(ids: &[String]) -> Value {
    ids.iter().map(|id| json!({"value": id, "display": "somebody"})).collect()
}

impl Doc {
    /// The body of a POST or PUT.
    pub(crate) fn to_body(&self, form: usize) -> Value {
        let mut body = Map::new();
        put(&mut body, "userName", self.user_name.clone());
        if let Some(active) = self.active {
            body.insert("active".into(), boolean(active, form));
        }
        for name in ["externalId", "displayName", "title", "locale"] {
            put(&mut body, name, self.text(name));
        }
        let name =
            json!({"givenName": self.text("givenName"), "familyName": self.text("familyName")});
        body.insert("name".into(), name);
        body.insert("emails".into(), self.emails.iter().map(Email::to_json).collect());
        body.insert(ENTERPRISE.into(), json!({"department": self.text("department")}));
        let mut muster = Map::new();
        put(&mut muster, "contentRegion", self.country.clone());
        put(&mut muster, "customField1", self.text("customField1"));
        muster.insert("approvers".into(), addresses(&self.approvers, form));
        body.insert(MUSTER.into(), muster.into());
        if form % 3 == 1 {
            // What Okta sends and nobody keeps.
            body.insert("password".into(), "s3cret".into());
            body.insert("groups".into(), json!([]));
            body.insert("id".into(), "ignored".into());
            body.insert("favouriteColour".into(), "blue".into());
        }
        body.into()
    }
}

fn boolean(value: bool, form: usize) -> Value {
    match form % 3 {
        0 => value.into(),
        1 => if value { "True" } else { "False" }.into(),
        _ => if value { "true" } else { "false" }.into(),
    }
}

fn addresses(emails: &[String], form: usize) -> Value {
    if form % 3 == 2 { emails.join(", ").into() } else { json!(emails) }
}

/// Sets an attribute: with a path, or as a value without one.
fn set(path: &str, value: Value, form: usize) -> Value {
    match form % 4 {
        0 => json!({"op": "replace", "path": path, "value": value}),
        1 => json!({"op": "add", "path": path, "value": value}),
        2 => json!({"op": "replace", "value": {path: value}}),
        _ => json!({"op": "add", "value": {path: value}}),
    }
}

fn path_of(name: &str) -> String {
    match name {
        "givenName" | "familyName" => format!("name.{name}"),
        "department" => format!("{ENTERPRISE}:{name}"),
        "customField1" => format!("{MUSTER}:{name}"),
        name => name.to_owned(),
    }
}

impl UserEdit {
    fn to_json(&self, form: usize) -> Value {
        let approvers = format!("{MUSTER}:approvers");
        match self {
            Self::UserName(name) => set("userName", json!(name), form),
            Self::Active(active) => set("active", boolean(*active, form), form),
            Self::RemoveActive => json!({"op": "remove", "path": "active"}),
            Self::Text(name @ ("customField1" | "department"), value) if form % 5 == 4 => {
                let urn = if *name == "department" { ENTERPRISE } else { MUSTER };
                json!({"op": "replace", "value": {urn: {*name: value}}})
            }
            Self::Text(name, value) => set(&path_of(name), json!(value), form),
            Self::RemoveText(name) => json!({"op": "remove", "path": path_of(name)}),
            Self::Country(code) => set(&format!("{MUSTER}:contentRegion"), json!(code), form),
            Self::RemoveCountry => {
                json!({"op": "remove", "path": format!("{MUSTER}:contentRegion")})
            }
            Self::Emails(emails) => {
                let emails: Value = emails.iter().map(Email::to_json).collect();
                let op = json!({"op": "replace", "path": "emails", "value": emails});
                if form % 4 < 2 {
                    op
                } else {
                    json!({"op": "replace", "value": {"emails": op["value"]}})
                }
            }
            Self::AddEmail(email) => {
                json!({"op": "add", "path": "emails", "value": [email.to_json()]})
            }
            Self::EmailOfType(kind, value) => {
                let op = if form.is_multiple_of(2) { "replace" } else { "add" };
                json!({"op": op, "path": format!("emails[type eq \"{kind}\"].value"), "value": value})
            }
            Self::PrimaryEmail(value) => {
                json!({"op": "replace", "path": "emails[primary eq true].value", "value": value})
            }
            Self::RemoveEmails(kind) => {
                json!({"op": "remove", "path": format!("emails[type eq \"{kind}\"]")})
            }
            Self::Approvers(emails) => {
                let op =
                    json!({"op": "replace", "path": approvers, "value": addresses(emails, form)});
                if form % 4 < 2 {
                    op
                } else {
                    json!({"op": "replace", "value": {MUSTER: {"approvers": op["value"]}}})
                }
            }
            Self::AddApprovers(emails) => {
                json!({"op": "add", "path": approvers, "value": addresses(emails, form)})
            }
            Self::RemoveApprovers(emails) if emails.len() == 1 && form.is_multiple_of(2) => {
                let path = format!("{approvers}[value eq {}]", json!(emails[0]));
                json!({"op": "remove", "path": path})
            }
            Self::RemoveApprovers(emails) => {
                json!({"op": "remove", "path": approvers, "value": emails})
            }
            Self::RemoveAllApprovers => json!({"op": "remove", "path": approvers}),
            Self::Wrong(wrong) => match wrong {
                Wrong::ReadOnly => json!({"op": "replace", "path": "id", "value": "x"}),
                Wrong::UnknownPath => json!({"op": "replace", "path": "colour", "value": "x"}),
                Wrong::NoTarget => json!({"op": "remove"}),
                Wrong::RemoveUserName => json!({"op": "remove", "path": "userName"}),
                Wrong::Type => json!({"op": "replace", "path": "title", "value": 7}),
            },
        }
    }
}

impl GroupEdit {
    fn to_json(&self, group: &str, form: usize) -> Value {
        match self {
            // Okta names the group in the value as well.
            Self::Rename(name) if form % 4 == 2 => {
                json!({"op": "replace", "value": {"id": group, "displayName": name}})
            }
            Self::Rename(name) => set("displayName", json!(name), form),
            Self::ExternalId(Some(id)) => set("externalId", json!(id), form),
            Self::ExternalId(None) => json!({"op": "remove", "path": "externalId"}),
            Self::AddMembers(ids) => {
                json!({"op": "add", "path": "members", "value": member_list(ids)})
            }
            Self::RemoveMembers(ids) => {
                json!({"op": "remove", "path": "members", "value": member_list(ids)})
            }
            Self::RemoveMember(id) => {
                json!({"op": "remove", "path": format!("members[value eq \"{id}\"]")})
            }
            Self::ReplaceMembers(ids) if form % 4 < 2 => {
                json!({"op": "replace", "path": "members", "value": member_list(ids)})
            }
            Self::ReplaceMembers(ids) => {
                json!({"op": "replace", "value": {"members": member_list(ids)}})
            }
            Self::RemoveAllMembers => json!({"op": "remove", "path": "members"}),
            Self::Nested(id) => {
                json!({"op": "add", "path": "members", "value": [{"value": id, "type": "Group"}]})
            }
            Self::RemoveName => json!({"op": "remove", "path": "displayName"}),
        }
    }
}
