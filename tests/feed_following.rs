//! What group and approver make of identity's feed: when it repeats itself, when it was restored,
//! when a change cannot be applied.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use muster_proto::approver::v1::{self as approver, ApproverState, BatchGetApproversRequest};
use muster_proto::group::v1::{self as group, CreateGroupRequest, Group, ListMembersRequest};
use muster_proto::identity::v1::User;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use sqlx::{AssertSqlSafe, Executor as _, PgConnection};
use tonic::Code;

use crate::support::collector::Collector;
use crate::support::feed::{
    Users, create, delete, entitle, eventually, list, next, number, refusal, seed, sequence, sql,
    user, users_at, watch,
};
use crate::support::feed_proxy;
use crate::support::system::System;

/// Which users of an organisation the group and the approver service know otherwise than identity.
async fn differing(system: &System, organisation: &str) -> (Vec<String>, Vec<String>) {
    let organisation_id = organisation.to_owned();
    let request =
        group::ReconcileRequest { organisation_id: organisation_id.clone(), dry_run: true };
    let groups = system.groups().reconcile(request).await.unwrap().into_inner();
    let request = approver::ReconcileRequest { organisation_id, dry_run: true };
    let approvers = system.approvers().reconcile(request).await.unwrap().into_inner();
    for (count, ids) in [
        (groups.difference_count, &groups.user_ids),
        (approvers.difference_count, &approvers.user_ids),
    ] {
        assert_eq!(usize::try_from(count).unwrap(), ids.len());
    }
    (groups.user_ids, approvers.user_ids)
}

/// Waits until both services know of the users what identity says.
async fn agreement(system: &System, organisation: &str) {
    let deadline = Instant::now() + Duration::from_mins(1);
    loop {
        let differing = differing(system, organisation).await;
        if differing == (Vec::new(), Vec::new()) {
            return;
        }
        assert!(Instant::now() < deadline, "still {differing:?}\n{}", system.logs());
    }
}

async fn create_group(system: &System, organisation: &str, members: &[User]) -> String {
    let group = Group {
        organisation_id: organisation.into(),
        display_name: "Everybody".into(),
        member_ids: members.iter().map(|user| user.id.clone()).collect(),
        ..Group::default()
    };
    let request = CreateGroupRequest { group: Some(group), ..CreateGroupRequest::default() };
    let created = system.groups().create_group(request).await.unwrap().into_inner();
    assert!(created.unknown_member_ids.is_empty(), "{created:?}");
    created.group.unwrap().id
}

async fn members(system: &System, organisation: &str, group_id: &str) -> BTreeSet<String> {
    let request = ListMembersRequest {
        organisation_id: organisation.into(),
        group_id: group_id.into(),
        page_size: 10_000,
        ..ListMembersRequest::default()
    };
    let listed = system.groups().list_members(request).await.unwrap().into_inner();
    listed.user_ids.into_iter().collect()
}

/// What the approver service says of each user's declared approvers.
async fn approvers(
    system: &System,
    organisation: &str,
    users: &[User],
) -> BTreeMap<String, Vec<(String, ApproverState)>> {
    let request = BatchGetApproversRequest {
        organisation_id: organisation.into(),
        user_ids: users.iter().map(|user| user.id.clone()).collect(),
    };
    let answer = system.approvers().batch_get_approvers(request).await.unwrap().into_inner();
    let states = answer.users.into_iter().map(|user| {
        let states = user.approvers.iter().map(|a| (a.declared_email.clone(), a.state()));
        (user.user_id.clone(), states.collect())
    });
    states.collect()
}

/// What it ought to say, where nobody's address has ever become another's.
fn expected_approvers(users: &[User]) -> BTreeMap<String, Vec<(String, ApproverState)>> {
    let owners: BTreeMap<&str, &User> =
        users.iter().map(|user| (user.primary_email.as_str(), user)).collect();
    let state = |user: &User, email: &str| match owners.get(email) {
        Some(owner) if owner.id == user.id => ApproverState::OwnAddress,
        Some(owner) if owner.active() => ApproverState::InForce,
        Some(_) => ApproverState::Suspended,
        None => ApproverState::Pending,
    };
    let declaring = users.iter().filter(|user| !user.declared_approvers.is_empty());
    let states = declaring.map(|user| {
        let declared = user.declared_approvers.iter();
        (user.id.clone(), declared.map(|email| (email.clone(), state(user, email))).collect())
    });
    states.collect()
}

/// People who come, change, are deactivated and go; the names come back.
async fn live(users: &Users, organisation: &str, count: usize, rng: &mut StdRng) {
    let (mut living, _) = list(users, organisation, 1_000).await;
    for n in 0..count {
        let pick = |rng: &mut StdRng| format!("p{}@a.example", rng.random_range(0..30));
        match rng.random_range(0..8) {
            0..2 if !living.is_empty() => {
                let user = living.swap_remove(rng.random_range(0..living.len()));
                let active = rng.random_bool(0.6);
                let user = User { active: Some(active), ..user };
                living.push(entitle(users, user, &format!("t{n}")).await);
            }
            2 if !living.is_empty() => {
                let user = living.swap_remove(rng.random_range(0..living.len()));
                let declared_approvers = vec![pick(rng), pick(rng)];
                living.push(entitle(users, User { declared_approvers, ..user }, "boss").await);
            }
            3..5 if living.len() > 5 => {
                delete(users, &living.swap_remove(rng.random_range(0..living.len()))).await;
            }
            _ => {
                let name = pick(rng);
                if living.iter().all(|user| user.primary_email != name) {
                    let approver = pick(rng);
                    living.push(create(users, user(organisation, &name, &[&approver])).await);
                }
            }
        }
    }
}

/// Fails every statement by which what is known of a user would grow older.
async fn forbid_to_fall(connection: &mut PgConnection) {
    connection
        .execute(
            "CREATE FUNCTION public.only_grows() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN
                 IF NEW.revision < OLD.revision THEN
                     RAISE EXCEPTION 'the revision of % falls to %', OLD, NEW;
                 END IF;
                 RETURN NEW;
             END $$;
             CREATE TRIGGER only_grows BEFORE UPDATE ON groups.person
                FOR EACH ROW EXECUTE FUNCTION public.only_grows();
             CREATE TRIGGER only_grows BEFORE UPDATE ON approver.person
                FOR EACH ROW EXECUTE FUNCTION public.only_grows();",
        )
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_feed_that_repeats_and_delays_and_breaks_off_leaves_the_state_that_one_telling_does() {
    let seed = seed();
    let mut rng = StdRng::seed_from_u64(seed);
    let mut system = System::start_apart("repeated");
    let users = system.users();
    let proxy = feed_proxy::start(users.clone(), seed).await;
    for part in ["group", "approver"] {
        system.kill(part);
        system.restart_with_identity(part, &proxy);
        // Another replica beside it, whose feed is as it should be.
        system.replica(part);
    }
    let mut connection = sql(&system).await;
    forbid_to_fall(&mut connection).await;
    let mut organisations = Vec::new();
    for _ in 0..3 {
        let id = system.tenant().await.id;
        live(&users, &id, 40, &mut rng).await;
        let (listed, _) = list(&users, &id, 1_000).await;
        let group = create_group(&system, &id, &listed).await;
        organisations.push((id, group, listed));
    }
    for _ in 0..6 {
        for (organisation, ..) in &organisations {
            live(&users, organisation, 30, &mut rng).await;
        }
    }
    for (organisation, group, at_first) in &organisations {
        agreement(&system, organisation).await;
        let (listed, _) = list(&users, organisation, 1_000).await;
        let there: BTreeSet<String> = listed.iter().map(|user| user.id.clone()).collect();
        let first: BTreeSet<String> = at_first.iter().map(|user| user.id.clone()).collect();
        let both: BTreeSet<String> = first.intersection(&there).cloned().collect();
        assert_eq!(members(&system, organisation, group).await, both);
        assert_eq!(approvers(&system, organisation, &listed).await, expected_approvers(&listed));
    }
    let applied = number(&mut connection, "SELECT sum(sequence)::bigint FROM groups.cursor").await;
    let written = number(&mut connection, "SELECT count(*) FROM identity.change").await;
    assert_eq!(applied, written);
    assert!(!system.logs().contains("cannot be applied"), "{}", system.logs());
    println!("{written} changes");
}

/// Keeps the tables of a schema as they are now.
async fn back_up(connection: &mut PgConnection, schema: &str) {
    let statement = format!(
        "DO $$ DECLARE t text; BEGIN
             CREATE SCHEMA {schema}_copy;
             FOR t IN SELECT tablename FROM pg_tables WHERE schemaname = '{schema}' LOOP
                 EXECUTE format('CREATE TABLE {schema}_copy.%I AS TABLE {schema}.%I', t, t);
             END LOOP;
         END $$"
    );
    connection.execute(AssertSqlSafe(statement)).await.unwrap();
}

/// Puts back what was kept.
async fn restore(connection: &mut PgConnection, schema: &str) {
    let statement = format!(
        "DO $$ DECLARE t text; written text; BEGIN
             SET LOCAL session_replication_role = replica;
             FOR t IN SELECT tablename FROM pg_tables WHERE schemaname = '{schema}' LOOP
                 SELECT string_agg(quote_ident(column_name), ', ') INTO written
                   FROM information_schema.columns
                  WHERE table_schema = '{schema}' AND table_name = t AND is_generated = 'NEVER';
                 EXECUTE format('DELETE FROM {schema}.%I', t);
                 EXECUTE format('INSERT INTO {schema}.%I (%s) SELECT %s FROM {schema}_copy.%I',
                                t, written, written, t);
             END LOOP;
         END $$"
    );
    connection.execute(AssertSqlSafe(statement)).await.unwrap();
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
    back_up(&mut connection, "identity").await;

    // What will not have been.
    delete(&users, &people[1]).await;
    let mut changed = people[2].clone();
    changed.active = Some(false);
    entitle(&users, changed, "gone").await;
    let lost = create(&users, user(&tenant, "lost@a.example", &["c@a.example"])).await;
    agreement(&system, &tenant).await;
    let after = list(&users, &tenant, 1_000).await.1;
    system.kill("identity");
    restore(&mut connection, "identity").await;
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
    back_up(&mut connection, "groups").await;
    delete(&users, &ann).await;
    let newest = "SELECT max(sequence) FROM groups.change";
    eventually(&mut connection, newest, 2).await;
    let request = || group::ListGroupsRequest {
        organisation_id: tenant.clone(),
        ..group::ListGroupsRequest::default()
    };
    let stale = system.groups().list_groups(request()).await.unwrap().into_inner().resume_token;

    system.kill("group");
    restore(&mut connection, "groups").await;
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
    back_up(&mut connection, "identity").await;
    let bo = create(&users, user(&tenant, "bo@a.example", &[])).await;
    let mut stream = watch(&users, &tenant, None).await.unwrap();
    for expected in 1..=2 {
        assert_eq!(sequence(&next(&mut stream).await.unwrap().0), expected);
    }
    agreement(&system, &tenant).await;
    restore(&mut connection, "identity").await;
    let ended = next(&mut stream).await.unwrap_err();
    assert_eq!(ended.code(), Code::OutOfRange, "{ended:?}");
    // The followers' streams go on, for the other organisations; this one is listed afresh.
    let gone =
        format!("SELECT count(*) FROM groups.person WHERE deleted AND user_id = '{}'", bo.id);
    eventually(&mut connection, &gone, 1).await;
    agreement(&system, &tenant).await;
}

#[tokio::test]
async fn a_change_that_cannot_be_applied_stops_its_organisation_only_until_it_can() {
    let system = System::start_apart("poisoned");
    let (tenant, other) = (system.tenant().await.id, system.tenant().await.id);
    let users = system.users();
    let mut connection = sql(&system).await;
    let poison = format!(
        "CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN RAISE EXCEPTION 'poison'; END $$;
         CREATE TRIGGER refuse BEFORE INSERT ON approver.person FOR EACH ROW
            WHEN (NEW.organisation_id = '{tenant}' AND NEW.email = 'poison@a.example')
            EXECUTE FUNCTION public.refuse();"
    );
    connection.execute(AssertSqlSafe(poison)).await.unwrap();
    for name in ["a", "b", "poison", "c", "d"] {
        create(&users, user(&tenant, &format!("{name}@a.example"), &[])).await;
    }
    let known = |organisation: &str| {
        format!("SELECT count(*) FROM approver.person WHERE organisation_id = '{organisation}'")
    };
    for n in 1..=5 {
        create(&users, user(&other, &format!("u{n}@a.example"), &[])).await;
        eventually(&mut connection, &known(&other), n).await;
    }
    // What came before it is applied, what comes after it waits.
    eventually(&mut connection, &known(&tenant), 2).await;
    // The warning is repeated with each try, and tells of all three.
    let told = "its organisation waits";
    let late = |line: &str| line.contains(told) && line.contains("lag_changes=3");
    let deadline = Instant::now() + Duration::from_secs(30);
    while !system.logs().lines().any(late) {
        assert!(Instant::now() < deadline, "{}", system.logs());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(number(&mut connection, &known(&tenant)).await, 2);
    connection.execute("DROP TRIGGER refuse ON approver.person").await.unwrap();
    eventually(&mut connection, &known(&tenant), 5).await;
    agreement(&system, &tenant).await;
}

#[tokio::test]
async fn how_far_behind_a_follower_is_goes_to_the_collector() {
    let collector = Collector::start().await;
    let endpoint: &'static str = Box::leak(collector.url.clone().into_boxed_str());
    let system = System::start_apart_with(
        "measured",
        &[("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint), ("OTEL_METRIC_EXPORT_INTERVAL", "100")],
    );
    for follower in ["group", "approver"] {
        collector.told("muster.feed.lag", follower, |lag| lag < 10.0).await;
        collector.told("muster.feed.lag.changes", follower, |lag| lag <= 0.0).await;
    }
    let mut connection = sql(&system).await;
    connection.execute("ALTER TABLE groups.person RENAME TO away").await.unwrap();
    let (tenant, users) = (system.tenant().await.id, system.users());
    create(&users, user(&tenant, "ann@a.example", &[])).await;
    collector.told("muster.feed.lag.changes", "group", |lag| lag > 0.0).await;
    collector.told("muster.feed.lag", "group", |lag| lag > 0.5).await;
    connection.execute("ALTER TABLE groups.away RENAME TO person").await.unwrap();
    collector.told("muster.feed.lag.changes", "group", |lag| lag <= 0.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reconciliation_names_and_mends_what_is_wrong_and_nothing_else_while_all_goes_on() {
    let seed = seed();
    let system = System::start_apart("reconciled");
    let (tenant, users) = (system.tenant().await.id, system.users());
    let mut people = Vec::new();
    for n in 0..600 {
        people.push(create(&users, user(&tenant, &format!("u{n}@a.example"), &[])).await);
    }
    let boss = user(&tenant, "boss@a.example", &["u1@a.example"]);
    people.push(create(&users, boss).await);
    agreement(&system, &tenant).await;
    let [deleted, missing, renamed] = [&people[3], &people[1], &people[550]].map(|u| u.id.clone());
    let boss = people.last().unwrap().id.clone();
    let ghost = "01a20dd5-057c-7370-95bc-182bcdb7607e";
    let mut connection = sql(&system).await;
    let damage = format!(
        "UPDATE groups.person SET deleted = true WHERE user_id = '{deleted}';
         DELETE FROM groups.person WHERE user_id = '{missing}';
         INSERT INTO groups.person VALUES ('{tenant}', '{ghost}', 7, false);
         UPDATE approver.person SET email = 'x', email_key = 'x' WHERE user_id = '{renamed}';
         DELETE FROM approver.declaration WHERE user_id = '{boss}';
         INSERT INTO approver.person VALUES ('{tenant}', '{ghost}', 7, true, false, 'g', 'g')"
    );
    connection.execute(AssertSqlSafe(damage)).await.unwrap();
    let sorted = |ids: [&str; 3]| {
        let mut ids = ids.map(str::to_owned).to_vec();
        ids.sort();
        ids
    };
    let (mut groups, mut approving) = differing(&system, &tenant).await;
    groups.sort();
    approving.sort();
    assert_eq!(groups, sorted([&deleted, &missing, ghost]));
    assert_eq!(approving, sorted([&renamed, &boss, ghost]));

    // Others write meanwhile.
    let (writing, organisation) = (users.clone(), tenant.clone());
    let writing = tokio::spawn(async move {
        live(&writing, &organisation, 60, &mut StdRng::seed_from_u64(seed)).await;
    });
    let request = group::ReconcileRequest { organisation_id: tenant.clone(), dry_run: false };
    let mended = system.groups().reconcile(request).await.unwrap().into_inner();
    let request = approver::ReconcileRequest { organisation_id: tenant.clone(), dry_run: false };
    let also = system.approvers().reconcile(request).await.unwrap().into_inner();
    assert!(mended.user_ids.contains(&deleted) && also.user_ids.contains(&boss));
    writing.await.unwrap();
    agreement(&system, &tenant).await;
    let (listed, _) = list(&users, &tenant, 1_000).await;
    assert_eq!(approvers(&system, &tenant, &listed).await, expected_approvers(&listed));
}
