//! Lists that are read page by page, forth and back, and joined by a watch after the last page.

use uuid::Uuid;

use super::{Feed, InvalidPageToken, Page, Place, Position};
use crate::id::OrganisationId;

/// A question that is answered page by page, and where the page asked for begins.
#[derive(Debug, Clone)]
pub struct Pages {
    organisation: OrganisationId,
    /// A token is for the same question only.
    query: String,
    /// Whether the order is another than by id, in which pages are counted off.
    ordered: bool,
    page: Option<Page>,
    /// How many to pass over first.
    pub skip: i64,
}

/// A page as it was read.
#[derive(Debug, Clone, Copy)]
pub struct Read {
    /// The ids of its first and last subject; none where it is empty.
    pub ends: Option<(Uuid, Uuid)>,
    /// How many subjects it holds.
    pub count: usize,
    /// How many it could have held.
    pub limit: i64,
    /// Whether there are more in the direction in which it was read.
    pub more: bool,
    /// The feed's newest change before it was read.
    pub head: Position,
}

/// What an answer says of the pages around it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tokens {
    /// The next page; empty on the last.
    pub next: String,
    /// The previous page; empty on the first.
    pub previous: String,
    /// On the last page: where to watch from.
    pub resume: String,
}

impl Pages {
    /// Reads where a request wants to go on. `query` is whatever tells questions apart.
    pub fn open(
        feed: &Feed,
        organisation: OrganisationId,
        query: String,
        ordered: bool,
        page_token: &str,
        skip: i32,
    ) -> Result<Self, InvalidPageToken> {
        let page = feed.open_page(organisation, &query, page_token)?;
        let skipped = match page.map(|page| page.place) {
            Some(Place::Skip(count)) => count,
            _ => 0,
        };
        let skip = skipped + i64::from(skip.max(0));
        Ok(Self { organisation, query, ordered, page, skip })
    }

    /// The id after which the page begins.
    #[must_use]
    pub fn after(&self) -> Option<Uuid> {
        match self.page?.place {
            Place::After(id) => Some(id),
            _ => None,
        }
    }

    /// The id before which the page ends: it is read backwards.
    #[must_use]
    pub fn before(&self) -> Option<Uuid> {
        match self.page?.place {
            Place::Before(id) => Some(id),
            _ => None,
        }
    }

    /// The tokens of the pages around one that was read.
    #[must_use]
    pub fn tokens(&self, feed: &Feed, read: Read) -> Tokens {
        let (next, previous) = self.places(read);
        // Where the first page began, so that nothing is missed that happened between pages.
        let head = self.page.map_or(read.head, |page| page.head);
        let seal = |place: Option<Place>| {
            place.map_or_else(String::new, |place| {
                feed.page_token(self.organisation, &self.query, Page { place, head })
            })
        };
        Tokens {
            next: seal(next),
            previous: seal(previous),
            resume: match next {
                Some(_) => String::new(),
                None => feed.token(self.organisation, head),
            },
        }
    }

    /// Where the next and the previous page begin.
    fn places(&self, read: Read) -> (Option<Place>, Option<Place>) {
        if self.ordered {
            let end = self.skip + i64::try_from(read.count).unwrap_or_default();
            let start = (self.skip - read.limit).max(0);
            return (
                read.more.then_some(Place::Skip(end)),
                (self.skip > 0).then_some(Place::Skip(start)),
            );
        }
        let (first, last) = read.ends.unzip();
        match self.page.map(|page| page.place) {
            Some(Place::Before(_)) => (
                // Those before are gone: the list begins anew.
                Some(Place::After(last.unwrap_or_default())),
                first.filter(|_| read.more).map(Place::Before),
            ),
            place => (
                last.filter(|_| read.more).map(Place::After),
                first.filter(|_| place.is_some() || self.skip > 0).map(Place::Before),
            ),
        }
    }
}
