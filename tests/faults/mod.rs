//! Nothing is lost, whatever is killed, cut or stopped at whatever moment.
//!
//! `cargo xtask faults --minutes 10` makes a long run; `--seed` repeats the requests and faults of
//! one, though not the moments at which they meet.

mod chaos;
mod check;
mod clients;
pub(crate) mod cluster;
mod commit;
mod history;
mod kinds;
mod mistakes;
mod order;
pub(crate) mod points;
pub(crate) mod proxy;
mod restored;
mod rounds;
mod run;
mod watchers;

use std::sync::Arc;
use std::time::Duration;

use cluster::Cluster;
use run::{Plan, run};

use crate::model::random::seed;

const SHORT: Plan = Plan {
    seed: 0,
    organisations: 4,
    clients: 16,
    operations: 2_000,
    faults: 20,
    time: Duration::ZERO,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_whatever_is_killed_cut_or_stopped() {
    play(Plan { seed: seed(), ..SHORT }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the long run: cargo xtask faults"]
async fn long_run() {
    let minutes: u64 = std::env::var("MUSTER_MINUTES").map_or(10, |text| text.parse().unwrap());
    let time = Duration::from_mins(minutes);
    play(Plan { seed: seed(), operations: 10_000, faults: 200, time, ..SHORT }).await;
}

async fn play(plan: Plan) {
    println!("MUSTER_SEED={}", plan.seed);
    let cluster = Arc::new(Cluster::start(2).await);
    let report = run(&cluster, plan).await;
    if let Some(cluster) = Arc::into_inner(cluster) {
        cluster.stop().await;
    }
    println!("{:?}", report.tally);
    println!("{report}");
    assert!(report.violations.is_empty(), "{report}: {:#?}", report.violations.first());
}
