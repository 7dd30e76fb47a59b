//! Rules of users: what a request becomes before it is stored.

use std::collections::BTreeSet;

use muster_proto::identity::v1::{MultiValue, User};
use muster_runtime::id::UserId;
use muster_scim::caseless;
use serde_json::Value;

use crate::listed::Listed;
use crate::{Error, content_region};

/// The longest key that an index takes, in bytes.
const LONGEST_KEY: usize = 512;

/// How a request treats what it does not mention.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// Assigns every default: a creation.
    Create,
    /// Assigns the defaults, but leaves `active` as it is: a SCIM PUT.
    Replace {
        /// What `active` is now.
        active: Option<bool>,
    },
    /// Assigns nothing: what is not there was removed (RFC 7644 §3.5.2.2).
    Exact,
}

/// A user as they are stored: what the client said, and the columns made from it.
#[derive(Debug, Clone, PartialEq)]
pub struct Prepared {
    /// What the client said; nothing that we compute.
    pub document: User,
    /// To find the user by `user_name`.
    pub user_name_key: String,
    /// To find the user by primary e-mail address.
    pub primary_email_key: Option<String>,
    /// To find the user by any e-mail address.
    pub email_keys: Vec<String>,
    /// To find the user by `display_name`.
    pub display_name_key: Option<String>,
    /// The document with every text that ignores case as its key, and the content region.
    pub search: Value,
    /// Whether the user counts as active.
    pub active: bool,
    /// What lists, searches and reports look at.
    pub listed: Listed,
}

/// Applies the rules to what a client sent.
pub fn prepare(mut user: User, write: &Write, default_locale: &str) -> Result<Prepared, Error> {
    clear_computed(&mut user);
    for email in &mut user.emails {
        email.value = email.value.take().filter(|value| !value.trim().is_empty());
    }
    user.emails.retain(|email| *email != MultiValue::default());
    if is_blank(user.user_name.as_deref()) && *write == Write::Exact {
        let description = "is empty; every user has one".into();
        return Err(Error::Invalid { field: "user_name", description });
    }
    if is_blank(user.user_name.as_deref()) {
        user.user_name = primary_email(&user.emails).map(str::to_owned);
    }
    let Some(user_name) = user.user_name.clone() else {
        return Err(Error::Invalid {
            field: "user_name",
            description: "is missing, and there is no e-mail address to take in its place; \
                          send one of them"
                .into(),
        });
    };
    user.country_code = user
        .country_code
        .as_deref()
        .map(content_region::country_code)
        .transpose()
        .map_err(|description| Error::Invalid { field: "country_code", description })?;
    match write {
        Write::Create => user.active = Some(user.active.unwrap_or(true)),
        Write::Replace { active } => user.active = user.active.or(*active),
        Write::Exact => {}
    }
    if *write != Write::Exact {
        user.country_code.get_or_insert_with(|| "QQ".to_owned());
        if is_blank(user.locale.as_deref()) {
            user.locale = Some(default_locale.to_owned());
        }
    }
    user.declared_approvers = declared(std::mem::take(&mut user.declared_approvers));

    let user_name_key = key("user_name", &user_name)?;
    if user_name_key.is_empty() {
        return Err(Error::Invalid {
            field: "user_name",
            description: "consists of invisible characters only; send a name".into(),
        });
    }
    if user.external_id.as_ref().is_some_and(|id| id.len() > LONGEST_KEY) {
        return Err(too_long("external_id"));
    }
    let emails: BTreeSet<String> = user
        .emails
        .iter()
        .filter_map(|email| email.value.as_deref())
        .map(|email| key("emails.value", email))
        .collect::<Result<_, _>>()?;
    Ok(Prepared {
        user_name_key,
        primary_email_key: primary_email(&user.emails).map(caseless::key).filter(|k| !k.is_empty()),
        email_keys: emails.into_iter().collect(),
        display_name_key: user
            .display_name
            .as_deref()
            .map(caseless::key)
            .filter(|key| key.len() <= LONGEST_KEY),
        search: search(&user),
        active: user.active.unwrap_or(false),
        listed: Listed::of(&user),
        document: user,
    })
}

/// The address that people match and approve by: the one marked primary, else the first of type
/// `work`, else the first.
#[must_use]
pub fn primary_email(emails: &[MultiValue]) -> Option<&str> {
    let is_work = |email: &&MultiValue| {
        email.r#type.as_deref().is_some_and(|kind| kind.eq_ignore_ascii_case("work"))
    };
    let emails = || emails.iter().filter(|email| email.value.is_some());
    emails()
        .find(|email| email.primary == Some(true))
        .or_else(|| emails().find(is_work))
        .or_else(|| emails().next())
        .and_then(|email| email.value.as_deref())
}

/// What filters look at: the document with every text as its key, but for those that regard case.
fn search(user: &User) -> Value {
    fn fold(value: &mut Value, exact: &[&str]) {
        match value {
            Value::String(text) => *text = caseless::key(text),
            Value::Array(values) => values.iter_mut().for_each(|value| fold(value, exact)),
            Value::Object(parts) => {
                parts.iter_mut().filter(|(name, _)| !exact.contains(&name.as_str())).for_each(
                    |(name, value)| {
                        let links = matches!(name.as_str(), "photos" | "x509_certificates");
                        fold(value, if links { &["value"] } else { &[] });
                    },
                );
            }
            _ => {}
        }
    }
    let mut search = serde_json::to_value(user).expect("a user has string keys only");
    fold(&mut search, &["external_id", "profile_url"]);
    if let Some(code) = &user.country_code {
        let region = content_region::of(code).as_str_name();
        let region = region.strip_prefix("CONTENT_REGION_").unwrap_or(region);
        search["content_region"] = caseless::key(region).into();
    }
    search
}

/// A user of whom the fields that a mask names are as in an update, and all others as they were.
pub fn masked(mut user: User, update: &User, mask: &[String]) -> Result<User, Error> {
    macro_rules! replace {
        ($path:expr, $($field:ident),*; $($whole:ident { $($part:ident),* }),*) => {
            match $path {
                $(stringify!($field) => user.$field.clone_from(&update.$field),)*
                $($(concat!(stringify!($whole), ".", stringify!($part)) => {
                    let part = update.$whole.as_ref().and_then(|whole| whole.$part.clone());
                    user.$whole.get_or_insert_default().$part = part;
                    // What has no part left is not there.
                    user.$whole.take_if(|whole| *whole == Default::default());
                })*)*
                other => {
                    let description = format!("names {other:?}, which no client may set");
                    return Err(Error::Invalid { field: "update_mask", description });
                }
            }
        };
    }
    for path in mask {
        replace!(path.as_str(),
            user_name, external_id, active, name, display_name, nick_name, profile_url, title,
            user_type, preferred_language, locale, timezone, emails, phone_numbers, ims, photos,
            addresses, entitlements, roles, x509_certificates, enterprise, declared_approvers,
            country_code, custom_field_1, custom_field_2, custom_field_3;
            name {
                formatted, family_name, given_name, middle_name, honorific_prefix, honorific_suffix
            },
            enterprise {
                employee_number, cost_center, organization, division, department, manager_id
            }
        );
    }
    Ok(user)
}

/// Fills in what we compute of a user.
pub fn fill_computed(user: &mut User, default_locale: &str) {
    user.set_content_region(content_region::of(user.country_code.as_deref().unwrap_or("QQ")));
    user.effective_locale = user.locale.clone().unwrap_or_else(|| default_locale.to_owned());
    user.primary_email = primary_email(&user.emails).unwrap_or_default().to_owned();
    user.released = !user.active() && user.user_name.as_ref() == Some(&released_name(&user.id));
}

/// What becomes of an inactive user whose name and addresses somebody else shall have.
#[must_use]
pub fn released(user: User, id: UserId) -> User {
    User { user_name: Some(released_name(&id.to_string())), emails: Vec::new(), ..user }
}

fn released_name(id: &str) -> String {
    format!("released-{id}")
}

/// Whether a creation may revive this inactive user: it may, unless both say who they are
/// elsewhere and it is not the same (a namesake).
#[must_use]
pub fn is_rehire(inactive: &User, created: &User) -> bool {
    match (&inactive.external_id, &created.external_id) {
        (Some(old), Some(new)) => old == new,
        _ => true,
    }
}

/// Declared approvers in order, without blanks and duplicates; the first of equals stays.
fn declared(emails: Vec<String>) -> Vec<String> {
    let mut seen = BTreeSet::new();
    emails
        .into_iter()
        .filter(|email| {
            let key = caseless::key(email);
            !key.is_empty() && seen.insert(key)
        })
        .collect()
}

fn clear_computed(user: &mut User) {
    *user = User {
        id: String::new(),
        organisation_id: String::new(),
        revision: 0,
        create_time: None,
        update_time: None,
        origin: 0,
        content_region: 0,
        effective_locale: String::new(),
        primary_email: String::new(),
        released: false,
        ..std::mem::take(user)
    };
}

fn is_blank(text: Option<&str>) -> bool {
    text.is_none_or(|text| text.trim().is_empty())
}

fn key(field: &'static str, text: &str) -> Result<String, Error> {
    let key = caseless::key(text);
    if key.len() > LONGEST_KEY { Err(too_long(field)) } else { Ok(key) }
}

fn too_long(field: &'static str) -> Error {
    Error::Invalid { field, description: format!("is longer than {LONGEST_KEY} bytes") }
}

#[cfg(test)]
mod tests {
    use muster_proto::identity::v1::Name;

    use super::*;

    fn email(value: &str, kind: Option<&str>, primary: bool) -> MultiValue {
        MultiValue {
            value: Some(value.into()),
            r#type: kind.map(Into::into),
            primary: primary.then_some(true),
            display: None,
        }
    }

    fn ann() -> User {
        User { user_name: Some("ann".into()), ..User::default() }
    }

    #[test]
    fn a_user_name_that_is_left_out_is_the_primary_or_work_address() {
        let emails = vec![
            email("home@a.example", Some("home"), false),
            email("w@a.example", Some("work"), false),
        ];
        let user = User { emails: emails.clone(), ..User::default() };
        let prepared = prepare(user, &Write::Create, "en-GB").unwrap();
        assert_eq!(prepared.document.user_name.as_deref(), Some("w@a.example"));
        assert!(prepare(User::default(), &Write::Create, "en-GB").is_err());
    }

    #[test]
    fn the_primary_address_is_the_one_marked_primary_else_the_work_one_else_the_first() {
        let (a, b, c) = (
            email("a@a.example", None, false),
            email("b@a.example", Some("Work"), false),
            email("c@a.example", None, true),
        );
        assert_eq!(primary_email(&[a.clone(), b.clone(), c]), Some("c@a.example"));
        assert_eq!(primary_email(&[a.clone(), b]), Some("b@a.example"));
        assert_eq!(primary_email(&[a]), Some("a@a.example"));
        assert_eq!(primary_email(&[]), None);
    }

    #[test]
    fn a_creation_assigns_every_default() {
        let prepared = prepare(ann(), &Write::Create, "sv-SE").unwrap();
        assert_eq!(prepared.document.active, Some(true));
        assert_eq!(prepared.document.country_code.as_deref(), Some("QQ"));
        assert_eq!(prepared.document.locale.as_deref(), Some("sv-SE"));
    }

    #[test]
    fn a_replacement_without_active_leaves_it_as_it_is() {
        for active in [Some(true), Some(false), None] {
            let prepared = prepare(ann(), &Write::Replace { active }, "en-GB").unwrap();
            assert_eq!(prepared.document.active, active);
            assert_eq!(prepared.active, active == Some(true));
        }
    }

    #[test]
    fn a_removal_unassigns_and_what_is_computed_still_answers() {
        let mut user = prepare(ann(), &Write::Exact, "en-GB").unwrap().document;
        assert_eq!((user.active, &user.country_code, &user.locale), (None, &None, &None));
        fill_computed(&mut user, "en-GB");
        assert_eq!(user.content_region().as_str_name(), "CONTENT_REGION_QQ");
        assert_eq!(user.effective_locale, "en-GB");
        assert!(!user.active());
    }

    #[test]
    fn declared_approvers_keep_their_order_and_spelling_without_duplicates() {
        let sent = ["B@x.example", "a@x.example", " b@X.example", "", "not an address"];
        let user = User { declared_approvers: sent.map(String::from).into(), ..ann() };
        let prepared = prepare(user, &Write::Create, "en-GB").unwrap();
        assert_eq!(
            prepared.document.declared_approvers,
            ["B@x.example", "a@x.example", "not an address"]
        );
    }

    #[test]
    fn of_a_user_only_what_a_mask_names_is_replaced() {
        let name = |given: Option<&str>, family: Option<&str>| {
            Some(Name {
                given_name: given.map(Into::into),
                family_name: family.map(Into::into),
                ..Name::default()
            })
        };
        let old = User {
            active: Some(true),
            title: Some("Engineer".into()),
            name: name(Some("Ann"), Some("Bell")),
            ..ann()
        };
        let update = User { name: name(None, Some("Cole")), nick_name: Some("An".into()), ..ann() };
        let masked = |mask: &[&str]| {
            let mask: Vec<String> = mask.iter().map(ToString::to_string).collect();
            masked(old.clone(), &update, &mask)
        };
        assert_eq!(
            masked(&["active", "nick_name", "name.family_name"]).unwrap(),
            User {
                active: None,
                nick_name: Some("An".into()),
                name: name(Some("Ann"), Some("Cole")),
                ..old.clone()
            }
        );
        assert_eq!(masked(&["name"]).unwrap(), User { name: update.name.clone(), ..old.clone() });
        // A part that is unassigned is not left over as an empty whole, nor one that was not there.
        let parts = ["name.given_name", "enterprise.department"];
        let other = masked(&parts).unwrap();
        assert_eq!((other.name, other.enterprise), (name(None, Some("Bell")), None));
        for path in ["revision", "id", "content_region", "shoe_size", "name.shoe_size", "*", ""] {
            assert!(masked(&[path]).unwrap_err().to_string().contains(path), "{path}");
        }
    }

    #[test]
    fn a_namesake_is_no_rehire() {
        let with = |id: Option<&str>| User { external_id: id.map(Into::into), ..ann() };
        assert!(is_rehire(&with(Some("1")), &with(Some("1"))));
        assert!(is_rehire(&with(None), &with(Some("1"))));
        assert!(is_rehire(&with(Some("1")), &with(None)));
        assert!(!is_rehire(&with(Some("1")), &with(Some("2"))));
    }

    #[test]
    fn keys_that_no_index_takes_are_refused() {
        let long = "x".repeat(LONGEST_KEY + 1);
        let user = User { user_name: Some(long.clone()), ..User::default() };
        assert!(prepare(user, &Write::Create, "en-GB").is_err());
        let user = User { external_id: Some(long), ..ann() };
        assert!(prepare(user, &Write::Create, "en-GB").is_err());
    }
}
