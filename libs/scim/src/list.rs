//! Lists (RFC 7644 §3.4.2).

use serde::Serialize;

use crate::{Error, ScimType};

/// Which part of a list a client asks for (RFC 7644 §3.4.2.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    /// The 1-based place of the first resource.
    pub start_index: u64,
    /// The most resources; 0 asks for the total only. None leaves it to the server.
    pub count: Option<u64>,
}

impl Page {
    /// Reads the two query parameters: a `startIndex` below 1 is 1, a `count` below 0 is 0.
    pub fn parse(start_index: Option<&str>, count: Option<&str>) -> Result<Self, Error> {
        Ok(Self {
            start_index: integer("startIndex", start_index)?.map_or(1, |index| index.max(1)),
            count: integer("count", count)?,
        })
    }
}

/// A whole number, 0 where it is below.
fn integer(name: &str, text: Option<&str>) -> Result<Option<u64>, Error> {
    let Some(text) = text.map(str::trim).filter(|text| !text.is_empty()) else { return Ok(None) };
    let number: i128 = text.parse().map_err(|_| {
        let sent: String = text.chars().take(32).collect();
        Error::of(ScimType::InvalidValue, format!("{name} is {sent:?}; expected a whole number"))
    })?;
    Ok(Some(u64::try_from(number.clamp(0, i32::MAX.into())).unwrap_or_default()))
}

/// Where the pages around a page are (RFC 9865 §2); empty where there is none.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cursors {
    /// The next page.
    pub next: String,
    /// The previous page.
    pub previous: String,
}

/// A `ListResponse`, of resources in any form that becomes JSON.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ListResponse<T> {
    schemas: [&'static str; 1],
    total_results: u64,
    items_per_page: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    start_index: Option<u64>,
    #[serde(skip_serializing_if = "String::is_empty")]
    next_cursor: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    previous_cursor: String,
    #[serde(rename = "Resources")]
    resources: Vec<T>,
}

impl<T> ListResponse<T> {
    /// Of a list by index.
    #[must_use]
    pub fn by_index(total: u64, start_index: u64, resources: Vec<T>) -> Self {
        Self {
            start_index: Some(start_index),
            ..Self::by_cursor(total, Cursors::default(), resources)
        }
    }

    /// Of a list by cursor (RFC 9865 §2): without `startIndex`, and with `nextCursor` and
    /// `previousCursor` where there are such pages.
    #[must_use]
    pub fn by_cursor(total: u64, cursors: Cursors, resources: Vec<T>) -> Self {
        Self {
            schemas: ["urn:ietf:params:scim:api:messages:2.0:ListResponse"],
            total_results: total,
            items_per_page: resources.len(),
            start_index: None,
            next_cursor: cursors.next,
            previous_cursor: cursors.previous,
            resources,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_index_below_one_is_one_and_a_count_below_zero_is_zero() {
        for (start, count, expected) in [
            (None, None, Page { start_index: 1, count: None }),
            (Some("0"), Some("0"), Page { start_index: 1, count: Some(0) }),
            (Some("-7"), Some("-1"), Page { start_index: 1, count: Some(0) }),
            (Some("101"), Some("100"), Page { start_index: 101, count: Some(100) }),
        ] {
            assert_eq!(Page::parse(start, count), Ok(expected));
        }
    }

    #[test]
    fn what_is_no_whole_number_is_refused() {
        for text in ["x", "1.5", "1e3", "0x10"] {
            assert!(Page::parse(Some(text), None).is_err(), "{text}");
            assert!(Page::parse(None, Some(text)).is_err(), "{text}");
        }
    }
}
