//! What lists, searches and reports look at of a user, and how a search reads what was typed.

use std::collections::BTreeSet;

use muster_proto::identity::v1::User;
use muster_scim::caseless;

use crate::content_region;

/// The most bytes of words kept of one user: what a search finds them by.
const MOST_WORDS: usize = 1_000;
/// The longest custom field that is counted and filtered by, in bytes of its key.
const LONGEST_FIELD: usize = 512;
/// The most words that a search regards.
const MOST_SEARCHED: usize = 10;

/// A user in a narrow row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The number of the content region, as the contract has it.
    pub content_region: i16,
    /// The country code that came in, where ISO 3166-1 does not know it.
    pub unknown_country: Option<String>,
    /// The custom fields as they are shown.
    pub custom_fields: [Option<String>; 3],
    /// The same as keys.
    pub custom_field_keys: [Option<String>; 3],
    /// The words of name, user name and e-mail addresses, as keys, between blanks.
    pub words: String,
}

impl Listed {
    /// What is kept of a document.
    #[must_use]
    pub fn of(user: &User) -> Self {
        let code = user.country_code.as_deref();
        let fields = [&user.custom_field_1, &user.custom_field_2, &user.custom_field_3];
        let fields = fields.map(|field| {
            let field = field.as_deref().map(str::trim).filter(|field| !field.is_empty())?;
            let key = caseless::key(field);
            (!key.is_empty() && key.len() <= LONGEST_FIELD).then(|| (field.to_owned(), key))
        });
        // The contract's numbers are the column's.
        let region = content_region::of(code.unwrap_or("QQ")) as i32;
        Self {
            content_region: i16::try_from(region).unwrap_or_default(),
            unknown_country: code
                .filter(|code| !content_region::is_recognised(code))
                .map(str::to_owned),
            custom_fields: fields.clone().map(|field| field.map(|(shown, _)| shown)),
            custom_field_keys: fields.map(|field| field.map(|(_, key)| key)),
            words: words(user),
        }
    }
}

/// Every word of a user's names and addresses once, as a key.
fn words(user: &User) -> String {
    let name = user.name.clone().unwrap_or_default();
    let texts = [
        user.display_name.as_deref(),
        name.given_name.as_deref(),
        name.family_name.as_deref(),
        name.formatted.as_deref(),
        user.user_name.as_deref(),
    ];
    let emails = user.emails.iter().map(|email| email.value.as_deref());
    let mut seen = BTreeSet::new();
    let mut words = String::new();
    for text in texts.into_iter().chain(emails).flatten() {
        for word in caseless::key(text).split_whitespace() {
            if words.len() + word.len() < MOST_WORDS && seen.insert(word.to_owned()) {
                if !words.is_empty() {
                    words.push(' ');
                }
                words.push_str(word);
            }
        }
    }
    words
}

/// What somebody looks for: words, each of which a user must have. One of three characters or more
/// may stand anywhere in a word, a shorter one at its beginning.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Query {
    /// What must stand in the words with a blank before them.
    pub parts: Vec<String>,
    /// Every three characters in a row of them: what the index finds candidates by. Empty where the
    /// parts are too short for it.
    pub keys: Vec<String>,
}

impl Query {
    /// Reads what was typed.
    #[must_use]
    pub fn read(typed: &str) -> Self {
        let key = caseless::key(typed);
        let words: BTreeSet<&str> = key.split_whitespace().take(MOST_SEARCHED).collect();
        let parts = words.into_iter().map(|word| match word.chars().count() {
            1 | 2 => format!(" {word}"),
            _ => word.to_owned(),
        });
        let parts: Vec<String> = parts.collect();
        let mut keys = BTreeSet::new();
        for part in &parts {
            let characters: Vec<char> = part.chars().collect();
            keys.extend(characters.windows(3).map(|three| three.iter().collect::<String>()));
        }
        Self { parts, keys: keys.into_iter().collect() }
    }
}

#[cfg(test)]
mod tests {
    use muster_proto::identity::v1::{MultiValue, Name};

    use super::*;

    #[test]
    fn a_user_is_found_by_the_words_of_their_names_and_addresses() {
        let user = User {
            user_name: Some("ABell".into()),
            display_name: Some("Ann  Bell".into()),
            name: Some(Name {
                given_name: Some("Ann".into()),
                family_name: Some("Bell".into()),
                ..Name::default()
            }),
            emails: vec![MultiValue { value: Some("Ann@X.example".into()), ..Default::default() }],
            ..User::default()
        };
        assert_eq!(Listed::of(&user).words, "ann bell abell ann@x.example");
    }

    #[test]
    fn a_country_that_iso_3166_does_not_know_is_noted() {
        for (code, unknown) in [(Some("UK"), true), (Some("GB"), false), (Some("QQ"), false)] {
            let user = User { country_code: code.map(str::to_owned), ..User::default() };
            assert_eq!(Listed::of(&user).unknown_country.is_some(), unknown, "{code:?}");
        }
        assert_eq!(Listed::of(&User::default()).unknown_country, None);
    }

    #[test]
    fn a_search_reads_words_and_looks_for_short_ones_where_words_begin() {
        let query = Query::read("  Bell  an ");
        assert_eq!(query.parts, [" an", "bell"]);
        assert_eq!(query.keys, [" an", "bel", "ell"]);
        assert_eq!(Query::read(" "), Query::default());
        assert_eq!(Query::read("x").keys, Vec::<String>::new());
        assert_eq!(Query::read("王伟").keys, [" 王伟"]);
    }
}
