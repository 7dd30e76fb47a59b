//! Watching a feed: from a position on, until the reader goes away.

mod all;
mod one;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::read::{self, Refusal};
use super::{Change, Feed, Position};
use crate::grpc::database_status;
use crate::id::OrganisationId;

/// How many messages may be under way that the reader has not taken.
const AHEAD: usize = 16;

/// What to watch.
#[derive(Debug, Clone)]
pub struct Watch {
    /// The organisation; every one where it is none.
    pub organisation: Option<OrganisationId>,
    /// Where to resume, at most one token an organisation.
    pub resume_tokens: Vec<String>,
    /// Whether an organisation without a token begins after its newest change.
    pub from_now: bool,
}

/// What a watch tells.
#[derive(Debug, Clone)]
pub struct Watched {
    /// Where to resume after it; empty in the heart-beat of a watch that has been told nothing.
    pub resume_token: String,
    /// The change; none in a heart-beat.
    pub change: Option<Arc<Change>>,
    /// The newest sequence of its organisation that is known of.
    pub head_sequence: i64,
    /// In a watch of all organisations: one that cannot be resumed from its token (or from the
    /// start, without one) and is left out from now on.
    pub out_of_range: Option<OrganisationId>,
}

impl Watched {
    /// `out_of_range` as messages hold it: empty for none.
    #[must_use]
    pub fn out_of_range_id(&self) -> String {
        self.out_of_range.map(|organisation| organisation.to_string()).unwrap_or_default()
    }
}

/// Why a watch ends.
enum End {
    /// The reader has gone.
    Gone,
    /// The reader is told this.
    Told(Status),
}

impl From<Status> for End {
    fn from(status: Status) -> Self {
        Self::Told(status)
    }
}

impl From<Refusal> for End {
    fn from(refusal: Refusal) -> Self {
        Self::Told(match refusal {
            Refusal::Lost => Status::out_of_range(
                "the feed does not go on from there: it is too long ago, or the feed has been \
                 restored to another history; list afresh",
            ),
            Refusal::Database(error) => database_status(&error),
        })
    }
}

impl Feed {
    /// Watches until the reader goes away, the watch is old or the process stops.
    ///
    /// Errors: `INVALID_ARGUMENT` for a token that is not of this feed or of another organisation,
    /// `RESOURCE_EXHAUSTED` for one watch too many. The stream ends with `OUT_OF_RANGE` where the
    /// feed does not go on from the token, with `UNAVAILABLE` where it is to be resumed: for a
    /// reader that is too slow, after a while, and at shutdown.
    pub fn watch(
        &self,
        watch: Watch,
    ) -> Result<BoxStream<'static, Result<Watched, Status>>, Status> {
        let mut positions = HashMap::new();
        for token in &watch.resume_tokens {
            let (organisation, position) = self.keys.open(token).ok_or_else(|| {
                Status::invalid_argument("a resume token is not one of this feed; list afresh")
            })?;
            if watch.organisation.is_some_and(|only| only != organisation) {
                return Err(Status::invalid_argument("a resume token is of another organisation"));
            }
            positions.insert(organisation, position);
        }
        let permit = self.streams.clone().try_acquire_owned().map_err(|_| {
            Status::resource_exhausted("too many watches of this process; try another or later")
        })?;
        let (sender, receiver) = mpsc::channel(AHEAD);
        let (end, ended) = oneshot::channel();
        let (feed, life) = (self.clone(), self.life.clone());
        self.life.spawn_untraced(async move {
            let _permit = permit;
            let mut outlet = Outlet::new(feed.clone(), sender.clone());
            let reading = async {
                match watch.organisation {
                    Some(organisation) => {
                        let position = positions.get(&organisation).copied();
                        one::run(&feed, organisation, position, watch.from_now, &mut outlet).await
                    }
                    None => all::run(&feed, positions, watch.from_now, &mut outlet).await,
                }
            };
            let why = tokio::select! {
                why = reading => why,
                () = life.stopped() => Status::unavailable("shutting down; resume elsewhere").into(),
                () = tokio::time::sleep(feed.stream_age()) => {
                    Status::unavailable("this watch is old; resume with the last token").into()
                }
                () = sender.closed() => End::Gone,
            };
            if let End::Told(status) = why {
                drop(end.send(status));
            }
        });
        // What the reader has not taken yet comes before why there is no more.
        let end = futures::stream::once(ended).filter_map(async |end| end.ok().map(Err));
        Ok(ReceiverStream::new(receiver).chain(end.boxed()).boxed())
    }

    /// How long a watch lasts that begins now.
    fn stream_age(&self) -> Duration {
        self.settings.stream_age.mul_f64(rand::random_range(0.8..=1.2))
    }

    /// The newest change of an organisation, where a reader may go on after `position`.
    async fn resume(
        &self,
        organisation: OrganisationId,
        position: Position,
    ) -> Result<Position, Refusal> {
        let kept = self.settings.kept();
        self.turns
            .read(organisation, move |c| Box::pin(read::resume(c, organisation, position, kept)))
            .await
    }
}

/// Where a watch's messages go out: one waits until the reader has taken the one [`AHEAD`] before.
struct Outlet {
    feed: Feed,
    sender: mpsc::Sender<Result<Watched, Status>>,
    last: Instant,
}

impl Outlet {
    fn new(feed: Feed, sender: mpsc::Sender<Result<Watched, Status>>) -> Self {
        Self { feed, sender, last: Instant::now() }
    }

    /// Waits until nothing has been sent for so long that the reader wants to hear something.
    async fn quiet(&self) {
        tokio::time::sleep_until(self.last + self.feed.settings.heart_beat).await;
    }

    async fn change(&mut self, change: Arc<Change>, head_sequence: i64) -> Result<(), End> {
        let resume_token = self.feed.keys.seal(change.organisation_id, change.position());
        let change = Some(change);
        #[cfg(feature = "failpoints")]
        crate::failpoint::crash("feed-before-send");
        self.send(Watched { resume_token, change, head_sequence, out_of_range: None }).await
    }

    /// Tells where the reader stands, and nothing else.
    async fn token(
        &mut self,
        organisation: OrganisationId,
        position: Position,
        head_sequence: i64,
    ) -> Result<(), End> {
        let resume_token = self.feed.keys.seal(organisation, position);
        self.send(Watched { resume_token, change: None, head_sequence, out_of_range: None }).await
    }

    async fn send(&mut self, watched: Watched) -> Result<(), End> {
        use mpsc::error::SendTimeoutError::{Closed, Timeout};
        let sent = self.sender.send_timeout(Ok(watched), self.feed.settings.send_limit).await;
        self.last = Instant::now();
        sent.map_err(|error| match error {
            Timeout(_) => {
                Status::unavailable("the reader is too slow; resume with the last token").into()
            }
            Closed(_) => End::Gone,
        })
    }
}
