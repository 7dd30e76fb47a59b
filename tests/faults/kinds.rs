//! One write of every kind on one user and one group, each sent again until it is known what came of
//! it; and the check that each happened once.

use muster::scim_client::{Answer, query};
use muster_proto::identity::v1::UserChange;
use serde_json::json;

use super::clients::{self, Office, trace};
use super::cluster::Cluster;
use super::watchers;
use crate::model::edit::index_of;
use crate::model::random::Random;
use crate::model::{Doc, Email, GroupEdit, Op, UserEdit};

/// How many kinds there are.
pub(crate) const COUNT: usize = 12;

/// What the changes of one user are, in order.
const STEPS: [&str; 6] = ["", "put", "patched", "patched inactive", "back", "deleted"];

/// A round of writes.
pub(crate) struct Round<'o> {
    office: &'o Office,
    number: usize,
    user: String,
    group: String,
}

impl<'o> Round<'o> {
    pub(crate) fn new(office: &'o Office, number: usize) -> Self {
        Self { office, number, user: String::new(), group: String::new() }
    }

    fn user_name(&self) -> String {
        format!("u{}@a.example", self.number)
    }

    fn doc(&self, title: Option<&str>) -> Doc {
        let mut doc = Doc { user_name: Some(self.user_name()), ..Doc::default() };
        doc.emails.push(Email { value: doc.user_name.clone(), ..Email::default() });
        doc.texts[index_of("title")] = title.map(str::to_owned);
        // Each is declared by the next, and declares the one before.
        doc.approvers = vec![format!("u{}@a.example", self.number.wrapping_sub(1))];
        doc
    }

    /// The write of a kind, of those below [`COUNT`], in this order.
    pub(crate) fn op(&self, kind: usize) -> Op {
        let (id, version, form) = (self.user.clone(), None, 0);
        let patch = |edit| Op::PatchUser { id: id.clone(), edits: vec![edit], version, form };
        let patch_group = |edit| {
            let id = self.group.clone();
            Op::PatchGroup { id, edits: vec![edit], version, form }
        };
        match kind {
            0 => Op::CreateUser { doc: self.doc(None), form },
            1 => Op::PutUser { id, doc: self.doc(Some("put")), version, form },
            2 => patch(UserEdit::Text("title", "patched".into())),
            3 => patch(UserEdit::Active(false)),
            // A rehire.
            4 => Op::CreateUser { doc: self.doc(Some("back")), form },
            5 => {
                let name = format!("g{}", self.number);
                Op::CreateGroup { name, external_id: None, members: vec![] }
            }
            6 => patch_group(GroupEdit::AddMembers(vec![id])),
            7 => patch_group(GroupEdit::Rename(format!("renamed {}", self.number))),
            8 => patch_group(GroupEdit::RemoveMember(id)),
            9 => patch_group(GroupEdit::AddMembers(vec![id])),
            10 => Op::DeleteGroup { id: self.group.clone(), version },
            _ => Op::DeleteUser { id, version },
        }
    }

    /// Sends the write of a kind until an answer says what came of it; how often there was none.
    /// Before each further try, `recover` mends what it can.
    pub(crate) async fn ask<F: Future<Output = ()>>(
        &mut self,
        kind: usize,
        random: &mut Random,
        recover: impl Fn() -> F,
    ) -> usize {
        let op = self.op(kind);
        for attempt in 0..40 {
            let sent = clients::send(self.office.client(0), &op, &trace(random)).await;
            if let Ok(answer) = sent
                && answer.status < 500
            {
                let good = answer.status < 300 || attempt > 0 && is_repeated(&op, answer.status);
                assert!(good, "{} {}", op.request(), answer.text);
                self.note(&op, &answer).await;
                return attempt;
            }
            recover().await;
        }
        panic!("{} is never answered", op.request());
    }

    async fn note(&mut self, op: &Op, answer: &Answer) {
        match op {
            Op::CreateUser { .. } if self.user.is_empty() => {
                self.user = self.found("Users", "userName", &self.user_name(), answer).await;
            }
            Op::CreateGroup { name, .. } => {
                self.group = self.found("Groups", "displayName", name, answer).await;
            }
            _ => {}
        }
    }

    /// The id of what was created, by this request or by an earlier one of the same.
    async fn found(&self, endpoint: &str, attribute: &str, value: &str, answer: &Answer) -> String {
        if let Some(id) = answer.at("/id").as_str() {
            return id.to_owned();
        }
        let filter = format!("{attribute} eq {}", json!(value));
        let path = format!("/{endpoint}{}", query(&[("filter", &filter), ("attributes", "id")]));
        for _ in 0..40 {
            let list = self.office.client(0).get(&path).await;
            if let Some(id) =
                list.ok().and_then(|l| Some(l.at("/Resources/0/id").as_str()?.to_owned()))
            {
                return id;
            }
        }
        panic!("{path} cannot be read");
    }
}

/// Whether a repeated request may be answered so: what it asks for is done.
fn is_repeated(op: &Op, status: u16) -> bool {
    match op {
        Op::CreateUser { .. } | Op::CreateGroup { .. } => status == 409,
        Op::DeleteUser { .. } | Op::DeleteGroup { .. } => status == 404,
        _ => false,
    }
}

/// Checks, after whole rounds, that each write happened once, that nobody follows another state,
/// and that nothing is left.
pub(crate) async fn check(cluster: &Cluster, office: &Office, rounds: usize) {
    cluster.drain().await.unwrap();
    let id = &office.tenant.id;
    let users = watchers::users(cluster, id, cluster.head("identity", id).await).await;
    let groups = watchers::groups(cluster, id, cluster.head("groups", id).await).await;
    let steps: Vec<String> = users.iter().map(step).collect();
    let wanted: Vec<&str> = (0..rounds).flat_map(|_| STEPS).collect();
    assert_eq!(steps, wanted, "one change of a user for each request");
    assert_eq!(
        groups.len(),
        rounds * (COUNT - STEPS.len()),
        "one change of a group for each request"
    );
    for schema_and_table in
        ["identity.users", "groups.groups", "groups.membership", "approver.declaration"]
    {
        let left = cluster.count(schema_and_table).await;
        assert_eq!(left, 0, "{schema_and_table} is not empty");
    }
}

/// What a change made of the user.
fn step(change: &UserChange) -> String {
    match &change.after {
        None => "deleted".into(),
        Some(user) if !user.active() => format!("{} inactive", user.title()),
        Some(user) => user.title().to_owned(),
    }
}
