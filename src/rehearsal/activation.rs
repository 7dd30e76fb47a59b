//! People who leave, come back and change, once everything is set up.

use serde_json::{Value, json};

use super::{Rehearsal, Step};

pub(super) const STEPS: usize = 6;

const PART: &str = "From this point onwards";

/// Is deactivated and comes back; approves for others.
const AWAY: &str = "harriet.blake@northwind.example";
/// Leaves and stays away; approves for another.
const LEAVER: &str = "reto.baumann@northwind.example";
/// Gets another job function.
const PROMOTED: (&str, &str) = ("priya.raman@northwind.example", "Senior Learning Partner");

/// The body with which a catalog app activates and deactivates.
pub(super) fn active_patch(active: bool) -> Value {
    json!({
        "schemas": ["urn:ietf:params:scim:api:messages:2.0:PatchOp"],
        "Operations": [{ "op": "replace", "value": { "active": active } }],
    })
}

impl Rehearsal<'_> {
    /// Deactivates and reactivates an approver, lets another leave, and changes an attribute.
    pub(super) async fn deactivate_and_update(&mut self) {
        self.switch(AWAY, false).await;
        self.see_who_is_approved_by(AWAY, "is no approver while deactivated").await;
        self.switch(AWAY, true).await;
        self.see_who_is_approved_by(AWAY, "is an approver again").await;
        self.switch(LEAVER, false).await;
        self.promote().await;
    }

    async fn switch(&mut self, email: &str, active: bool) {
        let position = self.position(email);
        let verb = if active { "Reactivate" } else { "Deactivate" };
        let mut step = Step::new(PART, format!("{verb} {}", self.name(position)));
        self.set_active(&mut step, position, active).await;
        self.end(step);
    }

    async fn see_who_is_approved_by(&mut self, email: &str, what: &str) {
        let name = self.name(self.position(email));
        let mut step = Step::new(PART, format!("{name} {what}"));
        for position in 0..self.cast.len() {
            if self.cast[position].person.approvers.iter().any(|approver| approver == email) {
                self.expect_approvers(&mut step, position).await;
            }
        }
        self.end(step);
    }

    async fn promote(&mut self) {
        let (email, job_function) = PROMOTED;
        let position = self.position(email);
        let name = self.name(position);
        let mut step = Step::new(PART, format!("{name} becomes {job_function}"));
        job_function.clone_into(&mut self.cast[position].person.job_function);
        self.sync_exactly(&mut step, position).await;
        self.end(step);
    }
}
