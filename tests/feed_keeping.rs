//! How long changes are kept, and what reading costs while old ones are held on to.

use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection, Row as _};
use tonic::Code;

use crate::support::feed::{
    create, delete, eventually, list, newest, next, number, refusal, row, sequence, sql, user,
    users_at, watch,
};
use crate::support::system::{System, together};

/// Makes changes of an organisation as old as to be deleted.
async fn age(connection: &mut PgConnection, organisation: &str, through: i64) {
    let aged = format!(
        "UPDATE identity.change SET written_at = written_at - interval '31 days'
          WHERE organisation_id = '{organisation}' AND sequence <= {through}"
    );
    connection.execute(AssertSqlSafe(aged)).await.unwrap();
}

fn oldest(organisation: &str) -> String {
    format!("SELECT min(sequence) FROM identity.change WHERE organisation_id = '{organisation}'")
}

#[tokio::test]
async fn what_is_young_or_among_the_newest_is_kept_and_the_newest_always() {
    let system = System::start_apart_with(
        "keeping",
        &[("MUSTER_FEED_PRUNE", "0.2"), ("MUSTER_FEED_KEEP_CHANGES", "10")],
    );
    let users = system.users();
    let mut organisations = Vec::new();
    for count in [40, 15, 3] {
        let tenant = system.tenant().await;
        for n in 0..count {
            create(&users, user(&tenant.id, &format!("u{n}@a.example"), &[])).await;
        }
        organisations.push(tenant.id);
    }
    let [half, all, few] = &organisations[..] else { unreachable!() };
    let (_, at_the_end) = list(&users, half, 1_000).await;
    let mut stream = watch(&users, half, None).await.unwrap();
    let early = next(&mut stream).await.unwrap().1;

    let mut connection = sql(&system).await;
    for (organisation, through) in [(few, 3), (half, 20), (all, 15)] {
        age(&mut connection, organisation, through).await;
    }
    eventually(&mut connection, &oldest(half), 21).await;
    eventually(&mut connection, &oldest(all), 6).await;
    // One round more, so that every organisation has had its turn.
    create(&users, user(all, "another@a.example", &[])).await;
    eventually(&mut connection, &oldest(all), 7).await;
    assert_eq!(number(&mut connection, &oldest(few)).await, 1);

    // The totals and the sequence go on.
    let total = list(&users, all, 1_000).await.0.len();
    assert_eq!((total, newest(&users, all).await), (16, 16));
    // From the start there is no way any more, nor from a place that is gone.
    for (organisation, token) in [(half, None), (half, Some(early)), (all, None)] {
        assert_eq!(refusal(&users, organisation, token).await.code(), Code::OutOfRange);
    }
    let mut stream = watch(&users, few, None).await.unwrap();
    assert_eq!(sequence(&next(&mut stream).await.unwrap().0), 1);
    create(&users, user(half, "another@a.example", &[])).await;
    let mut stream = watch(&users, half, Some(at_the_end)).await.unwrap();
    assert_eq!(sequence(&next(&mut stream).await.unwrap().0), 41);
}

#[tokio::test]
async fn of_a_feed_that_keeps_nothing_the_newest_stays_and_who_was_away_lists_afresh() {
    let mut system = System::start_apart_with(
        "newest",
        &[
            ("MUSTER_FEED_PRUNE", "0.1"),
            ("MUSTER_FEED_KEEP_CHANGES", "0"),
            ("MUSTER_FEED_KEEP_DAYS", "0"),
        ],
    );
    let (tenant, users) = (system.tenant().await, system.users());
    let mut connection = sql(&system).await;
    let ann = create(&users, user(&tenant.id, "ann@a.example", &[])).await;
    let known = "SELECT count(*) FROM groups.person WHERE NOT deleted";
    eventually(&mut connection, known, 1).await;
    system.kill("group");
    for n in 0..20 {
        create(&users, user(&tenant.id, &format!("u{n}@a.example"), &[])).await;
    }
    delete(&users, &ann).await;
    let kept = "SELECT count(*) FROM identity.change";
    eventually(&mut connection, kept, 1).await;
    assert_eq!(number(&mut connection, &oldest(&tenant.id)).await, 22);
    system.restart("group");
    eventually(&mut connection, known, 20).await;
    let gone = "SELECT count(*) FROM groups.person WHERE deleted";
    eventually(&mut connection, gone, 1).await;
    assert!(system.logs().contains("listed afresh"));
    // And it follows again.
    create(&users, user(&tenant.id, "late@a.example", &[])).await;
    eventually(&mut connection, known, 21).await;
}

#[tokio::test]
async fn a_token_that_is_too_old_is_refused_though_its_change_is_still_there() {
    let system = System::start_apart_with("too_old", &[("MUSTER_FEED_KEEP_CHANGES", "5")]);
    let (tenant, users) = (system.tenant().await, system.users());
    let mut tokens = Vec::new();
    for n in 0..12 {
        create(&users, user(&tenant.id, &format!("u{n}@a.example"), &[])).await;
        tokens.push(list(&users, &tenant.id, 1_000).await.1);
    }
    let mut connection = sql(&system).await;
    age(&mut connection, &tenant.id, 10).await;
    // The newest five are kept: 8 to 12.
    for (sequence, token) in (1..).zip(&tokens) {
        let stream = watch(&users, &tenant.id, Some(token.clone())).await;
        let first = stream.unwrap().message().await;
        let code = first.err().map(|status| status.code());
        assert_eq!(code, (sequence < 8).then_some(Code::OutOfRange), "{sequence}");
    }
    assert_eq!(refusal(&users, &tenant.id, None).await.code(), Code::OutOfRange);
    let there = "SELECT count(*) FROM identity.change";
    assert_eq!(number(&mut connection, there).await, 12);
}

#[tokio::test]
async fn two_keys_open_tokens_and_the_newer_seals() {
    let mut system = System::start_apart("two_keys");
    let (tenant, users) = (system.tenant().await, system.users());
    let old = list(&users, &tenant.id, 1_000).await.1;
    let mut connection = sql(&system).await;
    // As old as to be known to every process.
    let second = "INSERT INTO identity.feed_key (secret, created_at)
                  VALUES (sha256('another'), now() - interval '3 minutes')";
    connection
        .execute("UPDATE identity.feed_key SET created_at = now() - interval '1 day'")
        .await
        .unwrap();
    connection.execute(second).await.unwrap();
    system.kill("identity");
    system.restart("identity");
    let users = users_at(&system.identity_url);
    let new = list(&users, &tenant.id, 1_000).await.1;
    assert_ne!(old, new);
    create(&users, user(&tenant.id, "ann@a.example", &[])).await;
    for token in [old, new] {
        let mut stream = watch(&users, &tenant.id, Some(token)).await.unwrap();
        assert_eq!(sequence(&next(&mut stream).await.unwrap().0), 1);
    }
}

/// How many buffers a statement of the feed takes.
async fn buffers(connection: &mut PgConnection, statement: &str) -> i64 {
    let explain = format!("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}");
    let plan: serde_json::Value = row(connection, &explain).await.get(0);
    let plan = &plan[0]["Plan"];
    let blocks = |name: &str| plan[name].as_i64().unwrap();
    blocks("Shared Hit Blocks") + blocks("Shared Read Blocks")
}

#[tokio::test]
async fn under_a_held_snapshot_the_feeds_look_ups_stay_as_cheap_as_they_were() {
    let system = System::start_apart("snapshot");
    let (tenant, users) = (system.tenant().await, system.users());
    create(&users, user(&tenant.id, "ann@a.example", &[])).await;
    let mut holder = sql(&system).await;
    holder.execute("BEGIN ISOLATION LEVEL REPEATABLE READ").await.unwrap();
    number(&mut holder, "SELECT count(*) FROM identity.change").await;

    // The statements of an append, 20,000 times, each in a transaction of its own.
    let mut writer = sql(&system).await;
    let id = &tenant.id;
    let procedure = format!(
        "CREATE PROCEDURE public.many() LANGUAGE plpgsql AS $$
         BEGIN
             FOR n IN 1..20000 LOOP
                 PERFORM true FROM identity.feed_lock WHERE organisation_id = '{id}' FOR NO KEY UPDATE;
                 INSERT INTO identity.change
                 SELECT organisation_id, sequence + 1, gen_random_uuid(), now(), 2, subject_id,
                        revision + 1, before, after, actor, traceparent, total, active
                   FROM identity.change WHERE organisation_id = '{id}'
                  ORDER BY sequence DESC LIMIT 1;
                 COMMIT;
             END LOOP;
         END $$"
    );
    writer.execute(AssertSqlSafe(procedure)).await.unwrap();
    writer.execute("SET synchronous_commit = off").await.unwrap();
    writer.execute("CALL public.many()").await.unwrap();

    // As the service sees it.
    let mut reader = PgConnection::connect(&system.database_url("muster_identity")).await.unwrap();
    let organisation = format!("SET muster.organisation_id = '{id}'");
    reader.execute(AssertSqlSafe(organisation)).await.unwrap();
    for statement in [
        format!(
            "SELECT true FROM identity.feed_lock WHERE organisation_id = '{id}' FOR NO KEY UPDATE"
        ),
        format!(
            "SELECT sequence, change_id, total, active FROM identity.change
              WHERE organisation_id = '{id}' ORDER BY sequence DESC LIMIT 1"
        ),
        format!(
            "SELECT sequence, before::text, after::text FROM identity.change
              WHERE organisation_id = '{id}' AND sequence >= 20000 ORDER BY sequence LIMIT 501"
        ),
    ] {
        // The first reads what the plan needs of the catalogue.
        buffers(&mut reader, &statement).await;
        let buffers = buffers(&mut reader, &statement).await;
        println!("{buffers} buffers: {statement}");
        assert!(buffers <= 10, "{buffers}: {statement}");
    }
    assert_eq!(newest(&users, id).await, 20_001);
    holder.execute("COMMIT").await.unwrap();
}

#[tokio::test]
async fn a_service_deletes_no_change_of_another_organisation() {
    let system = together();
    let (ours, theirs) = (system.tenant().await, system.tenant().await);
    create(&system.users(), user(&theirs.id, "ann@a.example", &[])).await;
    let mut service = PgConnection::connect(&system.database_url("muster_identity")).await.unwrap();
    let set = format!("SET muster.organisation_id = '{}'", ours.id);
    service.execute(AssertSqlSafe(set)).await.unwrap();
    let deleted = format!("DELETE FROM identity.change WHERE organisation_id = '{}'", theirs.id);
    let deleted = service.execute(AssertSqlSafe(deleted)).await.unwrap();
    assert_eq!(deleted.rows_affected(), 0);
    // Of others it sees where they stand, and nothing else.
    number(&mut service, "SELECT count(*) FROM identity.feed_position").await;
    assert!(service.execute("SET ROLE muster_feed_reader").await.is_err());
}
