//! Of which organisations somebody waits for a change.

use std::collections::HashMap;
use std::sync::Mutex;

use muster_runtime::id::OrganisationId;
use muster_runtime::lock;
use tokio::sync::Notify;

/// How many wait for a change of each organisation, where any do.
#[derive(Debug, Default)]
pub(crate) struct Awaited {
    organisations: Mutex<HashMap<OrganisationId, usize>>,
    another: Notify,
}

/// One who waits, until it is dropped.
#[derive(Debug)]
pub(crate) struct Awaits<'a> {
    awaited: &'a Awaited,
    organisation: OrganisationId,
}

impl Awaited {
    /// Notes one more who waits.
    pub(crate) fn begin(&self, organisation: OrganisationId) -> Awaits<'_> {
        let mut organisations = lock(&self.organisations);
        let count = organisations.entry(organisation).or_default();
        *count += 1;
        if *count == 1 {
            self.another.notify_one();
        }
        Awaits { awaited: self, organisation }
    }

    /// Whether anybody waits for a change of the organisation.
    pub(crate) fn contains(&self, organisation: OrganisationId) -> bool {
        lock(&self.organisations).contains_key(&organisation)
    }

    /// Waits until somebody waits for an organisation for which nobody did.
    pub(crate) async fn another(&self) {
        self.another.notified().await;
    }
}

impl Drop for Awaits<'_> {
    fn drop(&mut self) {
        let mut organisations = lock(&self.awaited.organisations);
        if let Some(count) = organisations.get_mut(&self.organisation) {
            *count -= 1;
            if *count == 0 {
                organisations.remove(&self.organisation);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[test]
    fn an_organisation_is_awaited_until_the_last_has_gone() {
        let (awaited, organisation) = (Awaited::default(), OrganisationId::new());
        assert!(!awaited.contains(organisation));
        let first = awaited.begin(organisation);
        assert_eq!(awaited.another().now_or_never(), Some(()));
        let second = awaited.begin(organisation);
        assert_eq!(awaited.another().now_or_never(), None);
        drop(first);
        assert!(awaited.contains(organisation));
        assert!(!awaited.contains(OrganisationId::new()));
        drop(second);
        assert!(!awaited.contains(organisation));
    }
}
