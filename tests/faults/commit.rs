//! A commit whose answer is lost: the same request sent again gives the state that one success
//! gives.

use super::clients::Office;
use super::cluster::Cluster;
use super::kinds::{self, Round};
use crate::model::random::{Random, seed};
use crate::support::size;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_whose_commit_got_no_answer_is_sent_again_and_happens_once() {
    let seed = seed();
    println!("MUSTER_SEED={seed}");
    let mut random = Random::part(seed, 5);
    let cluster = Cluster::start(1).await;
    let office = Office::open(&cluster).await;
    let proxy = &cluster.replicas[0].to_database;
    let cuts = size(120, 500);
    let (mut rounds, mut unanswered) = (0, 0);
    while proxy.commits_cut() < cuts {
        let mut round = Round::new(&office, rounds);
        for kind in 0..kinds::COUNT {
            // The first commit of a request is the owner's; later ones are the followers'.
            proxy.cut_commit(1 + usize::from(random.chance(25)));
            unanswered += round.ask(kind, &mut random, async || {}).await;
            proxy.cut_commit(0);
        }
        rounds += 1;
    }
    kinds::check(&cluster, &office, rounds).await;
    println!("{} commits cut, {unanswered} times no answer", proxy.commits_cut());
    assert!(unanswered > cuts / 3, "the cuts were not felt");
    cluster.stop().await;
}
