//! A watch of every organisation.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ops::Bound::{Excluded, Unbounded};

use super::super::read::Refusal;
use super::super::wake::{CHUNK, Hint};
use super::super::{Feed, Position};
use super::{End, Outlet, Watched};
use crate::id::OrganisationId;

/// Reads until something ends the watch.
pub(super) async fn run(
    feed: &Feed,
    positions: HashMap<OrganisationId, Position>,
    from_now: bool,
    outlet: &mut Outlet,
) -> End {
    let reader = Reader {
        feed,
        outlet,
        from_now,
        positions,
        checked: HashSet::new(),
        lost: HashSet::new(),
        heads: HashMap::new(),
        behind: BTreeSet::new(),
        last: None,
    };
    match reader.read().await {
        Ok(never) => never,
        Err(end) => end,
    }
}

struct Reader<'a> {
    feed: &'a Feed,
    outlet: &'a mut Outlet,
    /// Whether an organisation without a token begins after its newest change.
    from_now: bool,
    positions: HashMap<OrganisationId, Position>,
    /// Organisations whose position is known to be in the feed.
    checked: HashSet<OrganisationId>,
    /// Organisations that are left out.
    lost: HashSet<OrganisationId>,
    /// The newest sequences that were told of.
    heads: HashMap<OrganisationId, i64>,
    /// Organisations that may have more.
    behind: BTreeSet<OrganisationId>,
    /// Whose turn it was last.
    last: Option<OrganisationId>,
}

impl Reader<'_> {
    async fn read(mut self) -> Result<End, End> {
        // Before anything is compared, so that nothing falls in between.
        let everywhere = self.feed.wakers.everywhere();
        // Those that a token names may be gone.
        let mut organisations: BTreeSet<_> = self.positions.keys().copied().collect();
        organisations.extend(self.feed.wakers.organisations().await?);
        let organisations: Vec<_> = organisations.into_iter().collect();
        for chunk in organisations.chunks(CHUNK) {
            for (organisation, head) in self.feed.wakers.heads(chunk).await? {
                self.begin(organisation, head).await?;
            }
        }
        loop {
            for (organisation, hint) in everywhere.take() {
                self.note(organisation, hint);
            }
            if let Some(organisation) = self.next() {
                self.batch(organisation).await?;
                continue;
            }
            tokio::select! {
                () = everywhere.hinted() => {}
                () = self.outlet.quiet() => self.beat().await?,
            }
        }
    }

    /// Compares an organisation's newest change with the reader's position.
    async fn begin(&mut self, organisation: OrganisationId, head: Position) -> Result<(), End> {
        if self.from_now && !self.positions.contains_key(&organisation) {
            self.positions.insert(organisation, head);
            self.outlet.token(organisation, head, head.sequence).await?;
        }
        if self.position(organisation) == head {
            self.checked.insert(organisation);
        }
        self.note(organisation, Hint::Head(head));
        Ok(())
    }

    fn note(&mut self, organisation: OrganisationId, hint: Hint) {
        let position = self.position(organisation);
        let (head, moved) = match hint {
            Hint::Moved => (0, true),
            Hint::Reached(sequence) => (sequence, sequence > position.sequence),
            Hint::Head(head) => (head.sequence, head != position),
        };
        if moved && !self.lost.contains(&organisation) {
            let known = self.heads.entry(organisation).or_default();
            *known = head.max(*known);
            self.behind.insert(organisation);
        }
    }

    fn position(&self, organisation: OrganisationId) -> Position {
        self.positions.get(&organisation).copied().unwrap_or(Position::START)
    }

    /// Whose turn it is: nobody's twice before everybody's.
    fn next(&mut self) -> Option<OrganisationId> {
        let later =
            self.last.and_then(|last| self.behind.range((Excluded(last), Unbounded)).next());
        self.last = later.or(self.behind.first()).copied();
        self.last
    }

    /// Sends one batch of an organisation's changes.
    async fn batch(&mut self, organisation: OrganisationId) -> Result<(), End> {
        let mut position = self.position(organisation);
        let tail = self.feed.wakers.tail(organisation);
        let batch = async {
            if !self.checked.contains(&organisation) {
                self.feed.resume(organisation, position).await?;
            }
            tail.after(position).await
        };
        let batch = match batch.await {
            Ok(batch) => batch,
            Err(Refusal::Lost) => return self.lose(organisation).await,
            Err(error @ Refusal::Database(_)) => return Err(error.into()),
        };
        self.checked.insert(organisation);
        if !batch.more {
            self.behind.remove(&organisation);
        }
        let known = self.heads.entry(organisation).or_default();
        *known = batch.newest.max(*known);
        let head = *known;
        for change in batch.changes {
            position = change.position();
            self.outlet.change(change, head).await?;
            self.positions.insert(organisation, position);
        }
        Ok(())
    }

    /// Leaves an organisation out, so that the others go on.
    async fn lose(&mut self, organisation: OrganisationId) -> Result<(), End> {
        self.behind.remove(&organisation);
        self.positions.remove(&organisation);
        self.lost.insert(organisation);
        let out_of_range = Some(organisation);
        let (resume_token, change, head_sequence) = (String::new(), None, 0);
        self.outlet.send(Watched { resume_token, change, head_sequence, out_of_range }).await
    }

    /// Tells where the reader stands in one organisation: in the others they know.
    async fn beat(&mut self) -> Result<(), End> {
        if let Some((organisation, position)) = self.positions.iter().next() {
            return self.outlet.token(*organisation, *position, position.sequence).await;
        }
        let (resume_token, change, head_sequence) = (String::new(), None, 0);
        self.outlet.send(Watched { resume_token, change, head_sequence, out_of_range: None }).await
    }
}
