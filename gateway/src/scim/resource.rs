//! A resource as it is answered.

use axum::response::Response;
use http::{StatusCode, header};
use muster_runtime::clock;
use muster_scim::Object;
use muster_scim::projection::Projection;
use muster_scim::schema::{ResourceType, USER_TYPE};
use prost_types::Timestamp;
use serde::ser::{SerializeMap as _, SerializeSeq as _};
use serde::{Serialize, Serializer};
use time::format_description::well_known::Rfc3339;

use super::user_json::ShownUser;
use super::{json, version};
use crate::Gateway;
use crate::provisioning_log::Called;

/// A user or a group.
#[derive(Debug)]
pub(crate) enum Resource {
    /// A user of whom the client shall see everything: written as they are.
    User(Box<ShownUser>),
    /// What the client shall see of another.
    Part {
        /// But for `members`.
        document: Object,
        members: Option<MemberList>,
    },
}

impl Resource {
    /// What the client shall see of it, but for `members`.
    pub(crate) fn into_document(self) -> Object {
        match self {
            Self::User(user) => user.document(),
            Self::Part { document, .. } => document,
        }
    }
}

/// What an answer says of a resource beside it.
pub(super) struct Beside {
    pub(super) resource_type: &'static ResourceType,
    pub(super) id: String,
    pub(super) revision: i64,
    /// What the log calls it.
    pub(super) name: String,
}

impl Beside {
    pub(super) fn answer(
        self,
        gateway: &Gateway,
        status: StatusCode,
        resource: &Resource,
    ) -> Response {
        let mut response = json(status, resource);
        let headers = response.headers_mut();
        headers.extend(version::header(self.revision).map(|tag| (header::ETAG, tag)));
        if status == StatusCode::CREATED
            && let Ok(location) = location(self.resource_type, &gateway.scim_url, &self.id).parse()
        {
            headers.insert(header::LOCATION, location);
        }
        response.extensions_mut().insert(Called(self.name));
        response
    }
}

fn location(resource_type: &ResourceType, scim_url: &str, id: &str) -> String {
    format!("{scim_url}{}/{id}", resource_type.endpoint)
}

/// A resource's `meta` (RFC 7643 §3.1).
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Meta {
    resource_type: &'static str,
    created: Option<String>,
    last_modified: Option<String>,
    location: String,
    version: String,
}

impl Meta {
    /// Of a resource that was made and last changed then.
    pub(super) fn new(
        resource_type: &'static ResourceType,
        scim_url: &str,
        id: &str,
        (created, last_modified): (Option<Timestamp>, Option<Timestamp>),
        revision: i64,
    ) -> Self {
        Self {
            resource_type: resource_type.name,
            created: date_time(created),
            last_modified: date_time(last_modified),
            location: location(resource_type, scim_url, id),
            version: version::tag(revision),
        }
    }
}

fn date_time(timestamp: Option<Timestamp>) -> Option<String> {
    clock::time_of(timestamp?)?.format(&Rfc3339).ok()
}

/// The members of a group, of whom there may be 100,000: they are written as they are, and never
/// made a document of.
#[derive(Debug)]
pub(crate) struct MemberList {
    ids: Vec<String>,
    /// Which sub-attributes of each.
    parts: Vec<&'static str>,
    scim_url: String,
}

impl MemberList {
    /// What an answer holds of them; none where it holds none.
    pub(crate) fn new(ids: Vec<String>, projection: &Projection, scim_url: &str) -> Option<Self> {
        let parts = projection.sub_attributes("members");
        let shown = !ids.is_empty() && !parts.is_empty();
        shown.then(|| Self { ids, parts, scim_url: scim_url.to_owned() })
    }
}

impl Serialize for Resource {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (document, members) = match self {
            Self::User(user) => return user.serialize(serializer),
            Self::Part { document, members: None } => return document.serialize(serializer),
            Self::Part { document, members: Some(members) } => (document, members),
        };
        let mut map = serializer.serialize_map(Some(document.len() + 1))?;
        for (name, value) in document {
            map.serialize_entry(name, value)?;
        }
        map.serialize_entry("members", members)?;
        map.end()
    }
}

impl Serialize for MemberList {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(Some(self.ids.len()))?;
        for id in &self.ids {
            list.serialize_element(&Member { id, of: self })?;
        }
        list.end()
    }
}

struct Member<'a> {
    id: &'a str,
    of: &'a MemberList,
}

impl Serialize for Member<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { id, of } = self;
        let mut map = serializer.serialize_map(Some(of.parts.len()))?;
        for part in &of.parts {
            match *part {
                "value" => map.serialize_entry(part, id)?,
                "$ref" => {
                    let location = format_args!("{}{}/{id}", of.scim_url, USER_TYPE.endpoint);
                    map.serialize_entry(part, &location)?;
                }
                // "type": the schema has no other.
                _ => map.serialize_entry(part, "User")?,
            }
        }
        map.end()
    }
}
