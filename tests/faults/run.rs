//! A run: clients, readers and faults at once, then the check.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures::future::join_all;
use muster_proto::approver::v1::BatchGetApproversRequest;
use muster_proto::approver::v1::approver_service_client::ApproverServiceClient;
use muster_proto::group::v1::group_service_client::GroupServiceClient;
use muster_proto::group::v1::{GroupView, ListGroupsRequest};
use muster_proto::identity::v1::ListUsersRequest;
use muster_proto::identity::v1::user_service_client::UserServiceClient;
use serde_json::{Value, json};

use super::chaos;
use super::check::groups::People;
use super::check::{self, I3, I4};
use super::clients::{Office, Run};
use super::cluster::Cluster;
use super::history::{Outcome, Record};
use super::watchers::{self, FEEDS, Watcher};
use crate::check::check_at;
use crate::model::random::Random;
use crate::support::system::scratch;

/// What a run is made of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) organisations: usize,
    pub(crate) clients: usize,
    /// At least as many of each; it goes on until both are reached.
    pub(crate) operations: usize,
    pub(crate) faults: usize,
    /// And at least as long.
    pub(crate) time: Duration,
}

/// How a run ended.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) operations: usize,
    pub(crate) faults: usize,
    pub(crate) violations: Vec<String>,
    /// How many operations there were of each method and status.
    pub(crate) tally: BTreeMap<String, usize>,
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { operations, faults, violations, .. } = self;
        write!(f, "{operations} operations, {faults} faults, {} violations", violations.len())
    }
}

/// Runs the plan on a cluster and checks what came of it.
pub(crate) async fn run(cluster: &Arc<Cluster>, plan: Plan) -> Report {
    let mut run = Run::default();
    run.seed = plan.seed;
    for number in 0..plan.organisations {
        // One of them refuses unknown members.
        run.offices.push(Office::open_that(cluster, number % 4 == 3).await);
    }
    let run = Arc::new(run);
    let clients: Vec<_> =
        (0..plan.clients).map(|number| tokio::spawn(run.clone().client(number))).collect();
    let watching = Arc::new(AtomicBool::new(false));
    let watchers = watch(cluster, &run, &watching);

    let begin = Instant::now();
    let (over, made) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let random = Random::part(plan.seed, 1_000_001);
    let chaos = chaos::make(cluster.clone(), random, made.clone(), over.clone());
    let chaos = (plan.faults > 0).then(|| tokio::spawn(chaos));
    while run.begun.load(Ordering::Relaxed) < plan.operations
        || made.load(Ordering::Relaxed) < plan.faults
        || begin.elapsed() < plan.time
    {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    over.store(true, Ordering::Relaxed);
    if let Some(chaos) = chaos {
        chaos.await.unwrap();
    }
    let faults = made.load(Ordering::Relaxed);
    run.over.store(true, Ordering::Relaxed);
    for client in join_all(clients).await {
        client.unwrap();
    }

    let mut violations = Vec::new();
    if let Err(why) = cluster.drain().await {
        violations.push(format!("{I3}: {why}"));
    }
    let records = run.records.lock().unwrap().clone();
    let mut heads = Vec::new();
    for office in &run.offices {
        heads.push(check_office(cluster, office, heads.len(), &records, &mut violations).await);
    }
    // What the program says of itself.
    let urls = ["identity", "group", "approver"].map(|part| cluster.replicas[0].url(part));
    for office in &run.offices {
        let urls = urls.each_ref().map(String::as_str);
        let output = check_at(urls, &office.tenant.id, &[]).await;
        if !output.status.success() {
            violations.push(format!("muster check: {output:?}"));
        }
    }
    // Readers have the time that a sweep takes to see what came last.
    tokio::time::sleep(Duration::from_secs(5)).await;
    watching.store(true, Ordering::Relaxed);
    for watcher in join_all(watchers).await {
        let watcher = watcher.unwrap();
        let feed = &heads[watcher.organisation][watcher.feed];
        let organisation = &run.offices[watcher.organisation].tenant.id;
        check::feed::check(&watcher, organisation, feed, &mut violations);
    }
    broken(&records, &mut violations);
    let report = Report { operations: records.len(), faults, violations, tally: tally(&records) };
    if !report.violations.is_empty() {
        leave_history(plan, &records, &report, &cluster.logs().await);
    }
    report
}

fn watch(
    cluster: &Arc<Cluster>,
    run: &Arc<Run>,
    over: &Arc<AtomicBool>,
) -> Vec<tokio::task::JoinHandle<Watcher>> {
    let mut watchers = Vec::new();
    for (organisation, office) in run.offices.iter().enumerate() {
        for feed in FEEDS {
            let watcher = Watcher { feed, organisation, sightings: Vec::new() };
            let random = Random::part(run.seed, 2_000_000 + watchers.len() as u64);
            let id = office.tenant.id.clone();
            watchers.push(tokio::spawn(watcher.watch(cluster.clone(), id, random, over.clone())));
        }
    }
    watchers
}

type Heads = BTreeMap<&'static str, Vec<muster_proto::feed::v1::ChangeMetadata>>;

/// Checks one organisation; its feeds.
async fn check_office(
    cluster: &Cluster,
    office: &Office,
    number: usize,
    records: &[Record],
    violations: &mut Vec<String>,
) -> Heads {
    let id = &office.tenant.id;
    let own = || records.iter().filter(|record| record.organisation == number);
    let of_users: Vec<Record> = own().filter(|r| r.op.is_of_users()).cloned().collect();
    let of_groups: Vec<Record> = own().filter(|r| r.op.is_of_groups()).cloned().collect();

    let head = cluster.head("identity", id).await;
    let users = watchers::users(cluster, id, head).await;
    tells_all("identity", users.len(), head, violations);
    let request =
        ListUsersRequest { organisation_id: id.clone(), page_size: 1_000, ..Default::default() };
    let mut client = UserServiceClient::new(cluster.replicas[0].channel("identity"));
    let last_users = client.list_users(request).await.unwrap().into_inner().users;
    let model = check::users::check(&of_users, &users, &last_users, violations);

    let mut people = People::default();
    for change in &users {
        people.all.insert(change.user_id.clone());
        if change.after.is_none() {
            people.deleted.insert(change.user_id.clone());
        }
    }
    let head = cluster.head("groups", id).await;
    let groups = watchers::groups(cluster, id, head).await;
    tells_all("groups", groups.len(), head, violations);
    let request = ListGroupsRequest {
        organisation_id: id.clone(),
        page_size: 1_000,
        view: GroupView::Full.into(),
        ..Default::default()
    };
    let mut client = GroupServiceClient::new(cluster.replicas[0].channel("group"));
    let last_groups = client.list_groups(request).await.unwrap().into_inner().groups;
    check::groups::check(&of_groups, &groups, &people, &last_groups, office.is_strict, violations);

    let head = cluster.head("approver", id).await;
    let approvers = watchers::approvers(cluster, id, head).await;
    tells_all("approver", approvers.len(), head, violations);
    let user_ids = people.all.iter().cloned().collect();
    let request = BatchGetApproversRequest { organisation_id: id.clone(), user_ids };
    let mut client = ApproverServiceClient::new(cluster.replicas[0].channel("approver"));
    let last = client.batch_get_approvers(request).await.unwrap().into_inner().users;
    check::approvers::check(&model, &last, &approvers, violations);
    BTreeMap::from([
        ("identity", users.into_iter().filter_map(|change| change.metadata).collect()),
        ("group", groups.into_iter().filter_map(|change| change.metadata).collect()),
        ("approver", approvers.into_iter().filter_map(|change| change.metadata).collect()),
    ])
}

fn tells_all(schema: &str, told: usize, head: usize, violations: &mut Vec<String>) {
    if told != head {
        violations.push(format!("{I4}: {schema} tells of {told} changes; the last is {head}"));
    }
}

/// A service that is away says 503; any other error of the server, and any refusal of a good key,
/// is one that nobody made.
fn broken(records: &[Record], violations: &mut Vec<String>) {
    for record in records {
        if let Outcome::Answered { status, body } = &record.outcome
            && (*status > 500 && *status != 503 || *status == 500 || matches!(status, 401 | 403))
        {
            violations.push(format!("availability: {record}: {body}"));
        }
    }
}

fn tally(records: &[Record]) -> BTreeMap<String, usize> {
    let mut tally = BTreeMap::new();
    for record in records {
        let outcome = match &record.outcome {
            Outcome::Answered { status, .. } => status.to_string(),
            Outcome::Unknown(_) => "no answer".into(),
        };
        *tally.entry(format!("{} {outcome}", record.op.request().method)).or_default() += 1;
    }
    tally
}

/// Leaves everything that is needed to see what happened.
fn leave_history(plan: Plan, records: &[Record], report: &Report, logs: &str) {
    let seed = plan.seed;
    let path = scratch().join(format!("faults-{seed}.json"));
    let history: Vec<Value> = records.iter().map(Record::to_json).collect();
    let whole = json!({
        "seed": seed,
        "commit": crate::support::commit(),
        "violations": report.violations,
        "records": history,
        "logs": logs,
    });
    std::fs::write(&path, serde_json::to_vec_pretty(&whole).unwrap()).unwrap();
    let mut text = String::new();
    for violation in report.violations.iter().take(20) {
        writeln!(text, "violation: {violation}").unwrap();
    }
    println!("{text}seed {seed}, history: {}", path.display());
}
