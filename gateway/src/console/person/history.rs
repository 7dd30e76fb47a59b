//! What has changed of a person, when, and by whom.

use std::collections::{BTreeMap, BTreeSet};

use muster_proto::feed::v1::actor::Kind as ActorKind;
use muster_proto::feed::v1::{Actor, ChangeKind};
use muster_proto::identity::v1::{ListApiKeysRequest, ListChangesRequest, User, UserChange};
use muster_scim::schema::{ENTERPRISE_USER, MUSTER_USER};
use serde_json::Value;
use tonic::Status;

use super::super::moment::{Moment, moment};
use super::super::session::Signed;
use crate::Gateway;
use crate::scim::to_scim;

/// One change.
#[derive(Debug)]
pub(in super::super) struct Change {
    /// What happened: `Created`, `Changed`.
    pub what: &'static str,
    pub when: Moment,
    /// Who made it.
    pub who: String,
    pub differences: Vec<Difference>,
}

/// One attribute before and after.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct Difference {
    pub name: String,
    /// Empty where there was nothing.
    pub from: String,
    /// Empty where there is nothing.
    pub to: String,
}

/// A page of a person's changes, the newest first, and where the next begins.
pub(in super::super) async fn read(
    gateway: &Gateway,
    signed: &Signed,
    user_id: &str,
    page_token: String,
    page_size: i32,
) -> Result<(Vec<UserChange>, String), Status> {
    let request = ListChangesRequest {
        organisation_id: signed.organisation_id().to_owned(),
        user_id: user_id.to_owned(),
        page_size,
        page_token,
    };
    let answer = gateway.parts.users.clone().list_changes(request).await?.into_inner();
    Ok((answer.changes, answer.next_page_token))
}

/// The same in words.
pub(in super::super) fn shown(
    changes: &[UserChange],
    names: &BTreeMap<String, String>,
    fields: &[String; 3],
) -> Vec<Change> {
    let show = |change: &UserChange| {
        let metadata = change.metadata.clone().unwrap_or_default();
        let empty = User::default();
        Change {
            what: match change.kind() {
                ChangeKind::Created => "Created",
                ChangeKind::Deleted => "Deleted",
                ChangeKind::Erased => "Erased",
                ChangeKind::Updated | ChangeKind::Unspecified => "Changed",
            },
            when: moment(metadata.write_time.as_ref()).unwrap_or_default(),
            who: who(metadata.actor.as_ref(), names),
            differences: differences(
                change.before.as_ref().unwrap_or(&empty),
                change.after.as_ref().unwrap_or(&empty),
                fields,
            ),
        }
    };
    changes.iter().map(show).collect()
}

/// What admins and keys are called, by id.
pub(in super::super) async fn names(
    gateway: &Gateway,
    signed: &Signed,
) -> Result<BTreeMap<String, String>, Status> {
    let organisation_id = signed.organisation_id().to_owned();
    let mut api_keys = gateway.parts.api_keys.clone();
    let keys =
        api_keys.list_api_keys(ListApiKeysRequest { organisation_id: organisation_id.clone() });
    let mut admins = gateway.parts.admins.clone();
    let admins =
        admins.list_admins(muster_proto::identity::v1::ListAdminsRequest { organisation_id });
    let (keys, admins) = tokio::try_join!(keys, admins)?;
    let keys = keys.into_inner().api_keys.into_iter();
    let keys = keys.map(|key| (key.id, format!("API key “{}”", key.label)));
    let admins = admins.into_inner().admins.into_iter();
    Ok(keys.chain(admins.map(|admin| (admin.id, admin.display_name))).collect())
}

fn who(actor: Option<&Actor>, names: &BTreeMap<String, String>) -> String {
    let named = |id: &String, otherwise: &str| {
        names.get(id).cloned().unwrap_or_else(|| otherwise.to_owned())
    };
    match actor.and_then(|actor| actor.kind.as_ref()) {
        Some(ActorKind::ApiKeyId(id)) => named(id, "an API key that is gone"),
        Some(ActorKind::AdminId(id)) => named(id, "an admin who is gone"),
        Some(ActorKind::Caller(name)) if !name.is_empty() => name.clone(),
        Some(ActorKind::Caller(_)) | None => "an internal service".to_owned(),
    }
}

/// What a client may set that differs between two states of a person.
pub(in super::super) fn differences(
    before: &User,
    after: &User,
    fields: &[String; 3],
) -> Vec<Difference> {
    let (before, after) = (values(before), values(after));
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let value = |values: &BTreeMap<String, String>, name: &String| {
        values.get(name).cloned().unwrap_or_default()
    };
    names
        .into_iter()
        .map(|name| Difference {
            name: label(name, fields),
            from: value(&before, name),
            to: value(&after, name),
        })
        .filter(|difference| difference.from != difference.to)
        .collect()
}

/// The attributes that have a value, by their path.
fn values(user: &User) -> BTreeMap<String, String> {
    let mut document = to_scim(user, "");
    document.remove("id");
    let mut values = BTreeMap::new();
    for (name, value) in document {
        match value {
            Value::Object(parts) => {
                let prefix = match name.as_str() {
                    urn if urn == MUSTER_USER.id || urn == ENTERPRISE_USER.id => String::new(),
                    name => format!("{name}."),
                };
                values.extend(
                    parts.iter().map(|(part, value)| (format!("{prefix}{part}"), text(value))),
                );
            }
            value => drop(values.insert(name, text(&value))),
        }
    }
    values
}

/// A value on one line.
fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::Array(values) => values.iter().map(text).collect::<Vec<_>>().join(", "),
        Value::Object(parts) => {
            let main = parts.get("value").or(parts.get("formatted")).map(text).unwrap_or_default();
            let others = parts.iter().filter(|(name, _)| {
                !matches!(name.as_str(), "value" | "formatted" | "$ref" | "display")
            });
            let others: Vec<String> = others
                .map(|(name, value)| match (name.as_str(), value) {
                    ("primary", Value::Bool(true)) => "primary".to_owned(),
                    (_, value) => text(value),
                })
                .filter(|text| text != "no")
                .collect();
            match (main.is_empty(), others.is_empty()) {
                (_, true) => main,
                (true, false) => others.join(", "),
                (false, false) => format!("{main} ({})", others.join(", ")),
            }
        }
        other => other.to_string(),
    }
}

/// What an attribute is called.
fn label(path: &str, fields: &[String; 3]) -> String {
    match path {
        "name.givenName" => "First name".to_owned(),
        "name.familyName" => "Last name".to_owned(),
        "name.formatted" => "Whole name".to_owned(),
        "displayName" => "Display name".to_owned(),
        "emails" => "E-mail".to_owned(),
        "active" => "Active".to_owned(),
        "locale" => "Locale".to_owned(),
        "approvers" => "Approvers".to_owned(),
        "contentRegion" => "Country code".to_owned(),
        "customField1" => fields[0].clone(),
        "customField2" => fields[1].clone(),
        "customField3" => fields[2].clone(),
        other => other.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use muster_proto::identity::v1::{MultiValue, Name};

    use super::*;

    #[test]
    fn what_differs_is_told_from_what_to_what() {
        let email = MultiValue {
            value: Some("ann@x.example".into()),
            r#type: Some("work".into()),
            primary: Some(true),
            ..MultiValue::default()
        };
        let before = User {
            name: Some(Name { given_name: Some("Ann".into()), ..Name::default() }),
            emails: vec![email.clone()],
            custom_field_2: Some("Sales".into()),
            ..User::default()
        };
        let after = User {
            name: Some(Name { given_name: Some("Anne".into()), ..Name::default() }),
            emails: vec![MultiValue { value: Some("anne@x.example".into()), ..email }],
            active: Some(false),
            ..before.clone()
        };
        let fields = ["One".into(), "Team".into(), "Three".into()];
        let told = differences(&before, &after, &fields);
        let told: Vec<_> =
            told.iter().map(|d| (d.name.as_str(), d.from.as_str(), d.to.as_str())).collect();
        assert_eq!(
            told,
            [
                ("Active", "", "no"),
                ("E-mail", "ann@x.example (primary, work)", "anne@x.example (primary, work)"),
                ("First name", "Ann", "Anne"),
            ]
        );
        let gone = differences(&after, &User { custom_field_2: None, ..after.clone() }, &fields);
        assert_eq!(gone[0].name, "Team");
        assert_eq!((gone[0].from.as_str(), gone[0].to.as_str()), ("Sales", ""));
    }
}
