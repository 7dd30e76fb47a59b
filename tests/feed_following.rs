//! What group and approver make of identity's feed: when it repeats itself, when a change cannot be
//! applied, when what they know is wrong.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use muster_proto::approver::v1 as approver;
use muster_proto::group::v1 as group;
use muster_proto::identity::v1::User;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use sqlx::{AssertSqlSafe, Executor as _, PgConnection};
use tonic::Code;

use crate::support::collector::Collector;
use crate::support::feed::{
    Users, create, delete, entitle, eventually, list, number, seed, sql, user,
};
use crate::support::feed_proxy;
use crate::support::following::{
    agreement, approvers, create_group, differing, expected_approvers, members,
};
use crate::support::system::System;

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

#[tokio::test]
async fn an_organisation_that_another_replica_is_at_work_on_is_not_waited_for() {
    let system = System::start_apart("busy");
    let users = system.users();
    let id = system.tenant().await.id;
    create(&users, user(&id, "ann@a.example", &[])).await;
    let mut connection = sql(&system).await;
    let known = format!("SELECT count(*) FROM approver.person WHERE organisation_id = '{id}'");
    eventually(&mut connection, &known, 1).await;
    // As a replica that is always at work: its row is locked, and another than it was.
    let mut replica = sql(&system).await;
    let held = format!(
        "BEGIN; UPDATE approver.cursor SET sequence = sequence WHERE organisation_id = '{id}'"
    );
    replica.execute(AssertSqlSafe(held)).await.unwrap();
    create(&users, user(&id, "bo@a.example", &[])).await;
    let waiting = "SELECT count(*) FROM pg_stat_activity
                    WHERE application_name = 'muster approver' AND wait_event_type = 'Lock'";
    for _ in 0..50 {
        assert_eq!(number(&mut connection, waiting).await, 0);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(number(&mut connection, &known).await, 1);
    replica.execute("ROLLBACK").await.unwrap();
    eventually(&mut connection, &known, 2).await;
}

/// How long an answer may take that is to come, and how long one stays away that is not.
const COMES: Duration = Duration::from_secs(30);
const STAYS_AWAY: Duration = Duration::from_millis(500);

/// Waits for the approver service to have a write, with what the write made of the user; whether it
/// answered in time.
async fn has(system: &System, user: &User, within: Duration) -> bool {
    let mut request = tonic::Request::new(approver::AwaitUserRequest {
        organisation_id: user.organisation_id.clone(),
        user_id: user.id.clone(),
        revision: user.revision,
        update_time: user.update_time,
        user: Some(approver::AwaitedUser {
            active: user.active(),
            primary_email: user.primary_email.clone(),
            declared_approvers: user.declared_approvers.clone(),
        }),
    });
    request.set_timeout(within);
    match system.approvers().await_user(request).await {
        Ok(_) => true,
        Err(status) if status.code() == Code::DeadlineExceeded => false,
        Err(status) => panic!("{status}"),
    }
}

#[tokio::test]
async fn a_write_is_waited_for_only_where_it_changes_the_approvers_of_anybody() {
    type Change = fn(User) -> User;
    let titled: Change = |user| user;
    let inactive: Change = |user| User { active: Some(false), ..user };
    let active: Change = |user| User { active: Some(true), ..user };
    let moved: Change = |user| User { emails: Vec::new(), ..user };
    let declaring: Change = |user| User { declared_approvers: vec!["x@a.example".into()], ..user };
    let changes = [
        ("titled", titled, COMES),
        ("inactive", inactive, COMES),
        ("boss", titled, COMES),
        ("inactive-boss", inactive, STAYS_AWAY),
        ("wanted", active, STAYS_AWAY),
        ("moved", moved, STAYS_AWAY),
        ("declaring", declaring, STAYS_AWAY),
    ];
    let system = System::start_apart("awaited");
    let (tenant, users) = (system.tenant().await.id, system.users());
    let mut people = Vec::new();
    for (name, ..) in changes {
        let declared =
            ["BOSS@a.example", "inactive-boss@a.example", "wanted@a.example", "later@a.example"];
        let user = user(&tenant, &format!("{name}@a.example"), &declared);
        people.push(create(&users, User { active: Some(name != "wanted"), ..user }).await);
    }
    let mut connection = sql(&system).await;
    let known = format!("SELECT count(*) FROM approver.person WHERE organisation_id = '{tenant}'");
    eventually(&mut connection, &known, 7).await;
    // As a replica that is at work: nothing more is applied.
    let mut replica = sql(&system).await;
    let held =
        format!("BEGIN; SELECT FROM approver.cursor WHERE organisation_id = '{tenant}' FOR UPDATE");
    replica.execute(AssertSqlSafe(held)).await.unwrap();
    let mut written = Vec::new();
    for (user, (name, change, answer)) in people.into_iter().zip(changes) {
        let user = entitle(&users, change(user), "boss of all").await;
        assert_eq!(has(&system, &user, answer).await, answer == COMES, "{name}");
        written.push(user);
    }
    for (name, declared, answer) in [
        ("new", &[][..], COMES),
        ("LATER", &[], STAYS_AWAY),
        ("new-declaring", &["x@a.example"], STAYS_AWAY),
    ] {
        let user = create(&users, user(&tenant, &format!("{name}@a.example"), declared)).await;
        assert_eq!(has(&system, &user, answer).await, answer == COMES, "{name}");
        written.push(user);
    }
    // What came between is not known.
    let again = entitle(&users, written.swap_remove(0), "boss of nobody").await;
    assert!(!has(&system, &again, STAYS_AWAY).await);
    written.push(again);
    replica.execute("ROLLBACK").await.unwrap();
    for user in &written {
        assert!(has(&system, user, COMES).await, "{user:?}");
    }
    agreement(&system, &tenant).await;
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
