//! Readers of the feeds who are cut off and resume at random, and remember what they saw.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use muster_proto::approver::v1 as approver;
use muster_proto::approver::v1::approver_service_client::ApproverServiceClient;
use muster_proto::feed::v1::ChangeMetadata;
use muster_proto::group::v1 as group;
use muster_proto::group::v1::group_service_client::GroupServiceClient;
use muster_proto::identity::v1 as identity;
use muster_proto::identity::v1::user_service_client::UserServiceClient;
use tonic::{Code, Status};

use super::cluster::Cluster;
use crate::model::random::Random;

/// The feeds, by the part that has them.
pub(crate) const FEEDS: [&str; 3] = ["identity", "group", "approver"];

/// What was seen on one connection.
#[derive(Debug, Clone)]
pub(crate) struct Sighting {
    /// The sequence after which it resumed.
    pub(crate) after: i64,
    pub(crate) changes: Vec<ChangeMetadata>,
    /// Whether the token that it resumed with was refused as not being of the feed.
    pub(crate) refused: bool,
}

/// One reader of one organisation's feed.
#[derive(Debug)]
pub(crate) struct Watcher {
    pub(crate) feed: &'static str,
    pub(crate) organisation: usize,
    pub(crate) sightings: Vec<Sighting>,
}

type Messages =
    Pin<Box<dyn Stream<Item = Result<(String, Option<ChangeMetadata>), Status>> + Send>>;

/// Opens a feed of a replica after a token.
pub(crate) async fn open(
    cluster: &Cluster,
    replica: usize,
    feed: &str,
    organisation: &str,
    token: Option<&String>,
) -> Result<Messages, Status> {
    let channel = cluster.replicas[replica % cluster.replicas.len()].channel(feed);
    let (organisation_id, resume_tokens) =
        (organisation.to_owned(), token.cloned().into_iter().collect());
    Ok(match feed {
        "identity" => {
            let request =
                identity::WatchChangesRequest { organisation_id, resume_tokens, start: 0 };
            let stream = UserServiceClient::new(channel).watch_changes(request).await?.into_inner();
            Box::pin(stream.map(|m| m.map(|m| (m.resume_token, m.change.and_then(|c| c.metadata)))))
        }
        "group" => {
            let request = group::WatchChangesRequest { organisation_id, resume_tokens, start: 0 };
            let stream =
                GroupServiceClient::new(channel).watch_changes(request).await?.into_inner();
            Box::pin(stream.map(|m| m.map(|m| (m.resume_token, m.change.and_then(|c| c.metadata)))))
        }
        _ => {
            let request =
                approver::WatchChangesRequest { organisation_id, resume_tokens, start: 0 };
            let mut client = ApproverServiceClient::new(channel);
            let stream = client.watch_changes(request).await?.into_inner();
            Box::pin(stream.map(|m| m.map(|m| (m.resume_token, m.change.and_then(|c| c.metadata)))))
        }
    })
}

impl Watcher {
    /// Watches until it is told to stop.
    pub(crate) async fn watch(
        mut self,
        cluster: Arc<Cluster>,
        organisation_id: String,
        mut random: Random,
        over: Arc<AtomicBool>,
    ) -> Self {
        // Where it has been: the sequences and the tokens after them.
        let mut places: Vec<(i64, String)> = Vec::new();
        while !over.load(Ordering::Relaxed) {
            // Mostly where it was cut off; now and then somewhere before.
            let place = match places.len() {
                0 => None,
                len if random.chance(15) => Some(&places[random.below(len)]),
                len => Some(&places[len - 1]),
            };
            let after = place.map_or(0, |(sequence, _)| *sequence);
            let token = place.map(|(_, token)| token);
            let mut sighting = Sighting { after, changes: Vec::new(), refused: false };
            let opening = open(&cluster, random.below(2), self.feed, &organisation_id, token);
            let patience = Duration::from_millis(200 + random.next() % 3_000);
            let most = 1 + random.below(60);
            let reading = async {
                let mut messages = opening.await?;
                let mut seen = Vec::new();
                while let Some(message) = messages.next().await {
                    let (token, change) = message?;
                    if let Some(change) = change {
                        seen.push((change.sequence, token));
                        sighting.changes.push(change);
                    }
                    if seen.len() >= most {
                        break;
                    }
                }
                Ok::<_, Status>(seen)
            };
            // What was read before an error or the end of patience was read.
            let end = tokio::time::timeout(patience, reading).await;
            match end {
                Ok(Ok(seen)) => places.extend(seen),
                Ok(Err(status)) => {
                    sighting.refused =
                        matches!(status.code(), Code::OutOfRange | Code::InvalidArgument);
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                Err(_) => {}
            }
            places.sort();
            places.dedup();
            if !sighting.changes.is_empty() || sighting.refused {
                self.sightings.push(sighting);
            }
        }
        self
    }
}

/// The changes of a stream up to `head`; fewer where it breaks off or tells nothing more for longer
/// than two sweeps take.
async fn whole<C>(stream: impl Stream<Item = Result<Option<C>, Status>>, head: usize) -> Vec<C> {
    let mut stream = std::pin::pin!(stream);
    let mut changes = Vec::new();
    while changes.len() < head {
        match tokio::time::timeout(Duration::from_secs(5), stream.next()).await {
            Ok(Some(Ok(change))) => changes.extend(change),
            _ => break,
        }
    }
    changes
}

/// The whole feed of users, up to `head`.
pub(crate) async fn users(
    cluster: &Cluster,
    organisation: &str,
    head: usize,
) -> Vec<identity::UserChange> {
    let mut client = UserServiceClient::new(cluster.replicas[0].channel("identity"));
    let organisation_id = organisation.to_owned();
    let request = identity::WatchChangesRequest { organisation_id, ..Default::default() };
    let stream = client.watch_changes(request).await.unwrap().into_inner();
    whole(stream.map(|message| message.map(|message| message.change)), head).await
}

/// The whole feed of groups, up to `head`.
pub(crate) async fn groups(
    cluster: &Cluster,
    organisation: &str,
    head: usize,
) -> Vec<group::GroupChange> {
    let mut client = GroupServiceClient::new(cluster.replicas[0].channel("group"));
    let organisation_id = organisation.to_owned();
    let request = group::WatchChangesRequest { organisation_id, ..Default::default() };
    let stream = client.watch_changes(request).await.unwrap().into_inner();
    whole(stream.map(|message| message.map(|message| message.change)), head).await
}

/// The whole feed of approvers, up to `head`.
pub(crate) async fn approvers(
    cluster: &Cluster,
    organisation: &str,
    head: usize,
) -> Vec<approver::ApproverChange> {
    let mut client = ApproverServiceClient::new(cluster.replicas[0].channel("approver"));
    let organisation_id = organisation.to_owned();
    let request = approver::WatchChangesRequest { organisation_id, ..Default::default() };
    let stream = client.watch_changes(request).await.unwrap().into_inner();
    whole(stream.map(|message| message.map(|message| message.change)), head).await
}
