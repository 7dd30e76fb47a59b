//! Faults at random moments.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use super::cluster::{Cluster, PARTS, place};
use super::proxy::Target;
use crate::model::random::Random;

/// Makes one fault after the other until it is told to stop, and counts them in `made`. Everything is
/// up again afterwards.
pub(crate) async fn make(
    cluster: Arc<Cluster>,
    mut random: Random,
    made: Arc<AtomicUsize>,
    over: Arc<AtomicBool>,
) {
    while !over.load(Ordering::Relaxed) {
        let pause = 100 + random.below(800);
        tokio::time::sleep(Duration::from_millis(u64::try_from(pause).unwrap())).await;
        one(&cluster, &mut random).await;
        made.fetch_add(1, Ordering::Relaxed);
    }
}

async fn one(cluster: &Cluster, random: &mut Random) {
    let replica = random.pick(&cluster.replicas);
    let follower = if random.chance(50) { "group" } else { "approver" };
    let some_time = Duration::from_millis(u64::try_from(random.below(1500)).unwrap());
    match random.below(100) {
        // A process is killed and started again.
        0..45 => {
            let part = *random.pick(&PARTS);
            replica.kill(part).await;
            if random.chance(50) {
                tokio::time::sleep(some_time / 4).await;
            }
            cluster.start_part(replica, part, &[]).await;
        }
        45..55 => cluster.crash_database().await,
        // One session with the database ends.
        55..67 => end_session(cluster).await,
        // Connections are cut: to a part, or to the database.
        67..77 => random.pick(&replica.to_service).cut(),
        77..83 => replica.to_database.cut(),
        // A commit gets no answer.
        83..88 => replica.to_database.cut_commit(1 + random.below(5)),
        // A follower stands still for a while.
        88..94 => {
            replica.signal(follower, "-STOP").await;
            tokio::time::sleep(some_time).await;
            replica.signal(follower, "-CONT").await;
        }
        // A follower cannot be reached, so that nothing is handed over to it.
        _ => {
            let proxy = &replica.to_service[place(follower)];
            let target = proxy.target();
            proxy.lead_to(Target::Nowhere);
            tokio::time::sleep(some_time).await;
            proxy.lead_to(target);
        }
    }
}

/// Ends a random session with the database.
pub(crate) async fn end_session(cluster: &Cluster) {
    let mut connection = cluster.sql().await;
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                WHERE application_name LIKE 'muster %' ORDER BY random() LIMIT 1";
    drop(sqlx::query(end).execute(&mut connection).await);
}
