//! Step 4 of the guide: *Push Groups*.

use std::collections::BTreeSet;

use http::Method;
use serde_json::{Value, json};

use super::{Dialect, Rehearsal, Step};
use crate::scim_client::{eq, query};

/// Two for each of three groups, the group that is there before, adding, removing, the users'
/// `groups`, two for the temporary group, and a last look.
pub(super) const STEPS: usize = 3 * 2 + 7;

const PART: &str = "Step 4: Push Groups";
const GROUP: &str = "urn:ietf:params:scim:schemas:core:2.0:Group";

const ENGINEERING: &str = "Engineering";
const MANAGERS: &str = "People managers";
/// Is there before Okta pushes it.
const LINKED: &str = "Everyone in the United Kingdom";
/// Is pushed and unlinked again.
const TEMPORARY: &str = "Summer offsite";

/// Joins *Engineering* after the first push.
const JOINER: &str = "ioana.popescu@northwind.example";
/// Is pushed with *Engineering* by mistake and taken out.
const MISTAKEN: &str = "marcus.reed@northwind.example";

/// A group that Okta keeps in step.
pub(super) struct PushedGroup {
    name: &'static str,
    /// The server's id; `None` until it was created or linked.
    id: Option<String>,
    /// Positions in the cast.
    members: BTreeSet<usize>,
}

/// A change of a group's members, as a catalog app names it.
enum Change {
    All,
    Add(usize),
    Remove(usize),
}

impl Rehearsal<'_> {
    /// Pushes three groups (two made, one linked), changes members, and unlinks a fourth.
    pub(super) async fn push_groups(&mut self) {
        let mut engineering = self.members_of(ENGINEERING);
        engineering.remove(&self.position(JOINER));
        engineering.insert(self.position(MISTAKEN));
        self.push_group(ENGINEERING, engineering).await;
        self.push_group(MANAGERS, self.members_of(MANAGERS)).await;
        self.prepare_link().await;
        self.push_group(LINKED, self.members_of(LINKED)).await;
        self.add_and_remove().await;
        self.see_groups_of_users().await;
        self.unlink_temporary_group().await;
        self.see_members().await;
    }

    /// *Find groups by name*, then *Create Group* or *Link Group*, with *Push group memberships
    /// immediately*.
    async fn push_group(&mut self, name: &'static str, members: BTreeSet<usize>) {
        let mut step = Step::new(PART, format!("Find the group “{name}”"));
        let found = self.find(&mut step, name).await;
        self.end(step);
        let linked = matches!(found, Some(Some(_)));
        let verb = if linked { "Link" } else { "Create" };
        let mut step = Step::new(PART, format!("{verb} the group “{name}” and push its members"));
        let mut group = PushedGroup { name, id: None, members };
        match found {
            Some(found) => {
                self.create_or_link(&mut step, &mut group, found).await;
            }
            None => step.fail("the search for the group failed"),
        }
        self.end(step);
        self.groups.push(group);
    }

    async fn create_or_link(
        &self,
        step: &mut Step,
        group: &mut PushedGroup,
        found: Option<String>,
    ) -> Option<()> {
        let id = match found {
            Some(id) => {
                let exchange = step.get(self.client, &format!("/Groups/{id}")).await?;
                step.expect(&exchange, "id", exchange.answer.at("/id").clone(), id.as_str());
                id
            }
            None => self.create(step, group.name).await?,
        };
        group.id = Some(id);
        self.write_members(step, group, &Change::All).await?;
        self.compare_members(step, group).await
    }

    /// Makes the group that is linked later, as somebody who works in Muster would have.
    async fn prepare_link(&mut self) {
        let mut step = Step::new(PART, format!("Somebody has made the group “{LINKED}” before"));
        if let Some(None) = self.find(&mut step, LINKED).await {
            self.create(&mut step, LINKED).await;
        }
        self.end(step);
    }

    async fn add_and_remove(&mut self) {
        let (joiner, mistaken) = (self.position(JOINER), self.position(MISTAKEN));
        let changes = [
            (format!("Add {} to “{ENGINEERING}”", self.name(joiner)), Change::Add(joiner)),
            (
                format!("Remove {} from “{ENGINEERING}”", self.name(mistaken)),
                Change::Remove(mistaken),
            ),
        ];
        for (name, change) in changes {
            let mut step = Step::new(PART, name);
            let group = &mut self.groups[0];
            match change {
                Change::Add(position) => group.members.insert(position),
                Change::Remove(position) => group.members.remove(&position),
                Change::All => false,
            };
            let group = &self.groups[0];
            if self.write_members(&mut step, group, &change).await.is_some() {
                self.compare_members(&mut step, group).await;
            }
            self.end(step);
        }
    }

    /// A user's `groups` follow the groups' `members`.
    async fn see_groups_of_users(&mut self) {
        let mut step = Step::new(PART, "Users show the groups they are in");
        for email in [JOINER, MISTAKEN] {
            let position = self.position(email);
            self.compare_groups(&mut step, position).await;
        }
        self.end(step);
    }

    async fn compare_groups(&self, step: &mut Step, position: usize) -> Option<()> {
        let path = self.path_of(step, position)?;
        let exchange = step.get(self.client, &path).await?;
        let came = ids(exchange.answer.at("/groups"));
        for group in &self.groups {
            let Some(id) = &group.id else { continue };
            let what = format!("“{}” among the groups of {}", group.name, self.name(position));
            step.expect(
                &exchange,
                &what,
                came.contains(id.as_str()),
                group.members.contains(&position),
            );
        }
        Some(())
    }

    /// *Unlink pushed group* with *Delete the group in the target app*.
    async fn unlink_temporary_group(&mut self) {
        let mut step = Step::new(PART, format!("Push the group “{TEMPORARY}”"));
        let mut group =
            PushedGroup { name: TEMPORARY, id: None, members: self.members_of(ENGINEERING) };
        if let Some(found) = self.find(&mut step, TEMPORARY).await {
            self.create_or_link(&mut step, &mut group, found).await;
        }
        self.end(step);
        let mut step = Step::new(PART, format!("Unlink “{TEMPORARY}” and delete it"));
        match &group.id {
            Some(id) => {
                self.delete(&mut step, &format!("/Groups/{id}")).await;
            }
            None => step.fail("the group has no id: it was not pushed"),
        }
        self.end(step);
    }

    async fn delete(&self, step: &mut Step, path: &str) -> Option<()> {
        step.send(self.client, Method::DELETE, path, None, &[204]).await?;
        step.send(self.client, Method::GET, path, None, &[404]).await?;
        if self.find(step, TEMPORARY).await?.is_some() {
            step.fail(format!("the deleted group “{TEMPORARY}” is still found by its name"));
        }
        Some(())
    }

    async fn see_members(&mut self) {
        let mut step = Step::new(PART, "Groups hold the people Okta has in them");
        for group in &self.groups {
            self.compare_members(&mut step, group).await;
        }
        self.end(step);
    }

    /// Searches a group by name. The outer `None` says that the search failed.
    async fn find(&self, step: &mut Step, name: &str) -> Option<Option<String>> {
        let filter = eq("displayName", name);
        let filter = query(&[("filter", &filter), ("startIndex", "1"), ("count", "100")]);
        let exchange = step.get(self.client, &format!("/Groups{filter}")).await?;
        match step.resources(&exchange) {
            [] => Some(None),
            [group] if group["id"].is_string() => Some(group["id"].as_str().map(String::from)),
            other => {
                let (sent, came) = (&exchange.sent, Value::from(other));
                step.fail(format!("sent {sent}; came {came}; expected at most one group"));
                None
            }
        }
    }

    /// *Create Group*: Okta makes it empty and pushes the members after.
    async fn create(&self, step: &mut Step, name: &str) -> Option<String> {
        let body = json!({ "schemas": [GROUP], "displayName": name, "members": [] });
        let exchange = step.send(self.client, Method::POST, "/Groups", Some(&body), &[201]).await?;
        step.expect(&exchange, "displayName", exchange.answer.at("/displayName").clone(), name);
        let id = exchange.answer.at("/id").as_str().map(String::from);
        if id.is_none() {
            step.fail(format!("sent {}; the group came without id", exchange.sent));
        }
        id
    }

    /// Brings the server's group to `group.members`, in the dialect's words.
    async fn write_members(
        &self,
        step: &mut Step,
        group: &PushedGroup,
        change: &Change,
    ) -> Option<()> {
        let Some(id) = &group.id else {
            step.fail(format!("“{}” has no id: it was neither created nor linked", group.name));
            return None;
        };
        let path = format!("/Groups/{id}");
        match self.dialect {
            Dialect::Put => {
                let body = json!({
                    "schemas": [GROUP],
                    "id": id,
                    "displayName": group.name,
                    "members": self.members(&group.members),
                });
                step.send(self.client, Method::PUT, &path, Some(&body), &[200, 204]).await?;
            }
            Dialect::Patch => {
                let operation = match change {
                    Change::All => json!({
                        "op": "replace", "path": "members", "value": self.members(&group.members),
                    }),
                    Change::Add(position) => json!({
                        "op": "add", "path": "members",
                        "value": self.members(&BTreeSet::from([*position])),
                    }),
                    Change::Remove(position) => {
                        let id = self.cast[*position].id.as_deref().unwrap_or_default();
                        json!({ "op": "remove", "path": format!("members[{}]", eq("value", id)) })
                    }
                };
                // With every change of members Okta sends the name that the group has anyway.
                let rename =
                    json!({ "op": "replace", "value": { "id": id, "displayName": group.name } });
                let body = json!({
                    "schemas": ["urn:ietf:params:scim:api:messages:2.0:PatchOp"],
                    "Operations": [operation, rename],
                });
                step.send(self.client, Method::PATCH, &path, Some(&body), &[200, 204]).await?;
            }
        }
        Some(())
    }

    /// Reads the group and looks whether it has Okta's name and members, no more and no less.
    async fn compare_members(&self, step: &mut Step, group: &PushedGroup) -> Option<()> {
        let id = group.id.as_ref()?;
        let exchange = step.get(self.client, &format!("/Groups/{id}")).await?;
        let answer = &exchange.answer;
        step.expect(&exchange, "displayName", answer.at("/displayName").clone(), group.name);
        let expected: BTreeSet<&str> =
            group.members.iter().filter_map(|member| self.cast[*member].id.as_deref()).collect();
        let came = ids(answer.at("/members"));
        step.expect(
            &exchange,
            &format!("the members of “{}”", group.name),
            Value::from_iter(came),
            Value::from_iter(expected),
        );
        let listed = answer.at("/members").as_array().map_or(0, Vec::len);
        step.expect(&exchange, "the number of members", listed, group.members.len());
        Some(())
    }

    /// The positions of those whom Okta has in the group.
    fn members_of(&self, name: &str) -> BTreeSet<usize> {
        let cast = self.cast.iter().enumerate();
        cast.filter(|(_, assigned)| assigned.person.groups.iter().any(|group| group == name))
            .map(|(position, _)| position)
            .collect()
    }

    fn members(&self, positions: &BTreeSet<usize>) -> Value {
        let members = positions.iter().filter_map(|position| {
            let assigned = &self.cast[*position];
            let id = assigned.id.as_ref()?;
            Some(json!({ "value": id, "display": assigned.person.email }))
        });
        members.collect()
    }
}

/// The `value`s of a multi-valued attribute.
fn ids(values: &Value) -> BTreeSet<&str> {
    let values = values.as_array().into_iter().flatten();
    values.filter_map(|value| value["value"].as_str()).collect()
}
