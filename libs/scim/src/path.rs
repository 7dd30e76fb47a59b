//! Attribute paths, and the paths of PATCH operations (RFC 7644 §3.10, §3.5.2).

use crate::filter::{self, Filter};
use crate::schema::{Attribute, ResourceType, Schema};
use crate::{Error, Limits, ScimType};

/// An attribute of a resource type, or a part of one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AttributePath {
    /// The extension that it belongs to; none for the core and common ones.
    pub extension: Option<&'static Schema>,
    /// The attribute.
    pub attribute: &'static Attribute,
    /// The part of it that is meant.
    pub sub_attribute: Option<&'static Attribute>,
}

impl AttributePath {
    /// Resolves `userName`, `name.givenName`, `urn:…:User:userName`, in any letter case; none where
    /// no schema of the resource type declares it.
    #[must_use]
    pub fn resolve(text: &str, resource_type: &'static ResourceType) -> Option<Self> {
        let (schema, rest) = split_urn(text, resource_type);
        let (name, sub_name) = match rest.split_once('.') {
            Some((name, sub_name)) => (name, Some(sub_name)),
            None => (rest, None),
        };
        let extension = schema.filter(|schema| schema.id != resource_type.schema.id);
        let attribute = match extension {
            Some(extension) => extension.attribute(name),
            None => resource_type.attribute(name),
        }?;
        let sub_attribute = match sub_name {
            Some(sub_name) => Some(attribute.sub_attribute(sub_name)?),
            None => None,
        };
        Some(Self { extension, attribute, sub_attribute })
    }

    /// The attribute that a value at the path is of.
    #[must_use]
    pub fn target(&self) -> &'static Attribute {
        self.sub_attribute.unwrap_or(self.attribute)
    }
}

impl std::fmt::Display for AttributePath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(extension) = self.extension {
            write!(f, "{}:", extension.id)?;
        }
        f.write_str(self.attribute.name)?;
        self.sub_attribute.map_or(Ok(()), |sub| write!(f, ".{}", sub.name))
    }
}

/// The schema whose URN the text begins with, and what follows its colon. URNs have colons and dots
/// of their own, so only the known ones are looked for.
fn split_urn<'t>(
    text: &'t str,
    resource_type: &'static ResourceType,
) -> (Option<&'static Schema>, &'t str) {
    for schema in
        std::iter::once(resource_type.schema).chain(resource_type.extensions.iter().copied())
    {
        if let Some((urn, rest)) = text.split_at_checked(schema.id.len())
            && urn.eq_ignore_ascii_case(schema.id)
            && let Some(rest) = rest.strip_prefix(':')
        {
            return (Some(schema), rest);
        }
    }
    (None, text)
}

/// What a PATCH operation is about.
#[derive(Debug, Clone, PartialEq)]
pub enum PatchPath {
    /// A whole extension: its bare URN.
    Extension(&'static Schema),
    /// An attribute or a part of one.
    Attribute(AttributePath),
    /// The values of a multi-valued attribute that meet a filter, or a part of each:
    /// `emails[type eq "work"].value`.
    Values {
        /// The attribute; `sub_attribute` is the part that is meant.
        path: AttributePath,
        /// Which values.
        filter: Filter,
    },
}

impl PatchPath {
    /// The attribute, and which of its values; none for an extension.
    #[must_use]
    pub fn of_attribute(self) -> Option<(AttributePath, Option<Filter>)> {
        match self {
            Self::Extension(_) => None,
            Self::Attribute(path) => Some((path, None)),
            Self::Values { path, filter } => Some((path, Some(filter))),
        }
    }

    /// Parses an operation's `path`; `invalidPath` where it is malformed or nothing is declared by
    /// that name.
    pub fn parse(
        text: &str,
        resource_type: &'static ResourceType,
        limits: &Limits,
    ) -> Result<Self, Error> {
        let text = text.trim();
        let invalid = |what: &str| {
            let sent: String = text.chars().take(200).collect();
            Error::of(
                ScimType::InvalidPath,
                format!(
                    "path {sent:?} {what}; expected an attribute of a {}, such as {}",
                    resource_type.name,
                    if resource_type.name == "User" {
                        "name.givenName or emails[type eq \"work\"].value"
                    } else {
                        "displayName or members[value eq \"…\"]"
                    }
                ),
            )
        };
        if text.len() > limits.filter_bytes {
            return Err(invalid("is too long"));
        }
        if let Some(extension) = resource_type.extension(text) {
            return Ok(Self::Extension(extension));
        }
        let Some((name, rest)) = text.split_once('[') else {
            return AttributePath::resolve(text, resource_type)
                .map(Self::Attribute)
                .ok_or_else(|| invalid("names no attribute"));
        };
        let mut path = AttributePath::resolve(name, resource_type)
            .ok_or_else(|| invalid("names no attribute"))?;
        if !path.attribute.multi_valued || path.sub_attribute.is_some() {
            return Err(invalid("has a filter on an attribute that is not multi-valued"));
        }
        let close = rest.rfind(']').ok_or_else(|| invalid("has no closing bracket"))?;
        let (condition, after) = (&rest[..close], &rest[close + 1..]);
        let filter = filter::parse_values(condition, path.attribute, limits).map_err(|error| {
            invalid(&format!("has a filter that is no filter: {}", error.detail))
        })?;
        if !after.is_empty() {
            let sub_name = after.strip_prefix('.').ok_or_else(|| invalid("goes on after ]"))?;
            let sub_attribute = path.attribute.sub_attribute(sub_name);
            path.sub_attribute =
                Some(sub_attribute.ok_or_else(|| invalid("names no sub-attribute after ]"))?);
        }
        Ok(Self::Values { path, filter })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::schema::USER_TYPE;

    fn printed(text: &str) -> Option<String> {
        AttributePath::resolve(text, &USER_TYPE).map(|path| path.to_string())
    }

    #[test]
    fn an_attribute_is_found_in_any_letter_case_with_and_without_its_schema() {
        let muster = "urn:learnerbly:params:scim:schemas:2.0:User:contentRegion";
        for (text, path) in [
            ("USERNAME", Some("userName")),
            ("name.GIVENNAME", Some("name.givenName")),
            ("urn:ietf:params:scim:schemas:core:2.0:user:userName", Some("userName")),
            (muster, Some(muster)),
            (&muster.to_uppercase(), Some(muster)),
            ("contentRegion", None),
            ("name.shoeSize", None),
            ("urn:other:userName", None),
            ("", None),
        ] {
            assert_eq!(printed(text).as_deref(), path, "{text}");
        }
    }

    #[test]
    fn a_patch_path_may_have_a_filter_and_a_part_after_it() {
        let parse = |text| PatchPath::parse(text, &USER_TYPE, &Limits::DEFAULT);
        assert!(matches!(
            parse("emails[type eq \"work\"].value"),
            Ok(PatchPath::Values { path, .. }) if path.to_string() == "emails.value"
        ));
        assert!(matches!(parse("emails[type eq \"]\"]"), Ok(PatchPath::Values { .. })));
        assert!(matches!(
            parse("urn:learnerbly:params:scim:schemas:2.0:User"),
            Ok(PatchPath::Extension(_))
        ));
        for wrong in
            ["", "shoeSize", "emails[", "emails[]", "emails[type]x", "name[a eq 1]", "[", "]"]
        {
            let error = parse(wrong).unwrap_err();
            assert_eq!(error.scim_type, Some(ScimType::InvalidPath), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in ".*") {
            drop(PatchPath::parse(&text, &USER_TYPE, &Limits::DEFAULT));
        }
    }
}
