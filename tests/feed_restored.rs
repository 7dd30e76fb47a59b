//! Restores of one service from an earlier copy: who read or followed it comes to the restored state.

use std::collections::BTreeSet;
use std::path::PathBuf;

use muster_proto::group::v1 as group;
use sqlx::Row as _;
use tonic::Code;

use crate::support::feed::{
    create, delete, entitle, eventually, list, next, number, refusal, row, sequence, sql, user,
    users_at, watch,
};
use crate::support::following::{agreement, approvers, create_group, expected_approvers, members};
use crate::support::system::{System, scratch};

/// A schema as it is now, dumped by PostgreSQL's own program.
struct Backup {
    schema: &'static str,
    programs: PathBuf,
    url: String,
    file: PathBuf,
}

impl Backup {
    async fn of(system: &System, schema: &'static str) -> Self {
        let programs = "SELECT setting FROM pg_config WHERE name = 'BINDIR'";
        let programs: String = row(&mut sql(system).await, programs).await.get(0);
        let url = system.database_url("postgres");
        let file = scratch().join(format!("{}-{schema}.sql", system.database));
        let this = Self { schema, programs: programs.into(), url, file };
        this.run("pg_dump", &["--schema", schema, "--file"]).await;
        this
    }

    /// Puts it in the place of what there is.
    async fn restore(&self) {
        let drop = format!("DROP SCHEMA {} CASCADE", self.schema);
        let stop = "ON_ERROR_STOP=1";
        self.run("psql", &["-X", "-q", "-1", "-v", stop, "-c", &drop, "-f"]).await;
    }

    async fn run(&self, program: &str, args: &[&str]) {
        let mut command = tokio::process::Command::new(self.programs.join(program));
        command.args(["-d", &self.url]).args(args).arg(&self.file);
        let output = command.output().await.unwrap();
        assert!(output.status.success(), "{output:?}");
    }
}

#[tokio::test]
async fn after_identity_was_restored_stale_tokens_are_refused_and_followers_come_to_its_state() {
    let mut system = System::start_apart("restored");
    let (tenant, other) = (system.tenant().await.id, system.tenant().await.id);
    let users = system.users();
    let mut people = Vec::new();
    for (n, approver) in ["b@a.example", "x@a.example", "b@a.example"].into_iter().enumerate() {
        let name = format!("{}@a.example", ['a', 'b', 'c'][n]);
        people.push(create(&users, user(&tenant, &name, &[approver])).await);
    }
    create(&users, user(&other, "other@a.example", &[])).await;
    let group = create_group(&system, &tenant, &people).await;
    agreement(&system, &tenant).await;
    let before = list(&users, &tenant, 1_000).await.1;
    let mut connection = sql(&system).await;
    let backup = Backup::of(&system, "identity").await;

    // What will not have been.
    delete(&users, &people[1]).await;
    let mut changed = people[2].clone();
    changed.active = Some(false);
    entitle(&users, changed, "gone").await;
    let lost = create(&users, user(&tenant, "lost@a.example", &["c@a.example"])).await;
    agreement(&system, &tenant).await;
    let after = list(&users, &tenant, 1_000).await.1;
    system.kill("identity");
    backup.restore().await;
    system.restart("identity");

    let users = users_at(&system.identity_url);
    let refused = refusal(&users, &tenant, Some(after.clone())).await;
    assert_eq!(refused.code(), Code::OutOfRange, "{refused:?}");
    // As many changes as before, and others.
    for n in 0..5 {
        create(&users, user(&tenant, &format!("new{n}@a.example"), &["c@a.example"])).await;
    }
    let refused = refusal(&users, &tenant, Some(after)).await;
    assert_eq!(refused.code(), Code::OutOfRange, "{refused:?}");
    let mut stream = watch(&users, &tenant, Some(before)).await.unwrap();
    assert_eq!(sequence(&next(&mut stream).await.unwrap().0), 4);

    agreement(&system, &tenant).await;
    let (listed, _) = list(&users, &tenant, 1_000).await;
    assert_eq!(listed.len(), 8);
    assert_eq!(approvers(&system, &tenant, &listed).await, expected_approvers(&listed));
    // A group is the group service's own: who has left it is not back.
    let there = [&people[0], &people[2]].map(|user| user.id.clone());
    assert_eq!(members(&system, &tenant, &group).await, BTreeSet::from(there));
    let gone =
        format!("SELECT count(*) FROM groups.person WHERE deleted AND user_id = '{}'", lost.id);
    assert_eq!(number(&mut connection, &gone).await, 1);
    // And they follow again.
    delete(&users, &people[2]).await;
    create(&users, user(&other, "another@a.example", &[])).await;
    agreement(&system, &tenant).await;
    agreement(&system, &other).await;
    assert_eq!(members(&system, &tenant, &group).await, BTreeSet::from([people[0].id.clone()]));
}

#[tokio::test]
async fn a_group_service_that_was_restored_catches_up_and_its_readers_list_afresh() {
    let mut system = System::start_apart("groups_restored");
    let (tenant, users) = (system.tenant().await.id, system.users());
    let ann = create(&users, user(&tenant, "ann@a.example", &[])).await;
    let bo = create(&users, user(&tenant, "bo@a.example", &[])).await;
    let group = create_group(&system, &tenant, &[ann.clone(), bo.clone()]).await;
    agreement(&system, &tenant).await;
    let mut connection = sql(&system).await;
    let backup = Backup::of(&system, "groups").await;
    delete(&users, &ann).await;
    let newest = "SELECT max(sequence) FROM groups.change";
    eventually(&mut connection, newest, 2).await;
    let request = || group::ListGroupsRequest {
        organisation_id: tenant.clone(),
        ..group::ListGroupsRequest::default()
    };
    let stale = system.groups().list_groups(request()).await.unwrap().into_inner().resume_token;

    system.kill("group");
    backup.restore().await;
    assert_eq!(number(&mut connection, newest).await, 1);
    system.restart("group");
    let watch = group::WatchChangesRequest {
        organisation_id: tenant.clone(),
        resume_tokens: vec![stale],
        ..group::WatchChangesRequest::default()
    };
    // Ann leaves again by the feed, as another change of the same sequence.
    eventually(&mut connection, newest, 2).await;
    let mut stream = system.groups().watch_changes(watch).await.unwrap().into_inner();
    let refused = stream.message().await.unwrap_err();
    assert_eq!(refused.code(), Code::OutOfRange, "{refused:?}");
    assert_eq!(members(&system, &tenant, &group).await, BTreeSet::from([bo.id]));
    agreement(&system, &tenant).await;
}

#[tokio::test]
async fn a_feed_that_is_restored_under_a_running_watch_ends_it() {
    let system = System::start_apart_with("under", &[("MUSTER_FEED_SWEEP", "0.5")]);
    let (tenant, users) = (system.tenant().await.id, system.users());
    create(&users, user(&tenant, "ann@a.example", &[])).await;
    let mut connection = sql(&system).await;
    let backup = Backup::of(&system, "identity").await;
    let bo = create(&users, user(&tenant, "bo@a.example", &[])).await;
    let mut stream = watch(&users, &tenant, None).await.unwrap();
    for expected in 1..=2 {
        assert_eq!(sequence(&next(&mut stream).await.unwrap().0), expected);
    }
    agreement(&system, &tenant).await;
    backup.restore().await;
    let ended = next(&mut stream).await.unwrap_err();
    assert_eq!(ended.code(), Code::OutOfRange, "{ended:?}");
    // The followers' streams go on, for the other organisations; this one is listed afresh.
    let gone =
        format!("SELECT count(*) FROM groups.person WHERE deleted AND user_id = '{}'", bo.id);
    eventually(&mut connection, &gone, 1).await;
    agreement(&system, &tenant).await;
}
