//! Users who are written while others are, written together.

use std::sync::Arc;

use muster_proto::identity::v1::User;
use muster_runtime::feed::Feed;
use muster_runtime::gathering::{self, AllMade};
use muster_runtime::id::OrganisationId;
use muster_runtime::postgres::Database;

use crate::Error;
use crate::store::user::together::{self, Write};
use crate::store::user::{create, update};

/// Writes users.
#[derive(Debug, Clone)]
pub(crate) struct Writer {
    pub database: Database,
    pub feed: Feed,
}

impl gathering::Writer for Writer {
    type Write = Write;
    type Made = User;
    type Error = Error;

    async fn alone(&self, organisation: OrganisationId, write: Write) -> Result<User, Error> {
        let made = self
            .database
            .write(organisation, move |c| match write {
                Write::Create(write) => Box::pin(create(c, write)),
                Write::Update(write) => Box::pin(update(c, write)),
            })
            .await;
        self.feed.wake(organisation);
        made
    }

    async fn together(
        &self,
        organisation: OrganisationId,
        writes: Arc<Vec<gathering::Write<Self>>>,
    ) -> AllMade<Self> {
        let made = self
            .database
            .write(organisation, move |c| {
                Box::pin(async move { together::write(c, organisation, &writes).await })
            })
            .await;
        self.feed.wake(organisation);
        made
    }

    fn database_error(error: &Error) -> Option<&sqlx::Error> {
        match error {
            Error::Database(error) => Some(error),
            _ => None,
        }
    }
}
