//! Resume tokens: feed, organisation, sequence and change id, with a MAC.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use uuid::Uuid;

use crate::id::OrganisationId;

const VERSION: u8 = 1;
pub(super) const MAC_BYTES: usize = 16;
/// Version, organisation, sequence, change id, MAC.
const BYTES: usize = 1 + 16 + 8 + 16 + MAC_BYTES;

/// A place in an organisation's feed: after the change of that sequence and id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The change's sequence; 0 is before the first.
    pub sequence: i64,
    /// The change's id. A feed restored from a back-up has another at the same sequence.
    pub change_id: Uuid,
}

impl Position {
    /// Before the first change.
    pub const START: Self = Self { sequence: 0, change_id: Uuid::nil() };
}

/// The secret that a feed's tokens are made with.
#[derive(Clone)]
pub struct TokenKey {
    feed: &'static str,
    secret: [u8; 32],
}

impl std::fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenKey").field("feed", &self.feed).finish_non_exhaustive()
    }
}

impl TokenKey {
    /// The key of the feed of that name.
    #[must_use]
    pub fn new(feed: &'static str, secret: [u8; 32]) -> Self {
        Self { feed, secret }
    }

    /// The token to resume with after `position`.
    #[must_use]
    pub fn seal(&self, organisation: OrganisationId, position: Position) -> String {
        let mut bytes = Vec::with_capacity(BYTES);
        bytes.push(VERSION);
        bytes.extend_from_slice(organisation.uuid().as_bytes());
        bytes.extend_from_slice(&position.sequence.to_be_bytes());
        bytes.extend_from_slice(position.change_id.as_bytes());
        let mac = self.resume_mac(&bytes).finalize().into_bytes();
        bytes.extend_from_slice(&mac[..MAC_BYTES]);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Reads a token; none where it is not one of this feed.
    #[must_use]
    pub fn open(&self, token: &str) -> Option<(OrganisationId, Position)> {
        let bytes: [u8; BYTES] = URL_SAFE_NO_PAD.decode(token).ok()?.try_into().ok()?;
        let (body, mac) = bytes.split_at(BYTES - MAC_BYTES);
        self.resume_mac(body).verify_truncated_left(mac).ok()?;
        let (version, body) = body.split_first()?;
        if *version != VERSION {
            return None;
        }
        Some((Uuid::from_slice(&body[..16]).ok()?.into(), position(&body[16..])?))
    }

    fn resume_mac(&self, body: &[u8]) -> Hmac<Sha256> {
        let mut mac = self.mac(b"resume");
        mac.update(body);
        mac
    }

    /// The beginning of a MAC for one purpose.
    pub(super) fn mac(&self, purpose: &[u8]) -> Hmac<Sha256> {
        let mut mac =
            Hmac::<Sha256>::new_from_slice(&self.secret).expect("HMAC takes a key of any length");
        for part in [self.feed.as_bytes(), purpose] {
            mac.update(part);
            mac.update(&[0]);
        }
        mac
    }
}

/// The place that a token names, for whoever was given it by the feed and has no key to verify it.
#[must_use]
pub fn token_position(token: &str) -> Option<Position> {
    let bytes: [u8; BYTES] = URL_SAFE_NO_PAD.decode(token).ok()?.try_into().ok()?;
    position(&bytes[17..41])
}

/// Reads sequence and change id.
fn position(bytes: &[u8]) -> Option<Position> {
    let (sequence, change_id) = bytes.split_at_checked(8)?;
    Some(Position {
        sequence: i64::from_be_bytes(sequence.try_into().ok()?),
        change_id: Uuid::from_slice(change_id).ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position() -> Position {
        Position { sequence: 42, change_id: Uuid::new_v4() }
    }

    #[test]
    fn a_token_reads_back_what_was_sealed() {
        let key = TokenKey::new("identity", [7; 32]);
        let (organisation, position) = (OrganisationId::new(), position());
        let token = key.seal(organisation, position);
        assert_eq!(key.open(&token), Some((organisation, position)));
        assert_eq!(token_position(&token), Some(position));
    }

    #[test]
    fn a_token_of_another_feed_or_key_or_with_one_character_changed_is_refused() {
        let key = TokenKey::new("identity", [7; 32]);
        let token = key.seal(OrganisationId::new(), position());
        assert_eq!(TokenKey::new("group", [7; 32]).open(&token), None);
        assert_eq!(TokenKey::new("identity", [8; 32]).open(&token), None);
        for at in 0..token.len() - 1 {
            let other = if token.as_bytes()[at] == b'A' { "B" } else { "A" };
            let mut changed = token.clone();
            changed.replace_range(at..=at, other);
            assert_eq!(key.open(&changed), None, "{changed}");
        }
        assert_eq!(key.open(""), None);
    }
}
