//! A commit whose answer is lost: the same request sent again gives the state that one success
//! gives.

use std::sync::Arc;

use muster_proto::identity::v1::UserChange;
use serde_json::json;

use super::check::trace_of;
use super::clients::{self, Office, trace};
use super::cluster::Cluster;
use super::watchers;
use crate::model::random::{Random, seed};
use crate::model::{Doc, Email, GroupEdit, Op, UserEdit};

/// How many commits are cut off.
const CUTS: usize = 120;

/// An operation of each kind, one after the other, on a user and a group of this round.
fn ops(round: usize, user: &str, group: &str) -> Vec<Op> {
    let name = format!("u{round}@a.example");
    let email = |value: &str| Email { value: Some(value.into()), ..Email::default() };
    let doc = |title: Option<&str>| {
        let mut doc = Doc { user_name: Some(name.clone()), ..Doc::default() };
        doc.emails.push(email(&name));
        doc.texts[2] = title.map(str::to_owned);
        doc
    };
    let (id, version) = (user.to_owned(), None);
    let group_id = group.to_owned();
    let patch = |edit| Op::PatchUser { id: id.clone(), edits: vec![edit], version, form: 0 };
    let patch_group =
        |edit| Op::PatchGroup { id: group_id.clone(), edits: vec![edit], version, form: 0 };
    vec![
        Op::CreateUser { doc: doc(None), form: 0 },
        Op::PutUser { id: id.clone(), doc: doc(Some("put")), version, form: 0 },
        patch(UserEdit::Text("title", "patched".into())),
        patch(UserEdit::Active(false)),
        // A rehire.
        Op::CreateUser { doc: doc(Some("back")), form: 0 },
        Op::CreateGroup { name: format!("g{round}"), external_id: None, members: vec![] },
        patch_group(GroupEdit::AddMembers(vec![id.clone()])),
        patch_group(GroupEdit::Rename(format!("renamed {round}"))),
        patch_group(GroupEdit::RemoveMember(id.clone())),
        patch_group(GroupEdit::AddMembers(vec![id.clone()])),
        Op::DeleteGroup { id: group_id.clone(), version },
        Op::DeleteUser { id: id.clone(), version },
    ]
}

/// What a repeated request may be answered, beside what a first one is: what it asks for is done.
fn repeated(op: &Op, status: u16) -> bool {
    match op {
        Op::CreateUser { .. } | Op::CreateGroup { .. } => status == 409,
        Op::DeleteUser { .. } | Op::DeleteGroup { .. } => status == 404,
        _ => false,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_whose_commit_got_no_answer_is_sent_again_and_happens_once() {
    let seed = seed();
    println!("MUSTER_SEED={seed}");
    let mut random = Random::part(seed, 5);
    let cluster = Arc::new(Cluster::start(1).await);
    let office = Office::open(&cluster).await;
    let proxy = &cluster.replicas[0].to_database;
    let (mut asked, mut round, mut ambiguous) = (0, 0, 0);
    while proxy.commits_cut() < CUTS {
        round += 1;
        let (mut user, mut group) = (String::new(), String::new());
        for at in 0..ops(round, "", "").len() {
            let op = ops(round, &user, &group).swap_remove(at);
            // The first commit of the request is the owner's; later ones are the followers'.
            proxy.cut_commit(1 + usize::from(random.chance(25)));
            let mut answered = None;
            for attempt in 0..20 {
                let sent = clients::send(office.client(0), &op, &trace(&mut random)).await;
                match sent {
                    Ok(answer) if answer.status < 500 => {
                        let good =
                            answer.status < 300 || attempt > 0 && repeated(&op, answer.status);
                        assert!(good, "seed {seed}: {} {}", op.request(), answer.text);
                        answered = Some(answer);
                        break;
                    }
                    _ => ambiguous += 1,
                }
            }
            let answer = answered.unwrap_or_else(|| panic!("seed {seed}: {} fails", op.request()));
            proxy.cut_commit(0);
            asked += 1;
            match op {
                Op::CreateUser { .. } if user.is_empty() => {
                    user = found(
                        &office,
                        "Users",
                        "userName",
                        &format!("u{round}@a.example"),
                        &answer,
                    )
                    .await;
                }
                Op::CreateGroup { .. } => {
                    group = found(&office, "Groups", "displayName", &format!("g{round}"), &answer)
                        .await;
                }
                _ => {}
            }
        }
    }
    cluster.drain().await.unwrap();
    let id = &office.tenant.id;
    let users = watchers::users(&cluster, id, cluster.head("identity", id).await).await;
    let groups = watchers::groups(&cluster, id, cluster.head("groups", id).await).await;
    // Of every operation exactly one change, and of nothing else; the last round may have ended
    // early, so both are counted by what was asked.
    let titles: Vec<String> = users.iter().map(step).collect();
    let wanted = ["", "put", "patched", "patched inactive", "back", "deleted"];
    for (at, title) in titles.iter().enumerate() {
        assert_eq!(title, wanted[at % 6], "seed {seed}: change {} of {titles:?}", at + 1);
    }
    assert_eq!(users.len() + groups.len(), asked, "seed {seed}: one change for each request");
    let traces: Vec<&str> = users.iter().map(|change| trace_of(change.metadata.as_ref())).collect();
    assert!(traces.iter().all(|trace| trace.len() == 32));
    println!("{asked} requests, {} commits cut, {ambiguous} times no answer", proxy.commits_cut());
    assert!(ambiguous > CUTS / 3, "the cuts were not felt");
    Arc::into_inner(cluster).unwrap().stop().await;
}

/// What a change made of the user.
fn step(change: &UserChange) -> String {
    match &change.after {
        None => "deleted".into(),
        Some(user) if !user.active() => format!("{} inactive", user.title()),
        Some(user) => user.title().to_owned(),
    }
}

/// The id of what was created, by this request or by an earlier one of the same.
async fn found(
    office: &Office,
    endpoint: &str,
    attribute: &str,
    value: &str,
    answer: &muster::scim_client::Answer,
) -> String {
    if let Some(id) = answer.at("/id").as_str() {
        return id.to_owned();
    }
    let filter = format!("{attribute} eq {}", json!(value));
    let path = format!("/{endpoint}{}", muster::scim_client::query(&[("filter", &filter)]));
    for _ in 0..20 {
        let list = office.client(0).get(&path).await.unwrap();
        if list.status == 200 {
            return list.at("/Resources/0/id").as_str().unwrap().to_owned();
        }
    }
    panic!("{path} cannot be read");
}
