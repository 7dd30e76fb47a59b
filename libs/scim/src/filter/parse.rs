//! From text to the typed tree: one pass, bounded in length, depth and nodes.

use serde_json::Value;

use super::{Filter, Operand, Operator};
use crate::path::AttributePath;
use crate::resource::date_time;
use crate::schema::{Attribute, ResourceType, Returned, Type};
use crate::{Error, Limits, ScimType};

/// Parses a filter on resources of a type.
pub fn parse(
    text: &str,
    resource_type: &'static ResourceType,
    limits: &Limits,
) -> Result<Filter, Error> {
    Parser::new(text, Scope::Resource(resource_type), limits).filter()
}

/// Parses a filter on resources of several types, for one of them. An attribute of another is one
/// without a value (RFC 7644 §3.4.2.1).
pub fn parse_among(
    text: &str,
    resource_type: &'static ResourceType,
    others: &'static [&'static ResourceType],
    limits: &Limits,
) -> Result<Filter, Error> {
    Parser::new(text, Scope::Resources(resource_type, others), limits).filter()
}

/// Parses a filter on the values of a multi-valued attribute: what stands in brackets.
pub fn parse_values(
    text: &str,
    attribute: &'static Attribute,
    limits: &Limits,
) -> Result<Filter, Error> {
    Parser::new(text, Scope::Values(attribute), limits).filter()
}

/// The one part of the values of an attribute that is not complex: `approvers[value eq "…"]`.
static VALUE: Attribute = Attribute { name: "value", ..Attribute::DEFAULT };

/// What attribute names are looked up in.
#[derive(Clone, Copy)]
enum Scope {
    Resource(&'static ResourceType),
    Resources(&'static ResourceType, &'static [&'static ResourceType]),
    Values(&'static Attribute),
}

impl Scope {
    fn resolve(self, name: &str) -> Option<AttributePath> {
        match self {
            Self::Resource(resource_type) => AttributePath::resolve(name, resource_type),
            Self::Resources(resource_type, others) => std::iter::once(resource_type)
                .chain(others.iter().copied())
                .find_map(|resource_type| AttributePath::resolve(name, resource_type)),
            Self::Values(attribute) => {
                let part = if attribute.kind == Type::Complex {
                    attribute.sub_attribute(name)?
                } else if name.eq_ignore_ascii_case("value") {
                    &VALUE
                } else {
                    return None;
                };
                Some(AttributePath { extension: None, attribute: part, sub_attribute: None })
            }
        }
    }
}

struct Parser<'t> {
    text: &'t str,
    /// Where the rest begins.
    at: usize,
    depth: usize,
    nodes: usize,
    scope: Scope,
    limits: Limits,
}

impl<'t> Parser<'t> {
    fn new(text: &'t str, scope: Scope, limits: &Limits) -> Self {
        Self { text, at: 0, depth: 0, nodes: 0, scope, limits: *limits }
    }

    fn filter(mut self) -> Result<Filter, Error> {
        let (length, longest) = (self.text.len(), self.limits.filter_bytes);
        if length > longest {
            return Err(Error::of(
                ScimType::InvalidFilter,
                format!("the filter is {length} bytes long; at most {longest}"),
            ));
        }
        let filter = self.or()?;
        if self.rest().is_empty() {
            Ok(filter)
        } else {
            Err(self.unexpected("\"and\", \"or\" or the end"))
        }
    }

    fn or(&mut self) -> Result<Filter, Error> {
        let mut filters = vec![self.and()?];
        while self.word("or") {
            filters.push(self.and()?);
        }
        Ok(one_or(filters, Filter::Or))
    }

    fn and(&mut self) -> Result<Filter, Error> {
        let mut filters = vec![self.term()?];
        while self.word("and") {
            filters.push(self.term()?);
        }
        Ok(one_or(filters, Filter::And))
    }

    fn term(&mut self) -> Result<Filter, Error> {
        if self.rest().starts_with('(') {
            return self.nested('(', ')');
        }
        if let Some(after) = self.after_word("not")
            && self.text[after..].trim_start().starts_with('(')
        {
            self.at = after;
            return Ok(Filter::Not(Box::new(self.nested('(', ')')?)));
        }
        self.comparison()
    }

    fn nested(&mut self, open: char, close: char) -> Result<Filter, Error> {
        if self.depth == self.limits.filter_depth {
            return Err(error(&format!("nests deeper than {}", self.limits.filter_depth)));
        }
        self.depth += 1;
        self.expect(open)?;
        let filter = self.or()?;
        self.expect(close)?;
        self.depth -= 1;
        Ok(filter)
    }

    fn comparison(&mut self) -> Result<Filter, Error> {
        self.nodes += 1;
        let most = self.limits.filter_comparisons;
        if self.nodes > most {
            return Err(error(&format!("has more than {most} comparisons")));
        }
        let name = self.token();
        if name.is_empty() {
            return Err(self.unexpected("an attribute name, \"not\" or \"(\""));
        }
        let path = self
            .scope
            .resolve(name)
            .ok_or_else(|| error(&format!("names {:?}, which no schema declares", shown(name))))?;
        if path.target().returned == Returned::Never {
            return Err(error(&format!("names {path}, which cannot be read")));
        }
        if self.rest().starts_with('[') {
            return self.values(path);
        }
        let operator = self.token();
        if operator.eq_ignore_ascii_case("pr") {
            return Ok(Filter::Present(path));
        }
        let operator = Operator::from_str(operator).ok_or_else(|| {
            error(&format!(
                "has {:?} after {path}; expected eq, ne, co, sw, ew, gt, ge, lt, le or pr",
                shown(operator)
            ))
        })?;
        let path = with_default_part(path);
        let operand = self.operand(&path, operator)?;
        Ok(Filter::Compare { path, operator, operand })
    }

    fn values(&mut self, path: AttributePath) -> Result<Filter, Error> {
        if !path.attribute.multi_valued || path.sub_attribute.is_some() {
            return Err(error(&format!("has [ after {path}, which is not multi-valued")));
        }
        let outer = std::mem::replace(&mut self.scope, Scope::Values(path.attribute));
        let filter = self.nested('[', ']');
        self.scope = outer;
        Ok(Filter::Values { path, filter: Box::new(filter?) })
    }

    fn operand(&mut self, path: &AttributePath, operator: Operator) -> Result<Operand, Error> {
        let rest = self.rest();
        let literal = &rest[..literal_end(rest)];
        let Ok(value) = serde_json::from_str::<Value>(literal) else {
            return Err(self
                .unexpected("a value: a string in double quotes, a number, true, false or null"));
        };
        self.at += literal.len();
        let target = path.target();
        let equality = matches!(operator, Operator::Equal | Operator::NotEqual);
        let substring =
            matches!(operator, Operator::Contains | Operator::StartsWith | Operator::EndsWith);
        let wrong = |expected: &str| {
            Err(error(&format!(
                "compares {path} by {} with {}; expected {expected}",
                operator.as_str(),
                crate::resource::kind_of(&value)
            )))
        };
        Ok(match (target.kind, &value) {
            (Type::Complex, _) => return wrong("one of its sub-attributes"),
            (_, Value::Null) if equality => Operand::Null,
            (Type::Boolean, _) if !equality => return wrong("eq or ne for a boolean"),
            (Type::Boolean, Value::Bool(value)) => Operand::Boolean(*value),
            (Type::Boolean, Value::String(text)) if text.eq_ignore_ascii_case("true") => {
                Operand::Boolean(true)
            }
            (Type::Boolean, Value::String(text)) if text.eq_ignore_ascii_case("false") => {
                Operand::Boolean(false)
            }
            (Type::Boolean, _) => return wrong("true or false"),
            (Type::DateTime, _) if substring => return wrong("an ordering"),
            (Type::Binary, _) if !equality && !substring => return wrong("eq or ne for a binary"),
            (Type::DateTime, Value::String(text)) => match date_time(text) {
                Some(moment) => Operand::DateTime(moment),
                None => return wrong("a date and time such as \"2026-01-31T08:30:00Z\""),
            },
            (Type::Integer | Type::Decimal, _) if substring => return wrong("an ordering"),
            (Type::Integer | Type::Decimal, Value::Number(number)) => match number.as_i64() {
                Some(integer) => Operand::Integer(integer),
                None => Operand::Decimal(number.as_f64().unwrap_or(f64::NAN)),
            },
            (Type::String | Type::Reference | Type::Binary, Value::String(text)) => {
                if text.contains('\0') {
                    return wrong("text without NUL characters");
                }
                Operand::String(text.clone())
            }
            (Type::Integer | Type::Decimal, _) => return wrong("a number"),
            _ => return wrong("a string in double quotes"),
        })
    }

    /// What is left, without blanks in front.
    fn rest(&mut self) -> &'t str {
        let rest = self.text[self.at..].trim_start();
        self.at = self.text.len() - rest.len();
        rest
    }

    /// Takes what may be a name or an operator.
    fn token(&mut self) -> &'t str {
        let rest = self.rest();
        let end = rest
            .find(|c: char| c.is_whitespace() || matches!(c, '(' | ')' | '[' | ']' | '"'))
            .unwrap_or(rest.len());
        self.at += end;
        &rest[..end]
    }

    /// Where the text goes on after a word, if that comes next.
    fn after_word(&mut self, word: &str) -> Option<usize> {
        let rest = self.rest();
        let (start, after) = rest.split_at_checked(word.len())?;
        let ends = after.is_empty() || after.starts_with(|c: char| c.is_whitespace() || c == '(');
        (start.eq_ignore_ascii_case(word) && ends).then_some(self.at + word.len())
    }

    fn word(&mut self, word: &str) -> bool {
        match self.after_word(word) {
            Some(after) => {
                self.at = after;
                true
            }
            None => false,
        }
    }

    fn expect(&mut self, character: char) -> Result<(), Error> {
        if self.rest().starts_with(character) {
            self.at += character.len_utf8();
            Ok(())
        } else {
            Err(self.unexpected(&format!("\"{character}\"")))
        }
    }

    fn unexpected(&mut self, expected: &str) -> Error {
        let rest = self.rest();
        if rest.is_empty() {
            return error(&format!("ends where {expected} was expected"));
        }
        let at = self.at + 1;
        let found = shown(rest);
        error(&format!("has {found:?} at character {at}, where {expected} was expected"))
    }
}

/// Where a value at the beginning of a text ends: at its closing quote, or before a blank or bracket.
fn literal_end(text: &str) -> usize {
    if !text.starts_with('"') {
        return text
            .find(|c: char| c.is_whitespace() || matches!(c, '(' | ')' | '[' | ']'))
            .unwrap_or(text.len());
    }
    let mut escaped = false;
    for (at, character) in text.char_indices().skip(1) {
        match character {
            '"' if !escaped => return at + 1,
            '\\' => escaped = !escaped,
            _ => escaped = false,
        }
    }
    text.len()
}

fn error(what: &str) -> Error {
    Error::of(ScimType::InvalidFilter, format!("the filter {what}"))
}

fn shown(text: &str) -> String {
    text.chars().take(200).collect()
}

/// A complex attribute that is compared as a whole means its `value` (RFC 7644 §3.4.2.2; Entra ID
/// sends `members eq "…"`).
fn with_default_part(path: AttributePath) -> AttributePath {
    if path.sub_attribute.is_none() && path.attribute.kind == Type::Complex {
        AttributePath { sub_attribute: path.attribute.sub_attribute("value"), ..path }
    } else {
        path
    }
}

fn one_or(mut filters: Vec<Filter>, many: fn(Vec<Filter>) -> Filter) -> Filter {
    if filters.len() == 1 { filters.remove(0) } else { many(filters) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::schema::{GROUP_TYPE, USER_TYPE};

    fn user(text: &str) -> Result<String, Error> {
        parse(text, &USER_TYPE, &Limits::DEFAULT).map(|filter| filter.to_string())
    }

    #[test]
    fn the_examples_of_rfc_7644_are_filters() {
        for text in [
            r#"userName eq "bjensen""#,
            r#"name.familyName co "O'Malley""#,
            r#"userName sw "J""#,
            r#"urn:ietf:params:scim:schemas:core:2.0:User:userName sw "J""#,
            "title pr",
            r#"meta.lastModified gt "2011-05-13T04:42:34Z""#,
            r#"meta.lastModified le "2011-05-13T04:42:34+02:00""#,
            r#"title pr and userType eq "Employee""#,
            r#"title pr or userType eq "Intern""#,
            r#"userType eq "Employee" and (emails co "example.com" or emails.value co "example.org")"#,
            r#"userType ne "Employee" and not (emails co "example.com")"#,
            r#"userType eq "Employee" and (emails.type eq "work")"#,
            r#"userType eq "Employee" and emails[type eq "work" and value co "@example.com"]"#,
            r#"emails[type eq "work" and value co "@example.com"] or ims[type eq "xmpp" and value co "@foo.com"]"#,
        ] {
            assert!(user(text).is_ok(), "{text}: {:?}", user(text));
        }
    }

    #[test]
    fn a_value_may_stand_before_a_parenthesis_or_bracket() {
        for text in [
            "(active eq true)",
            "not (active eq false)",
            "(title eq null)",
            "(title eq \"a)\\\"\")",
            "emails[primary eq true]",
            "emails[primary eq true and value eq \"]\"]",
        ] {
            assert!(user(text).is_ok(), "{text}: {:?}", user(text));
        }
    }

    #[test]
    fn and_binds_closer_than_or_and_not_closest() {
        assert_eq!(
            user("title pr or nickName pr and not (locale pr)").unwrap(),
            "(title pr or (nickName pr and not (locale pr)))"
        );
        assert_eq!(
            user("NOT(title pr) AND nickName PR").unwrap(),
            "(not (title pr) and nickName pr)"
        );
    }

    #[test]
    fn names_and_operators_may_be_in_any_case_and_strings_have_escapes() {
        assert_eq!(user(r#"USERNAME Eq "a\"\u00e9""#).unwrap(), r#"userName eq "a\"é""#);
        assert_eq!(user(r#"active eq "True""#).unwrap(), "active eq true");
        let members = parse(r#"members eq "u""#, &GROUP_TYPE, &Limits::DEFAULT).unwrap();
        assert_eq!(members.to_string(), r#"members.value eq "u""#);
    }

    #[test]
    fn what_is_no_filter_says_why() {
        for (text, why) in [
            ("", "ends where"),
            ("userName", "after userName"),
            ("userName eq", "ends where a value"),
            ("userName eq bjensen", "a value"),
            ("userName eq \"a\" or", "ends where"),
            ("userName eq \"a\" title pr", "\"and\", \"or\" or the end"),
            ("shoeSize eq 44", "no schema declares"),
            ("(title pr", "\")\""),
            ("active gt true", "eq or ne"),
            ("active co \"t\"", "eq or ne"),
            ("meta.created co \"2026\"", "an ordering"),
            ("x509Certificates.value gt \"x\"", "eq or ne"),
            ("userName eq 1", "a string"),
            ("meta.created gt \"yesterday\"", "date and time"),
            ("name eq \"x\"", "sub-attributes"),
            ("password eq \"x\"", "cannot be read"),
            ("name[givenName pr]", "not multi-valued"),
            ("emails[emails[type pr]]", "no schema declares"),
            ("userName like \"x\"", "expected eq"),
            ("title eq \"\\u0000\"", "NUL"),
        ] {
            let error = user(text).unwrap_err();
            assert_eq!(error.scim_type, Some(ScimType::InvalidFilter), "{text}");
            assert!(error.detail.contains(why), "{text}: {}", error.detail);
        }
    }

    #[test]
    fn length_depth_and_size_are_limited() {
        let nested = |depth: usize| "(".repeat(depth) + "title pr" + &")".repeat(depth);
        assert!(user(&nested(Limits::DEFAULT.filter_depth)).is_ok());
        let many = |count: usize| vec!["title pr"; count].join(" or ");
        assert!(user(&many(Limits::DEFAULT.filter_comparisons)).is_ok());
        for text in [
            nested(Limits::DEFAULT.filter_depth + 1),
            nested(1_000_000),
            many(Limits::DEFAULT.filter_comparisons + 1),
            "not (".repeat(1_000),
            format!("userName eq \"{}\"", "x".repeat(Limits::DEFAULT.filter_bytes)),
        ] {
            assert!(user(&text).is_err());
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in ".*") {
            drop(user(&text));
        }

        #[test]
        fn no_words_make_it_panic_and_what_is_printed_parses_to_the_same(
            words in prop::collection::vec(prop::sample::select(vec![
                "title", "emails", "[", "]", "(", ")", "and", "or", "not", "eq", "pr", "co",
                "\"x\"", "type", "value", "active", "true", "null", "meta.created", "1",
            ]), 0..12)
        ) {
            if let Ok(filter) = parse(&words.join(" "), &USER_TYPE, &Limits::DEFAULT) {
                let printed = filter.to_string();
                prop_assert_eq!(parse(&printed, &USER_TYPE, &Limits::DEFAULT), Ok(filter), "{}", printed);
            }
        }
    }
}
