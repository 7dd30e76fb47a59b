//! Rules of organisations.

use muster_proto::identity::v1::{Organisation, UnknownMembers};

use crate::Error;

/// The default locale of an organisation that names none.
pub const DEFAULT_LOCALE: &str = "en-GB";

/// The longest name or label a person may give something, in characters.
const LONGEST_NAME: usize = 256;

/// Checks an organisation's settings and fills in what is left out.
pub fn checked(mut organisation: Organisation) -> Result<Organisation, Error> {
    organisation.display_name = name("display_name", &organisation.display_name)?;
    if organisation.default_locale.trim().is_empty() {
        DEFAULT_LOCALE.clone_into(&mut organisation.default_locale);
    }
    if organisation.default_locale.chars().count() > 64 {
        return Err(Error::Invalid {
            field: "default_locale",
            description: "is longer than 64 characters; expected a BCP 47 tag such as en-GB".into(),
        });
    }
    if !is_locale(&organisation.default_locale) {
        let sent = &organisation.default_locale;
        return Err(Error::Invalid {
            field: "default_locale",
            description: format!("was {sent:?}; expected a BCP 47 tag such as en-GB"),
        });
    }
    for (field, name) in [
        ("custom_field_1_name", &mut organisation.custom_field_1_name),
        ("custom_field_2_name", &mut organisation.custom_field_2_name),
        ("custom_field_3_name", &mut organisation.custom_field_3_name),
    ] {
        // A field without a name goes by SCIM's.
        *name = if name.trim().is_empty() { String::new() } else { self::name(field, name)? };
    }
    if organisation.unknown_members() == UnknownMembers::Unspecified {
        organisation.set_unknown_members(UnknownMembers::LeaveOut);
    }
    Ok(organisation)
}

/// Whether a text has the form of a language tag (RFC 5646 §2.1), with hyphens or underscores.
fn is_locale(text: &str) -> bool {
    let mut parts = text.split(['-', '_']);
    let language = parts.next().unwrap_or_default();
    (2..=8).contains(&language.len())
        && language.bytes().all(|b| b.is_ascii_alphabetic())
        && parts.all(|part| {
            (1..=8).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_alphanumeric())
        })
}

/// Checks a slug: lower-case letters, digits and hyphens, 1 to 63, beginning with a letter or digit.
pub fn slug(slug: &str) -> Result<(), Error> {
    let right = (1..=63).contains(&slug.len())
        && !slug.starts_with('-')
        && slug.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if right {
        Ok(())
    } else {
        let sent: String = slug.chars().take(64).collect();
        Err(Error::Invalid {
            field: "slug",
            description: format!(
                "was {sent:?}; expected 1 to 63 lower-case letters, digits and hyphens, such as \"acme\""
            ),
        })
    }
}

/// Checks a name that a person gives something: not blank, no control characters, not too long.
pub fn name(field: &'static str, name: &str) -> Result<String, Error> {
    let trimmed = name.trim();
    let description = if trimmed.is_empty() {
        "is empty; expected a name for people"
    } else if trimmed.chars().count() > LONGEST_NAME {
        "is longer than 256 characters"
    } else if trimmed.chars().any(char::is_control) {
        "holds control characters; expected one line of text"
    } else {
        return Ok(trimmed.to_owned());
    };
    Err(Error::Invalid { field, description: description.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_locale_is_a_language_tag() {
        for right in ["en", "en-GB", "en_GB", "zh-Hant-TW", "sr-Latn"] {
            assert!(is_locale(right), "{right}");
        }
        for wrong in ["", "e", "english language", "en-", "-GB", "en--GB", "en<GB"] {
            assert!(!is_locale(wrong), "{wrong}");
        }
    }

    #[test]
    fn a_slug_is_lower_case_letters_digits_and_hyphens() {
        for right in ["a", "acme", "acme-2", "7eleven", &"a".repeat(63)] {
            assert!(slug(right).is_ok(), "{right}");
        }
        for wrong in ["", "-a", "Acme", "a b", "ä", "a/b", &"a".repeat(64)] {
            assert!(slug(wrong).is_err(), "{wrong}");
        }
    }
}
