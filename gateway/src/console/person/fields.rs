//! A person as a form: what an admin may set, as text.

use muster_proto::identity::v1::{MultiValue, Name, User};
use muster_scim::schema::USER_TYPE;
use muster_scim::{Error, caseless, resource};
use serde::Deserialize;
use serde_json::Value;

use crate::scim::{from_scim, to_scim};

/// What the form holds. A field that is empty is unassigned.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Fields {
    pub given_name: String,
    pub family_name: String,
    pub display_name: String,
    pub user_name: String,
    pub email: String,
    pub country: String,
    pub locale: String,
    /// One address a line.
    pub approvers: String,
    pub field1: String,
    pub field2: String,
    pub field3: String,
}

impl Fields {
    /// What a person's form shows.
    pub(super) fn of(user: &User) -> Self {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let name = user.name.clone().unwrap_or_default();
        Self {
            given_name: text(&name.given_name),
            family_name: text(&name.family_name),
            display_name: text(&user.display_name),
            user_name: text(&user.user_name),
            email: user.primary_email.clone(),
            country: text(&user.country_code),
            locale: text(&user.locale),
            approvers: user.declared_approvers.join("\n"),
            field1: text(&user.custom_field_1),
            field2: text(&user.custom_field_2),
            field3: text(&user.custom_field_3),
        }
    }

    /// The same without blanks at the ends, and with one kind of line break.
    pub(super) fn trimmed(&self) -> Self {
        let mut trimmed = self.clone();
        for field in trimmed.all() {
            *field = field.trim().to_owned();
        }
        trimmed.approvers = trimmed.approver_list().join("\n");
        trimmed
    }

    fn all(&mut self) -> [&mut String; 11] {
        [
            &mut self.given_name,
            &mut self.family_name,
            &mut self.display_name,
            &mut self.user_name,
            &mut self.email,
            &mut self.country,
            &mut self.locale,
            &mut self.approvers,
            &mut self.field1,
            &mut self.field2,
            &mut self.field3,
        ]
    }

    /// What was typed where it differs from `base`, which the form showed; elsewhere what is
    /// `current`.
    pub(super) fn merged(&self, base: &Self, current: &Self) -> Self {
        let (mut merged, mut base, mut current) = (self.trimmed(), base.trimmed(), current.clone());
        for ((typed, shown), now) in merged.all().into_iter().zip(base.all()).zip(current.all()) {
            if *typed == *shown {
                typed.clone_from(now);
            }
        }
        merged
    }

    fn approver_list(&self) -> Vec<String> {
        let addresses = self.approvers.split(['\n', ',', ';']).map(str::trim);
        addresses.filter(|address| !address.is_empty()).map(str::to_owned).collect()
    }

    /// A person with what was typed in place of what was. It is read as a SCIM client's document
    /// is, so that the same is refused.
    pub(super) fn apply(&self, user: User) -> Result<User, Error> {
        let typed = self.trimmed();
        let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        let name = Name {
            given_name: some(&typed.given_name),
            family_name: some(&typed.family_name),
            // A whole name that was made of the old parts would be wrong now.
            formatted: user.name.clone().and_then(|name| {
                let same = name.given_name == some(&typed.given_name)
                    && name.family_name == some(&typed.family_name);
                name.formatted.filter(|_| same)
            }),
            ..user.name.clone().unwrap_or_default()
        };
        let edited = User {
            name: Some(name),
            display_name: some(&typed.display_name),
            user_name: some(&typed.user_name),
            emails: with_primary(&user, &typed.email),
            country_code: some(&typed.country),
            locale: some(&typed.locale),
            declared_approvers: typed.approver_list(),
            custom_field_1: some(&typed.field1),
            custom_field_2: some(&typed.field2),
            custom_field_3: some(&typed.field3),
            ..user.clone()
        };
        let document = resource::read(Value::Object(to_scim(&edited, "")), &USER_TYPE)?;
        Ok(User {
            id: user.id,
            organisation_id: user.organisation_id,
            revision: user.revision,
            ..from_scim(&document)
        })
    }
}

/// The e-mail addresses with another primary one: as work where there was none.
fn with_primary(user: &User, email: &str) -> Vec<MultiValue> {
    let mut emails = user.emails.clone();
    let is_primary = |one: &MultiValue| {
        one.value.as_deref().is_some_and(|value| caseless::eq(value, &user.primary_email))
    };
    let at = if user.primary_email.is_empty() { None } else { emails.iter().position(is_primary) };
    match (at, email.is_empty()) {
        (Some(at), false) => emails[at].value = Some(email.to_owned()),
        (Some(at), true) => drop(emails.remove(at)),
        (None, false) => emails.push(MultiValue {
            value: Some(email.to_owned()),
            r#type: Some("work".to_owned()),
            ..MultiValue::default()
        }),
        (None, true) => {}
    }
    emails
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ann() -> User {
        let email = |value: &str, kind: &str| MultiValue {
            value: Some(value.into()),
            r#type: Some(kind.into()),
            ..MultiValue::default()
        };
        User {
            user_name: Some("ann".into()),
            title: Some("Head".into()),
            emails: vec![email("home@x.example", "home"), email("ann@x.example", "work")],
            primary_email: "ann@x.example".into(),
            declared_approvers: vec!["bo@x.example".into()],
            ..User::default()
        }
    }

    #[test]
    fn what_the_form_does_not_show_stays() {
        let fields = Fields { email: "anne@x.example".into(), ..Fields::of(&ann()) };
        let edited = fields.apply(ann()).unwrap();
        assert_eq!(edited.title, ann().title);
        assert_eq!(edited.emails[0], ann().emails[0]);
        assert_eq!(edited.emails[1].value.as_deref(), Some("anne@x.example"));
        assert_eq!(edited.emails[1].r#type.as_deref(), Some("work"));
        let same = Fields::of(&ann()).apply(ann()).unwrap();
        assert_eq!(same, User { primary_email: String::new(), ..ann() });
    }

    #[test]
    fn what_a_scim_client_may_not_send_an_admin_may_not_type() {
        let fields = Fields { display_name: "Ann\u{1}".into(), ..Fields::of(&ann()) };
        assert!(fields.apply(ann()).is_err());
    }

    #[test]
    fn only_what_was_typed_takes_the_place_of_what_changed_meanwhile() {
        let base = Fields::of(&ann());
        let typed = Fields { display_name: " Ann ".into(), ..base.clone() };
        let current = Fields { email: "new@x.example".into(), ..base.clone() };
        let merged = typed.merged(&base, &current);
        assert_eq!((merged.display_name.as_str(), merged.email.as_str()), ("Ann", "new@x.example"));
    }

    #[test]
    fn approvers_are_typed_in_lines_or_with_commas() {
        let fields =
            Fields { approvers: "a@x.example,\r\n b@x.example;\n".into(), ..Fields::default() };
        assert_eq!(fields.approver_list(), ["a@x.example", "b@x.example"]);
    }
}
