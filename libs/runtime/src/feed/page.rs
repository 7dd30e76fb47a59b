//! Page tokens: where a list goes on, sealed for one organisation and one query.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::Mac as _;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::token::{MAC_BYTES, Position, TokenKey};
use crate::id::OrganisationId;

/// How long a page token is good for.
pub const LIFETIME: Duration = Duration::hours(1);

const VERSION: u8 = 1;
/// Version, kind, organisation, place, sequence, change id, seconds, MAC.
const BYTES: usize = 1 + 1 + 16 + 16 + 8 + 16 + 8 + MAC_BYTES;

/// Where a list goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// After this id.
    After(Uuid),
    /// Before this id, read backwards.
    Before(Uuid),
    /// After this many, where the order is another.
    Skip(i64),
}

/// A page token's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    /// Where the list goes on.
    pub place: Place,
    /// The feed's newest change before the first page was read: where to watch from after the last.
    pub head: Position,
}

/// Why a page token is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPageToken {
    /// It was not given for this organisation and query.
    #[error("is not one of an earlier answer to the same question")]
    Foreign,
    /// It is too old.
    #[error("has expired; begin again without it")]
    Expired,
}

impl TokenKey {
    /// The token to go on with.
    #[must_use]
    pub fn seal_page(
        &self,
        organisation: OrganisationId,
        query: &str,
        page: Page,
        now: OffsetDateTime,
    ) -> String {
        let (kind, place) = match page.place {
            Place::After(id) => (0, id.into_bytes()),
            Place::Skip(count) => (1, i128::from(count).to_be_bytes()),
            Place::Before(id) => (2, id.into_bytes()),
        };
        let mut bytes = Vec::with_capacity(BYTES);
        bytes.extend_from_slice(&[VERSION, kind]);
        bytes.extend_from_slice(organisation.uuid().as_bytes());
        bytes.extend_from_slice(&place);
        bytes.extend_from_slice(&page.head.sequence.to_be_bytes());
        bytes.extend_from_slice(page.head.change_id.as_bytes());
        bytes.extend_from_slice(&now.unix_timestamp().to_be_bytes());
        let mac = self.page_mac(query, &bytes).finalize().into_bytes();
        bytes.extend_from_slice(&mac[..MAC_BYTES]);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Reads a token that was given for the same organisation and query.
    pub fn open_page(
        &self,
        organisation: OrganisationId,
        query: &str,
        token: &str,
        now: OffsetDateTime,
    ) -> Result<Page, InvalidPageToken> {
        let (page, made_at) =
            self.read_page(organisation, query, token).ok_or(InvalidPageToken::Foreign)?;
        if now.unix_timestamp() - made_at > LIFETIME.whole_seconds() {
            return Err(InvalidPageToken::Expired);
        }
        Ok(page)
    }

    fn read_page(
        &self,
        organisation: OrganisationId,
        query: &str,
        token: &str,
    ) -> Option<(Page, i64)> {
        let bytes: [u8; BYTES] = URL_SAFE_NO_PAD.decode(token).ok()?.try_into().ok()?;
        let (body, mac) = bytes.split_at(BYTES - MAC_BYTES);
        self.page_mac(query, body).verify_truncated_left(mac).ok()?;
        if body[0] != VERSION || body[2..18] != *organisation.uuid().as_bytes() {
            return None;
        }
        let place: [u8; 16] = body[18..34].try_into().ok()?;
        let place = match body[1] {
            0 => Place::After(Uuid::from_bytes(place)),
            1 => Place::Skip(i128::from_be_bytes(place).try_into().ok()?),
            2 => Place::Before(Uuid::from_bytes(place)),
            _ => return None,
        };
        let head = Position {
            sequence: i64::from_be_bytes(body[34..42].try_into().ok()?),
            change_id: Uuid::from_slice(&body[42..58]).ok()?,
        };
        Some((Page { place, head }, i64::from_be_bytes(body[58..66].try_into().ok()?)))
    }

    fn page_mac(&self, query: &str, body: &[u8]) -> hmac::Hmac<sha2::Sha256> {
        let mut mac = self.mac(b"page");
        mac.update(&(query.len() as u64).to_be_bytes());
        mac.update(query.as_bytes());
        mac.update(body);
        mac
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> TokenKey {
        TokenKey::new("identity", [7; 32])
    }

    fn page(place: Place) -> Page {
        Page { place, head: Position { sequence: 42, change_id: Uuid::new_v4() } }
    }

    #[test]
    fn a_page_token_reads_back_what_was_sealed() {
        let (organisation, now) = (OrganisationId::new(), OffsetDateTime::now_utc());
        for place in [
            Place::After(Uuid::now_v7()),
            Place::Before(Uuid::now_v7()),
            Place::Skip(0),
            Place::Skip(100_000),
        ] {
            let page = page(place);
            let token = key().seal_page(organisation, "q", page, now);
            assert_eq!(key().open_page(organisation, "q", &token, now), Ok(page));
        }
    }

    #[test]
    fn a_page_token_of_another_organisation_query_or_list_is_refused() {
        let (organisation, now) = (OrganisationId::new(), OffsetDateTime::now_utc());
        let token = key().seal_page(organisation, "q", page(Place::Skip(1)), now);
        let refused = Err(InvalidPageToken::Foreign);
        assert_eq!(key().open_page(OrganisationId::new(), "q", &token, now), refused);
        assert_eq!(key().open_page(organisation, "r", &token, now), refused);
        let groups = TokenKey::new("group", [7; 32]);
        assert_eq!(groups.open_page(organisation, "q", &token, now), refused);
        for token in ["", "x", &token[1..], &token.replace(&token[30..31], "_-")] {
            assert_eq!(key().open_page(organisation, "q", token, now), refused);
        }
        // Nor is it a resume token, or one of those a page token.
        assert_eq!(key().open(&token), None);
        let resume = key().seal(organisation, Position::START);
        assert_eq!(key().open_page(organisation, "q", &resume, now), refused);
    }

    #[test]
    fn a_page_token_lasts_an_hour() {
        let (organisation, now) = (OrganisationId::new(), OffsetDateTime::now_utc());
        let token = key().seal_page(organisation, "q", page(Place::Skip(1)), now);
        assert!(key().open_page(organisation, "q", &token, now + LIFETIME).is_ok());
        let late = now + LIFETIME + Duration::SECOND;
        assert_eq!(
            key().open_page(organisation, "q", &token, late),
            Err(InvalidPageToken::Expired)
        );
    }
}
