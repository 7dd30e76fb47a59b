//! A resource as it is answered.

use muster_scim::Object;
use muster_scim::projection::Projection;
use muster_scim::schema::USER_TYPE;
use serde::ser::{SerializeMap as _, SerializeSeq as _};
use serde::{Serialize, Serializer};

use super::user_json::ShownUser;

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
