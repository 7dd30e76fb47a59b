//! How readers learn that there is something to read; and that a writer appends once.

use muster_runtime::clock;
use muster_runtime::feed::{self, Actor, Kind, NewChange};
use muster_runtime::id::{OrganisationId, Revision};
use muster_runtime::life::Life;
use muster_runtime::postgres::{Database, Settings};
use sqlx::{AssertSqlSafe, Executor as _};

use crate::support::feed::{
    create, eventually, newest, next, number, sequence, sql, user, users_at, watch,
};
use crate::support::system::{System, together};

#[tokio::test]
async fn where_every_hint_is_lost_the_sweep_brings_everything() {
    let mut system = System::start_apart_with(
        "swept",
        &[("MUSTER_FEED_HINTS", "false"), ("MUSTER_FEED_SWEEP", "0.5")],
    );
    let writer = system.users();
    let reader = users_at(&system.replica("identity"));
    let (first, second) = (system.tenant().await, system.tenant().await);
    let mut one = watch(&reader, &first.id, None).await.unwrap();
    let mut all = watch(&reader, "", None).await.unwrap();
    let mut connection = sql(&system).await;
    for round in 1..=3 {
        for tenant in [&first, &second] {
            create(&writer, user(&tenant.id, &format!("u{round}@a.example"), &[])).await;
        }
        assert_eq!(sequence(&next(&mut one).await.unwrap().0), round);
        let mut told = Vec::new();
        while told.len() < 2 {
            let (change, _) = next(&mut all).await.unwrap();
            assert_eq!(sequence(&change), round);
            told.push(change.metadata.unwrap().organisation_id);
        }
        told.sort();
        let mut both = [first.id.clone(), second.id.clone()];
        both.sort();
        assert_eq!(told, both);
        for schema in ["groups", "approver"] {
            let known = format!("SELECT count(*) FROM {schema}.person");
            eventually(&mut connection, &known, 2 * round).await;
        }
    }
}

#[tokio::test]
async fn replicas_tell_each_other_of_what_they_write() {
    let mut system = System::start_apart_with(
        "told",
        &[("MUSTER_FEED_LOOK", "3600"), ("MUSTER_FEED_SWEEP", "3600")],
    );
    let (tenant, writer) = (system.tenant().await, system.users());
    let reader = users_at(&system.replica("identity"));
    // Both replicas listen: so nothing that is told is lost.
    let mut connection = sql(&system).await;
    let listening = "SELECT count(*) FROM pg_stat_activity
                      WHERE datname = current_database() AND query LIKE 'LISTEN \"muster_identity%'";
    eventually(&mut connection, listening, 2).await;
    let mut stream = watch(&reader, &tenant.id, None).await.unwrap();
    for expected in 1..=20 {
        create(&writer, user(&tenant.id, &format!("u{expected}@a.example"), &[])).await;
        assert_eq!(sequence(&next(&mut stream).await.unwrap().0), expected);
    }
}

#[tokio::test]
async fn what_nobody_told_of_is_found_by_looking_who_has_moved_lately() {
    let system = System::start_apart_with("looked", &[("MUSTER_FEED_SWEEP", "3600")]);
    let (tenant, users) = (system.tenant().await, system.users());
    create(&users, user(&tenant.id, "ann@a.example", &[])).await;
    let mut stream = watch(&users, &tenant.id, None).await.unwrap();
    assert_eq!(sequence(&next(&mut stream).await.unwrap().0), 1);
    // As a writer who dies between commit and hint.
    let silent = format!(
        "INSERT INTO identity.change
         SELECT organisation_id, sequence + 1, gen_random_uuid(), now(), 2, subject_id, revision,
                before, after, actor, traceparent, total, active
           FROM identity.change WHERE organisation_id = '{}'",
        tenant.id
    );
    sql(&system).await.execute(AssertSqlSafe(silent)).await.unwrap();
    assert_eq!(sequence(&next(&mut stream).await.unwrap().0), 2);
}

#[tokio::test]
async fn a_transaction_that_appends_twice_or_nothing_is_undone() {
    let system = together();
    let tenant = system.tenant().await.id;
    let organisation: OrganisationId = tenant.parse().unwrap();
    let settings = Settings {
        url: system.database_url("muster_identity"),
        schema: "identity",
        role: None,
        max_connections: 1,
    };
    let database = Database::connect(&settings, &Life::new()).await.unwrap();
    let append = async |times: usize, count: usize| {
        let change = NewChange {
            kind: Kind::Created,
            subject: organisation.uuid(),
            revision: Revision(1),
            before: None,
            after: None,
            total: 0,
            active: 0,
        };
        let changes = vec![change; count];
        let work = database.write(organisation, move |c| {
            Box::pin(async move {
                let mut last = 0;
                for _ in 0..times {
                    let actor = Actor::Caller("test".into());
                    last = feed::append(c, organisation, &actor, clock::now(), &changes).await?;
                }
                Ok::<_, sqlx::Error>(last)
            })
        });
        work.await
    };
    assert_eq!(append(1, 3).await.unwrap(), 3);
    assert!(append(2, 1).await.unwrap_err().to_string().contains("appends once"));
    assert!(append(1, 0).await.is_err());
    // Each transaction anew.
    assert_eq!(append(1, 1).await.unwrap(), 4);
    assert_eq!(newest(&system.users(), &tenant).await, 4);
    let gapless = format!(
        "SELECT max(sequence) - count(*) FROM identity.change WHERE organisation_id = '{tenant}'"
    );
    assert_eq!(number(&mut sql(system).await, &gapless).await, 0);
}
