//! Groups and their members.

use serde_json::{Map, Value, json};

use super::edit::GroupEdit;
use super::key::same;
use super::user::{expect, put};
use super::{Expected, Model, Refusal};

const CORE: &str = "urn:ietf:params:scim:schemas:core:2.0:Group";

/// A group of the organisation.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Group {
    pub(crate) id: String,
    pub(crate) revision: i64,
    pub(crate) name: String,
    pub(crate) external_id: Option<String>,
    /// In no order that matters.
    pub(crate) members: Vec<String>,
}

impl Model {
    pub(crate) fn group(&self, id: &str) -> Option<&Group> {
        self.groups.iter().find(|group| group.id == id)
    }

    pub(super) fn create_group(
        &mut self,
        name: &str,
        external_id: Option<&str>,
        members: &[String],
        id: &str,
    ) -> Result<Expected, Refusal> {
        if self.groups.iter().any(|group| same(&group.name, name)) {
            return Err(Refusal::taken("displayName"));
        }
        let group = Group {
            id: id.to_owned(),
            revision: 1,
            name: name.to_owned(),
            external_id: external_id.map(str::to_owned),
            members: self.known_members(members, &[])?,
        };
        self.groups.push(group);
        Ok(Expected::of(201, self.group_json(id), true))
    }

    pub(super) fn put_group(
        &mut self,
        id: &str,
        edits: &[GroupEdit],
        version: Option<i64>,
    ) -> Result<Expected, Refusal> {
        let changed = self.edit_group(id, edits, version)?;
        Ok(Expected::of(200, self.group_json(id), changed))
    }

    pub(super) fn patch_group(
        &mut self,
        id: &str,
        edits: &[GroupEdit],
        version: Option<i64>,
    ) -> Result<Expected, Refusal> {
        let changed = self.edit_group(id, edits, version)?;
        Ok(Expected::of(204, None, changed))
    }

    fn edit_group(
        &mut self,
        id: &str,
        edits: &[GroupEdit],
        version: Option<i64>,
    ) -> Result<bool, Refusal> {
        // What cannot be read is refused before anything is looked up.
        if let Some(refusal) = edits.iter().find_map(GroupEdit::refusal) {
            return Err(refusal);
        }
        let at = self.groups.iter().position(|group| group.id == id).ok_or(Refusal::NOT_FOUND)?;
        let old = self.groups[at].clone();
        expect(old.revision, version)?;
        let mut new = old.clone();
        for edit in edits {
            edit.apply(&mut new);
        }
        new.members = self.known_members(&new.members, &old.members)?;
        if self.groups.iter().any(|other| other.id != id && same(&other.name, &new.name)) {
            return Err(Refusal::taken("displayName"));
        }
        let mut before = old.members.clone();
        before.sort();
        let same_members = new.members == before;
        let changed =
            !same_members || (&new.name, &new.external_id) != (&old.name, &old.external_id);
        if changed {
            new.revision += 1;
            self.groups[at] = new;
        }
        Ok(changed)
    }

    pub(super) fn delete_group(
        &mut self,
        id: &str,
        version: Option<i64>,
    ) -> Result<Expected, Refusal> {
        expect(self.group(id).ok_or(Refusal::NOT_FOUND)?.revision, version)?;
        self.groups.retain(|group| group.id != id);
        Ok(Expected::of(204, None, true))
    }

    pub(super) fn get_group(&self, id: &str) -> Result<Expected, Refusal> {
        let body = self.group_json(id).ok_or(Refusal::NOT_FOUND)?;
        Ok(Expected::of(200, Some(body), false))
    }

    /// Those who are users, once each and sorted; the unknown are left out, or refused.
    fn known_members(&self, ids: &[String], already: &[String]) -> Result<Vec<String>, Refusal> {
        let mut known: Vec<String> = Vec::new();
        for id in ids {
            if already.contains(id) || self.user(id).is_some() {
                known.push(id.clone());
            } else if self.refuses_unknown_members {
                return Err(Refusal::invalid_value("members"));
            }
        }
        known.sort();
        known.dedup();
        Ok(known)
    }

    /// A user's `groups`.
    pub(super) fn groups_of(&self, user: &str) -> Vec<Value> {
        let is_in = |group: &&Group| group.members.iter().any(|member| member == user);
        let mut groups: Vec<&Group> = self.groups.iter().filter(is_in).collect();
        groups.sort_by(|a, b| a.id.cmp(&b.id));
        let value = |group: &Group| {
            json!({
                "value": group.id,
                "$ref": format!("{}/Groups/{}", self.base_url, group.id),
                "display": group.name,
                "type": "direct",
            })
        };
        groups.into_iter().map(value).collect()
    }

    /// The group as SCIM answers it, but for the times.
    pub(crate) fn group_json(&self, id: &str) -> Option<Value> {
        let group = self.group(id)?;
        let mut body = Map::new();
        put(&mut body, "id", Some(id));
        put(&mut body, "displayName", Some(group.name.clone()));
        put(&mut body, "externalId", group.external_id.clone());
        let mut members = group.members.clone();
        members.sort();
        if !members.is_empty() {
            let member = |id: String| json!({"value": id, "$ref": format!("{}/Users/{id}", self.base_url), "type": "User"});
            body.insert("members".into(), members.into_iter().map(member).collect());
        }
        body.insert("schemas".into(), json!([CORE]));
        body.insert("meta".into(), self.meta("Group", id, group.revision));
        Some(body.into())
    }
}
