//! Clients that ask for random things at once, and remember everything.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::header::{HeaderName, IF_MATCH};
use muster::scim_client::{Answer, ScimClient};
use serde_json::Value;

use muster_proto::identity::v1::UnknownMembers;

use super::cluster::{Cluster, Tenant};
use super::history::{Outcome, Record};
use crate::model::Op;
use crate::model::bulk::{self, Part};
use crate::model::generate::{self, Known};
use crate::model::op::Request;
use crate::model::random::Random;

/// After which a client no longer waits for an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// An organisation that several clients work on.
pub(crate) struct Office {
    pub(crate) tenant: Tenant,
    /// Whether it refuses members who are no users.
    pub(crate) is_strict: bool,
    /// One for each gateway.
    clients: Vec<ScimClient>,
    known: Mutex<Known>,
}

impl Office {
    pub(crate) async fn open(cluster: &Cluster) -> Self {
        Self::open_that(cluster, false).await
    }

    pub(crate) async fn open_that(cluster: &Cluster, is_strict: bool) -> Self {
        let policy = if is_strict { UnknownMembers::Refuse } else { UnknownMembers::LeaveOut };
        let tenant = cluster.tenant_that(policy).await;
        let authorization = format!("Static {}", tenant.key);
        let client = |url: &String| ScimClient::new(url, &authorization).unwrap();
        let clients = cluster.replicas.iter().map(|replica| client(&replica.scim_url)).collect();
        Self { tenant, is_strict, clients, known: Mutex::new(Known::default()) }
    }

    /// A client that speaks to one of the gateways.
    pub(crate) fn client(&self, gateway: usize) -> &ScimClient {
        &self.clients[gateway % self.clients.len()]
    }
}

/// What all clients of a run share.
#[derive(Default)]
pub(crate) struct Run {
    pub(crate) offices: Vec<Office>,
    pub(crate) seed: u64,
    clock: AtomicU64,
    /// How many operations were begun.
    pub(crate) begun: AtomicUsize,
    pub(crate) over: AtomicBool,
    pub(crate) records: Mutex<Vec<Record>>,
}

impl Run {
    pub(crate) fn now(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::SeqCst)
    }

    /// One client's life: an operation after the other until the run is over.
    pub(crate) async fn client(self: Arc<Self>, number: usize) {
        let organisation = number % self.offices.len();
        let mut random = Random::part(self.seed, number as u64);
        while !self.over.load(Ordering::Relaxed) {
            self.begun.fetch_add(1, Ordering::Relaxed);
            let known = self.offices[organisation].known.lock().unwrap().clone();
            let ops = if random.chance(5) {
                generate::bulk(&mut random, &known)
            } else {
                vec![generate::op(&mut random, &known, true)]
            };
            let (gateway, trace) = (random.below(2), trace(&mut random));
            let records = self.send(organisation, gateway, ops, trace).await;
            if records.iter().all(|record| record.status().is_none()) {
                // As a client that backs off, so that an outage is not all there is in the history.
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }

    /// Sends one operation, or several in bulk, and records them.
    async fn send(
        &self,
        organisation: usize,
        gateway: usize,
        ops: Vec<Op>,
        trace: String,
    ) -> Vec<Record> {
        let office = &self.offices[organisation];
        let in_bulk = ops.len() > 1;
        let request = if in_bulk { bulk::request(&ops) } else { ops[0].request() };
        let sent = self.now();
        let answer = send_request(office.client(gateway), request, &trace).await;
        let returned = self.now();
        let outcome = |number: usize, op: &Op| match &answer {
            Ok(answer) if in_bulk => {
                // An error of the whole is one of each.
                match answer.body.as_ref().and_then(|body| Part::of(body, number)) {
                    Some(part) => Outcome::Answered { status: part.status, body: part.response },
                    None => answered(answer),
                }
            }
            Ok(answer) => {
                office.note(op, answer);
                answered(answer)
            }
            Err(error) => Outcome::Unknown(format!("{error:#}")),
        };
        let record = |(number, op): (usize, &Op)| {
            let (op, trace, outcome) = (op.clone(), trace.clone(), outcome(number, op));
            Record { organisation, op, in_bulk, trace, sent, returned, outcome }
        };
        let records: Vec<Record> = ops.iter().enumerate().map(record).collect();
        self.records.lock().unwrap().extend(records.clone());
        records
    }
}

fn answered(answer: &Answer) -> Outcome {
    let body = answer.body.clone().unwrap_or_default();
    Outcome::Answered { status: answer.status, body }
}

/// Sends one operation with a trace id of the client's choice.
pub(crate) async fn send(client: &ScimClient, op: &Op, trace: &str) -> anyhow::Result<Answer> {
    send_request(client, op.request(), trace).await
}

async fn send_request(
    client: &ScimClient,
    request: Request,
    trace: &str,
) -> anyhow::Result<Answer> {
    let traceparent = format!("00-{trace}-00f067aa0ba902b7-01").parse()?;
    let mut headers = vec![(HeaderName::from_static("traceparent"), Some(traceparent))];
    if let Some(tag) = &request.if_match {
        headers.push((IF_MATCH, Some(tag.parse()?)));
    }
    let body = request.body.map(|body| body.to_string().into());
    let sent = client.send_bytes(request.method, &request.path, body, &headers);
    tokio::time::timeout(PATIENCE, sent).await?
}

/// A new trace id.
pub(crate) fn trace(random: &mut Random) -> String {
    format!("{:016x}{:016x}", random.next(), random.next())
}

impl Office {
    /// Keeps what an answer tells, to name it in later operations.
    fn note(&self, op: &Op, answer: &Answer) {
        let id = op.subject().or_else(|| answer.at("/id").as_str());
        let tag = answer.etag().or_else(|| answer.at("/meta/version").as_str());
        let revision = tag.and_then(|tag| tag.trim_matches(['W', '/', '"']).parse().ok());
        let (Some(id), Some(revision)) = (id, revision) else { return };
        let mut known = self.known.lock().unwrap();
        if op.is_of_users() {
            known.note_user(id, revision);
        } else {
            known.note_group(id, revision);
        }
        // Few, so that the living are asked for more often than the dead.
        let surplus = known.users.len().saturating_sub(16);
        known.users.drain(..surplus);
        let surplus = known.groups.len().saturating_sub(8);
        known.groups.drain(..surplus);
    }
}

/// A body without what other services than identity say of a user.
pub(crate) fn identity_part(body: &Value) -> Value {
    let mut body = crate::model::without_times(body.clone());
    let urn = crate::model::MUSTER_URN;
    let Some(parts) = body.as_object_mut() else { return body };
    parts.remove("groups");
    if let Some(muster) = parts.get_mut(urn).and_then(Value::as_object_mut) {
        muster.remove("approvers");
        if muster.is_empty() {
            parts.remove(urn);
        }
    }
    if !parts.contains_key(urn)
        && let Some(schemas) = parts.get_mut("schemas").and_then(Value::as_array_mut)
    {
        schemas.retain(|schema| schema != urn);
    }
    body
}
