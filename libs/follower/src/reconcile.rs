//! Listing an organisation's users afresh, and making what is known of them what identity says.
//!
//! Nobody follows the organisation's feed meanwhile: the cursor says who lists, and every page is
//! taken only while it still says so. At the end the cursor goes to the list's token, so whatever
//! changed while it was listed comes again by the feed: a state that a page took back is made good.

use std::collections::BTreeSet;
use std::time::Duration;

use muster_proto::identity::v1::{BatchGetUsersRequest, ListUsersRequest, User};
use muster_runtime::clock;
use muster_runtime::feed::Actor;
use muster_runtime::grpc::database_status;
use muster_runtime::id::{OrganisationId, Revision, UserId};
use tonic::Status;
use uuid::Uuid;

use crate::{FollowedUser, Follower, Keeper, Take, cursor};

/// How many users are asked for, and taken, at once.
const PAGE: usize = 500;
/// How many of the differing users are named.
const NAMED: usize = 1_000;
/// How often a page is tried.
const TRIES: u32 = 5;
/// How often, and how far apart, a difference is looked at before it counts, where nothing is to be
/// mended: what the feed is about to bring is none.
const LOOKS: (u32, Duration) = (3, Duration::from_millis(300));

/// What came of a reconciliation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reconciled {
    /// Of how many users something else was known than identity says.
    pub count: usize,
    /// The first of them, at most 1,000.
    pub users: Vec<UserId>,
}

impl Reconciled {
    fn add(&mut self, users: Vec<UserId>) {
        self.count += users.len();
        let room = NAMED.saturating_sub(self.users.len());
        self.users.extend(users.into_iter().take(room));
    }
}

/// How a reconciliation ended.
#[derive(Debug)]
pub(crate) enum Ended {
    /// All is as identity says.
    Reconciled(Reconciled),
    /// Another one of the same organisation has begun meanwhile, which does it.
    Superseded,
}

/// A page of identity's list: who is there, and who is known between its ends and is not.
struct Page {
    users: Vec<FollowedUser>,
    next_page_token: String,
    resume_token: String,
}

impl<K: Keeper> Follower<K> {
    /// Makes what is known of an organisation's users what identity says; it goes on when its
    /// caller hangs up. `ABORTED` where another reconciliation of it begins meanwhile.
    pub async fn reconcile(&self, organisation: OrganisationId) -> Result<Reconciled, Status> {
        let follower = self.clone();
        let listing = self.life.spawn(async move { follower.list_afresh(organisation).await });
        match listing.await {
            Ok(Ok(Ended::Reconciled(reconciled))) => Ok(reconciled),
            Ok(Ok(Ended::Superseded)) => {
                Err(Status::aborted("another reconciliation of the organisation has begun"))
            }
            Ok(Err(status)) => Err(status),
            Err(_) => Err(Status::unavailable("shutting down")),
        }
    }

    /// Tells of which users something else is known than identity says, and mends nothing. What the
    /// feed brings within a second is no difference.
    pub async fn differences(&self, organisation: OrganisationId) -> Result<Reconciled, Status> {
        let mut differing = Reconciled::default();
        let (mut after, mut page_token) = (None, String::new());
        loop {
            let page = self.page(organisation, after, page_token).await?;
            after = last(&page.users).or(after);
            for users in page.users.chunks(PAGE) {
                differing.add(self.still_differing(organisation, users.to_vec()).await?);
            }
            if page.next_page_token.is_empty() {
                return Ok(differing);
            }
            page_token = page.next_page_token;
        }
    }

    pub(crate) async fn list_afresh(&self, organisation: OrganisationId) -> Result<Ended, Status> {
        let listing = Uuid::new_v4();
        self.database
            .write(organisation, move |c| {
                Box::pin(cursor::begin_listing(c, organisation, listing, clock::now()))
            })
            .await
            .map_err(|error| database_status(&error))?;
        let mut mended = Reconciled::default();
        let (mut after, mut page_token) = (None, String::new());
        loop {
            let page = self.page(organisation, after, page_token).await?;
            after = last(&page.users).or(after);
            for users in page.users.chunks(PAGE) {
                match self.mend(organisation, listing, users.to_vec()).await? {
                    Some(differing) => mended.add(differing),
                    None => return Ok(Ended::Superseded),
                }
            }
            if page.next_page_token.is_empty() {
                let ended = self.end(organisation, listing, page.resume_token).await?;
                return Ok(if ended { Ended::Reconciled(mended) } else { Ended::Superseded });
            }
            page_token = page.next_page_token;
        }
    }

    /// The users of whom something else is known than this, and than identity says a little later.
    async fn still_differing(
        &self,
        organisation: OrganisationId,
        users: Vec<FollowedUser>,
    ) -> Result<Vec<UserId>, Status> {
        let (looks, pause) = LOOKS;
        let mut suspects = self.differing(organisation, users).await?;
        for _ in 0..looks {
            if suspects.is_empty() {
                break;
            }
            tokio::time::sleep(pause).await;
            let users = self.ask(organisation, suspects).await?;
            suspects = self.differing(organisation, users).await?;
        }
        Ok(suspects)
    }

    /// The next page of identity's list.
    async fn page(
        &self,
        organisation: OrganisationId,
        after: Option<UserId>,
        page_token: String,
    ) -> Result<Page, Status> {
        let request = ListUsersRequest {
            organisation_id: organisation.to_string(),
            page_size: i32::try_from(PAGE).unwrap_or(i32::MAX),
            page_token,
            ..ListUsersRequest::default()
        };
        let listed = self.users.clone().list_users(request).await?.into_inner();
        let mut users = states(organisation, &listed.users)?;
        // The last page reaches to the end.
        let through = last(&users).filter(|_| !listed.next_page_token.is_empty());
        let known = self
            .database
            .read(organisation, move |c| K::known(c, organisation, after, through))
            .await
            .map_err(|error| database_status(&error))?;
        let there: BTreeSet<UserId> = users.iter().map(|user| user.id).collect();
        let missing = known.into_iter().filter(|(id, _)| !there.contains(id));
        // One who has come since the page was read is there now.
        for missing in missing.collect::<Vec<_>>().chunks(PAGE) {
            let ids = missing.iter().map(|(id, _)| *id).collect();
            let gone = self.ask(organisation, ids).await?.into_iter().filter(FollowedUser::deleted);
            users.extend(gone.map(|user| {
                let revision = missing.iter().find(|(id, _)| *id == user.id).map(|(_, r)| *r);
                FollowedUser { revision: revision.unwrap_or(user.revision), ..user }
            }));
        }
        let (next_page_token, resume_token) = (listed.next_page_token, listed.resume_token);
        Ok(Page { users, next_page_token, resume_token })
    }

    /// What identity says of these users now; those it does not know are deleted.
    async fn ask(
        &self,
        organisation: OrganisationId,
        ids: Vec<UserId>,
    ) -> Result<Vec<FollowedUser>, Status> {
        let request = BatchGetUsersRequest {
            organisation_id: organisation.to_string(),
            ids: ids.iter().map(ToString::to_string).collect(),
            ..BatchGetUsersRequest::default()
        };
        let answer = self.users.clone().batch_get_users(request).await?.into_inner();
        let mut users = states(organisation, &answer.users)?;
        let there: BTreeSet<UserId> = users.iter().map(|user| user.id).collect();
        let gone = ids.into_iter().filter(|id| !there.contains(id));
        users.extend(gone.map(|id| FollowedUser::gone(organisation, id, Revision(0), actor())));
        Ok(users)
    }

    async fn differing(
        &self,
        organisation: OrganisationId,
        users: Vec<FollowedUser>,
    ) -> Result<Vec<UserId>, Status> {
        self.database
            .point(organisation, move |c| K::differing(c, organisation, users))
            .await
            .map_err(|error| database_status(&error))
    }

    /// Takes the states of a page that differ from what is known; who differed, or none where
    /// another listing has begun.
    async fn mend(
        &self,
        organisation: OrganisationId,
        listing: Uuid,
        users: Vec<FollowedUser>,
    ) -> Result<Option<Vec<UserId>>, Status> {
        let mut tries = 0;
        loop {
            let users = users.clone();
            let mended = self.database.write(organisation, move |c| {
                Box::pin(async move {
                    let now = clock::now();
                    if !cursor::still_listing(&mut *c, organisation, listing, now).await? {
                        return Ok::<_, sqlx::Error>(None);
                    }
                    let differing = K::differing(&mut *c, organisation, users.clone()).await?;
                    let differs = |user: &FollowedUser| differing.contains(&user.id);
                    let users: Vec<_> = users.into_iter().filter(differs).collect();
                    let appended = !users.is_empty() && K::apply(c, users, Take::Any).await?;
                    Ok(Some((differing, appended)))
                })
            });
            tries += 1;
            match mended.await {
                Ok(None) => return Ok(None),
                Ok(Some((differing, appended))) => {
                    if appended {
                        self.feed.wake(organisation);
                    }
                    return Ok(Some(differing));
                }
                Err(error) if tries == TRIES => return Err(database_status(&error)),
                Err(error) => drop(database_status(&error)),
            }
        }
    }

    async fn end(
        &self,
        organisation: OrganisationId,
        listing: Uuid,
        resume_token: String,
    ) -> Result<bool, Status> {
        self.database
            .write(organisation, move |c| {
                Box::pin(cursor::end_listing(c, organisation, listing, resume_token))
            })
            .await
            .map_err(|error| database_status(&error))
    }
}

fn last(users: &[FollowedUser]) -> Option<UserId> {
    users.iter().filter(|user| !user.deleted()).map(|user| user.id).max()
}

fn states(organisation: OrganisationId, users: &[User]) -> Result<Vec<FollowedUser>, Status> {
    let state = |user| FollowedUser::of_user(organisation, user, actor());
    let states = users.iter().map(state).collect::<Result<_, _>>();
    states.map_err(|_| Status::internal("identity listed a user without an id"))
}

/// Who makes what comes of it.
fn actor() -> Actor {
    Actor::Caller("reconcile".into())
}
