//! Which attributes an answer holds (RFC 7644 §3.9).

use serde_json::Value;

use crate::path::AttributePath;
use crate::schema::{Attribute, ResourceType, Returned, Schema};
use crate::{Error, Object, ScimType};

/// What a client asked to see.
#[derive(Debug, Clone, PartialEq)]
pub struct Projection {
    resource_type: &'static ResourceType,
    choice: Choice,
}

#[derive(Debug, Clone, PartialEq)]
enum Choice {
    Default,
    Only(Vec<Selected>),
    Without(Vec<Selected>),
}

#[derive(Debug, Clone, PartialEq)]
enum Selected {
    Extension(&'static Schema),
    Attribute(AttributePath),
}

impl Projection {
    /// Reads the parameters `attributes` and `excludedAttributes`, names with commas between. Names
    /// that no schema declares select nothing.
    pub fn parse(
        attributes: Option<&str>,
        excluded: Option<&str>,
        resource_type: &'static ResourceType,
    ) -> Result<Self, Error> {
        // Each once: what an answer costs must not grow with what a client repeats.
        let select = |names: &str| {
            let mut selected = Vec::new();
            for name in names.split(',').map(str::trim) {
                if let Some(one) = Selected::resolve(name, resource_type)
                    && !selected.contains(&one)
                {
                    selected.push(one);
                }
            }
            selected
        };
        let given = |names: Option<&'_ str>| names.is_some_and(|names| !names.trim().is_empty());
        let choice = match (attributes, excluded) {
            _ if given(attributes) && given(excluded) => {
                return Err(Error::of(
                    ScimType::InvalidValue,
                    "attributes and excludedAttributes exclude each other; send one of them",
                ));
            }
            (Some(names), _) if given(attributes) => Choice::Only(select(names)),
            (_, Some(names)) if given(excluded) => Choice::Without(select(names)),
            _ => Choice::Default,
        };
        Ok(Self { resource_type, choice })
    }

    /// Whether the client asks for nothing in particular.
    #[must_use]
    pub fn is_default(&self) -> bool {
        matches!(self.choice, Choice::Default)
    }

    /// Whether an answer can hold this attribute at all, so that it must be loaded: `members`, or
    /// with the URN of its extension.
    #[must_use]
    pub fn wants(&self, name: &str) -> bool {
        AttributePath::resolve(name, self.resource_type)
            .is_some_and(|path| self.keeps(path.extension, path.attribute).is_some())
    }

    /// Which sub-attributes of a resource's attribute an answer holds, for whoever writes many of
    /// its values; none where it holds none.
    #[must_use]
    pub fn sub_attributes(&self, name: &str) -> Vec<&'static str> {
        let attribute = self.resource_type.attribute(name);
        let kept = attribute.and_then(|attribute| Some((attribute, self.keeps(None, attribute)?)));
        let Some((attribute, parts)) = kept else { return Vec::new() };
        let names = attribute.sub_attributes.iter().map(|part| part.name);
        names.filter(|name| parts.keep(attribute, name)).collect()
    }

    /// Removes what the client shall not see.
    pub fn apply(&self, resource: &mut Object) {
        resource.retain(|key, value| {
            if let Some(extension) = self.resource_type.extension(key) {
                let Value::Object(object) = value else { return false };
                object.retain(|key, value| {
                    let attribute = extension.attribute(key);
                    attribute.is_some_and(|it| self.project(Some(extension), it, value))
                });
                !object.is_empty()
            } else {
                let attribute = self.resource_type.attribute(key);
                attribute.is_some_and(|attribute| self.project(None, attribute, value))
            }
        });
    }

    /// Removes what the client shall not see of an attribute's value; whether anything is left.
    fn project(
        &self,
        extension: Option<&'static Schema>,
        attribute: &'static Attribute,
        value: &mut Value,
    ) -> bool {
        let Some(parts) = self.keeps(extension, attribute) else { return false };
        match value {
            Value::Array(values) => {
                values.retain_mut(|value| match value {
                    Value::Object(object) => parts.project(attribute, object),
                    _ => true,
                });
                !values.is_empty()
            }
            Value::Object(object) => parts.project(attribute, object),
            _ => true,
        }
    }

    /// Which parts of an attribute stay; none where the attribute does not.
    fn keeps(&self, extension: Option<&Schema>, attribute: &'static Attribute) -> Option<Parts> {
        let named = |selected: &[Selected]| -> (bool, Vec<&'static str>) {
            let mut whole = false;
            let mut parts = Vec::new();
            for selected in selected {
                match selected {
                    Selected::Extension(schema) => {
                        whole |= extension.is_some_and(|extension| extension.id == schema.id);
                    }
                    Selected::Attribute(path)
                        if std::ptr::eq(path.attribute, attribute)
                            && path.extension.map(|s| s.id) == extension.map(|s| s.id) =>
                    {
                        match path.sub_attribute {
                            Some(part) => parts.push(part.name),
                            None => whole = true,
                        }
                    }
                    Selected::Attribute(_) => {}
                }
            }
            (whole, parts)
        };
        match (attribute.returned, &self.choice) {
            (Returned::Never, _) => None,
            (Returned::Always, _) => Some(Parts::All),
            (Returned::Request, Choice::Default | Choice::Without(_)) => None,
            (Returned::Default, Choice::Default) => Some(Parts::All),
            (_, Choice::Only(selected)) => match named(selected) {
                (true, _) => Some(Parts::All),
                (false, parts) if parts.is_empty() => None,
                (false, parts) => Some(Parts::Only(parts)),
            },
            (Returned::Default, Choice::Without(selected)) => match named(selected) {
                (true, _) => None,
                (false, parts) => Some(Parts::Without(parts)),
            },
        }
    }
}

impl Selected {
    fn resolve(name: &str, resource_type: &'static ResourceType) -> Option<Self> {
        resource_type
            .extension(name)
            .map(Self::Extension)
            .or_else(|| AttributePath::resolve(name, resource_type).map(Self::Attribute))
    }
}

enum Parts {
    All,
    Only(Vec<&'static str>),
    Without(Vec<&'static str>),
}

impl Parts {
    /// Removes the other parts; whether any is left.
    fn project(&self, attribute: &Attribute, object: &mut Object) -> bool {
        if !matches!(self, Self::All) {
            object.retain(|part, _| self.keep(attribute, part));
        }
        !object.is_empty()
    }

    fn keep(&self, attribute: &Attribute, part: &str) -> bool {
        let always =
            || attribute.sub_attribute(part).is_some_and(|a| a.returned == Returned::Always);
        match self {
            Self::All => true,
            Self::Only(parts) => parts.contains(&part) || always(),
            Self::Without(parts) => !parts.contains(&part) || always(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::schema::{GROUP_TYPE, USER_TYPE};

    const MUSTER: &str = "urn:learnerbly:params:scim:schemas:2.0:User";

    fn projected(attributes: Option<&str>, excluded: Option<&str>) -> Value {
        let mut user = json!({
            "schemas": ["s"], "id": "1", "userName": "ann", "password": "x",
            "name": {"givenName": "Ann", "familyName": "B"},
            "emails": [{"value": "a@x.y", "type": "work"}, {"type": "home"}],
            MUSTER: {"approvers": ["b@x.y"], "contentRegion": "GB"},
        });
        let projection = Projection::parse(attributes, excluded, &USER_TYPE).unwrap();
        projection.apply(user.as_object_mut().unwrap());
        user
    }

    #[test]
    fn what_is_asked_for_comes_with_what_always_comes() {
        assert_eq!(
            projected(Some("NAME.givenName, emails.value,shoeSize"), None),
            json!({"schemas": ["s"], "id": "1", "name": {"givenName": "Ann"}, "emails": [{"value": "a@x.y"}]})
        );
        assert_eq!(
            projected(Some(MUSTER), None),
            json!({"schemas": ["s"], "id": "1", MUSTER: {"approvers": ["b@x.y"], "contentRegion": "GB"}})
        );
        let region = format!("{MUSTER}:contentRegion");
        assert_eq!(projected(Some(&region), None)[MUSTER], json!({"contentRegion": "GB"}));
        assert_eq!(projected(Some("shoeSize"), None), json!({"schemas": ["s"], "id": "1"}));
    }

    #[test]
    fn what_is_excluded_does_not_come_unless_it_always_comes() {
        let user = projected(None, Some(&format!("id,userName,name.givenName,emails,{MUSTER}")));
        assert_eq!(user, json!({"schemas": ["s"], "id": "1", "name": {"familyName": "B"}}));
    }

    #[test]
    fn what_never_comes_does_not_even_when_asked_for() {
        assert_eq!(projected(Some("password"), None), json!({"schemas": ["s"], "id": "1"}));
        assert!(projected(None, None).get("password").is_none());
    }

    #[test]
    fn of_many_values_it_tells_what_to_write() {
        let of = |attributes, excluded| {
            Projection::parse(attributes, excluded, &GROUP_TYPE).unwrap().sub_attributes("members")
        };
        let none: [&str; 0] = [];
        assert_eq!(of(None, None), of(Some("members"), None));
        assert!(of(None, None).contains(&"$ref"));
        assert_eq!(of(Some("members.value"), None), ["value"]);
        assert!(!of(None, Some("members.value")).contains(&"value"));
        assert_eq!(of(Some("displayName"), None), none);
        assert_eq!(of(None, Some("members")), none);
    }

    #[test]
    fn both_parameters_at_once_are_refused() {
        assert!(Projection::parse(Some("a"), Some("b"), &USER_TYPE).is_err());
        assert!(Projection::parse(Some("a"), Some(""), &USER_TYPE).is_ok());
    }

    #[test]
    fn only_what_is_wanted_need_be_loaded() {
        let wants = |attributes, excluded, name| {
            Projection::parse(attributes, excluded, &USER_TYPE).unwrap().wants(name)
        };
        let approvers = format!("{MUSTER}:approvers");
        assert!(wants(None, None, "groups"));
        assert!(!wants(None, Some("groups"), "groups"));
        assert!(!wants(Some("userName"), None, "groups"));
        assert!(wants(Some("groups.value"), None, "groups"));
        assert!(wants(Some(MUSTER), None, &approvers));
        assert!(!wants(None, Some(&approvers), &approvers));
    }
}
