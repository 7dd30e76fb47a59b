//! The keys of a feed's tokens, of which there may be two while one takes the other's place.

use std::sync::{Arc, PoisonError, RwLock};

use sqlx::PgConnection;
use time::{Duration, OffsetDateTime};

use super::{InvalidPageToken, Page, Position, TokenKey};
use crate::clock;
use crate::id::OrganisationId;

/// A key is sealed with once it is this old: until then there are replicas that do not know it.
const KNOWN_AFTER: Duration = Duration::minutes(2);
/// How often the keys are read again.
pub(super) const REREAD: std::time::Duration = std::time::Duration::from_mins(1);

/// The keys; cloning gives the same.
#[derive(Debug, Clone)]
pub(super) struct Keys(Arc<RwLock<Vec<TokenKey>>>);

impl Keys {
    /// The keys in the order in which they are tried, the one to seal with first.
    pub(super) fn new(keys: Vec<TokenKey>) -> Self {
        Self(Arc::new(RwLock::new(keys)))
    }

    /// Takes what was read again.
    pub(super) fn replace(&self, keys: Vec<TokenKey>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = keys;
    }

    fn with<T>(&self, work: impl FnOnce(&[TokenKey]) -> T) -> T {
        work(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn seal(&self, organisation: OrganisationId, position: Position) -> String {
        self.with(|keys| keys[0].seal(organisation, position))
    }

    pub(super) fn open(&self, token: &str) -> Option<(OrganisationId, Position)> {
        self.with(|keys| keys.iter().find_map(|key| key.open(token)))
    }

    pub(super) fn seal_page(
        &self,
        organisation: OrganisationId,
        query: &str,
        page: Page,
    ) -> String {
        self.with(|keys| keys[0].seal_page(organisation, query, page, clock::now()))
    }

    pub(super) fn open_page(
        &self,
        organisation: OrganisationId,
        query: &str,
        token: &str,
    ) -> Result<Page, InvalidPageToken> {
        let open = |key: &TokenKey| key.open_page(organisation, query, token, clock::now());
        self.with(|keys| {
            let opened = keys.iter().map(open).find(|page| *page != Err(InvalidPageToken::Foreign));
            opened.unwrap_or(Err(InvalidPageToken::Foreign))
        })
    }
}

/// The keys in the database's schema, for the feed of that name; never none.
pub(super) async fn read(
    connection: &mut PgConnection,
    feed: &'static str,
) -> Result<Vec<TokenKey>, sqlx::Error> {
    let rows: Vec<(Vec<u8>, OffsetDateTime)> =
        sqlx::query_as("SELECT secret, created_at FROM feed_key ORDER BY created_at DESC")
            .fetch_all(connection)
            .await?;
    let wrong = |what: &str| sqlx::Error::Configuration(what.into());
    // The newest that every replica knows; where all are new, so are the replicas.
    let known = clock::now() - KNOWN_AFTER;
    let seals = rows.iter().position(|(_, created_at)| *created_at <= known).unwrap_or(0);
    let mut keys = Vec::new();
    for (secret, _) in rows {
        let secret =
            secret.try_into().map_err(|_| wrong("feed_key.secret is not 32 bytes long"))?;
        keys.push(TokenKey::new(feed, secret));
    }
    if keys.is_empty() {
        return Err(wrong("feed_key has no key"));
    }
    keys.swap(0, seals);
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_opens_and_the_first_seals() {
        let [old, new] = [1, 2].map(|byte| TokenKey::new("identity", [byte; 32]));
        let keys = Keys::new(vec![old.clone()]);
        let organisation = OrganisationId::new();
        let token = keys.seal(organisation, Position::START);
        keys.replace(vec![new.clone(), old]);
        assert_eq!(keys.open(&token), Some((organisation, Position::START)));
        let newer = keys.seal(organisation, Position::START);
        assert_eq!(new.open(&newer), Some((organisation, Position::START)));
        keys.replace(vec![new]);
        assert_eq!(keys.open(&token), None);
    }
}
