//! What this process has applied lately.

use std::collections::{HashMap, VecDeque};
use std::sync::Mutex;

use muster_runtime::id::{OrganisationId, Revision, UserId};
use muster_runtime::lock;
use tokio::sync::Notify;

/// How many changes are remembered: a multiple of what is applied while a call is under way.
const REMEMBERED: usize = 4_096;

/// The last changes that this process has applied, for those who wait for one.
#[derive(Debug, Default)]
pub(crate) struct Applied {
    last: Mutex<Last>,
    more: Notify,
}

#[derive(Debug, Default)]
struct Last {
    /// The newest of each user's.
    revisions: HashMap<(OrganisationId, UserId), Revision>,
    /// All of them, the oldest first.
    order: VecDeque<(OrganisationId, UserId, Revision)>,
}

impl Applied {
    /// Notes what is applied, and wakes who waits for it.
    pub(crate) fn note(&self, organisation: OrganisationId, users: &[(UserId, Revision)]) {
        lock(&self.last).note(organisation, users);
        self.more.notify_waiters();
    }

    /// Waits until a revision of a user, or a later one, is among them.
    pub(crate) async fn comes(
        &self,
        organisation: OrganisationId,
        user: UserId,
        revision: Revision,
    ) {
        loop {
            // Made before the look, so that nothing is missed between the two.
            let more = self.more.notified();
            if lock(&self.last).revisions.get(&(organisation, user)) >= Some(&revision) {
                return;
            }
            more.await;
        }
    }
}

impl Last {
    fn note(&mut self, organisation: OrganisationId, users: &[(UserId, Revision)]) {
        for (user, revision) in users {
            self.revisions.insert((organisation, *user), *revision);
            self.order.push_back((organisation, *user, *revision));
        }
        while self.order.len() > REMEMBERED
            && let Some((organisation, user, revision)) = self.order.pop_front()
        {
            let key = (organisation, user);
            if self.revisions.get(&key) == Some(&revision) {
                self.revisions.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[test]
    fn a_revision_has_come_when_it_or_a_later_one_is_applied() {
        let (applied, organisation, user) =
            (Applied::default(), OrganisationId::new(), UserId::new());
        let comes = |revision| applied.comes(organisation, user, Revision(revision));
        let mut waiting = Box::pin(comes(2));
        assert_eq!((&mut waiting).now_or_never(), None);
        applied.note(organisation, &[(user, Revision(1))]);
        applied.note(OrganisationId::new(), &[(user, Revision(9))]);
        applied.note(organisation, &[(UserId::new(), Revision(9))]);
        assert_eq!((&mut waiting).now_or_never(), None);
        applied.note(organisation, &[(user, Revision(3))]);
        assert_eq!(waiting.now_or_never(), Some(()));
        assert_eq!(comes(3).now_or_never(), Some(()));
        assert_eq!(comes(4).now_or_never(), None);
    }

    #[test]
    fn what_was_applied_long_ago_is_forgotten() {
        let (applied, organisation, user) =
            (Applied::default(), OrganisationId::new(), UserId::new());
        applied.note(organisation, &[(user, Revision(1))]);
        for _ in 0..REMEMBERED {
            applied.note(organisation, &[(UserId::new(), Revision(1))]);
        }
        assert_eq!(applied.comes(organisation, user, Revision(1)).now_or_never(), None);
        let last = lock(&applied.last);
        assert_eq!((last.order.len(), last.revisions.len()), (REMEMBERED, REMEMBERED));
    }
}
