//! Identity as a bad network would show it: changes come once to three times, late, in another
//! order across organisations; the feed breaks off, and tells the last thousand again.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use muster_proto::identity::v1::user_service_server::{UserService, UserServiceServer};
use muster_proto::identity::v1::{
    BatchGetUsersRequest, BatchGetUsersResponse, CreateUserRequest, DeleteUserRequest,
    DeleteUserResponse, EraseUserRequest, EraseUserResponse, GetUserRequest, ListChangesRequest,
    ListChangesResponse, ListUnknownCountriesRequest, ListUnknownCountriesResponse,
    ListUsersRequest, ListUsersResponse, RecountRequest, RecountResponse, ReleaseUserNameRequest,
    SearchUsersRequest, SearchUsersResponse, UpdateUserRequest, User, WatchChangesRequest,
    WatchChangesResponse,
};
use muster_runtime::life::Life;
use muster_runtime::{BoxFuture, grpc};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::service::Routes;
use tonic::{Request, Response, Status, Streaming};

use super::feed::Users;

/// How many messages are told again when the feed is opened anew.
const AGAIN: usize = 1_000;

/// A proxy of identity, for its followers.
#[derive(Clone)]
struct Proxy {
    identity: Users,
    told: Arc<Mutex<VecDeque<WatchChangesResponse>>>,
    rng: Arc<Mutex<StdRng>>,
}

/// Starts a proxy; its address. It ends with the test's runtime.
pub(crate) async fn start(identity: Users, seed: u64) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let rng = Arc::new(Mutex::new(StdRng::seed_from_u64(seed)));
    let proxy = Proxy { identity, told: Arc::default(), rng };
    let routes = Routes::new(UserServiceServer::new(proxy));
    tokio::spawn(grpc::serve(listener, routes, Life::new()));
    url
}

type Outlet = mpsc::Sender<Result<WatchChangesResponse, Status>>;

impl Proxy {
    fn random(&self, range: std::ops::Range<usize>) -> usize {
        self.rng.lock().unwrap().random_range(range)
    }

    /// Tells until the reader goes away, or until this one breaks off.
    async fn tell(self, mut feed: Streaming<WatchChangesResponse>, outlet: Outlet) -> Option<()> {
        let again: Vec<_> = self.told.lock().unwrap().iter().cloned().collect();
        for message in again {
            outlet.send(Ok(message)).await.ok()?;
        }
        let mut waiting: BTreeMap<String, VecDeque<WatchChangesResponse>> = BTreeMap::new();
        for _ in 0..self.random(50..400) {
            // Gathers some, so that there is something to put in another order.
            while waiting.values().map(VecDeque::len).sum::<usize>() < 8 {
                let patience = Duration::from_millis(20);
                match tokio::time::timeout(patience, feed.message()).await {
                    Ok(message) => {
                        let message = message.ok()??;
                        let metadata = message.change.as_ref().and_then(|c| c.metadata.as_ref());
                        let organisation = metadata.map(|m| m.organisation_id.clone());
                        waiting
                            .entry(organisation.unwrap_or_default())
                            .or_default()
                            .push_back(message);
                    }
                    Err(_) => break,
                }
            }
            let organisations: Vec<_> = waiting.keys().cloned().collect();
            if organisations.is_empty() {
                continue;
            }
            let organisation = &organisations[self.random(0..organisations.len())];
            let queue = waiting.get_mut(organisation)?;
            let message = queue.pop_front()?;
            if queue.is_empty() {
                waiting.remove(organisation);
            }
            tokio::time::sleep(Duration::from_millis(self.random(0..4) as u64)).await;
            for _ in 0..self.random(1..4) {
                outlet.send(Ok(message.clone())).await.ok()?;
            }
            let mut told = self.told.lock().unwrap();
            told.push_back(message);
            if told.len() > AGAIN {
                told.pop_front();
            }
        }
        outlet.send(Err(Status::unavailable("the proxy breaks off"))).await.ok()
    }
}

/// What followers do not call.
fn not_here<T>() -> BoxFuture<'static, Result<Response<T>, Status>> {
    Box::pin(async { Err(Status::unimplemented("not by this proxy")) })
}

#[tonic::async_trait]
impl UserService for Proxy {
    async fn batch_get_users(
        &self,
        request: Request<BatchGetUsersRequest>,
    ) -> Result<Response<BatchGetUsersResponse>, Status> {
        self.identity.clone().batch_get_users(request.into_inner()).await
    }

    async fn list_users(
        &self,
        request: Request<ListUsersRequest>,
    ) -> Result<Response<ListUsersResponse>, Status> {
        self.identity.clone().list_users(request.into_inner()).await
    }

    type WatchChangesStream = ReceiverStream<Result<WatchChangesResponse, Status>>;

    async fn watch_changes(
        &self,
        request: Request<WatchChangesRequest>,
    ) -> Result<Response<Self::WatchChangesStream>, Status> {
        let feed = self.identity.clone().watch_changes(request.into_inner()).await?.into_inner();
        let (outlet, stream) = mpsc::channel(16);
        tokio::spawn(self.clone().tell(feed, outlet));
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn create_user(&self, _: Request<CreateUserRequest>) -> Result<Response<User>, Status> {
        not_here().await
    }

    async fn get_user(&self, _: Request<GetUserRequest>) -> Result<Response<User>, Status> {
        not_here().await
    }

    async fn update_user(&self, _: Request<UpdateUserRequest>) -> Result<Response<User>, Status> {
        not_here().await
    }

    async fn delete_user(
        &self,
        _: Request<DeleteUserRequest>,
    ) -> Result<Response<DeleteUserResponse>, Status> {
        not_here().await
    }

    async fn release_user_name(
        &self,
        _: Request<ReleaseUserNameRequest>,
    ) -> Result<Response<User>, Status> {
        not_here().await
    }

    async fn search_users(
        &self,
        _: Request<SearchUsersRequest>,
    ) -> Result<Response<SearchUsersResponse>, Status> {
        not_here().await
    }

    async fn list_unknown_countries(
        &self,
        _: Request<ListUnknownCountriesRequest>,
    ) -> Result<Response<ListUnknownCountriesResponse>, Status> {
        not_here().await
    }

    async fn erase_user(
        &self,
        _: Request<EraseUserRequest>,
    ) -> Result<Response<EraseUserResponse>, Status> {
        not_here().await
    }

    async fn recount(
        &self,
        _: Request<RecountRequest>,
    ) -> Result<Response<RecountResponse>, Status> {
        not_here().await
    }

    async fn list_changes(
        &self,
        _: Request<ListChangesRequest>,
    ) -> Result<Response<ListChangesResponse>, Status> {
        not_here().await
    }
}
