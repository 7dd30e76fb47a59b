//! A watch of one organisation.

use super::super::{Feed, Position};
use super::{End, Outlet};
use crate::id::OrganisationId;

/// Reads until something ends the watch.
pub(super) async fn run(
    feed: &Feed,
    organisation: OrganisationId,
    token: Option<Position>,
    from_now: bool,
    outlet: &mut Outlet,
) -> End {
    match read(feed, organisation, token, from_now, outlet).await {
        Ok(never) => never,
        Err(end) => end,
    }
}

async fn read(
    feed: &Feed,
    organisation: OrganisationId,
    token: Option<Position>,
    from_now: bool,
    outlet: &mut Outlet,
) -> Result<End, End> {
    let tail = feed.wakers.tail(organisation);
    let mut position = match token {
        None if from_now => feed.head(organisation).await?,
        token => token.unwrap_or(Position::START),
    };
    let mut head = feed.resume(organisation, position).await?.sequence;
    // Who has no token yet gets one before the first change.
    outlet.token(organisation, position, head).await?;
    let mut hints = tail.hints();
    loop {
        hints.borrow_and_update();
        let batch = tail.after(position).await?;
        head = head.max(batch.newest);
        if batch.changes.is_empty() {
            tokio::select! {
                _ = hints.changed() => {}
                () = outlet.quiet() => outlet.token(organisation, position, head).await?,
            }
        }
        for change in batch.changes {
            position = change.position();
            outlet.change(change, head).await?;
        }
    }
}
