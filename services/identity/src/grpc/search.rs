//! Searches of people, for `UserService`.

use muster_proto::identity::v1::{
    ContentRegion, ListUnknownCountriesRequest, ListUnknownCountriesResponse, SearchUsersRequest,
    SearchUsersResponse,
};
use muster_runtime::feed::{Pages, Read};
use muster_runtime::id::UserId;
use muster_scim::caseless;

use super::{organisation_id, page_size};
use crate::listed::Query;
use crate::store::search as store;
use crate::{Error, Identity};

/// The most users that a search is limited to.
const MOST_AMONG: usize = 5_000;
/// The longest text that is looked for, in bytes.
const LONGEST_QUERY: usize = 1_000;

impl Identity {
    pub(super) async fn search(
        &self,
        request: SearchUsersRequest,
    ) -> Result<SearchUsersResponse, Error> {
        let organisation = organisation_id(&request.organisation_id)?;
        if request.query.len() > LONGEST_QUERY {
            return Err(Error::Invalid {
                field: "query",
                description: format!("is longer than {LONGEST_QUERY} bytes; send a few words"),
            });
        }
        // The page's size and place are no part of the question.
        let question = SearchUsersRequest {
            page_token: String::new(),
            page_size: 0,
            organisation_id: String::new(),
            ..request.clone()
        };
        let (question, token) = (format!("search {question:?}"), &request.page_token);
        let pages = Pages::open(&self.feed, organisation, question, false, token, 0)?;
        let limit = page_size(request.page_size);
        let mut search = read(request)?;
        search.after = pages.after().map(UserId::from);
        search.before = pages.before().map(UserId::from);
        search.limit = limit;
        let found = self
            .database
            .read(organisation, move |c| Box::pin(store::search(c, organisation, search)))
            .await?;
        let ends = found.users.first().zip(found.users.last());
        let ends =
            ends.and_then(|(first, last)| Some((first.id.parse().ok()?, last.id.parse().ok()?)));
        let (count, more, head) = (found.users.len(), found.more, found.head.position);
        let tokens = pages.tokens(&self.feed, Read { ends, count, limit, more, head });
        Ok(SearchUsersResponse {
            users: found.users,
            next_page_token: tokens.next,
            previous_page_token: tokens.previous,
            user_count: found.head.total,
            active_user_count: found.head.active,
        })
    }

    pub(super) async fn unknown_countries(
        &self,
        request: ListUnknownCountriesRequest,
    ) -> Result<ListUnknownCountriesResponse, Error> {
        let organisation = organisation_id(&request.organisation_id)?;
        let countries = self
            .database
            .read(organisation, move |c| Box::pin(store::unknown_countries(c, organisation)))
            .await?;
        Ok(ListUnknownCountriesResponse { countries })
    }
}

fn read(request: SearchUsersRequest) -> Result<store::Search, Error> {
    let region = Some(request.content_region()).filter(|r| *r != ContentRegion::Unspecified);
    let among = match request.among {
        Some(among) if among.ids.len() > MOST_AMONG => {
            let description = format!("has {} ids; at most {MOST_AMONG}", among.ids.len());
            return Err(Error::Invalid { field: "among", description });
        }
        // What is no id is nobody's.
        Some(among) => Some(among.ids.iter().filter_map(|id| id.parse().ok()).collect()),
        None => None,
    };
    let fields = [request.custom_field_1, request.custom_field_2, request.custom_field_3];
    Ok(store::Search {
        query: Query::read(&request.query),
        active: request.active,
        not_from_scim: request.not_from_scim,
        content_region: region,
        unknown_country: request.unknown_country.map(|code| code.to_ascii_uppercase()),
        custom_fields: fields.map(|field| field.map(|field| caseless::key(&field))),
        among,
        ..store::Search::default()
    })
}
