//! Steps 2 and 3a of the guide (mapped attributes, *Assign to People*, *Force Sync*), and step 5
//! (*Verify users*).

use std::time::Duration;

use http::Method;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::{
    Dialect, Rehearsal, Step,
    activation::active_patch,
    person::{EXTENSION, approvers, is_in_order_of},
    step::Exchange,
};
use crate::scim_client::{eq, query};

const ASSIGN: &str = "Step 3a: Assign to People";
const SYNC: &str = "Step 3a: Force Sync";
const VERIFY: &str = "Step 5: Verify users";

/// How long approvers may take to come into force by themselves.
const PATIENCE: Duration = Duration::from_secs(5);

/// Each of `people` is assigned, synced and verified; the approvers are looked at once.
pub(super) fn steps(people: usize) -> usize {
    3 * people + 1
}

/// What the approvers of an answer ought to be.
enum Approvers {
    /// Those in force are declared ones in their order; at least those known to be there.
    AtLeastInForce,
    /// Exactly those in force.
    InForce,
}

impl Rehearsal<'_> {
    /// Assigns everybody, then sees the approvers come into force without another word.
    pub(super) async fn assign_people(&mut self) {
        for position in 0..self.cast.len() {
            let mut step = Step::new(ASSIGN, format!("Assign {}", self.name(position)));
            self.assign(&mut step, position).await;
            self.end(step);
        }
        let mut step = Step::new(ASSIGN, "Approvers come into force by themselves");
        let deadline = Instant::now() + PATIENCE;
        for position in 0..self.cast.len() {
            self.see_approvers_by(deadline, &mut step, position).await;
        }
        self.end(step);
    }

    /// *Force Sync*: GET and PUT of everybody, after which the approvers are complete.
    pub(super) async fn force_sync(&mut self) {
        for position in 0..self.cast.len() {
            let mut step = Step::new(SYNC, format!("Sync {}", self.name(position)));
            self.sync(&mut step, position, &Approvers::InForce).await;
            self.end(step);
        }
    }

    /// Looks at everybody as the admin does at the end.
    pub(super) async fn verify(&mut self) {
        for position in 0..self.cast.len() {
            let name = self.name(position);
            let mut step = Step::new(VERIFY, format!("{name} is as Okta has them"));
            if let Some(path) = self.path_of(&mut step, position)
                && let Some(exchange) = step.get(self.client, &path).await
            {
                self.compare(&mut step, position, &exchange, &Approvers::InForce);
            }
            self.end(step);
        }
    }

    /// An update of one person, after which everything is as Okta has it.
    pub(super) async fn sync_exactly(&mut self, step: &mut Step, position: usize) -> Option<()> {
        self.sync(step, position, &Approvers::InForce).await
    }

    /// GET, then PUT of the fetched body with what Okta masters written over. Notes how the answer
    /// differs from Okta's profile.
    async fn sync(&mut self, step: &mut Step, position: usize, expected: &Approvers) -> Option<()> {
        let path = self.path_of(step, position)?;
        let fetched = step.get(self.client, &path).await?;
        let mut body = fetched.answer.body?;
        self.cast[position].person.apply_to(&mut body);
        let answer = step.send(self.client, Method::PUT, &path, Some(&body), &[200]).await?;
        self.compare(step, position, &answer, expected);
        Some(())
    }

    /// The match probe by `userName`; then `POST`, or the update of the one who was found.
    async fn assign(&mut self, step: &mut Step, position: usize) -> Option<()> {
        let filter = eq("userName", &self.cast[position].person.email);
        let probe = query(&[("filter", &filter), ("startIndex", "1"), ("count", "100")]);
        let probe = step.get(self.client, &format!("/Users{probe}")).await?;
        match step.resources(&probe) {
            [] => {
                let body = self.cast[position].person.to_create(&random_password());
                let created =
                    step.send(self.client, Method::POST, "/Users", Some(&body), &[201]).await?;
                self.remember(step, position, &created, created.answer.at("/id"))?;
                self.compare(step, position, &created, &Approvers::AtLeastInForce);
            }
            [found] => {
                self.remember(step, position, &probe, &found["id"])?;
                if found["active"] == false && self.dialect == Dialect::Patch {
                    self.set_active(step, position, true).await?;
                }
                self.sync(step, position, &Approvers::AtLeastInForce).await?;
            }
            several => {
                let sent = &probe.sent;
                let count = several.len();
                step.fail(format!("sent {sent}; came {count} users; expected none or one"));
            }
        }
        Some(())
    }

    fn remember(
        &mut self,
        step: &mut Step,
        position: usize,
        exchange: &Exchange,
        id: &Value,
    ) -> Option<()> {
        let Some(id) = id.as_str().filter(|id| !id.is_empty()) else {
            let sent = &exchange.sent;
            step.fail(format!("sent {sent}; the user's id came as {id}; expected a string"));
            return None;
        };
        self.cast[position].id = Some(id.to_owned());
        self.cast[position].active = true;
        Some(())
    }

    /// Reads a person again and again until the approvers are those in force or time is up.
    async fn see_approvers_by(
        &self,
        deadline: Instant,
        step: &mut Step,
        position: usize,
    ) -> Option<()> {
        let path = self.path_of(step, position)?;
        let expected = self.approvers_in_force(position);
        loop {
            let exchange = step.get(self.client, &path).await?;
            let user = exchange.answer.at("");
            if approvers(user) == expected {
                return Some(());
            }
            if Instant::now() >= deadline {
                let came = approvers(user);
                step.expect(&exchange, &self.whose("approvers", position), came, expected);
                return None;
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    fn compare(&self, step: &mut Step, position: usize, exchange: &Exchange, expected: &Approvers) {
        let assigned = &self.cast[position];
        let user = exchange.answer.at("");
        for difference in assigned.person.differences(user) {
            step.fail(format!("sent {}; {difference}", exchange.sent));
        }
        step.expect(exchange, "active", user["active"].clone(), assigned.active);
        step.expect(exchange, "id", user["id"].clone(), assigned.id.clone());
        let came = approvers(user);
        let in_force = self.approvers_in_force(position);
        let declared = &assigned.person.approvers;
        let fits = match expected {
            Approvers::InForce => came == in_force,
            Approvers::AtLeastInForce => {
                is_in_order_of(&came, declared) && in_force.iter().all(|email| came.contains(email))
            }
        };
        if !fits {
            let sent = &exchange.sent;
            let came = &user[EXTENSION]["approvers"];
            step.fail(format!(
                "sent {sent}; approvers came as {came}; declared are {declared:?}, of whom \
                 {in_force:?} are active users by now"
            ));
        }
    }

    /// Reads a person and looks whether the approvers are exactly those in force.
    pub(super) async fn expect_approvers(&self, step: &mut Step, position: usize) -> Option<()> {
        self.see_approvers_by(Instant::now() + PATIENCE, step, position).await
    }

    /// Activates or deactivates a person as the dialect does, and reads the user to be sure.
    pub(super) async fn set_active(
        &mut self,
        step: &mut Step,
        position: usize,
        active: bool,
    ) -> Option<()> {
        let path = self.path_of(step, position)?;
        match self.dialect {
            Dialect::Patch => {
                let body = active_patch(active);
                step.send(self.client, Method::PATCH, &path, Some(&body), &[200, 204]).await?;
            }
            Dialect::Put => {
                let mut body = step.get(self.client, &path).await?.answer.body?;
                self.cast[position].person.apply_to(&mut body);
                body["active"] = active.into();
                step.send(self.client, Method::PUT, &path, Some(&body), &[200]).await?;
            }
        }
        self.cast[position].active = active;
        let exchange = step.get(self.client, &path).await?;
        step.expect(&exchange, "active", exchange.answer.at("/active").clone(), active);
        Some(())
    }

    /// Where a person's user is. `None`, and a failure noted, if the assignment failed.
    pub(super) fn path_of(&self, step: &mut Step, position: usize) -> Option<String> {
        let id = &self.cast[position].id;
        if id.is_none() {
            let name = self.name(position);
            step.fail(format!("{name} has no user: the assignment failed"));
        }
        id.as_ref().map(|id| format!("/Users/{id}"))
    }

    pub(super) fn name(&self, position: usize) -> String {
        self.cast[position].person.full_name()
    }

    fn whose(&self, what: &str, position: usize) -> String {
        format!("{what} of {}", self.name(position))
    }
}

/// Okta sends one with every create, for servers that want it.
fn random_password() -> String {
    use std::hash::{BuildHasher, RandomState};
    format!("{:016x}", RandomState::new().hash_one("password"))
}
