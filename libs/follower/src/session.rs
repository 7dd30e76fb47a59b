//! Following while one stream lasts.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use futures::{FutureExt as _, StreamExt as _};
use muster_proto::identity::v1::{WatchChangesRequest, WatchChangesResponse};
use muster_runtime::grpc::database_status;
use muster_runtime::id::{OrganisationId, Revision, UserId};
use muster_runtime::{clock, telemetry};
use time::OffsetDateTime;
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;
use tonic::{Code, Status, Streaming};
use tracing::Instrument as _;

use crate::cursor::{self, Advance};
use crate::reconcile::Ended;
use crate::{FollowedUser, Follower, Keeper, REOPEN};

/// The most changes in one transaction.
const BATCH: usize = 500;
/// The most changes that wait to be applied; the stream is read no further meanwhile.
const QUEUE: usize = 2_000;
/// How long to wait for the rest of what identity is about to send.
const REST: Duration = Duration::from_millis(10);
/// How long to gather changes where nobody waits for one: many cost little more than one.
const GATHER: Duration = Duration::from_millis(250);
/// How many organisations are worked on at once.
const AT_ONCE: usize = 4;
/// How long to leave an organisation alone that another replica is at work on.
const BUSY: Duration = Duration::from_millis(20);
/// How long until an organisation that another replica lists afresh is looked at again.
const LISTED_ELSEWHERE: Duration = Duration::from_secs(15);
/// How long until an organisation is listed again whose listing failed.
const LISTED_AGAIN: Duration = Duration::from_secs(5);
/// How long to leave a change alone that cannot be applied: twice as long each time, up to a
/// minute.
const POISON: (Duration, u32) = (Duration::from_secs(1), 6);

/// A change of identity's feed.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    pub user: FollowedUser,
    pub sequence: i64,
    pub resume_token: String,
    pub written_at: OffsetDateTime,
    pub traceparent: String,
}

/// An organisation's batch, of whom it was, and what came of it.
type Applied = (OrganisationId, Vec<(UserId, Revision)>, Result<Advance, sqlx::Error>);

/// An organisation's changes that have come and are not applied.
#[derive(Debug, Default)]
struct Pending {
    messages: VecDeque<Message>,
    /// The newest sequence that identity knew of when it sent the last of them.
    head: i64,
    /// When the first of them came that has waited for no batch yet.
    since: Option<Instant>,
    /// Whether a batch of them is being applied.
    advancing: bool,
    /// How often the first of them has failed by itself; the others are tried with it as long as
    /// it has not.
    failures: u32,
    /// Whether a batch has failed: one by one then, up to the one that fails.
    singly: bool,
    /// Not before then.
    again: Option<Instant>,
    /// Whether more has come that was not kept: the stream is to be opened anew.
    dropped: bool,
}

struct Session<'a, K> {
    follower: &'a Follower<K>,
    pending: BTreeMap<OrganisationId, Pending>,
    /// Organisations to list afresh.
    lost: VecDeque<OrganisationId>,
    listings: JoinSet<(OrganisationId, Result<Ended, Status>)>,
    /// Batches that are being applied, one an organisation: none waits for another's.
    advances: JoinSet<Applied>,
    /// Whose turn was last.
    last: Option<OrganisationId>,
    /// Organisations whose changes are not taken from this stream any more.
    left: BTreeSet<OrganisationId>,
    /// When to open a stream that has them again.
    reopen: Option<Instant>,
}

/// Opens identity's feed after the cursors and applies what it tells, until it breaks off or has to
/// be opened anew.
pub(crate) async fn run<K: Keeper>(follower: &Follower<K>) -> Result<(), Status> {
    let mut session = Session {
        follower,
        pending: BTreeMap::new(),
        lost: VecDeque::new(),
        listings: JoinSet::new(),
        advances: JoinSet::new(),
        last: None,
        left: BTreeSet::new(),
        reopen: None,
    };
    let stream = session.open().await?;
    session.read(stream).await
}

impl<K: Keeper> Session<'_, K> {
    async fn open(&mut self) -> Result<Streaming<WatchChangesResponse>, Status> {
        let cursors = self
            .follower
            .database
            .read_shared(|c| Box::pin(cursor::all(c, clock::now())))
            .await
            .map_err(|error| database_status(&error))?;
        let resume_tokens = cursors.iter().map(|cursor| cursor.resume_token.clone());
        let resume_tokens = resume_tokens.filter(|token| !token.is_empty()).collect();
        let request = WatchChangesRequest { resume_tokens, ..WatchChangesRequest::default() };
        let stream = self.follower.users.clone().watch_changes(request).await?.into_inner();
        self.follower.lag.begin();
        for cursor in cursors {
            match cursor.listing {
                Some(true) => self.leave(cursor.organisation, LISTED_ELSEWHERE),
                Some(false) => self.lose(cursor.organisation),
                None => {}
            }
        }
        Ok(stream)
    }

    async fn read(mut self, mut stream: Streaming<WatchChangesResponse>) -> Result<(), Status> {
        let read = self.read_on(&mut stream).await;
        while let Some(advanced) = self.advances.join_next().await {
            self.advanced(advanced);
        }
        // Their organisations have no feed to follow until they have ended.
        while let Some(listed) = self.listings.join_next().await {
            self.listed(listed);
        }
        read
    }

    async fn read_on(
        &mut self,
        stream: &mut Streaming<WatchChangesResponse>,
    ) -> Result<(), Status> {
        while !self.over() {
            let wait = self.wait();
            tokio::select! {
                message = stream.next(), if self.room() => {
                    let Some(message) = message.transpose()? else { return Ok(()) };
                    self.take(message)?;
                }
                Some(listed) = self.listings.join_next() => self.listed(listed),
                Some(advanced) = self.advances.join_next() => self.advanced(advanced),
                () = self.follower.awaited.another() => {}
                () = tokio::time::sleep(wait) => {}
            }
            // What has come already goes with it.
            while self.room() {
                match stream.next().now_or_never() {
                    None => break,
                    Some(None) => return Ok(()),
                    Some(Some(message)) => self.take(message?)?,
                }
            }
            self.list_lost();
            self.advance();
        }
        Ok(())
    }

    /// Whether the stream is to be opened anew: listings that are under way come first.
    fn over(&self) -> bool {
        self.listings.is_empty() && self.reopen.is_some_and(|at| at <= Instant::now())
    }

    /// How long there is nothing to do unless something comes.
    fn wait(&self) -> Duration {
        let now = Instant::now();
        let full = self.advances.len() == AT_ONCE;
        let work = self.pending.iter().filter(|(_, pending)| !full && !pending.advancing);
        let work = work.map(|(organisation, pending)| self.due(*organisation, pending));
        let work = work.map(|due| due.unwrap_or(now));
        let next = work.chain(self.reopen.filter(|_| self.listings.is_empty())).min();
        next.map_or(Duration::MAX, |at| at.saturating_duration_since(now))
    }

    /// When an organisation's next batch is to begin; none for now.
    fn due(&self, organisation: OrganisationId, pending: &Pending) -> Option<Instant> {
        pending.due(self.follower.awaited.contains(organisation))
    }

    /// Whether more changes may wait. Those behind one that cannot be applied do not count.
    fn room(&self) -> bool {
        self.pending.values().map(|pending| pending.messages.len()).sum::<usize>() < QUEUE
    }

    fn take(&mut self, message: WatchChangesResponse) -> Result<(), Status> {
        self.follower.lag.hear();
        let unreadable = |_| Status::internal("identity sent a change without ids");
        if !message.out_of_range_organisation_id.is_empty() {
            self.lose(message.out_of_range_organisation_id.parse().map_err(unreadable)?);
            return Ok(());
        }
        let Some(change) = message.change else { return Ok(()) };
        let user = FollowedUser::of_change(&change).map_err(unreadable)?;
        let head = message.head_sequence;
        let metadata = change.metadata.unwrap_or_default();
        let message = Message {
            user,
            sequence: metadata.sequence,
            resume_token: message.resume_token,
            written_at: metadata.write_time.and_then(clock::time_of).unwrap_or_else(clock::now),
            traceparent: metadata.traceparent,
        };
        let organisation = message.user.organisation;
        if self.left.contains(&organisation) {
            return Ok(());
        }
        self.follower.lag.wait(organisation, message.sequence, head, message.written_at);
        let pending = self.pending.entry(organisation).or_default();
        let last = pending.messages.back().map(|last| last.sequence);
        if pending.failures > 0 {
            pending.dropped = true;
        } else if last.is_none_or(|last| message.sequence == last + 1) {
            pending.since.get_or_insert_with(Instant::now);
            pending.head = head;
            pending.messages.push_back(message);
        } else if last.is_some_and(|last| message.sequence > last) {
            self.leave(organisation, REOPEN);
        }
        Ok(())
    }

    /// Begins to apply what waits, as much at once as may be.
    fn advance(&mut self) {
        let now = Instant::now();
        let due = self.pending.iter().filter(|(organisation, pending)| {
            !pending.advancing && self.due(**organisation, pending).is_none_or(|at| at <= now)
        });
        let mut due: Vec<OrganisationId> = due.map(|(organisation, _)| *organisation).collect();
        // Whose turn was last comes last.
        let after = due.partition_point(|organisation| Some(*organisation) <= self.last);
        due.rotate_left(after);
        for organisation in due.into_iter().take(AT_ONCE - self.advances.len()) {
            let Some(pending) = self.pending.get_mut(&organisation) else { continue };
            pending.advancing = true;
            pending.since = None;
            self.last = Some(organisation);
            let batch = pending.batch();
            let users = batch.iter().map(|message| (message.user.id, message.user.revision));
            let (follower, users) = (self.follower.clone(), users.collect());
            self.advances.spawn(async move {
                (organisation, users, follower.advance(organisation, batch).await)
            });
        }
    }

    fn advanced(&mut self, advanced: Result<Applied, JoinError>) {
        // Only a process that ends ends these otherwise.
        let Ok((organisation, users, advanced)) = advanced else { return };
        let count = users.len();
        if let Some(pending) = self.pending.get_mut(&organisation) {
            pending.advancing = false;
        }
        match advanced {
            Ok(Advance::Done { .. }) => {
                self.follower.applied.note(organisation, &users);
                self.done(organisation, count);
            }
            Ok(Advance::Busy) => self.pause(organisation, BUSY),
            Ok(Advance::Gap) => self.leave(organisation, REOPEN),
            Ok(Advance::Listing) => self.leave(organisation, LISTED_ELSEWHERE),
            Err(error) => self.failed(organisation, count, &database_status(&error)),
        }
    }

    fn done(&mut self, organisation: OrganisationId, count: usize) {
        let Some(pending) = self.pending.get_mut(&organisation) else { return };
        let last = pending.messages.drain(..count).next_back();
        (pending.failures, pending.again) = (0, None);
        let next = pending.messages.front().map(|message| message.written_at);
        if let Some(last) = last {
            self.follower.lag.advance(organisation, last.sequence, next);
        }
        if next.is_none() && pending.dropped {
            self.leave(organisation, REOPEN);
        } else if next.is_none() {
            self.pending.remove(&organisation);
        }
    }

    /// A batch that fails is tried one by one; a change that fails by itself stops its
    /// organisation, and is tried again and again: it is never skipped.
    fn failed(&mut self, organisation: OrganisationId, count: usize, status: &Status) {
        let Some(pending) = self.pending.get_mut(&organisation) else { return };
        pending.singly = true;
        if count > 1 {
            return;
        }
        pending.dropped |= pending.messages.len() > 1;
        pending.messages.truncate(1);
        let (first, doublings) = POISON;
        let passes = status.code() == Code::Unavailable;
        let wait = if passes { first } else { first * 2u32.pow(pending.failures.min(doublings)) };
        pending.failures += 1;
        pending.again = Some(Instant::now() + wait);
        let sequence = pending.messages.front().map(|message| message.sequence);
        let failures = pending.failures;
        let lag = self.follower.lag.of(organisation);
        let (lag_seconds, lag_changes) = (lag.age.as_secs(), lag.changes);
        tracing::warn!(
            %organisation, sequence, failures, lag_seconds, lag_changes,
            "a change of identity cannot be applied; its organisation waits"
        );
    }

    fn pause(&mut self, organisation: OrganisationId, wait: Duration) {
        if let Some(pending) = self.pending.get_mut(&organisation) {
            pending.again = Some(Instant::now() + wait);
        }
    }

    /// Takes no more of the organisation from this stream, and opens another after a while.
    fn leave(&mut self, organisation: OrganisationId, wait: Duration) {
        self.pending.remove(&organisation);
        self.left.insert(organisation);
        let at = Instant::now() + wait;
        self.reopen = Some(self.reopen.map_or(at, |earlier| earlier.min(at)));
    }

    /// Takes no more of the organisation from this stream, and lists it afresh.
    fn lose(&mut self, organisation: OrganisationId) {
        tracing::warn!(%organisation, "identity's feed does not go on; its users are listed afresh");
        self.follower.lag.stop(organisation);
        self.pending.remove(&organisation);
        self.left.insert(organisation);
        if !self.lost.contains(&organisation) {
            self.lost.push_back(organisation);
        }
    }

    fn list_lost(&mut self) {
        while self.listings.len() < AT_ONCE
            && let Some(organisation) = self.lost.pop_front()
        {
            let follower = self.follower.clone();
            self.listings
                .spawn(async move { (organisation, follower.list_afresh(organisation).await) });
        }
    }

    fn listed(&mut self, listed: Result<(OrganisationId, Result<Ended, Status>), JoinError>) {
        // Only a process that ends ends these otherwise.
        let Ok((organisation, ended)) = listed else { return };
        match ended {
            Ok(Ended::Reconciled(reconciled)) => {
                tracing::warn!(%organisation, mended = reconciled.count, "its users are listed");
                self.leave(organisation, REOPEN);
            }
            Ok(Ended::Superseded) => self.leave(organisation, LISTED_ELSEWHERE),
            Err(status) => {
                let (code, message) = (status.code(), status.message());
                tracing::warn!(%organisation, ?code, message, "its users cannot be listed");
                self.leave(organisation, LISTED_AGAIN);
            }
        }
    }
}

impl Pending {
    /// When the next batch is to begin, where somebody waits for one of the changes or nobody does;
    /// none for now.
    fn due(&self, awaited: bool) -> Option<Instant> {
        let last = self.messages.back().map_or(0, |last| last.sequence);
        let wait = if self.messages.len() >= BATCH || self.failures > 0 {
            None
        } else if awaited {
            (last < self.head).then_some(REST)
        } else {
            Some(GATHER)
        };
        self.again.max(self.since.zip(wait).map(|(since, wait)| since + wait))
    }

    /// What to apply next in one transaction: changes of one actor, who is told as the one who made
    /// what comes of them.
    fn batch(&self) -> Vec<Message> {
        let first = self.messages.front().map(|message| &message.user.actor);
        let same = self.messages.iter().take_while(|message| Some(&message.user.actor) == first);
        same.take(if self.singly { 1 } else { BATCH }).cloned().collect()
    }
}

impl<K: Keeper> Follower<K> {
    async fn advance(
        &self,
        organisation: OrganisationId,
        batch: Vec<Message>,
    ) -> Result<Advance, sqlx::Error> {
        let span = tracing::info_span!(
            parent: None,
            "follow",
            otel.kind = "consumer",
            muster.organisation.id = %organisation,
            messaging.batch.message_count = batch.len(),
        );
        for message in &batch {
            telemetry::link(&span, &message.traceparent);
        }
        let work = self
            .database
            .apply(organisation, move |c| Box::pin(cursor::advance::<K>(c, batch)))
            .instrument(span);
        let advance = work.await?;
        if advance == (Advance::Done { appended: true }) {
            // After the commit: a reader who is woken earlier finds nothing.
            self.feed.wake(organisation);
        }
        Ok(advance)
    }
}

#[cfg(test)]
mod tests {
    use muster_runtime::feed::Actor;

    use super::*;

    fn pending(count: i64, head: i64, since: Instant) -> Pending {
        let organisation = OrganisationId::new();
        let actor = Actor::Caller(String::new());
        let message = |sequence| Message {
            user: FollowedUser::gone(organisation, UserId::new(), Revision(1), actor.clone()),
            sequence,
            resume_token: String::new(),
            written_at: clock::now(),
            traceparent: String::new(),
        };
        let messages = (1..=count).map(message).collect();
        Pending { messages, head, since: Some(since), ..Pending::default() }
    }

    #[test]
    fn changes_are_gathered_unless_somebody_waits_for_one() {
        let now = Instant::now();
        assert_eq!(pending(1, 1, now).due(false), Some(now + GATHER));
        assert_eq!(pending(1, 1, now).due(true), None);
        // The rest is about to come.
        assert_eq!(pending(1, 2, now).due(true), Some(now + REST));
        // A whole batch is there.
        assert_eq!(pending(500, 900, now).due(false), None);
        // One that could not be applied has its own time.
        let failed = Pending { failures: 1, again: Some(now), ..pending(1, 1, now + REST) };
        assert_eq!(failed.due(false), Some(now));
    }
}
