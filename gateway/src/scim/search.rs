//! Queries by POST (RFC 7644 §3.4.3): `/.search` for both types in one list, and one for each.

use std::collections::BTreeMap;

use axum::extract::{Request, State};
use axum::response::Response;
use http::StatusCode;
use muster_scim::filter::sort_key;
use muster_scim::list::{Cursors, ListResponse, Page};
use muster_scim::path::AttributePath;
use muster_scim::resource::object;
use muster_scim::schema::{GROUP_TYPE, ResourceType, USER_TYPE};
use muster_scim::{Error, ScimType};
use serde_json::Value;

use super::resource::Resource;
use super::{Asked, body, json};
use crate::auth::Client;
use crate::failure::Failure;
use crate::provisioning_log::ToTheEnd;
use crate::{Gateway, Limits};

/// The schema of a search request.
const SCHEMA: &str = "urn:ietf:params:scim:api:messages:2.0:SearchRequest";

/// What a search request may hold, in lower case; what else it holds is ignored.
const KEYS: [&str; 9] = [
    "schemas",
    "attributes",
    "excludedattributes",
    "filter",
    "sortby",
    "sortorder",
    "startindex",
    "count",
    "cursor",
];

/// A page of a list.
#[derive(Default)]
pub(super) struct Found {
    pub(super) total: u64,
    pub(super) resources: Vec<Resource>,
    pub(super) cursors: Cursors,
}

impl Found {
    /// The answer to a list, which notes for the log where it goes up to its end.
    pub(super) fn answer(self, asked: &Asked) -> Response {
        let to_the_end = match &asked.cursor {
            Some(_) => self.cursors.next.is_empty(),
            None => asked.page.start_index - 1 + self.resources.len() as u64 >= self.total,
        };
        let mut response = json(StatusCode::OK, &self.response(asked));
        if to_the_end {
            response.extensions_mut().insert(ToTheEnd);
        }
        response
    }

    pub(super) fn response(self, asked: &Asked) -> ListResponse<Resource> {
        match asked.cursor {
            Some(_) => ListResponse::by_cursor(self.total, self.cursors, self.resources),
            None => ListResponse::by_index(self.total, asked.page.start_index, self.resources),
        }
    }
}

pub(super) async fn users(
    client: Client,
    State(gateway): State<Gateway>,
    request: Request,
) -> Result<Response, Failure> {
    let parameters = parameters(request, gateway.limits).await?;
    let asked = Asked::of(&parameters, &gateway, &USER_TYPE)?;
    let found = super::users::find(&gateway, &client, &asked).await?;
    Ok(json(StatusCode::OK, &found.response(&asked)))
}

pub(super) async fn groups(
    client: Client,
    State(gateway): State<Gateway>,
    request: Request,
) -> Result<Response, Failure> {
    let parameters = parameters(request, gateway.limits).await?;
    let asked = Asked::of(&parameters, &gateway, &GROUP_TYPE)?;
    let found = super::groups::find(&gateway, &client, &asked).await?;
    Ok(json(StatusCode::OK, &found.response(&asked)))
}

/// Users, then groups, or both in one order. What only one of them has, the other has no value of
/// (RFC 7644 §3.4.2.1).
pub(super) async fn everything(
    client: Client,
    State(gateway): State<Gateway>,
    request: Request,
) -> Result<Response, Failure> {
    let parameters = parameters(request, gateway.limits).await?;
    let both = Both { gateway, client };
    let found = match parameters.get("cursor") {
        Some(cursor) => both.by_cursor(cursor.clone(), parameters).await?,
        None => both.by_index(&parameters).await?,
    };
    Ok(json(StatusCode::OK, &found))
}

static BOTH: [&ResourceType; 2] = [&USER_TYPE, &GROUP_TYPE];

/// Where a list of both types by cursor is: among the users or among the groups, whose own cursor
/// follows.
const AMONG_USERS: char = 'u';
const AMONG_GROUPS: char = 'g';

/// The most places of a sorted list of both types that are looked through.
const DEEPEST_SORTED: u64 = 1_000;

/// What a search of both types needs.
struct Both {
    gateway: Gateway,
    client: Client,
}

impl Both {
    /// A page by index. The types are asked one after the other, and as one list where they are
    /// sorted by what both have.
    async fn by_index(
        &self,
        parameters: &BTreeMap<String, String>,
    ) -> Result<ListResponse<Resource>, Failure> {
        let page = Page::parse(
            parameters.get("startindex").map(String::as_str),
            parameters.get("count").map(String::as_str),
        )?;
        let count =
            page.count.unwrap_or(super::DEFAULT_RESULTS).min(self.gateway.limits.max_results);
        let (types, descending) = types(parameters, &self.gateway)?;
        let (total, resources) = match types.as_slice() {
            [first, second] if first.sorted && second.sorted => {
                self.merged([first, second], page.start_index, count, descending).await?
            }
            _ => self.one_after_another(&types, page.start_index, count).await?,
        };
        Ok(ListResponse::by_index(total, page.start_index, resources))
    }

    async fn one_after_another(
        &self,
        types: &[Typed],
        start_index: u64,
        count: u64,
    ) -> Result<(u64, Vec<Resource>), Failure> {
        let (mut total, mut resources) = (0, Vec::new());
        for typed in types {
            let room = count.saturating_sub(resources.len() as u64);
            let start = start_index.saturating_sub(total).max(1);
            let found = self.find(&typed.asked.window(start, room), typed.resource_type).await?;
            total += found.total;
            resources.extend(found.resources);
        }
        Ok((total, resources))
    }

    /// Of each type what falls into the window of the list that both are merged to.
    async fn merged(
        &self,
        types: [&Typed; 2],
        start_index: u64,
        count: u64,
        descending: bool,
    ) -> Result<(u64, Vec<Resource>), Failure> {
        let end = start_index - 1 + count;
        if end > DEEPEST_SORTED {
            let what = format!(
                "a sorted list of both types is read as far as {DEEPEST_SORTED}; search /Users or \
                 /Groups, or filter"
            );
            return Err(Error::of(ScimType::TooMany, what).into());
        }
        let limits = Limits { max_results: DEEPEST_SORTED, ..self.gateway.limits };
        let deep = Self {
            gateway: Gateway { limits, ..self.gateway.clone() },
            client: self.client.clone(),
        };
        let (mut total, mut keys) = (0, Vec::new());
        for (which, typed) in types.into_iter().enumerate() {
            let asked = typed.asked.window(1, end).only(&typed.sort_by, typed.resource_type)?;
            let found = deep.find(&asked, typed.resource_type).await?;
            total += found.total;
            let path = AttributePath::resolve(&typed.sort_by, typed.resource_type);
            keys.extend(found.resources.into_iter().map(|resource| {
                let document = resource.into_document();
                let key = path.and_then(|path| sort_key(&path, &document));
                // None is less than any, and comes last.
                (key.is_none(), key, which)
            }));
        }
        // Each type comes in order, and a stable sort keeps it.
        keys.sort_by(|a, b| if descending { b.cmp(a).then(a.2.cmp(&b.2)) } else { a.cmp(b) });
        let start = usize::try_from(start_index - 1).unwrap_or(usize::MAX).min(keys.len());
        let window = &keys[start..keys.len().min(usize::try_from(end).unwrap_or(usize::MAX))];
        let mut parts = Vec::new();
        for (which, typed) in types.into_iter().enumerate() {
            let of = |keys: &[(bool, Option<String>, usize)]| {
                keys.iter().filter(|(_, _, of)| *of == which).count() as u64
            };
            let asked = typed.asked.window(of(&keys[..start]) + 1, of(window));
            parts.push(self.find(&asked, typed.resource_type).await?.resources.into_iter());
        }
        Ok((total, window.iter().filter_map(|(_, _, which)| parts[*which].next()).collect()))
    }

    /// A page by cursor: the users, then the groups.
    async fn by_cursor(
        &self,
        cursor: String,
        mut parameters: BTreeMap<String, String>,
    ) -> Result<ListResponse<Resource>, Failure> {
        if parameters.get("sortby").is_some_and(|name| !name.trim().is_empty()) {
            let what = "a sorted list of both types goes on by startIndex, not by cursor";
            return Err(Error::of(ScimType::InvalidCursor, what).into());
        }
        let (among, inner) = match cursor.chars().next() {
            None => (AMONG_USERS, ""),
            Some(among @ (AMONG_USERS | AMONG_GROUPS)) => (among, &cursor[1..]),
            Some(_) => {
                let what = "the cursor is not one of an earlier answer to the same question";
                return Err(Error::of(ScimType::InvalidCursor, what).into());
            }
        };
        parameters.insert("cursor".to_owned(), inner.to_owned());
        let (types, _) = types(&parameters, &self.gateway)?;
        let of = |wanted: &ResourceType| {
            types.iter().find(|typed| typed.resource_type.name == wanted.name)
        };
        let (users, groups) = (of(&USER_TYPE), of(&GROUP_TYPE));
        let mut page = Found::default();
        let mut count = 0;
        let prefixed = |among: char, cursor: String| {
            if cursor.is_empty() { cursor } else { format!("{among}{cursor}") }
        };
        if let (AMONG_USERS, Some(users)) = (among, users) {
            count = users.asked.count(self.gateway.limits);
            page = self.find(&users.asked, &USER_TYPE).await?;
            page.cursors.next = prefixed(AMONG_USERS, page.cursors.next);
            page.cursors.previous = prefixed(AMONG_USERS, page.cursors.previous);
        }
        if let Some(groups) = groups {
            let mut asked = groups.asked.clone();
            if among == AMONG_GROUPS || users.is_none() {
                count = asked.count(self.gateway.limits);
            } else {
                asked.cursor = Some(String::new());
            }
            let room = if page.cursors.next.is_empty() {
                count.saturating_sub(page.resources.len() as u64)
            } else {
                0
            };
            asked.page.count = Some(room);
            let found = self.find(&asked, &GROUP_TYPE).await?;
            page.total += found.total;
            if page.cursors.next.is_empty() {
                page.cursors.next = match room {
                    0 if found.total > 0 && count > 0 => AMONG_GROUPS.to_string(),
                    _ => prefixed(AMONG_GROUPS, found.cursors.next),
                };
            }
            if page.cursors.previous.is_empty() && among == AMONG_GROUPS {
                page.cursors.previous = prefixed(AMONG_GROUPS, found.cursors.previous);
            }
            page.resources.extend(found.resources);
        }
        if let (AMONG_GROUPS, Some(users)) = (among, users) {
            let mut asked = users.asked.window(1, 0);
            asked.cursor = None;
            page.total += self.find(&asked, &USER_TYPE).await?.total;
        }
        Ok(ListResponse::by_cursor(page.total, page.cursors, page.resources))
    }

    async fn find(&self, asked: &Asked, resource_type: &ResourceType) -> Result<Found, Failure> {
        if resource_type.name == USER_TYPE.name {
            super::users::find(&self.gateway, &self.client, asked).await
        } else {
            super::groups::find(&self.gateway, &self.client, asked).await
        }
    }
}

/// The types that can be asked, in their order: what is not sorted comes last, and first the
/// other way round (RFC 7644 §3.4.2.3). And whether that is the other way round.
fn types(
    parameters: &BTreeMap<String, String>,
    gateway: &Gateway,
) -> Result<(Vec<Typed>, bool), Failure> {
    let (mut types, mut refusals) = (Vec::new(), Vec::new());
    for resource_type in BOTH {
        match Typed::of(parameters, gateway, resource_type) {
            Ok(typed) => types.push(typed),
            Err(failure) => refusals.push(failure),
        }
    }
    // What neither of them can answer, or what is wrong anyway, is told.
    let wrong = refusals.iter().position(|failure| !failure.is_of_the_schema());
    if let Some(at) = wrong.or(types.is_empty().then_some(0)) {
        return Err(refusals.swap_remove(at));
    }
    let sorts = parameters.get("sortby").is_some_and(|name| !name.trim().is_empty());
    if sorts && types.iter().all(|typed| !typed.sorted) {
        // The refusal of the first says what is wrong with the order.
        Asked::among(parameters, gateway, types[0].resource_type, &BOTH)?;
    }
    let descending = types.iter().any(|typed| typed.asked.order_by.ends_with(" desc"));
    types.sort_by_key(|typed| sorts && typed.sorted == descending);
    Ok((types, descending))
}

/// What is asked of one type.
struct Typed {
    resource_type: &'static ResourceType,
    asked: Asked,
    sort_by: String,
    /// Whether it has what the list is to be sorted by.
    sorted: bool,
}

impl Typed {
    fn of(
        parameters: &BTreeMap<String, String>,
        gateway: &Gateway,
        resource_type: &'static ResourceType,
    ) -> Result<Self, Failure> {
        let sort_by = parameters.get("sortby").cloned().unwrap_or_default();
        let has = AttributePath::resolve(sort_by.trim(), resource_type).is_some();
        let mut parameters = parameters.clone();
        if !has {
            parameters.remove("sortby");
        }
        let asked = Asked::among(&parameters, gateway, resource_type, &BOTH)?;
        Ok(Self { resource_type, asked, sort_by, sorted: has })
    }
}

/// A search request as the parameters that a query would have, by name in lower case.
async fn parameters(request: Request, limits: Limits) -> Result<BTreeMap<String, String>, Failure> {
    let mut parameters = BTreeMap::new();
    for (key, value) in object(body(request, limits).await?)? {
        let name = key.to_ascii_lowercase();
        if !KEYS.contains(&name.as_str()) {
            continue;
        }
        let text = match value {
            Value::Null => continue,
            Value::String(text) => text,
            Value::Number(number) if matches!(name.as_str(), "startindex" | "count") => {
                number.to_string()
            }
            Value::Array(items) => {
                let texts: Option<Vec<&str>> = items.iter().map(Value::as_str).collect();
                texts.ok_or_else(|| wrong(&key, "an array of strings"))?.join(",")
            }
            _ => return Err(wrong(&key, "a string or an array of strings")),
        };
        if name == "schemas" && !text.split(',').any(|urn| urn.eq_ignore_ascii_case(SCHEMA)) {
            return Err(wrong(&key, &format!("an array that holds {SCHEMA:?}")));
        }
        parameters.insert(name, text);
    }
    Ok(parameters)
}

fn wrong(key: &str, expected: &str) -> Failure {
    let key: String = key.chars().take(40).collect();
    Error::of(ScimType::InvalidValue, format!("{key} is not {expected}")).into()
}
