//! One client, one request after the other: every answer and every final state is the model's.
//!
//! A failure prints the seed and the operations, and leaves a history in the target folder.
//! `MUSTER_SEED=… cargo test --test e2e sequential` plays the same operations again.

use std::fmt::Write as _;

use futures::future::join_all;
use muster::scim_client::Answer;
use muster_proto::approver::v1::BatchGetApproversRequest;
use muster_proto::identity::v1::UnknownMembers;
use serde_json::{Value, json};

use crate::model::bulk::{self, Part};
use crate::model::change::{approver_lines, told_lines};
use crate::model::generate::{self, Known};
use crate::model::op::Request;
use crate::model::random::{Random, seed};
use crate::model::{Model, Op, same_json, without_times};
use crate::support::size;
use crate::support::system::{System, Tenant, apart, scratch, together};

/// How many operations a case has.
const OPERATIONS: usize = 40;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_process_does_what_the_model_does() {
    play(together(), size(90, 200), 4).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_processes_do_what_the_model_does() {
    play(apart(), size(50, 100), 4).await;
}

/// Plays cases, some at a time, each in an organisation of its own.
async fn play(system: &'static System, cases: usize, at_once: usize) {
    let seed = seed();
    println!("MUSTER_SEED={seed}");
    let lanes = (0..at_once).map(|lane| {
        tokio::spawn(async move {
            let mut failures = Vec::new();
            for number in (lane..cases).step_by(at_once) {
                let mut case = Case::start(system, seed, number as u64).await;
                if let Err(difference) = case.run().await {
                    failures.push(case.report(&difference));
                }
            }
            failures
        })
    });
    let failures: Vec<String> =
        join_all(lanes).await.into_iter().flat_map(Result::unwrap).collect();
    if let Some(first) = failures.first() {
        for other in &failures[1..] {
            println!("{other}\n");
        }
        panic!("{} of {cases} cases differ; {first}", failures.len());
    }
}

/// One organisation and what was done in it.
struct Case {
    system: &'static System,
    seed: u64,
    number: u64,
    tenant: Tenant,
    model: Model,
    known: Known,
    random: Random,
    history: Vec<Value>,
}

impl Case {
    async fn start(system: &'static System, seed: u64, number: u64) -> Self {
        let strict = number % 4 == 3;
        let policy = if strict { UnknownMembers::Refuse } else { UnknownMembers::LeaveOut };
        let tenant = system.tenant_that(policy).await;
        Self {
            system,
            seed,
            number,
            model: Model::new(tenant.client.base_url(), strict),
            tenant,
            known: Known::default(),
            random: Random::part(seed, number),
            history: Vec::new(),
        }
    }

    async fn run(&mut self) -> Result<(), String> {
        for _ in 0..OPERATIONS {
            match self.random.below(25) {
                0 => self.bulk().await?,
                1 => self.swap_emails().await?,
                2 => self.list_by_cursor().await?,
                _ => {
                    let op = generate::op(&mut self.random, &self.known, true);
                    self.one(&op).await?;
                }
            }
        }
        self.read_back().await
    }

    /// Sends one operation and compares its answer with the model's.
    async fn one(&mut self, op: &Op) -> Result<(), String> {
        let request = op.request();
        let answer = self.send(&request).await?;
        let created = answer.at("/id").as_str().unwrap_or_default().to_owned();
        let expected = self.model.apply(op, &created);
        self.note(op, &created);
        let body = answer.body.clone().unwrap_or_default();
        Model::compare(&expected, answer.status, &body)
            .map_err(|difference| format!("{request}\n{difference}"))
    }

    async fn send(&mut self, request: &Request) -> Result<Answer, String> {
        let headers: Vec<_> = request
            .if_match
            .iter()
            .map(|tag| (http::header::IF_MATCH, Some(tag.parse().unwrap())))
            .collect();
        let body = request.body.as_ref().map(|body| body.to_string().into());
        let client = &self.tenant.client;
        let answer = client.send_bytes(request.method.clone(), &request.path, body, &headers).await;
        let answer = answer.map_err(|error| format!("{request}: {error:#}"))?;
        self.history.push(json!({
            "request": request.to_string(), "status": answer.status, "answer": answer.body,
        }));
        Ok(answer)
    }

    /// Keeps in mind what there is to name in later operations.
    fn note(&mut self, op: &Op, created: &str) {
        match op {
            Op::CreateUser { .. } if self.model.user(created).is_some() => {
                self.known.note_user(created, 1);
            }
            Op::CreateGroup { .. } if self.model.group(created).is_some() => {
                self.known.note_group(created, 1);
            }
            _ => {}
        }
        for user in &self.model.users {
            self.known.note_user(&user.id, user.revision);
        }
        for group in &self.model.groups {
            self.known.note_group(&group.id, group.revision);
        }
    }

    /// Several operations in one request.
    async fn bulk(&mut self) -> Result<(), String> {
        let mut ops: Vec<Op> = Vec::new();
        for _ in 0..=self.random.below(4) {
            ops.push(generate::op(&mut self.random, &self.known, false));
        }
        let request = bulk::request(&ops);
        let answer = self.send(&request).await?;
        for (n, op) in ops.iter().enumerate() {
            let part = Part::of(answer.at(""), n)
                .ok_or_else(|| format!("no answer to {n} of {request}"))?;
            let mut expected = self.model.apply(op, &part.id);
            // An answer in a bulk has a body only where it is an error.
            expected.body = None;
            self.note(op, &part.id);
            Model::compare(&expected, part.status, &part.response)
                .map_err(|difference| format!("operation {n} of {request}\n{difference}"))?;
        }
        Ok(())
    }

    /// One user passes an address on to another.
    async fn swap_emails(&mut self) -> Result<(), String> {
        let holders: Vec<(String, String)> = self
            .model
            .users
            .iter()
            .filter_map(|user| Some((user.id.clone(), user.doc.primary_email()?.to_owned())))
            .collect();
        let [(one, email), .., (other, others)] = &holders[..] else { return Ok(()) };
        for (id, email) in [(one, "between@a.example"), (other, email), (one, others)] {
            let edits = vec![crate::model::UserEdit::PrimaryEmail(email.to_string())];
            let op = Op::PatchUser { id: id.clone(), edits, version: None, form: 0 };
            self.one(&op).await?;
        }
        Ok(())
    }

    /// Page after page, together they are the list.
    async fn list_by_cursor(&mut self) -> Result<(), String> {
        let (mut cursor, mut listed) = (String::new(), Vec::new());
        loop {
            let path = format!(
                "/Users{}",
                muster::scim_client::query(&[("cursor", &cursor), ("count", "2"),])
            );
            let request = Request { method: http::Method::GET, path, body: None, if_match: None };
            let answer = self.send(&request).await?;
            listed.extend(answer.at("/Resources").as_array().cloned().unwrap_or_default());
            match answer.at("/nextCursor").as_str() {
                Some(next) => next.clone_into(&mut cursor),
                None => break,
            }
        }
        let mut ids: Vec<&str> = self.model.users.iter().map(|user| user.id.as_str()).collect();
        ids.sort_unstable();
        let expected: Vec<Value> = ids.iter().filter_map(|id| self.model.user_json(id)).collect();
        let listed: Value = listed.into_iter().map(without_times).collect();
        same_json("", &listed, &expected.into())
            .map_err(|difference| format!("listed by cursor, {difference}"))
    }

    /// Everything, read in every way that there is, is as the model has it.
    async fn read_back(&mut self) -> Result<(), String> {
        self.list_by_cursor().await?;
        let users: Vec<String> = self.model.users.iter().map(|user| user.id.clone()).collect();
        for id in &users {
            self.one(&Op::GetUser { id: id.clone() }).await?;
        }
        let groups: Vec<String> = self.model.groups.iter().map(|group| group.id.clone()).collect();
        for id in groups {
            self.one(&Op::GetGroup { id }).await?;
        }
        let request =
            BatchGetApproversRequest { organisation_id: self.tenant.id.clone(), user_ids: users };
        let answer = self.system.approvers().batch_get_approvers(request).await.unwrap();
        let (told, expected) =
            (told_lines(&answer.into_inner().users), approver_lines(&self.model));
        if told == expected {
            Ok(())
        } else {
            Err(format!("the approvers are {told:#?}, not {expected:#?}"))
        }
    }

    /// Leaves the history, and says what is different and how to see it again.
    fn report(&self, difference: &str) -> String {
        let Self { seed, number, system, .. } = self;
        let name = system.name.replace(' ', "-");
        let path = scratch().join(format!("sequential-{name}-{seed}-{number}.json"));
        std::fs::write(&path, serde_json::to_vec_pretty(&self.history).unwrap()).unwrap();
        let mut report = format!("{}, case {number}\n", system.name);
        for entry in &self.history {
            let request = entry["request"].as_str().unwrap_or_default();
            writeln!(report, "  {} {request}", entry["status"]).unwrap();
        }
        let (commit, path) = (crate::support::commit(), path.display());
        write!(
            report,
            "{difference}\nagain with MUSTER_SEED={seed} at commit {commit}; history: {path}"
        )
        .unwrap();
        report
    }
}
