//! A user as SCIM JSON in canonical form, and as identity's message.

use std::sync::Arc;

use muster_proto::approver::v1::{Approver, ApproverState};
use muster_proto::group::v1::Membership;
use muster_proto::identity::v1::{Address, Enterprise, MultiValue, Name, User};
use muster_scim::schema::{ENTERPRISE_USER, MUSTER_USER, USER_TYPE};
use muster_scim::{Object, caseless};
use serde::ser::SerializeMap as _;
use serde::{Serialize, Serializer};
use serde_json::Value;

use super::resource::Meta;
use super::user_parts::{Parts, Scim};

/// What a client may set of a user, as it set it: the country code and the declared approvers, not
/// what has become of them. Without `meta` and `groups`.
pub(crate) fn to_scim(user: &User, scim_url: &str) -> Object {
    let approvers = user.declared_approvers.iter().map(String::as_str).collect();
    let muster = Muster::of(user, approvers, user.country_code.as_deref());
    object(&Document { user, muster, shown: None, scim_url })
}

/// A user as a client sees them.
#[derive(Debug)]
pub(super) struct ShownUser {
    pub(super) user: User,
    pub(super) groups: Vec<Membership>,
    pub(super) approvers: Vec<Approver>,
    pub(super) scim_url: Arc<str>,
}

impl ShownUser {
    pub(super) fn document(&self) -> Object {
        object(self)
    }
}

impl Serialize for ShownUser {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { user, groups, approvers, scim_url } = self;
        // Nothing where the country code was removed.
        let region = user.content_region().as_str_name();
        let region = region.strip_prefix("CONTENT_REGION_").unwrap_or(region);
        let region = user.country_code.as_ref().map(|_| region);
        let muster = Muster::of(user, in_force(approvers), region);
        Document { user, muster, shown: Some(groups), scim_url }.serialize(serializer)
    }
}

fn object(document: &impl Serialize) -> Object {
    match serde_json::to_value(document).expect("a user has string keys only") {
        Value::Object(object) => object,
        _ => Object::new(),
    }
}

/// A user as they are written. What of it depends on who looks is beside the user.
struct Document<'a> {
    user: &'a User,
    muster: Muster<'a>,
    /// The groups, where it is shown: with `schemas` and `meta`, too.
    shown: Option<&'a [Membership]>,
    scim_url: &'a str,
}

impl Serialize for Document<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { user, muster, shown, scim_url } = self;
        let enterprise = user.enterprise.as_ref().and_then(|value| Scim::of(value, scim_url));
        let muster = Scim::of(muster, scim_url);
        let mut parts = Parts(serializer.serialize_map(None)?);
        if shown.is_some() {
            let enterprise = enterprise.as_ref().map(|_| ENTERPRISE_USER.id);
            let muster = muster.as_ref().map(|_| MUSTER_USER.id);
            let schemas = [Some(USER_TYPE.schema.id), enterprise, muster];
            parts.list("schemas", schemas.into_iter().flatten())?;
        }
        parts.put("id", Some(&user.id))?;
        parts.put("externalId", user.external_id.as_ref())?;
        parts.put("userName", user.user_name.as_ref())?;
        parts.put("displayName", user.display_name.as_ref())?;
        parts.put("nickName", user.nick_name.as_ref())?;
        parts.put("profileUrl", user.profile_url.as_ref())?;
        parts.put("title", user.title.as_ref())?;
        parts.put("userType", user.user_type.as_ref())?;
        parts.put("preferredLanguage", user.preferred_language.as_ref())?;
        parts.put("locale", user.locale.as_ref())?;
        parts.put("timezone", user.timezone.as_ref())?;
        parts.put("active", user.active.as_ref())?;
        parts.put("name", user.name.as_ref().and_then(|name| Scim::of(name, scim_url)))?;
        for (name, values) in [
            ("emails", &user.emails),
            ("phoneNumbers", &user.phone_numbers),
            ("ims", &user.ims),
            ("photos", &user.photos),
            ("entitlements", &user.entitlements),
            ("roles", &user.roles),
            ("x509Certificates", &user.x509_certificates),
        ] {
            parts.list(name, values.iter().filter_map(|value| Scim::of(value, scim_url)))?;
        }
        let addresses = user.addresses.iter().filter_map(|value| Scim::of(value, scim_url));
        parts.list("addresses", addresses)?;
        parts.put(ENTERPRISE_USER.id, enterprise)?;
        parts.put(MUSTER_USER.id, muster)?;
        if let Some(groups) = shown {
            let groups = groups.iter().filter_map(|group| Scim::of(group, scim_url));
            parts.list("groups", groups)?;
            let times = (user.create_time, user.update_time);
            let meta = Meta::new(&USER_TYPE, scim_url, &user.id, times, user.revision);
            parts.put("meta", Some(meta))?;
        }
        parts.0.end()
    }
}

/// Muster's extension of a user. Its approvers and its content region are the client's own words, or
/// what has become of them.
#[derive(Default, PartialEq)]
struct Muster<'a> {
    approvers: Vec<&'a str>,
    content_region: Option<&'a str>,
    custom_fields: [Option<&'a str>; 3],
}

impl<'a> Muster<'a> {
    fn of(user: &'a User, approvers: Vec<&'a str>, content_region: Option<&'a str>) -> Self {
        let fields = [&user.custom_field_1, &user.custom_field_2, &user.custom_field_3];
        Self { approvers, content_region, custom_fields: fields.map(|field| field.as_deref()) }
    }
}

impl Serialize for Scim<'_, Muster<'_>> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Muster { approvers, content_region, custom_fields: [one, two, three] } = self.value;
        let mut parts = Parts(serializer.serialize_map(None)?);
        parts.list("approvers", approvers.iter())?;
        parts.put("contentRegion", content_region.as_ref())?;
        parts.put("customField1", one.as_ref())?;
        parts.put("customField2", two.as_ref())?;
        parts.put("customField3", three.as_ref())?;
        parts.0.end()
    }
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

/// The approvers in force, each by their present address and once. One who has no address now cannot
/// be named.
fn in_force(approvers: &[Approver]) -> Vec<&str> {
    let mut in_force: Vec<&str> = Vec::new();
    for approver in approvers {
        if approver.state() == ApproverState::InForce
            && !approver.email.is_empty()
            && !in_force.contains(&approver.email.as_str())
        {
            in_force.push(&approver.email);
        }
    }
    in_force
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
        if let Some(Value::Object(muster)) = document.get_mut(MUSTER_USER.id)
            && !shown.is_empty()
        {
            muster.insert("approvers".to_owned(), shown.into());
        }
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

#[cfg(test)]
mod tests {
    use muster_scim::projection::Projection;
    use muster_scim::resource;
    use muster_scim::schema::{Attribute, ResourceType, Type};
    use serde_json::json;

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
    fn nothing_but_what_is_set_is_written() {
        let set = ["id", "schemas", "meta"];
        let empty = User {
            name: Some(Name::default()),
            emails: vec![MultiValue::default()],
            enterprise: Some(Enterprise::default()),
            ..User::default()
        };
        let names = |document: Object| document.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(to_scim(&empty, "https://x")), set[..1]);
        assert_eq!(names(shown(empty).document()), ["id", "meta", "schemas"]);
    }

    #[test]
    fn a_client_that_asks_for_nothing_in_particular_sees_all_that_is_written() {
        let user = User { country_code: Some("GB".into()), ..from_scim(&everything(&USER_TYPE)) };
        let mut document = shown(user).document();
        let whole = document.clone();
        Projection::parse(None, None, &USER_TYPE).unwrap().apply(&mut document);
        assert_eq!(document, whole);
        assert_eq!(
            document["schemas"],
            json!([USER_TYPE.schema.id, ENTERPRISE_USER.id, MUSTER_USER.id])
        );
    }

    fn shown(user: User) -> ShownUser {
        let groups = vec![Membership {
            group_id: "g".into(),
            group_display_name: "G".into(),
            ..Membership::default()
        }];
        let groups = if user.user_name.is_some() { groups } else { Vec::new() };
        ShownUser { user, groups, approvers: Vec::new(), scim_url: "https://x".into() }
    }

    #[test]
    fn an_approver_in_force_who_has_no_address_now_is_left_out() {
        let approver = |email: &str| Approver {
            declared_email: "bo@x.example".into(),
            state: ApproverState::InForce.into(),
            approver_id: "x".into(),
            email: email.into(),
        };
        assert_eq!(in_force(&[approver(""), approver("cy@x.example")]), ["cy@x.example"]);
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
