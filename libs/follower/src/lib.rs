//! Following identity's users: what the services have in common that keep something of each.
//!
//! A follower's schema has the table `cursor`, with a row for each organisation: how far it has
//! come. Changes are applied in the transaction that advances the row, and the row is locked
//! first, so replicas side by side take each change once between them. Where the feed does not go
//! on from there (identity was restored, or the follower was away for longer than changes are
//! kept), the organisation's users are listed afresh.

mod applied;
mod awaited;
mod cursor;
mod lag;
mod reconcile;
mod session;
mod user;

use std::marker::PhantomData;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use muster_proto::identity::v1::user_service_client::UserServiceClient;
use muster_runtime::BoxFuture;
use muster_runtime::clock;
use muster_runtime::feed::Feed;
use muster_runtime::grpc::max_message_bytes;
use muster_runtime::id::{OrganisationId, Revision, UserId};
use muster_runtime::life::Life;
use muster_runtime::postgres::Database;
use muster_runtime::transport::Transport;
use sqlx::PgConnection;
use time::OffsetDateTime;
use tonic::Code;

use applied::Applied;
use awaited::Awaited;
use lag::Lag;
pub use reconcile::Reconciled;
pub use user::{Existence, FollowedUser};

/// Identity, as followers call it.
pub type Users = UserServiceClient<Transport>;

/// Which states of a user are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Take {
    /// Those of a greater revision than the one that is known.
    Newer,
    /// All: identity has been asked what is true now.
    Any,
}

/// What a service keeps of identity's users: the statements on its own tables.
pub trait Keeper: Send + Sync + 'static {
    /// The service's name, as its metrics have it.
    const NAME: &'static str;

    /// Takes states of users of one organisation, all told of by one actor; whether the service's
    /// own feed got anything of it. Of several states of one user the last counts. It appends at
    /// the end, once: the caller appends nothing.
    fn apply(
        connection: &mut PgConnection,
        users: Vec<FollowedUser>,
        take: Take,
    ) -> BoxFuture<'_, Result<bool, sqlx::Error>>;

    /// The users of whom something else is known than this; by one statement.
    fn differing(
        connection: &mut PgConnection,
        organisation: OrganisationId,
        users: Vec<FollowedUser>,
    ) -> BoxFuture<'_, Result<Vec<UserId>, sqlx::Error>>;

    /// The users who are known and not deleted, after one id and up to another.
    fn known(
        connection: &mut PgConnection,
        organisation: OrganisationId,
        after: Option<UserId>,
        through: Option<UserId>,
    ) -> BoxFuture<'_, Result<Vec<(UserId, Revision)>, sqlx::Error>>;
}

/// How soon a replica is thought to have applied what is waited for, and how often it is looked for
/// at the least.
const SOONEST: Duration = Duration::from_millis(20);
const LATEST: Duration = Duration::from_millis(200);
/// What was written no longer ago is not looked for before this process has applied it.
const JUST_WRITTEN: Duration = Duration::from_secs(1);

/// How long to wait before a feed that broke off is opened again.
const REOPEN: Duration = Duration::from_millis(500);

/// A revision of a user that somebody waits for.
#[derive(Debug, Clone, Copy)]
pub struct AwaitedRevision {
    /// The organisation.
    pub organisation: OrganisationId,
    /// The user.
    pub user: UserId,
    /// The revision, or a later one.
    pub revision: Revision,
    /// When it was written, where that is known.
    pub written_at: Option<OffsetDateTime>,
}

/// Follows identity for a service. Cloning it gives the same.
#[derive(Debug)]
pub struct Follower<K> {
    database: Database,
    /// The service's own.
    feed: Feed,
    users: Users,
    lag: Arc<Lag>,
    applied: Arc<Applied>,
    awaited: Arc<Awaited>,
    life: Life,
    keeper: PhantomData<K>,
}

impl<K> Clone for Follower<K> {
    fn clone(&self) -> Self {
        Self {
            database: self.database.clone(),
            feed: self.feed.clone(),
            users: self.users.clone(),
            lag: self.lag.clone(),
            applied: self.applied.clone(),
            awaited: self.awaited.clone(),
            life: self.life.clone(),
            keeper: PhantomData,
        }
    }
}

impl<K: Keeper> Follower<K> {
    /// Begins to follow; `life` ends it. `feed` is the service's own, whose readers are woken.
    #[must_use]
    pub fn start(database: Database, feed: Feed, identity: Transport, life: &Life) -> Self {
        let users = Users::new(identity).max_decoding_message_size(max_message_bytes());
        let follower = Self {
            database,
            feed,
            users,
            lag: Lag::measured(K::NAME),
            applied: Arc::default(),
            awaited: Arc::default(),
            life: life.clone(),
            keeper: PhantomData,
        };
        let (following, stop) = (follower.clone(), life.clone());
        life.spawn(async move {
            tokio::select! {
                () = following.follow() => {}
                () = lag::warn(&following.lag) => {}
                () = stop.stopped() => {}
            }
        });
        follower
    }

    /// Waits until `look` finds what identity's feed brings of a user, for as long as the caller does.
    /// The organisation's changes are applied as they come meanwhile, not gathered.
    ///
    /// It looks when this process has applied the revision, and now and then, since a replica may have
    /// done so; at once, unless the revision was written a moment ago.
    pub async fn until<T, F>(
        &self,
        awaited: AwaitedRevision,
        look: impl Fn() -> F,
    ) -> Result<T, sqlx::Error>
    where
        F: Future<Output = Result<Option<T>, sqlx::Error>>,
    {
        let AwaitedRevision { organisation, user, revision, written_at } = awaited;
        let _awaits = self.awaited.begin(organisation);
        let mut applied = pin!(self.applied.comes(organisation, user, revision).fuse());
        let mut pause = SOONEST;
        let mut looks = written_at.is_none_or(|at| clock::now() - at > JUST_WRITTEN);
        loop {
            if looks && let Some(found) = look().await? {
                return Ok(found);
            }
            looks = true;
            tokio::select! {
                () = &mut applied => {}
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(LATEST),
            }
        }
    }

    /// Follows for ever.
    async fn follow(&self) {
        loop {
            match session::run(self).await {
                // As every stream does after a while; if it stays away, the lag tells.
                Err(status) if status.code() == Code::Unavailable => {
                    tracing::info!(message = status.message(), "identity's feed is opened again");
                }
                Err(status) => {
                    let (code, message) = (status.code(), status.message());
                    tracing::warn!(?code, message, "identity's feed broke off");
                }
                Ok(()) => {}
            }
            tokio::time::sleep(REOPEN).await;
        }
    }
}
