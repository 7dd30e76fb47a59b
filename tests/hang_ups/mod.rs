//! Callers who hang up at every moment that there is: a handler is polled once and dropped, twice
//! and dropped, and so on until it completes. What it began is done whole or not at all, and no
//! connection of the pool is left inside its transaction: everybody else's writes are there.

mod consoles;
mod routes;
mod rpcs;

use std::collections::BTreeSet;
use std::future::poll_fn;
use std::task::Poll;

use futures::future::{BoxFuture, join_all};
use muster_proto::group::v1::group_service_client::GroupServiceClient;
use muster_proto::group::v1::{CreateGroupRequest, Group};
use muster_proto::identity::v1::user_service_client::UserServiceClient;
use muster_proto::identity::v1::{BatchGetUsersRequest, User};
use muster_runtime::feed;
use muster_runtime::life::Life;
use muster_runtime::postgres::Settings;
use muster_runtime::transport::Transport;
use prost::Message as _;
use tonic::service::Routes;

use crate::check::nothing_differs;
use crate::support::feed::{create, eventually, sql, user};
use crate::support::following::agreement;
use crate::support::system::{System, Tenant};

/// Few, so that a connection that was left in a transaction is the next one's soon.
const CONNECTIONS: u32 = 4;

/// After how many polls a handler is taken to wait for something that never comes.
const MOST_POLLS: usize = 2_000;

/// The parts in this process, so that their handlers can be polled by hand, beside four others on
/// the same database.
pub(crate) struct Here {
    pub(crate) system: System,
    pub(crate) tenant: Tenant,
    identity: Transport,
    group: Transport,
    approver: Transport,
    router: axum::Router,
    life: Life,
    /// Who was written by calls that nobody hung up on.
    written: Vec<User>,
}

/// Somebody and something to call about.
#[derive(Debug, Clone)]
struct Subject {
    /// Grows with every call, so that names can be made of it.
    number: usize,
    user: User,
    group: Group,
}

/// A call that can be made again and again.
pub(crate) struct Call {
    pub(crate) name: String,
    make: Box<dyn Fn(Subject) -> BoxFuture<'static, ()> + Send + Sync>,
}

impl Here {
    pub(crate) async fn start(database: &str) -> Self {
        let system = System::start_apart(database);
        let tenant = system.tenant().await;
        let life = Life::new();
        let settings = |schema, role: &str| Settings {
            url: system.database_url(role),
            schema,
            role: None,
            max_connections: CONNECTIONS,
        };
        let feed = feed::Settings::default;
        let in_process =
            |routes: Result<Routes, sqlx::Error>| Transport::in_process(routes.unwrap());
        let database = settings("identity", "muster_identity");
        let log = muster_identity::provisioning_log::Settings::default();
        let identity =
            in_process(muster_identity::start(&database, feed(), log, None, &life).await);
        let database = settings("groups", "muster_group");
        let group = muster_group::start(&database, feed(), identity.clone(), &life).await;
        let database = settings("approver", "muster_approver");
        let approver = muster_approver::start(&database, feed(), identity.clone(), &life).await;
        let (group, approver) = (in_process(group), in_process(approver));
        let router = muster_gateway::router(muster_gateway::Config {
            public_url: "http://muster.example".into(),
            identity: identity.clone(),
            group: group.clone(),
            approver: approver.clone(),
            limits: muster_gateway::Limits::default(),
            trusts_traceparent: false,
            trusts_forwarded_for: false,
            life: life.clone(),
            oidc: None,
        });
        Self { system, tenant, identity, group, approver, router, life, written: Vec::new() }
    }

    pub(crate) fn users(&self) -> UserServiceClient<Transport> {
        UserServiceClient::new(self.identity.clone())
    }

    fn groups(&self) -> GroupServiceClient<Transport> {
        GroupServiceClient::new(self.group.clone())
    }

    /// Somebody new who declares the one before, in a group of their own. That they can be written
    /// is half of the test: the connections are those of the calls that were hung up on.
    async fn subject(&mut self, number: usize) -> Subject {
        let before = format!("u{}@a.example", number.wrapping_sub(1));
        let person = user(&self.tenant.id, &format!("u{number}@a.example"), &[&before]);
        let user = create(&self.users(), person).await;
        let group = Group {
            organisation_id: self.tenant.id.clone(),
            display_name: format!("g{number}"),
            member_ids: vec![user.id.clone()],
            ..Group::default()
        };
        let request = CreateGroupRequest { group: Some(group), ..CreateGroupRequest::default() };
        let group = self.groups().create_group(request).await.unwrap().into_inner().group.unwrap();
        Subject { number, user, group }
    }

    /// Every method and every route.
    pub(crate) fn calls(&self) -> Vec<Call> {
        let mut calls = rpcs::all(self);
        calls.extend(routes::all(self));
        calls
    }

    /// Makes a call about somebody new, to its end.
    pub(crate) async fn make(&mut self, call: &Call, number: usize) {
        let subject = self.subject(number).await;
        (call.make)(subject).await;
    }

    /// Ends what runs in this process.
    pub(crate) async fn end(self) {
        self.life.drain().await;
    }

    /// Hangs up on a call after each number of polls until it completes before; how many that were.
    async fn hang_up(&mut self, call: &Call, next: &mut usize) -> usize {
        for polls in 1..MOST_POLLS {
            *next += 1;
            let subject = self.subject(*next).await;
            if poll_times((call.make)(subject), polls).await.is_some() {
                return polls;
            }
        }
        panic!("{} does not complete", call.name);
    }

    /// Writes that nobody hangs up on, on the connections that were hung up on.
    async fn write_on(&mut self, next: &mut usize) {
        let users = self.users();
        let writes = (1..=20).map(|n| {
            let person = user(&self.tenant.id, &format!("u{}@a.example", *next + n), &[]);
            create(&users, person)
        });
        let written = join_all(writes).await;
        *next += 20;
        self.written.extend(written);
    }

    /// All that was written and answered is there, whatever was hung up on; nothing of the rest is
    /// there by half; no connection is left in a transaction.
    async fn check(self) {
        let mut connection = sql(&self.system).await;
        let idle = "SELECT count(*) FROM pg_stat_activity
                     WHERE datname = current_database() AND state LIKE 'idle in transaction%'";
        eventually(&mut connection, idle, 0).await;
        let ids: Vec<String> = self.written.iter().map(|user| user.id.clone()).collect();
        for ids in ids.chunks(200) {
            let request = BatchGetUsersRequest {
                organisation_id: self.tenant.id.clone(),
                ids: ids.to_vec(),
                ids_only: true,
                ..BatchGetUsersRequest::default()
            };
            // Another process's, so another pool's.
            let there = self.system.users().batch_get_users(request).await.unwrap();
            let there: BTreeSet<String> =
                there.into_inner().users.into_iter().map(|user| user.id).collect();
            assert_eq!(there, ids.iter().cloned().collect(), "written, answered and lost");
        }
        agreement(&self.system, &self.tenant.id).await;
        nothing_differs(&self.system, &self.tenant.id).await;
        self.life.drain().await;
    }
}

/// Polls so many times, and drops what is not done by then.
async fn poll_times<F: Future + Unpin>(mut work: F, times: usize) -> Option<F::Output> {
    let mut polled = 0;
    let done = poll_fn(|context| {
        polled += 1;
        match std::pin::Pin::new(&mut work).poll(context) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if polled >= times => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    });
    done.await
}

/// Every method of every service, as the contracts have them: `muster.group.v1.GroupService/GetGroup`.
fn methods() -> BTreeSet<String> {
    let set = prost_types::FileDescriptorSet::decode(muster_proto::FILE_DESCRIPTOR_SET).unwrap();
    let mut methods = BTreeSet::new();
    for file in &set.file {
        for service in &file.service {
            for method in &service.method {
                methods.insert(format!("{}.{}/{}", file.package(), service.name(), method.name()));
            }
        }
    }
    methods
}

// On one thread: what a handler spawns cannot be done before its first poll has returned.
#[tokio::test]
async fn whoever_hangs_up_on_a_method_at_any_moment_harms_nobody() {
    let mut here = Here::start("hang_ups_rpc").await;
    let calls = rpcs::all(&here);
    let names: BTreeSet<String> = calls.iter().map(|call| call.name.clone()).collect();
    assert_eq!(names, methods(), "every method is called");
    play(&mut here, &calls).await;
    here.check().await;
}

#[tokio::test]
async fn whoever_hangs_up_on_a_request_at_any_moment_harms_nobody() {
    let mut here = Here::start("hang_ups_http").await;
    let calls = routes::all(&here);
    play(&mut here, &calls).await;
    here.check().await;
}

async fn play(here: &mut Here, calls: &[Call]) {
    let mut next = 0;
    let mut total = 0;
    for call in calls {
        let mut polls = 1;
        // A read whose answer is there at once is done at its first poll, now and then.
        for _ in 0..100 {
            polls = here.hang_up(call, &mut next).await;
            if polls > 1 {
                break;
            }
        }
        assert!(polls > 1, "{} is never dropped half-way", call.name);
        here.write_on(&mut next).await;
        total += polls - 1;
    }
    println!("{} calls, hung up on {total} times", calls.len());
}
