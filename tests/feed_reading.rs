//! What a reader of a feed may rely on, under writers and slow readers.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use futures::future::{join_all, try_join_all};
use muster_proto::feed::v1::ChangeKind;
use muster_proto::identity::v1::WatchChangesResponse;
use muster_runtime::feed::token_position;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};
use tokio::sync::watch::{self as signal, Receiver};
use tokio::task::JoinSet;
use tonic::{Code, Status, Streaming};

use crate::support::feed::{
    Users, create, delete, entitle, list, newest, next, number, seed, sequence, sql, user,
    users_at, watch,
};
use crate::support::size;
use crate::support::system::System;

/// Writes so many changes: users appear, change and go.
async fn write(users: Users, organisations: Vec<String>, writer: usize, count: usize, seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut living = Vec::new();
    for n in 0..count {
        let organisation = &organisations[rng.random_range(0..organisations.len())];
        match rng.random_range(0..10) {
            0..3 if !living.is_empty() => {
                let at = rng.random_range(0..living.len());
                let user = living.swap_remove(at);
                living.push(entitle(&users, user, &format!("t{n}")).await);
            }
            3 if !living.is_empty() => {
                let at = rng.random_range(0..living.len());
                delete(&users, &living.swap_remove(at)).await;
            }
            _ => {
                let name = format!("w{writer}n{n}@a.example");
                living.push(create(&users, user(organisation, &name, &[])).await);
            }
        }
    }
}

/// A writer who takes the feed's next place again and again, and gives it back.
async fn roll_back(url: String, organisations: Vec<String>, done: Receiver<bool>) {
    let mut connection = PgConnection::connect(&url).await.unwrap();
    for organisation in organisations.iter().cycle() {
        if *done.borrow() {
            return;
        }
        let statements = format!(
            "BEGIN; SET LOCAL muster.organisation_id = '{organisation}';
             SELECT true FROM identity.feed_lock WHERE organisation_id = '{organisation}'
                FOR NO KEY UPDATE;
             INSERT INTO identity.change
             SELECT organisation_id, sequence + 1, gen_random_uuid(), now(), kind, subject_id,
                    revision, before, after, 'caller:rolled back', traceparent, total, active
               FROM identity.change WHERE organisation_id = '{organisation}'
              ORDER BY sequence DESC LIMIT 1;
             ROLLBACK"
        );
        connection.execute(AssertSqlSafe(statements)).await.unwrap();
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Waits until what is awaited is so.
async fn until(done: &mut Receiver<bool>) {
    drop(done.wait_for(|done| *done).await.unwrap());
}

/// Reads an organisation's feed until the writers are done and all is read, hanging up at random
/// and resuming at any of the replicas; what was read: sequence and change id.
async fn read_on_and_off(
    replicas: Vec<Users>,
    organisation: String,
    mut done: Receiver<bool>,
    seed: u64,
) -> Vec<(i64, String)> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut read: Vec<(i64, String)> = Vec::new();
    let mut token = None;
    loop {
        let users = &replicas[rng.random_range(0..replicas.len())];
        let mut stream = watch(users, &organisation, token.clone()).await.unwrap();
        for _ in 0..rng.random_range(1..400) {
            let change = tokio::select! {
                change = next(&mut stream) => change,
                () = until(&mut done) => {
                    if newest(users, &organisation).await == i64::try_from(read.len()).unwrap() {
                        return read;
                    }
                    next(&mut stream).await
                }
            };
            let (change, resume_token) = change.unwrap();
            let metadata = change.metadata.unwrap();
            assert_eq!(metadata.organisation_id, organisation, "another organisation's change");
            assert_eq!(metadata.sequence, read.last().map_or(1, |(last, _)| last + 1));
            read.push((metadata.sequence, metadata.change_id));
            token = Some(resume_token);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_reader_gets_every_change_once_in_order_whoever_hangs_up_or_rolls_back() {
    let seed = seed();
    let changes = size(300, 6_250);
    let mut system = System::start_apart("ordered");
    let replicas = vec![system.users(), users_at(&system.replica("identity"))];
    let mut organisations = Vec::new();
    for _ in 0..4 {
        organisations.push(system.tenant().await.id);
    }
    // Someone else's transaction, with an id of its own, open throughout.
    let mut foreign = sql(&system).await;
    foreign.execute("BEGIN; CREATE TABLE public.foreign_transaction (id int)").await.unwrap();

    let (over, done) = signal::channel(false);
    let url = system.database_url("muster_identity");
    let rolling_back = tokio::spawn(roll_back(url, organisations.clone(), done.clone()));
    let mut readers = JoinSet::new();
    for n in 0..12 {
        let organisation = organisations[n % 4].clone();
        readers.spawn(async_reader(&replicas, organisation, &done, seed.wrapping_add(n as u64)));
    }
    let writers = (0..8).map(|n| {
        let (users, organisations) = (replicas[n % 2].clone(), organisations.clone());
        tokio::spawn(write(users, organisations, n, changes, seed.wrapping_sub(n as u64 + 1)))
    });
    try_join_all(writers).await.unwrap();
    over.send(true).unwrap();
    rolling_back.await.unwrap();
    let read = readers.join_all().await;
    foreign.execute("ROLLBACK").await.unwrap();

    let mut connection = sql(&system).await;
    let mut total = 0;
    for (organisation, read) in read {
        let table: Vec<(i64, String)> = sqlx::query_as(
            "SELECT sequence, change_id::text FROM identity.change
              WHERE organisation_id = $1::uuid ORDER BY sequence",
        )
        .bind(&organisation)
        .fetch_all(&mut connection)
        .await
        .unwrap();
        assert_eq!(read, table);
        total += read.len();
    }
    println!("{total} changes read");
    // Three readers an organisation.
    assert_eq!(total, 3 * 8 * changes);
}

fn async_reader(
    replicas: &[Users],
    organisation: String,
    done: &Receiver<bool>,
    seed: u64,
) -> impl Future<Output = (String, Vec<(i64, String)>)> + use<> {
    let (replicas, done) = (replicas.to_vec(), done.clone());
    async move {
        let read = read_on_and_off(replicas, organisation.clone(), done, seed).await;
        (organisation, read)
    }
}

/// What the users are, by id: the title and the revision.
type Map = BTreeMap<String, (String, i64)>;

/// Lists, then follows the feed from the list's token up to a place.
async fn fold(users: Users, organisation: String, page_size: i32, mut end: Receiver<i64>) -> Map {
    let (listed, token) = list(&users, &organisation, page_size).await;
    let mut map: Map =
        listed.into_iter().map(|u| (u.id.clone(), (u.title().to_owned(), u.revision))).collect();
    let mut at = token_position(&token).unwrap().sequence;
    let mut stream = watch(&users, &organisation, Some(token)).await.unwrap();
    loop {
        let known = *end.borrow_and_update();
        if known != 0 && at >= known {
            return map;
        }
        let change = tokio::select! {
            change = next(&mut stream) => change.unwrap().0,
            _ = end.changed() => continue,
        };
        at = sequence(&change);
        if change.kind() == ChangeKind::Deleted {
            map.remove(&change.user_id);
        } else if map.get(&change.user_id).is_none_or(|known| known.1 < change.revision) {
            let title = change.after.as_ref().unwrap().title().to_owned();
            map.insert(change.user_id, (title, change.revision));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_lists_and_the_watches_after_them_end_as_the_table_does() {
    let seed = seed();
    let system = System::start_apart("joined");
    let (tenant, users) = (system.tenant().await, system.users());
    write(users.clone(), vec![tenant.id.clone()], 99, 60, seed).await;
    let (over, end) = signal::channel(0);
    let writers = (0..4).map(|n: usize| {
        let organisations = vec![tenant.id.clone()];
        tokio::spawn(write(users.clone(), organisations, n, 150, seed.wrapping_sub(n as u64)))
    });
    let writers: Vec<_> = writers.collect();
    let mut rng = StdRng::seed_from_u64(seed);
    let mut joins = JoinSet::new();
    for _ in 0..50 {
        let page_size = rng.random_range(5..60);
        joins.spawn(fold(users.clone(), tenant.id.clone(), page_size, end.clone()));
        tokio::time::sleep(Duration::from_millis(rng.random_range(0..40))).await;
    }
    try_join_all(writers).await.unwrap();
    let (table, token) = list(&users, &tenant.id, 1_000).await;
    over.send(token_position(&token).unwrap().sequence).unwrap();
    let table: Map =
        table.into_iter().map(|u| (u.id.clone(), (u.title().to_owned(), u.revision))).collect();
    for map in joins.join_all().await {
        assert_eq!(map, table);
    }
}

/// How many times the tables of changes have been read by index, once the counters stand still: a
/// server's process that does nothing reports what it has counted within ten seconds
/// (`PGSTAT_IDLE_INTERVAL`).
async fn reads(connection: &mut PgConnection) -> i64 {
    let reads = "SELECT idx_scan FROM pg_stat_user_tables
                  WHERE schemaname = 'identity' AND relname = 'change'";
    let (mut last, mut since) = (number(connection, reads).await, Instant::now());
    let begun = Instant::now();
    while since.elapsed() < Duration::from_secs(11) {
        assert!(begun.elapsed() < Duration::from_mins(1), "somebody reads on and on");
        tokio::time::sleep(Duration::from_millis(100)).await;
        let now = number(connection, reads).await;
        if now != last {
            (last, since) = (now, Instant::now());
        }
    }
    last
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_watchers_of_an_organisation_cost_the_queries_of_one() {
    // What a process asks by itself would be counted, too.
    let quiet = [("MUSTER_FEED_LOOK", "3600"), ("MUSTER_FEED_SWEEP", "3600")];
    let system = System::start_apart_with("hundred", &quiet);
    let (tenant, users) = (system.tenant().await, system.users());
    let mut connection = sql(&system).await;
    let mut cost = async |watchers: usize| {
        let token = list(&users, &tenant.id, 1_000).await.1;
        let mut streams: Vec<Streaming<WatchChangesResponse>> = Vec::new();
        for _ in 0..watchers {
            let mut stream = watch(&users, &tenant.id, Some(token.clone())).await.unwrap();
            // Where it stands: so it is open.
            stream.message().await.unwrap();
            streams.push(stream);
        }
        let before = reads(&mut connection).await;
        for n in 0..50 {
            let name = format!("u{watchers}n{n}@a.example");
            create(&users, user(&tenant.id, &name, &[])).await;
        }
        let all = streams.into_iter().map(async |mut stream| {
            for _ in 0..50 {
                next(&mut stream).await.unwrap();
            }
        });
        join_all(all).await;
        reads(&mut connection).await - before
    };
    let (one, hundred) = (cost(1).await, cost(100).await);
    println!("50 writes: {one} reads of the table for one watcher, {hundred} for a hundred");
    assert!(hundred <= one * 3 / 2, "{one} for one, {hundred} for a hundred");
}

/// The resident memory of a process, in KiB.
fn resident(pid: &str) -> i64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watcher_who_stops_reading_harms_nobody_and_loses_nothing() {
    const CHANGES: i64 = 1_600;
    /// After which buffers and pools have the size that they keep.
    const WARM: i64 = 400;
    let system = System::start_apart_with("slow", &[("MUSTER_FEED_SEND_LIMIT", "2")]);
    let (tenant, users) = (system.tenant().await, system.users());
    // A connection of its own: flow control is by connection too.
    let mut slow = watch(&users_at(&system.identity_url), &tenant.id, None).await.unwrap();
    let (mut others, read_on) = (JoinSet::new(), Arc::new(AtomicI64::new(0)));
    for _ in 0..20 {
        let mut stream = watch(&users, &tenant.id, None).await.unwrap();
        let read_on = read_on.clone();
        others.spawn(async move {
            for expected in 1..=CHANGES {
                assert_eq!(sequence(&next(&mut stream).await.unwrap().0), expected);
                read_on.fetch_max(expected, Ordering::Relaxed);
            }
        });
    }
    // Each about 10 kB, so more than any window of HTTP/2 together.
    let long = "x".repeat(1_000);
    let writers = (0..4).map(|writer| {
        let (users, organisation, long) = (users.clone(), tenant.id.clone(), long.clone());
        tokio::spawn(async move {
            let name = format!("w{writer}@a.example");
            let mut ann = create(&users, user(&organisation, &name, &[])).await;
            for n in 1..CHANGES / 4 {
                let mut next = ann.clone();
                next.nick_name = Some(long.clone());
                next.user_type = Some(long.clone());
                next.display_name = Some(long.clone());
                ann = entitle(&users, next, &format!("t{n}")).await;
            }
        })
    });
    let writers = try_join_all(writers);
    while read_on.load(Ordering::Relaxed) < WARM {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let before = resident(system.pid("identity"));
    writers.await.unwrap();
    others.join_all().await;
    let grown = (resident(system.pid("identity")) - before) / 1024;
    println!("{CHANGES} changes with a reader that stands still: {grown} MiB more");
    assert!(grown < 10, "{grown} MiB");

    // It reads on: what was on its way, then why there is no more.
    let (mut read, mut token) = (0, None);
    let status: Status = loop {
        match next(&mut slow).await {
            Ok((change, resume_token)) => {
                read += 1;
                assert_eq!(sequence(&change), read);
                token = Some(resume_token);
            }
            Err(status) => break status,
        }
    };
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    assert!(status.message().contains("too slow"), "{status:?}");
    assert!(read < CHANGES, "it stood still");
    let mut resumed = watch(&users, &tenant.id, token).await.unwrap();
    for expected in read + 1..=CHANGES {
        assert_eq!(sequence(&next(&mut resumed).await.unwrap().0), expected);
    }
}

#[tokio::test]
async fn a_watch_ends_after_a_while_to_be_resumed_and_there_are_only_so_many() {
    let system = System::start_apart_with(
        "aged",
        &[("MUSTER_FEED_STREAM_AGE", "1"), ("MUSTER_FEED_MAX_STREAMS", "4")],
    );
    let (tenant, users) = (system.tenant().await, system.users());
    let begun = Instant::now();
    let mut stream = watch(&users, &tenant.id, None).await.unwrap();
    let ended = next(&mut stream).await.unwrap_err();
    assert_eq!((ended.code(), ended.message().contains("resume")), (Code::Unavailable, true));
    assert!(begun.elapsed() >= Duration::from_millis(800), "{:?}", begun.elapsed());
    // Two are the followers'.
    let mut open = Vec::new();
    let refused = loop {
        match watch(&users, &tenant.id, None).await {
            Ok(stream) => open.push(stream),
            Err(status) => break status,
        }
        assert!(open.len() <= 4, "{} watches", open.len());
    };
    assert_eq!(refused.code(), Code::ResourceExhausted);
}
