//! Users: what a client says of one, the rules that are applied to it, and what is answered.

use serde_json::{Map, Value, json};

use super::approver::Declared;
use super::key::{key, same};
use super::{Expected, Model, Refusal, UserEdit, edit};

pub(crate) const CORE: &str = "urn:ietf:params:scim:schemas:core:2.0:User";
pub(crate) const ENTERPRISE: &str = "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User";
pub(crate) const MUSTER: &str = "urn:learnerbly:params:scim:schemas:2.0:User";

/// The attributes that are one text each, by name.
pub(crate) const TEXTS: [&str; 8] = [
    "externalId",
    "displayName",
    "title",
    "locale",
    "givenName",
    "familyName",
    "department",
    "customField1",
];

/// What a client says of a user.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Doc {
    pub(crate) user_name: Option<String>,
    pub(crate) active: Option<bool>,
    /// One for each of [`TEXTS`].
    pub(crate) texts: [Option<String>; 8],
    pub(crate) emails: Vec<Email>,
    pub(crate) country: Option<String>,
    /// The declared approvers.
    pub(crate) approvers: Vec<String>,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Email {
    pub(crate) value: Option<String>,
    pub(crate) kind: Option<String>,
    pub(crate) primary: Option<bool>,
}

/// A user of the organisation.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct User {
    pub(crate) id: String,
    pub(crate) revision: i64,
    pub(crate) doc: Doc,
    /// What has come of the declared approvers, in the same order.
    pub(crate) declared: Vec<Declared>,
}

/// What fills in what a client leaves out.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Defaults {
    /// A POST: all of them.
    Create,
    /// A PUT: all but `active`, which stays as it was.
    Replace(Option<bool>),
    /// A PATCH: none.
    None,
}

impl Doc {
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.texts[edit::index_of(name)].as_deref()
    }

    pub(crate) fn external_id(&self) -> Option<&str> {
        self.text("externalId")
    }

    pub(crate) fn is_active(&self) -> bool {
        self.active == Some(true)
    }

    /// The address to match and approve by: the primary one, else the work one, else the first.
    pub(crate) fn primary_email(&self) -> Option<&str> {
        let work = |email: &&Email| email.kind.as_deref().is_some_and(|kind| same(kind, "work"));
        let found = self.emails.iter().find(|email| email.primary == Some(true));
        let found = found.or_else(|| self.emails.iter().find(work));
        found.or_else(|| self.emails.first())?.value.as_deref()
    }

    /// Applies the rules of every write.
    fn prepare(mut self, defaults: Defaults) -> Result<Self, Refusal> {
        self.emails.retain(|email| email.value.as_deref().is_some_and(|v| !v.trim().is_empty()));
        if self.user_name.as_deref().is_none_or(|name| name.trim().is_empty()) {
            self.user_name = self.primary_email().map(str::to_owned);
        }
        if self.user_name.is_none() {
            return Err(Refusal::invalid_value("userName"));
        }
        if let Some(code) = &mut self.country {
            if code.len() != 2 || !code.bytes().all(|byte| byte.is_ascii_alphabetic()) {
                return Err(Refusal::invalid_value("contentRegion"));
            }
            code.make_ascii_uppercase();
        }
        if defaults != Defaults::None {
            self.country.get_or_insert_with(|| "QQ".into());
            self.texts[edit::index_of("locale")].get_or_insert_with(|| "en-GB".into());
        }
        self.active = match (defaults, self.active) {
            (Defaults::Create, None) => Some(true),
            (Defaults::Replace(before), None) => before,
            (_, sent) => sent,
        };
        let mut known: Vec<String> = Vec::new();
        self.approvers.retain(|email| {
            let new = !email.trim().is_empty() && !known.contains(&key(email));
            known.push(key(email));
            new
        });
        Ok(self)
    }

    fn content_region(&self) -> Option<&'static str> {
        Some(match self.country.as_deref()? {
            "GB" => "GB",
            "ES" | "IT" | "MT" => "ES",
            "DE" | "BE" | "CH" | "DK" | "RO" | "SI" => "DE",
            "US" | "CA" => "US",
            "SE" | "NO" => "SE",
            _ => "QQ",
        })
    }
}

impl Email {
    pub(crate) fn to_json(&self) -> Value {
        let mut parts = Map::new();
        put(&mut parts, "value", self.value.clone());
        put(&mut parts, "type", self.kind.clone());
        put(&mut parts, "primary", self.primary);
        parts.into()
    }
}

impl Model {
    pub(crate) fn user(&self, id: &str) -> Option<&User> {
        self.users.iter().find(|user| user.id == id)
    }

    pub(super) fn create_user(&mut self, doc: &Doc, id: &str) -> Result<Expected, Refusal> {
        let doc = doc.clone().prepare(Defaults::Create)?;
        let name = doc.user_name.clone().unwrap_or_default();
        let holder = self
            .users
            .iter()
            .position(|user| user.doc.user_name.as_deref().is_some_and(|other| same(other, &name)));
        if let Some(at) = holder {
            let old = &self.users[at].doc;
            let namesake =
                matches!((old.external_id(), doc.external_id()), (Some(a), Some(b)) if a != b);
            if old.is_active() || namesake {
                return Err(Refusal::taken("userName"));
            }
            let id = self.users[at].id.clone();
            let changed = self.replace_user(&id, doc)?;
            return Ok(Expected::of(201, self.user_json(&id), changed));
        }
        self.check_unique(&doc, None)?;
        let user = User { id: id.to_owned(), revision: 1, doc, declared: Vec::new() };
        self.users.push(user);
        self.relink(id);
        Ok(Expected::of(201, self.user_json(id), true))
    }

    pub(super) fn put_user(
        &mut self,
        id: &str,
        doc: &Doc,
        version: Option<i64>,
    ) -> Result<Expected, Refusal> {
        let old = self.user(id).ok_or(Refusal::NOT_FOUND)?;
        expect(old.revision, version)?;
        let doc = doc.clone().prepare(Defaults::Replace(old.doc.active))?;
        let changed = self.replace_user(id, doc)?;
        Ok(Expected::of(200, self.user_json(id), changed))
    }

    pub(super) fn patch_user(
        &mut self,
        id: &str,
        edits: &[UserEdit],
        version: Option<i64>,
    ) -> Result<Expected, Refusal> {
        let shown = self.user(id).map(|user| self.shown_approvers(user)).unwrap_or_default();
        self.patch_user_as_shown(id, edits, version, &shown)
    }

    /// The same where the client, and so the program, sees other approvers.
    pub(super) fn patch_user_as_shown(
        &mut self,
        id: &str,
        edits: &[UserEdit],
        version: Option<i64>,
        shown: &[(String, String)],
    ) -> Result<Expected, Refusal> {
        let old = self.user(id).ok_or(Refusal::NOT_FOUND)?;
        expect(old.revision, version)?;
        let mut doc = old.doc.clone();
        edit::apply(&mut doc, shown, edits)?;
        let doc = doc.prepare(Defaults::None)?;
        let changed = self.replace_user(id, doc)?;
        Ok(Expected::of(200, self.user_json(id), changed))
    }

    pub(super) fn delete_user(
        &mut self,
        id: &str,
        version: Option<i64>,
    ) -> Result<Expected, Refusal> {
        expect(self.user(id).ok_or(Refusal::NOT_FOUND)?.revision, version)?;
        self.remove_user(id);
        for group in &mut self.groups {
            if group.members.iter().any(|member| member == id) {
                group.members.retain(|member| member != id);
                group.revision += 1;
            }
        }
        Ok(Expected::of(204, None, true))
    }

    /// Removes a user as identity and approver do; their memberships are the group service's.
    pub(super) fn remove_user(&mut self, id: &str) {
        self.users.retain(|user| user.id != id);
        self.unlink(id);
    }

    pub(super) fn get_user(&self, id: &str) -> Result<Expected, Refusal> {
        let body = self.user_json(id).ok_or(Refusal::NOT_FOUND)?;
        Ok(Expected::of(200, Some(body), false))
    }

    /// Writes a user who may have stayed the same; whether they did not.
    fn replace_user(&mut self, id: &str, doc: Doc) -> Result<bool, Refusal> {
        let at = self.users.iter().position(|user| user.id == id).ok_or(Refusal::NOT_FOUND)?;
        if self.users[at].doc == doc {
            return Ok(false);
        }
        self.check_unique(&doc, Some(id))?;
        self.users[at].doc = doc;
        self.users[at].revision += 1;
        self.relink(id);
        Ok(true)
    }

    fn check_unique(&self, doc: &Doc, own: Option<&str>) -> Result<(), Refusal> {
        let clash =
            |a: Option<&str>, b: Option<&str>| matches!((a, b), (Some(a), Some(b)) if same(a, b));
        let others = || self.users.iter().filter(|user| Some(user.id.as_str()) != own);
        if others().any(|u| clash(u.doc.user_name.as_deref(), doc.user_name.as_deref())) {
            return Err(Refusal::taken("userName"));
        }
        if others().any(|user| clash(user.doc.primary_email(), doc.primary_email())) {
            return Err(Refusal::taken("emails.value"));
        }
        Ok(())
    }

    /// The user as SCIM answers them, but for the times.
    pub(crate) fn user_json(&self, id: &str) -> Option<Value> {
        let user = self.user(id)?;
        let doc = &user.doc;
        let mut body = Map::new();
        put(&mut body, "id", Some(id));
        put(&mut body, "userName", doc.user_name.clone());
        put(&mut body, "active", doc.active);
        for name in ["externalId", "displayName", "title", "locale"] {
            put(&mut body, name, doc.text(name));
        }
        let mut name = Map::new();
        put(&mut name, "givenName", doc.text("givenName"));
        put(&mut name, "familyName", doc.text("familyName"));
        put_all(&mut body, "name", name);
        if !doc.emails.is_empty() {
            body.insert("emails".into(), doc.emails.iter().map(Email::to_json).collect());
        }
        let mut enterprise = Map::new();
        put(&mut enterprise, "department", doc.text("department"));
        put_all(&mut body, ENTERPRISE, enterprise);
        let mut muster = Map::new();
        let approvers = self.approvers_in_force(user);
        put(&mut muster, "approvers", (!approvers.is_empty()).then_some(approvers));
        put(&mut muster, "contentRegion", doc.content_region());
        put(&mut muster, "customField1", doc.text("customField1"));
        put_all(&mut body, MUSTER, muster);
        let groups = self.groups_of(id);
        if !groups.is_empty() {
            body.insert("groups".into(), groups.into());
        }
        let mut schemas = vec![CORE];
        schemas.extend([ENTERPRISE, MUSTER].iter().filter(|urn| body.contains_key(**urn)));
        body.insert("schemas".into(), json!(schemas));
        body.insert("meta".into(), self.meta("User", id, user.revision));
        Some(body.into())
    }

    /// `meta` without its times.
    pub(super) fn meta(&self, resource_type: &str, id: &str, revision: i64) -> Value {
        json!({
            "resourceType": resource_type,
            "location": format!("{}/{resource_type}s/{id}", self.base_url),
            "version": format!("W/\"{revision}\""),
        })
    }
}

pub(super) fn expect(revision: i64, version: Option<i64>) -> Result<(), Refusal> {
    match version {
        Some(version) if version != revision => Err(Refusal::PRECONDITION),
        _ => Ok(()),
    }
}

pub(super) fn put<V: Into<Value>>(object: &mut Map<String, Value>, name: &str, value: Option<V>) {
    if let Some(value) = value {
        object.insert(name.to_owned(), value.into());
    }
}

fn put_all(object: &mut Map<String, Value>, name: &str, parts: Map<String, Value>) {
    if !parts.is_empty() {
        object.insert(name.to_owned(), parts.into());
    }
}
