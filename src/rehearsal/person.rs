//! The people of the demonstration organisation, as Okta has them, and as SCIM shows them.

use serde::Deserialize;
use serde_json::{Map, Value, json};

pub(super) const CORE: &str = "urn:ietf:params:scim:schemas:core:2.0:User";
pub(super) const EXTENSION: &str = "urn:learnerbly:params:scim:schemas:2.0:User";

/// A person's profile in Okta.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Person {
    pub(super) given_name: String,
    pub(super) family_name: String,
    /// Also the `userName`.
    pub(super) email: String,
    /// `work` or null, as the guide says.
    #[serde(default = "work")]
    pub(super) email_type: Option<String>,
    /// Okta's id for the person, which it sends as `externalId`.
    pub(super) okta_id: String,
    pub(super) locale: Option<String>,
    /// ISO 3166-1 alpha-2, as the HRIS has it.
    pub(super) country: Option<String>,
    /// Mapped to `customField1`.
    pub(super) job_function: String,
    /// Mapped to `customField2`.
    pub(super) department: String,
    /// Mapped to `customField3`.
    pub(super) office: Option<String>,
    /// E-mail addresses, in order.
    pub(super) approvers: Vec<String>,
    /// Names of the Okta groups the person is in.
    pub(super) groups: Vec<String>,
}

// serde wants the type of the field.
#[allow(clippy::unnecessary_wraps)]
fn work() -> Option<String> {
    Some("work".to_owned())
}

/// Everybody, in the order in which Okta assigns them: many before their approvers.
pub(super) fn everybody() -> Vec<Person> {
    serde_json::from_str(include_str!("people.json")).expect("people.json holds people (tested)")
}

impl Person {
    pub(super) fn full_name(&self) -> String {
        format!("{} {}", self.given_name, self.family_name)
    }

    /// The body of Okta's `POST /Users`.
    pub(super) fn to_create(&self, password: &str) -> Value {
        let mut body = json!({
            "schemas": [CORE, EXTENSION],
            "externalId": self.okta_id,
            "groups": [],
            "password": password,
        });
        self.apply_to(&mut body);
        body
    }

    /// Changes a fetched user as Okta does before it PUTs it back: what Okta masters is written
    /// over, everything else stays as it came.
    pub(super) fn apply_to(&self, user: &mut Value) {
        set(user, "userName", Some(self.email.clone().into()));
        set(
            user,
            "name",
            Some(json!({ "givenName": self.given_name, "familyName": self.family_name })),
        );
        set(user, "displayName", Some(self.full_name().into()));
        set(
            user,
            "emails",
            Some(json!([{ "primary": true, "value": self.email, "type": self.email_type }])),
        );
        set(user, "locale", self.locale.clone().map(Value::from));
        set(user, "active", Some(true.into()));
        let mut extension = user.get(EXTENSION).cloned().unwrap_or_else(|| json!({}));
        set(&mut extension, "approvers", Some(self.approvers.clone().into()));
        set(&mut extension, "contentRegion", self.country.clone().map(Value::from));
        set(&mut extension, "customField1", Some(self.job_function.clone().into()));
        set(&mut extension, "customField2", Some(self.department.clone().into()));
        set(&mut extension, "customField3", self.office.clone().map(Value::from));
        set(user, EXTENSION, Some(extension));
    }

    /// The content region that the guide's table makes of the country.
    pub(super) fn content_region(&self) -> &'static str {
        match self.country.as_deref().unwrap_or_default().to_ascii_uppercase().as_str() {
            "GB" => "GB",
            "ES" | "IT" | "MT" => "ES",
            "DE" | "BE" | "CH" | "DK" | "RO" | "SI" => "DE",
            "US" | "CA" => "US",
            "SE" | "NO" => "SE",
            _ => "QQ",
        }
    }

    /// In what a SCIM user differs from this person, approvers and activity left aside.
    pub(super) fn differences(&self, user: &Value) -> Vec<String> {
        let extension = user.get(EXTENSION).unwrap_or(&Value::Null);
        let mut differences = Vec::new();
        let mut compare = |what: &str, came: &Value, expected: Value| {
            if *came != expected {
                differences.push(format!("{what} came as {came}; expected {expected}"));
            }
        };
        compare("userName", &user["userName"], self.email.clone().into());
        compare("externalId", &user["externalId"], self.okta_id.clone().into());
        compare("name.givenName", &user["name"]["givenName"], self.given_name.clone().into());
        compare("name.familyName", &user["name"]["familyName"], self.family_name.clone().into());
        compare("displayName", &user["displayName"], self.full_name().into());
        compare("contentRegion", &extension["contentRegion"], self.content_region().into());
        compare("customField1", &extension["customField1"], self.job_function.clone().into());
        compare("customField2", &extension["customField2"], self.department.clone().into());
        compare("customField3", &extension["customField3"], self.office.clone().into());
        if let Some(locale) = &self.locale {
            compare("locale", &user["locale"], locale.clone().into());
        }
        let email = user["emails"].as_array().and_then(|emails| {
            emails.iter().find(|email| email["value"].as_str() == Some(&self.email))
        });
        let email = email.unwrap_or(&Value::Null);
        compare("the e-mail's value", &email["value"], self.email.clone().into());
        compare("the e-mail's type", &email["type"], self.email_type.clone().into());
        compare("the e-mail's primary", &email["primary"], true.into());
        differences
    }
}

/// The approvers of a SCIM user: those in force. An absent attribute is an empty one (RFC 7643
/// §2.5).
pub(super) fn approvers(user: &Value) -> Vec<&str> {
    let approvers = user.get(EXTENSION).and_then(|extension| extension["approvers"].as_array());
    approvers.into_iter().flatten().filter_map(Value::as_str).collect()
}

/// Whether `part` is some of `whole`, in its order, none twice.
pub(super) fn is_in_order_of(part: &[&str], whole: &[String]) -> bool {
    let mut rest = whole.iter();
    part.iter().all(|value| rest.any(|other| other == value))
}

fn set(object: &mut Value, key: &str, value: Option<Value>) {
    if !object.is_object() {
        *object = Value::Object(Map::new());
    }
    if let Value::Object(object) = object {
        match value {
            Some(value) => object.insert(key.to_owned(), value),
            None => object.remove(key),
        };
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn people_json_shows_what_the_guide_is_about() {
        let people = everybody();
        assert!(people.len() >= 25);
        let emails: HashSet<_> = people.iter().map(|person| &person.email).collect();
        let okta_ids: HashSet<_> = people.iter().map(|person| &person.okta_id).collect();
        assert_eq!(emails.len(), people.len());
        assert_eq!(okta_ids.len(), people.len());
        assert!(people.iter().all(|person| person.email.ends_with("@northwind.example")));
        assert!(people.iter().flat_map(|person| &person.approvers).all(|a| emails.contains(a)));
        let countries: HashSet<_> =
            people.iter().map(|person| person.country.clone().unwrap_or_default()).collect();
        for country in ["GB", "ES", "it", "MT", "DE", "CH", "US", "CA", "SE", "NO", "FR", "JP", ""]
        {
            assert!(countries.contains(country), "nobody is in {country:?}");
        }
        let forward_references = people.iter().enumerate().filter(|(position, person)| {
            let later = &people[position + 1..];
            later.iter().any(|other| person.approvers.contains(&other.email))
        });
        assert!(forward_references.count() >= 5);
        assert!(people.iter().any(|person| person.approvers.len() == 2));
        assert!(people.iter().any(|person| person.email_type.is_none()));
    }

    #[test]
    fn a_put_keeps_what_okta_does_not_master() {
        let person = everybody().remove(0);
        let mut user = json!({ "id": "1", "meta": { "version": "W/\"1\"" }, "title": null,
            EXTENSION: { "contentRegion": "QQ", "approvers": [], "unknown": 1 } });
        person.apply_to(&mut user);
        assert_eq!(user["id"], "1");
        assert_eq!(user["meta"]["version"], "W/\"1\"");
        assert_eq!(user[EXTENSION]["unknown"], 1);
        assert_eq!(user[EXTENSION]["contentRegion"], "GB");
        assert_eq!(user[EXTENSION]["approvers"], json!(person.approvers));
    }

    #[test]
    fn what_was_created_differs_in_nothing_but_the_content_region() {
        for person in everybody() {
            let mut user = person.to_create("");
            set(&mut user[EXTENSION], "contentRegion", Some(person.content_region().into()));
            assert_eq!(person.differences(&user), Vec::<String>::new());
            user["name"]["givenName"] = "Nobody".into();
            assert_eq!(person.differences(&user).len(), 1);
        }
    }

    #[test]
    fn an_order_is_kept_by_leaving_out_and_broken_by_swapping_and_repeating() {
        let whole = ["a", "b", "c"].map(String::from);
        assert!(is_in_order_of(&["a", "c"], &whole));
        assert!(is_in_order_of(&[], &whole));
        assert!(!is_in_order_of(&["c", "a"], &whole));
        assert!(!is_in_order_of(&["a", "a"], &whole));
        assert!(!is_in_order_of(&["d"], &whole));
    }
}
