//! A user as SCIM JSON in canonical form, and as identity's message.

use muster_proto::approver::v1::{Approver, ApproverState};
use muster_proto::group::v1::Membership;
use muster_proto::identity::v1::{Address, Enterprise, MultiValue, Name, User};
use muster_scim::schema::{ENTERPRISE_USER, MUSTER_USER, USER_TYPE};
use muster_scim::{Object, caseless, resource};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::version;

/// What a client may set of a user, as it set it: the country code and the declared approvers, not
/// what has become of them. Without `meta` and `groups`.
pub(crate) fn to_scim(user: &User, scim_url: &str) -> Object {
    let mut document = Object::new();
    let mut put = |name: &str, value: Option<&str>| put_text(&mut document, name, value);
    put("id", Some(&user.id));
    put("externalId", user.external_id.as_deref());
    put("userName", user.user_name.as_deref());
    put("displayName", user.display_name.as_deref());
    put("nickName", user.nick_name.as_deref());
    put("profileUrl", user.profile_url.as_deref());
    put("title", user.title.as_deref());
    put("userType", user.user_type.as_deref());
    put("preferredLanguage", user.preferred_language.as_deref());
    put("locale", user.locale.as_deref());
    put("timezone", user.timezone.as_deref());
    if let Some(active) = user.active {
        document.insert("active".into(), active.into());
    }
    if let Some(name) = &user.name {
        let mut parts = Object::new();
        put_text(&mut parts, "formatted", name.formatted.as_deref());
        put_text(&mut parts, "familyName", name.family_name.as_deref());
        put_text(&mut parts, "givenName", name.given_name.as_deref());
        put_text(&mut parts, "middleName", name.middle_name.as_deref());
        put_text(&mut parts, "honorificPrefix", name.honorific_prefix.as_deref());
        put_text(&mut parts, "honorificSuffix", name.honorific_suffix.as_deref());
        put_object(&mut document, "name", parts);
    }
    for (name, values) in [
        ("emails", &user.emails),
        ("phoneNumbers", &user.phone_numbers),
        ("ims", &user.ims),
        ("photos", &user.photos),
        ("entitlements", &user.entitlements),
        ("roles", &user.roles),
        ("x509Certificates", &user.x509_certificates),
    ] {
        if !values.is_empty() {
            document.insert(name.into(), values.iter().map(multi_value_to_scim).collect());
        }
    }
    if !user.addresses.is_empty() {
        document.insert("addresses".into(), user.addresses.iter().map(address_to_scim).collect());
    }
    if let Some(enterprise) = &user.enterprise {
        put_object(&mut document, ENTERPRISE_USER.id, enterprise_to_scim(enterprise, scim_url));
    }
    let mut muster = Object::new();
    if !user.declared_approvers.is_empty() {
        muster.insert("approvers".into(), json!(user.declared_approvers));
    }
    put_text(&mut muster, "contentRegion", user.country_code.as_deref());
    put_text(&mut muster, "customField1", user.custom_field_1.as_deref());
    put_text(&mut muster, "customField2", user.custom_field_2.as_deref());
    put_text(&mut muster, "customField3", user.custom_field_3.as_deref());
    put_object(&mut document, MUSTER_USER.id, muster);
    document
}

/// The message of a document in canonical form.
pub(crate) fn from_scim(document: &Object) -> User {
    let empty = Object::new();
    let part = |name: &str| document.get(name).and_then(Value::as_object);
    let muster = part(MUSTER_USER.id).unwrap_or(&empty);
    User {
        external_id: text(document, "externalId"),
        user_name: text(document, "userName"),
        display_name: text(document, "displayName"),
        nick_name: text(document, "nickName"),
        profile_url: text(document, "profileUrl"),
        title: text(document, "title"),
        user_type: text(document, "userType"),
        preferred_language: text(document, "preferredLanguage"),
        locale: text(document, "locale"),
        timezone: text(document, "timezone"),
        active: boolean(document, "active"),
        name: part("name").map(|name| Name {
            formatted: text(name, "formatted"),
            family_name: text(name, "familyName"),
            given_name: text(name, "givenName"),
            middle_name: text(name, "middleName"),
            honorific_prefix: text(name, "honorificPrefix"),
            honorific_suffix: text(name, "honorificSuffix"),
        }),
        emails: multi_values(document, "emails"),
        phone_numbers: multi_values(document, "phoneNumbers"),
        ims: multi_values(document, "ims"),
        photos: multi_values(document, "photos"),
        entitlements: multi_values(document, "entitlements"),
        roles: multi_values(document, "roles"),
        x509_certificates: multi_values(document, "x509Certificates"),
        addresses: values(document, "addresses")
            .filter_map(Value::as_object)
            .map(address)
            .collect(),
        enterprise: part(ENTERPRISE_USER.id).map(|enterprise| Enterprise {
            employee_number: text(enterprise, "employeeNumber"),
            cost_center: text(enterprise, "costCenter"),
            organization: text(enterprise, "organization"),
            division: text(enterprise, "division"),
            department: text(enterprise, "department"),
            manager_id: enterprise
                .get("manager")
                .and_then(Value::as_object)
                .and_then(|manager| text(manager, "value")),
        }),
        declared_approvers: values(muster, "approvers")
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect(),
        country_code: text(muster, "contentRegion"),
        custom_field_1: text(muster, "customField1"),
        custom_field_2: text(muster, "customField2"),
        custom_field_3: text(muster, "customField3"),
        ..User::default()
    }
}

/// Puts the groups that a user is in.
pub(super) fn put_groups(document: &mut Object, groups: &[Membership], scim_url: &str) {
    if groups.is_empty() {
        return;
    }
    let groups = groups.iter().map(|group| {
        json!({
            "value": group.group_id,
            "$ref": format!("{scim_url}/Groups/{}", group.group_id),
            "display": group.group_display_name,
            "type": "direct",
        })
    });
    document.insert("groups".into(), groups.collect());
}

/// Puts the approvers in force, each by their present address and once, in place of the declared.
/// One who has no address now cannot be named.
pub(super) fn put_approvers(document: &mut Object, approvers: &[Approver]) {
    let mut in_force: Vec<&str> = Vec::new();
    for approver in approvers {
        if approver.state() == ApproverState::InForce
            && !approver.email.is_empty()
            && !in_force.contains(&approver.email.as_str())
        {
            in_force.push(&approver.email);
        }
    }
    put_muster(document, "approvers", (!in_force.is_empty()).then(|| json!(in_force)));
}

/// Puts the content region in place of the country code; where that was removed, nothing.
pub(super) fn put_content_region(document: &mut Object, user: &User) {
    let name = user.content_region().as_str_name();
    let region = name.strip_prefix("CONTENT_REGION_").unwrap_or(name);
    put_muster(document, "contentRegion", user.country_code.as_ref().map(|_| region.into()));
}

fn put_muster(document: &mut Object, name: &str, value: Option<Value>) {
    let mut muster = match document.remove(MUSTER_USER.id) {
        Some(Value::Object(muster)) => muster,
        _ => Object::new(),
    };
    match value {
        Some(value) => muster.insert(name.to_owned(), value),
        None => muster.remove(name),
    };
    put_object(document, MUSTER_USER.id, muster);
}

/// Puts `meta` and `schemas`.
pub(super) fn put_meta(document: &mut Object, user: &User, scim_url: &str) {
    let schemas = resource::schemas_of(document, &USER_TYPE);
    document.insert("schemas".into(), json!(schemas));
    let meta = meta(
        "User",
        user.create_time,
        user.update_time,
        user.revision,
        &format!("{scim_url}/Users/{}", user.id),
    );
    document.insert("meta".into(), meta);
}

/// A resource's `meta` (RFC 7643 §3.1).
pub(super) fn meta(
    resource_type: &str,
    created: Option<prost_types::Timestamp>,
    last_modified: Option<prost_types::Timestamp>,
    revision: i64,
    location: &str,
) -> Value {
    json!({
        "resourceType": resource_type,
        "created": date_time(created),
        "lastModified": date_time(last_modified),
        "location": location,
        "version": version::tag(revision),
    })
}

fn date_time(timestamp: Option<prost_types::Timestamp>) -> Option<String> {
    let timestamp = timestamp?;
    let nanoseconds = i128::from(timestamp.seconds) * 1_000_000_000 + i128::from(timestamp.nanos);
    OffsetDateTime::from_unix_timestamp_nanos(nanoseconds).ok()?.format(&Rfc3339).ok()
}

/// How a client sees the declared approvers that it patches: those that stand for somebody by that
/// person's present address.
pub(super) struct DeclaredApprovers {
    /// As shown and as declared.
    pairs: Vec<(String, String)>,
}

impl DeclaredApprovers {
    pub(super) fn new(user: &User, approvers: &[Approver]) -> Self {
        let shown = |declared: &str| {
            approvers
                .iter()
                .find(|approver| approver.declared_email == declared && !approver.email.is_empty())
                .map_or_else(|| declared.to_owned(), |approver| approver.email.clone())
        };
        let pairs =
            user.declared_approvers.iter().map(|declared| (shown(declared), declared.clone()));
        Self { pairs: pairs.collect() }
    }

    pub(super) fn show(&self, document: &mut Object) {
        let shown: Vec<&str> = self.pairs.iter().map(|(shown, _)| shown.as_str()).collect();
        put_muster(document, "approvers", (!shown.is_empty()).then(|| json!(shown)));
    }

    /// Turns what a PATCH left as it was shown back into what was declared. Each declaration is
    /// taken once: two of them may stand for one person and be shown alike.
    pub(super) fn restore(&self, approvers: &mut [String]) {
        let mut left: Vec<&(String, String)> = self.pairs.iter().collect();
        for approver in approvers {
            if let Some(at) = left.iter().position(|(shown, _)| caseless::eq(shown, approver)) {
                approver.clone_from(&left.remove(at).1);
            }
        }
    }
}

fn enterprise_to_scim(enterprise: &Enterprise, scim_url: &str) -> Object {
    let mut parts = Object::new();
    put_text(&mut parts, "employeeNumber", enterprise.employee_number.as_deref());
    put_text(&mut parts, "costCenter", enterprise.cost_center.as_deref());
    put_text(&mut parts, "organization", enterprise.organization.as_deref());
    put_text(&mut parts, "division", enterprise.division.as_deref());
    put_text(&mut parts, "department", enterprise.department.as_deref());
    if let Some(id) = &enterprise.manager_id {
        // The address of a user, where the id can be one of ours.
        let is_ours = id.parse::<muster_runtime::id::UserId>().is_ok();
        let mut manager = Object::new();
        manager.insert("value".into(), id.as_str().into());
        if is_ours {
            manager.insert("$ref".into(), format!("{scim_url}/Users/{id}").into());
        }
        put_object(&mut parts, "manager", manager);
    }
    parts
}

fn multi_value_to_scim(value: &MultiValue) -> Value {
    let mut parts = Object::new();
    put_text(&mut parts, "value", value.value.as_deref());
    put_text(&mut parts, "display", value.display.as_deref());
    put_text(&mut parts, "type", value.r#type.as_deref());
    if let Some(primary) = value.primary {
        parts.insert("primary".into(), primary.into());
    }
    parts.into()
}

fn address_to_scim(address: &Address) -> Value {
    let mut parts = Object::new();
    put_text(&mut parts, "formatted", address.formatted.as_deref());
    put_text(&mut parts, "streetAddress", address.street_address.as_deref());
    put_text(&mut parts, "locality", address.locality.as_deref());
    put_text(&mut parts, "region", address.region.as_deref());
    put_text(&mut parts, "postalCode", address.postal_code.as_deref());
    put_text(&mut parts, "country", address.country.as_deref());
    put_text(&mut parts, "type", address.r#type.as_deref());
    if let Some(primary) = address.primary {
        parts.insert("primary".into(), primary.into());
    }
    parts.into()
}

fn multi_values(document: &Object, name: &str) -> Vec<MultiValue> {
    values(document, name)
        .filter_map(Value::as_object)
        .map(|parts| MultiValue {
            value: text(parts, "value"),
            display: text(parts, "display"),
            r#type: text(parts, "type"),
            primary: boolean(parts, "primary"),
        })
        .collect()
}

fn address(parts: &Object) -> Address {
    Address {
        formatted: text(parts, "formatted"),
        street_address: text(parts, "streetAddress"),
        locality: text(parts, "locality"),
        region: text(parts, "region"),
        postal_code: text(parts, "postalCode"),
        country: text(parts, "country"),
        r#type: text(parts, "type"),
        primary: boolean(parts, "primary"),
    }
}

fn values<'d>(document: &'d Object, name: &str) -> impl Iterator<Item = &'d Value> {
    document.get(name).and_then(Value::as_array).into_iter().flatten()
}

fn text(object: &Object, name: &str) -> Option<String> {
    object.get(name).and_then(Value::as_str).map(str::to_owned)
}

fn boolean(object: &Object, name: &str) -> Option<bool> {
    object.get(name).and_then(Value::as_bool)
}

fn put_text(object: &mut Object, name: &str, value: Option<&str>) {
    if let Some(value) = value {
        object.insert(name.to_owned(), value.into());
    }
}

fn put_object(object: &mut Object, name: &str, parts: Object) {
    if !parts.is_empty() {
        object.insert(name.to_owned(), parts.into());
    }
}

#[cfg(test)]
mod tests {
    use muster_scim::schema::{Attribute, ResourceType, Type};

    use super::*;

    /// A document with every attribute that a client may set.
    fn everything(resource_type: &ResourceType) -> Object {
        fn value(attribute: &Attribute) -> Value {
            let one = match attribute.kind {
                Type::Boolean => true.into(),
                Type::Binary => "TUlJRA==".into(),
                Type::Complex => Value::Object(object(attribute.sub_attributes)),
                _ => attribute.name.into(),
            };
            if attribute.multi_valued { json!([one]) } else { one }
        }
        fn object(attributes: &[Attribute]) -> Object {
            let set = attributes.iter().filter(|a| !matches!(a.name, "groups" | "password"));
            set.map(|a| (a.name.to_owned(), value(a))).collect()
        }
        let mut document = object(resource_type.schema.attributes);
        document.insert("externalId".into(), "x".into());
        for extension in resource_type.extensions {
            document.insert(extension.id.into(), object(extension.attributes).into());
        }
        resource::read(Value::Object(document), &USER_TYPE).unwrap()
    }

    #[test]
    fn every_attribute_of_the_schemas_survives_the_way_to_identity_and_back() {
        let document = everything(&USER_TYPE);
        let mut back = to_scim(&from_scim(&document), "https://x");
        back.remove("id");
        assert_eq!(Value::Object(back), Value::Object(document));
    }

    #[test]
    fn an_approver_in_force_who_has_no_address_now_is_left_out() {
        let approver = |email: &str| Approver {
            declared_email: "bo@x.example".into(),
            state: ApproverState::InForce.into(),
            approver_id: "x".into(),
            email: email.into(),
        };
        let mut document = Object::new();
        put_approvers(&mut document, &[approver(""), approver("cy@x.example")]);
        assert_eq!(document[MUSTER_USER.id]["approvers"], json!(["cy@x.example"]));
        put_approvers(&mut document, &[approver("")]);
        assert!(document.is_empty());
    }

    #[test]
    fn a_patch_keeps_two_declarations_that_stand_for_one_person() {
        let bo = |declared: &str| Approver {
            declared_email: declared.into(),
            state: ApproverState::InForce.into(),
            approver_id: "x".into(),
            email: "bo@x.example".into(),
        };
        let declared = ["old@x.example", "older@x.example"].map(String::from);
        let user = User { declared_approvers: declared.clone().into(), ..User::default() };
        let approvers = declared.clone().map(|email| bo(&email));
        let shown = DeclaredApprovers::new(&user, &approvers);
        let mut patched = ["bo@x.example", "bo@x.example"].map(String::from);
        shown.restore(&mut patched);
        assert_eq!(patched, declared);
    }
}
