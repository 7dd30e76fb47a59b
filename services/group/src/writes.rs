//! Groups that are written: their members looked up in identity where nothing is known of them, and
//! changes of members that come together made together.

use std::sync::Arc;

use muster_follower::Users;
use muster_proto::identity::v1::BatchGetUsersRequest;
use muster_runtime::BoxFuture;
use muster_runtime::feed::Feed;
use muster_runtime::gathering::{self, AllMade};
use muster_runtime::id::{OrganisationId, Revision, UserId};
use muster_runtime::postgres::Database;
use sqlx::PgConnection;

use crate::Error;
use crate::store::group::{Failure, Update, Written, update};
use crate::store::{person, together};

/// How many users identity is asked about at once.
const LARGEST_BATCH: usize = 10_000;

/// Writes groups.
#[derive(Debug, Clone)]
pub(crate) struct Writer {
    pub database: Database,
    pub feed: Feed,
    pub users: Users,
}

impl gathering::Writer for Writer {
    type Write = Update;
    type Made = Written;
    type Error = Error;

    async fn alone(&self, organisation: OrganisationId, write: Update) -> Result<Written, Error> {
        self.write(organisation, move |c, asked| Box::pin(update(c, write.clone(), asked))).await
    }

    async fn together(
        &self,
        organisation: OrganisationId,
        writes: Arc<Vec<gathering::Write<Self>>>,
    ) -> AllMade<Self> {
        let made = self
            .database
            .write(organisation, move |c| {
                Box::pin(async move { together::update(c, organisation, &writes).await })
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

impl Writer {
    /// Runs a write of a group in a transaction. Where it names users of whom nothing is known,
    /// identity is asked about them and it is run again.
    pub(crate) async fn write<W>(
        &self,
        organisation: OrganisationId,
        write: W,
    ) -> Result<Written, Error>
    where
        W: for<'c> Fn(&'c mut PgConnection, bool) -> BoxFuture<'c, Result<Written, Failure>>
            + Clone
            + Send
            + 'static,
    {
        let mut asked = false;
        loop {
            let this = write.clone();
            match self.database.write(organisation, move |c| this(c, asked)).await {
                Ok(written) => {
                    self.feed.wake(organisation);
                    return Ok(written);
                }
                Err(Failure::Refused(error)) => return Err(error),
                Err(Failure::Unseen(users)) => self.meet(organisation, &users).await?,
            }
            asked = true;
        }
    }

    /// Asks identity about users, in batches, and notes who exists.
    async fn meet(&self, organisation: OrganisationId, users: &[UserId]) -> Result<(), Error> {
        for batch in users.chunks(LARGEST_BATCH) {
            let request = BatchGetUsersRequest {
                organisation_id: organisation.to_string(),
                ids: batch.iter().map(ToString::to_string).collect(),
                ids_only: true,
                ..BatchGetUsersRequest::default()
            };
            let answer = self.users.clone().batch_get_users(request).await;
            let known: Vec<(UserId, Revision, bool)> = answer
                .map_err(Error::Identity)?
                .into_inner()
                .users
                .iter()
                .filter_map(|user| {
                    Some((user.id.parse().ok()?, Revision(user.revision), user.active()))
                })
                .collect();
            self.database
                .write(organisation, move |c| Box::pin(person::seen(c, organisation, known)))
                .await?;
        }
        Ok(())
    }
}
