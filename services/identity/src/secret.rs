//! The form of the secrets we give out: a kind, the organisation, 256 random bits and a checksum.
//!
//! The organisation stands in them because it must be known before a row can be looked up; the
//! checksum refuses a mistyped one without a look-up. For secret scanners:
//! `muster_[0-9A-Za-z]{22}_[0-9A-Za-z]{50}`.

use muster_runtime::id::OrganisationId;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

/// What a secret is for; it stands in front.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A SCIM client's key.
    ApiKey,
    /// A link to set an admin's password with.
    Invitation,
    /// An admin's session in the console.
    Session,
    /// One of the organisations to choose from at sign-in.
    Choice,
}

impl Kind {
    fn prefix(self) -> &'static str {
        match self {
            Self::ApiKey => "muster_",
            Self::Invitation => "invitation_",
            Self::Session => "session_",
            Self::Choice => "choice_",
        }
    }
}

/// A secret's SHA-256: all that is stored of it. A fast hash is right for 256 random bits.
pub type Hash = [u8; 32];

const ID_CHARACTERS: usize = 22;
const RANDOM_CHARACTERS: usize = 44;
const CHECKSUM_CHARACTERS: usize = 6;

/// How much of an API key the console shows, to tell keys apart: the kind and four characters of
/// the random part would say nothing, so it is the end of the organisation and the start of the
/// random part.
const SHOWN: usize = "muster_".len() + ID_CHARACTERS + 1 + 4;

/// Makes a secret for an organisation.
#[must_use]
pub fn generate(kind: Kind, organisation: OrganisationId) -> String {
    let (high, low): (u128, u128) = rand::random();
    let body = format!(
        "{}{}_{}{}",
        kind.prefix(),
        base62(organisation.uuid().as_u128(), ID_CHARACTERS),
        base62(high, RANDOM_CHARACTERS / 2),
        base62(low, RANDOM_CHARACTERS / 2),
    );
    let checksum = checksum(&body);
    body + &checksum
}

/// Whose secret it says it is, and its hash; none where it is not of this form, whole.
#[must_use]
pub fn parse(kind: Kind, secret: &str) -> Option<(OrganisationId, Hash)> {
    let rest = secret.strip_prefix(kind.prefix())?;
    let expected = ID_CHARACTERS + 1 + RANDOM_CHARACTERS + CHECKSUM_CHARACTERS;
    if rest.len() != expected || !rest.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        return None;
    }
    let (body, sent) = secret.split_at(secret.len() - CHECKSUM_CHARACTERS);
    if checksum(body) != sent {
        return None;
    }
    let organisation = base62::decode(&rest[..ID_CHARACTERS]).ok()?;
    Some((Uuid::from_u128(organisation).into(), hash(secret)))
}

/// What is stored of a secret.
#[must_use]
pub fn hash(secret: &str) -> Hash {
    Sha256::digest(secret.as_bytes()).into()
}

/// What the console shows of an API key.
#[must_use]
pub fn shown(secret: &str) -> &str {
    secret.get(..SHOWN).unwrap_or_default()
}

fn base62(number: u128, width: usize) -> String {
    format!("{:0>width$}", base62::encode(number))
}

fn checksum(body: &str) -> String {
    base62(crc32fast::hash(body.as_bytes()).into(), CHECKSUM_CHARACTERS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_names_its_organisation() {
        for _ in 0..1000 {
            let organisation = OrganisationId::new();
            let secret = generate(Kind::ApiKey, organisation);
            assert_eq!(parse(Kind::ApiKey, &secret), Some((organisation, hash(&secret))));
            assert_eq!(secret.len(), 7 + 22 + 1 + 50);
        }
    }

    #[test]
    fn a_secret_with_one_character_changed_is_refused() {
        let secret = generate(Kind::ApiKey, OrganisationId::new());
        for at in 0..secret.len() {
            let mut changed = secret.clone();
            changed.replace_range(at..=at, if &secret[at..=at] == "a" { "b" } else { "a" });
            assert_eq!(parse(Kind::ApiKey, &changed), None, "{at}");
        }
    }

    #[test]
    fn a_secret_of_another_kind_or_length_is_refused() {
        let secret = generate(Kind::Invitation, OrganisationId::new());
        assert_eq!(parse(Kind::ApiKey, &secret), None);
        for text in ["", "muster_", "muster_é", &"a".repeat(1_000_000), &secret[..50]] {
            assert_eq!(parse(Kind::ApiKey, text), None);
        }
    }
}
