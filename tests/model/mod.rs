//! What Muster does, once more: a model in memory, written from the product's description and
//! sharing no code with it. Vectors and linear search; whatever the program answers otherwise is a
//! bug in one of the two.

mod approver;
pub(crate) mod bulk;
pub(crate) mod change;
pub(crate) mod edit;
pub(crate) mod generate;
mod group;
pub(crate) mod key;
mod list;
pub(crate) mod op;
pub(crate) mod random;
mod user;

use serde_json::Value;

pub(crate) use approver::State;
pub(crate) use edit::{GroupEdit, UserEdit};
pub(crate) use group::Group;

pub(crate) use op::Op;
pub(crate) use user::{Doc, Email, MUSTER as MUSTER_URN, User};

/// One organisation.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Model {
    /// The SCIM base URL, which references begin with.
    pub(crate) base_url: String,
    /// Whether a member who is no user fails the request instead of being left out.
    pub(crate) refuses_unknown_members: bool,
    /// In order of creation.
    pub(crate) users: Vec<User>,
    /// In order of creation.
    pub(crate) groups: Vec<Group>,
}

/// What an operation must be answered with.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Expected {
    pub(crate) status: u16,
    /// `scimType` of an error.
    pub(crate) scim_type: Option<&'static str>,
    /// What an error's detail must name.
    pub(crate) names: &'static str,
    /// The body, but for its times; none where it does not matter.
    pub(crate) body: Option<Value>,
    /// Whether anything was written.
    pub(crate) changed: bool,
}

/// Why an operation is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refusal {
    status: u16,
    scim_type: Option<&'static str>,
    names: &'static str,
}

impl Refusal {
    const fn new(status: u16, scim_type: Option<&'static str>, names: &'static str) -> Self {
        Self { status, scim_type, names }
    }

    const fn invalid_value(names: &'static str) -> Self {
        Self::new(400, Some("invalidValue"), names)
    }

    const fn taken(names: &'static str) -> Self {
        Self::new(409, Some("uniqueness"), names)
    }

    const NOT_FOUND: Self = Self::new(404, None, "");
    const PRECONDITION: Self = Self::new(412, None, "");
}

impl From<Refusal> for Expected {
    fn from(refusal: Refusal) -> Self {
        let Refusal { status, scim_type, names } = refusal;
        Self { status, scim_type, names, body: None, changed: false }
    }
}

impl Expected {
    fn of(status: u16, body: Option<Value>, changed: bool) -> Self {
        Self { status, scim_type: None, names: "", body, changed }
    }
}

impl Model {
    pub(crate) fn new(base_url: &str, refuses_unknown_members: bool) -> Self {
        Self { base_url: base_url.into(), refuses_unknown_members, ..Self::default() }
    }

    /// Does what the program must do. `created` is the id that the program gave a new resource.
    pub(crate) fn apply(&mut self, op: &Op, created: &str) -> Expected {
        let outcome = match op {
            Op::CreateUser { doc, .. } => self.create_user(doc, created),
            Op::PutUser { id, doc, version, .. } => self.put_user(id, doc, *version),
            Op::PatchUser { id, edits, version, .. } => self.patch_user(id, edits, *version),
            Op::DeleteUser { id, version } => self.delete_user(id, *version),
            Op::GetUser { id } => self.get_user(id),
            Op::CreateGroup { name, external_id, members } => {
                self.create_group(name, external_id.as_deref(), members, created)
            }
            Op::PutGroup { id, name, external_id, members, version } => {
                let edits = [
                    GroupEdit::Rename(name.clone()),
                    GroupEdit::ExternalId(external_id.clone()),
                    GroupEdit::ReplaceMembers(members.clone()),
                ];
                self.put_group(id, &edits, *version)
            }
            Op::PatchGroup { id, edits, version, .. } => self.patch_group(id, edits, *version),
            Op::DeleteGroup { id, version } => self.delete_group(id, *version),
            Op::GetGroup { id } => self.get_group(id),
            Op::List(query) => Ok(self.list(query)),
        };
        outcome.unwrap_or_else(Expected::from)
    }

    /// The same where a PATCH sees other approvers than there are: pairs of the address that each
    /// is shown by and the one that was declared.
    pub(crate) fn apply_as_shown(
        &mut self,
        op: &Op,
        created: &str,
        shown: &[(String, String)],
    ) -> Expected {
        match op {
            Op::PatchUser { id, edits, version, .. } => {
                self.patch_user_as_shown(id, edits, *version, shown).unwrap_or_else(Expected::from)
            }
            _ => self.apply(op, created),
        }
    }

    /// Whether the program may answer so; what differs where it may not.
    pub(crate) fn compare(expected: &Expected, status: u16, body: &Value) -> Result<(), String> {
        if status != expected.status {
            return Err(format!("the status is {status}, not {}", expected.status));
        }
        if status >= 400 {
            let scim_type = body["scimType"].as_str();
            if scim_type != expected.scim_type {
                return Err(format!("scimType is {scim_type:?}, not {:?}", expected.scim_type));
            }
            let detail = body["detail"].as_str().unwrap_or_default();
            if !detail.contains(expected.names) {
                return Err(format!("the detail does not name {:?}: {detail}", expected.names));
            }
        }
        match &expected.body {
            Some(wanted) => same_json("", &without_times(body.clone()), wanted),
            None => Ok(()),
        }
    }
}

/// Whether two values are the same; the first place where they are not.
pub(crate) fn same_json(at: &str, is: &Value, wanted: &Value) -> Result<(), String> {
    match (is, wanted) {
        (Value::Object(a), Value::Object(b)) if a.keys().eq(b.keys()) => a
            .iter()
            .try_for_each(|(name, value)| same_json(&format!("{at}/{name}"), value, &b[name])),
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            let mut pairs = a.iter().zip(b).enumerate();
            pairs.try_for_each(|(n, (a, b))| same_json(&format!("{at}/{n}"), a, b))
        }
        _ if is == wanted => Ok(()),
        _ => Err(format!("{at:?} is\n  {is}\nnot\n  {wanted}")),
    }
}

/// A resource or list without what only the clock knows.
pub(crate) fn without_times(mut body: Value) -> Value {
    if let Some(meta) = body.get_mut("meta").and_then(Value::as_object_mut) {
        meta.remove("created");
        meta.remove("lastModified");
    }
    if let Some(resources) = body.get_mut("Resources").and_then(Value::as_array_mut) {
        for resource in resources {
            *resource = without_times(resource.take());
        }
    }
    body
}
