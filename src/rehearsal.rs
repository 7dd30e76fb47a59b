//! Plays the guide "Setting up Okta User Provisioning" against a SCIM server, as Okta would: step
//! by step, with the requests Okta sends, and a look at each answer. It can be played again
//! against the same organisation, and leaves it as a demonstration of what Muster does.

mod activation;
mod assignment;
mod credentials;
mod groups;
mod import;
mod person;
mod step;

use crate::scim_client::ScimClient;
use person::Person;
pub use step::Step;

/// How an Okta app writes what it has to write twice in SCIM: activation and group members.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Dialect {
    /// An app made in Okta's wizard: everything by PUT.
    Put,
    /// An app of Okta's catalog: activation and groups by PATCH, the rest by PUT.
    Patch,
}

/// Tells how far a rehearsal has come, once after each step.
#[derive(Debug, Clone, Copy)]
pub struct Progress<'a> {
    /// Steps done, this one included.
    pub done: usize,
    /// Steps there are.
    pub total: usize,
    /// The step just done, in words.
    pub what: &'a str,
    /// The part of the guide it belongs to.
    pub part: &'a str,
    /// What was wrong with it, in words; empty if it passed.
    pub failures: &'a [String],
}

/// What a rehearsal found.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// The steps in the order they were played.
    pub steps: Vec<Step>,
}

impl Report {
    /// How many steps went as the guide says.
    #[must_use]
    pub fn passed(&self) -> usize {
        self.steps.iter().filter(|step| step.passed()).count()
    }

    /// How many steps did not.
    #[must_use]
    pub fn failed(&self) -> usize {
        self.steps.len() - self.passed()
    }
}

/// Plays the whole guide and reports every step.
///
/// A step that fails does not stop the rest, unless the credentials are refused or nobody answers:
/// then nothing can follow.
pub async fn play(
    client: &ScimClient,
    dialect: Dialect,
    mut progress: impl FnMut(Progress<'_>) + Send + Sync,
) -> Report {
    let cast = person::everybody();
    let total = credentials::STEPS
        + assignment::steps(cast.len())
        + import::STEPS
        + groups::STEPS
        + activation::STEPS;
    let mut rehearsal = Rehearsal {
        client,
        dialect,
        cast: cast.into_iter().map(Assigned::not_yet).collect(),
        groups: Vec::new(),
        report: Report::default(),
        total,
        progress: &mut progress,
    };
    if rehearsal.test_credentials().await {
        rehearsal.assign_people().await;
        rehearsal.force_sync().await;
        rehearsal.import().await;
        rehearsal.push_groups().await;
        rehearsal.deactivate_and_update().await;
        rehearsal.verify().await;
        debug_assert_eq!(rehearsal.report.steps.len(), total, "the parts announce their steps");
    }
    rehearsal.report
}

/// Okta's side of the rehearsal: what it has, and what it has seen of the server.
struct Rehearsal<'a> {
    client: &'a ScimClient,
    dialect: Dialect,
    cast: Vec<Assigned>,
    groups: Vec<groups::PushedGroup>,
    report: Report,
    total: usize,
    progress: &'a mut (dyn FnMut(Progress<'_>) + Send + Sync),
}

/// A person as Okta has them, with what it remembers of their user on the server.
struct Assigned {
    person: Person,
    /// The server's id; `None` until the assignment worked.
    id: Option<String>,
    /// Whether Okta has them assigned at the moment.
    active: bool,
}

impl Assigned {
    fn not_yet(person: Person) -> Self {
        Self { person, id: None, active: false }
    }
}

impl Rehearsal<'_> {
    /// Notes a step that has been played.
    fn end(&mut self, step: Step) {
        (self.progress)(Progress {
            done: self.report.steps.len() + 1,
            total: self.total,
            what: &step.name,
            part: step.part,
            failures: &step.failures,
        });
        self.report.steps.push(step);
    }

    /// Where the person with this e-mail address stands in the cast.
    fn position(&self, email: &str) -> usize {
        let position = self.cast.iter().position(|assigned| assigned.person.email == email);
        position.expect("the script names only people of people.json")
    }

    /// The approvers of the person at `position` that ought to be in force: the declared ones that
    /// are active users by now.
    fn approvers_in_force(&self, position: usize) -> Vec<&str> {
        let declared = self.cast[position].person.approvers.iter();
        declared
            .filter(|email| {
                self.cast.iter().any(|other| other.active && other.person.email == **email)
            })
            .map(String::as_str)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rehearsal_can_be_spawned_as_a_task() {
        fn is_send(_: impl Send) {}
        let client = ScimClient::new("http://127.0.0.1:1/scim/v2", "Static k").unwrap();
        let mut steps = 0;
        is_send(play(&client, Dialect::Patch, |progress| steps = progress.done));
    }

    #[tokio::test]
    async fn where_nobody_answers_nothing_else_is_tried() {
        let client = ScimClient::new("http://127.0.0.1:1/scim/v2", "Static k").unwrap();
        let report = play(&client, Dialect::Patch, |_| {}).await;
        assert_eq!((report.passed(), report.failed()), (0, 1));
        assert!(report.steps[0].failures[0].contains("no answer came"), "{report:?}");
    }
}
