//! Whether a request of a known client may go on now: where it comes from, how many there were this
//! second, and how many of its organisation are under way.

use std::collections::HashMap;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use governor::clock::DefaultClock;
use governor::state::keyed::HashMapStateStore;
use governor::{Quota, RateLimiter};
use http::StatusCode;
use ipnet::IpNet;
use muster_proto::identity::v1::{ApiKey, Organisation};
use muster_runtime::metrics::{self, Counted};
use muster_runtime::{clock, lock};
use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, UpDownCounter};
use ring::digest::{SHA256, digest};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

use crate::Limits;
use crate::failure::Failure;

/// How many keys are remembered, and how many organisations, before those that are idle are
/// forgotten.
const REMEMBERED: usize = 10_000;

/// For how long an organisation counts as one that has requests.
const LATELY: Duration = Duration::from_secs(1);

/// How many lists of an organisation are made at once. More of them take as long one after another as
/// all at once, when each takes as long as all.
const LISTS: usize = 6;

type Rates = RateLimiter<String, HashMapStateStore<String>, DefaultClock>;

/// What is known of clients. One a gateway.
#[derive(Debug)]
pub(crate) struct Admission {
    limits: Limits,
    keys: Mutex<HashMap<[u8; 32], Known>>,
    organisation_rate: Option<Rates>,
    key_rate: Option<Rates>,
    under_way: Mutex<HashMap<String, Arc<Places>>>,
    lately: Mutex<Lately>,
    lookups: Counter<u64>,
    waiting: UpDownCounter<i64>,
    refused: Counter<u64>,
}

/// A key that identity has let pass a moment ago.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    pub api_key_id: String,
    pub organisation: Organisation,
    networks: Vec<IpNet>,
    until: Instant,
}

/// An organisation's places for requests that are under way.
#[derive(Debug)]
struct Places {
    all: Arc<Semaphore>,
    /// For those who list, among them.
    lists: Semaphore,
}

/// A request's place among those of its organisation that are under way; it ends with the request.
#[derive(Debug)]
pub(crate) struct Place {
    of: Arc<Places>,
    _held: OwnedSemaphorePermit,
}

impl Place {
    /// Waits for the turn to make a list, which lasts until it is dropped.
    pub(crate) async fn turn_to_list(&self) -> Option<SemaphorePermit<'_>> {
        // Nobody closes it.
        self.of.lists.acquire().await.ok()
    }
}

impl Admission {
    pub(crate) fn new(limits: Limits) -> Self {
        let rates = |each_second: u32| {
            NonZeroU32::new(each_second).map(|rate| RateLimiter::hashmap(Quota::per_second(rate)))
        };
        Self {
            limits,
            keys: Mutex::default(),
            organisation_rate: rates(limits.organisation_rate),
            key_rate: rates(limits.key_rate),
            under_way: Mutex::default(),
            lately: Mutex::default(),
            lookups: metrics::KEY_LOOKUPS.counter(),
            waiting: metrics::PLACES_WAITING.up_down_counter(),
            refused: metrics::RATE_REFUSED.counter(),
        }
    }

    /// A secret that was let pass less than `key_time` ago: a revocation holds that much later.
    pub(crate) fn known(&self, secret: &str) -> Option<Known> {
        let hash = hashed(secret);
        let known = lock(&self.keys).get(&hash).filter(|k| k.until > Instant::now()).cloned();
        let result = if known.is_some() { "hit" } else { "miss" };
        self.lookups.add(1, &[KeyValue::new("muster.result", result)]);
        known
    }

    /// Notes whom identity has let pass.
    pub(crate) fn learn(&self, secret: &str, key: &ApiKey, organisation: Organisation) -> Known {
        let now = Instant::now();
        let left = key.expire_time.map(|at| {
            let left = at.seconds - clock::now().unix_timestamp();
            Duration::from_secs(u64::try_from(left).unwrap_or_default())
        });
        let known = Known {
            api_key_id: key.id.clone(),
            organisation,
            // Identity keeps no other.
            networks: key.source_networks.iter().filter_map(|text| text.parse().ok()).collect(),
            until: now + left.unwrap_or(Duration::MAX).min(self.limits.key_time),
        };
        let mut keys = lock(&self.keys);
        if keys.len() >= REMEMBERED {
            keys.retain(|_, known| known.until > now);
        }
        if keys.len() < REMEMBERED {
            keys.insert(hashed(secret), known.clone());
        }
        known
    }

    /// Waits for the request's turn, or refuses it.
    pub(crate) async fn admit(
        &self,
        known: &Known,
        address: Option<IpAddr>,
    ) -> Result<Arc<Place>, Failure> {
        let inside = |address: IpAddr| known.networks.iter().any(|net| net.contains(&address));
        if !known.networks.is_empty() && !address.is_some_and(inside) {
            return Err(Failure::new(
                StatusCode::FORBIDDEN,
                "the API key may not be used from this address: an operator limits it to networks; \
                 call from one of them, or ask for a key without that limit",
            ));
        }
        let (key, rate) = (&known.api_key_id, self.limits.key_rate);
        self.within(self.key_rate.as_ref(), key, "API key", rate)?;
        let (id, rate) = (&known.organisation.id, self.limits.organisation_rate);
        self.within(self.organisation_rate.as_ref(), id, "organisation", rate)?;
        let share = self.share(id);
        let places = {
            let mut under_way = lock(&self.under_way);
            if under_way.len() >= REMEMBERED {
                under_way.retain(|_, places| Arc::strong_count(places) > 1);
            }
            let new = || {
                let all = Arc::new(Semaphore::new(self.limits.organisation_in_flight));
                Arc::new(Places { all, lists: Semaphore::new(LISTS) })
            };
            under_way.entry(id.clone()).or_insert_with(new).clone()
        };
        let all = places.all.clone();
        let held = if let Ok(held) = all.clone().try_acquire_many_owned(share) {
            Ok(held)
        } else {
            let _waits = Counted::begin(&self.waiting);
            all.acquire_many_owned(share).await
        };
        let closed = |_| Failure::new(StatusCode::SERVICE_UNAVAILABLE, "the gateway is stopping");
        held.map(|held| Arc::new(Place { of: places, _held: held })).map_err(closed)
    }

    /// How many of its organisation's places a request takes: one, or so many while others have
    /// requests, too, that no more than `organisation_in_flight_beside` are under way.
    fn share(&self, organisation: &str) -> u32 {
        let alone = lock(&self.lately).is_alone(organisation, Instant::now());
        let (places, beside) =
            (self.limits.organisation_in_flight, self.limits.organisation_in_flight_beside);
        let share = if alone { 1 } else { places / beside.clamp(1, places) };
        u32::try_from(share).unwrap_or(1)
    }

    /// Whether there were fewer requests this second than there may be.
    fn within(
        &self,
        rates: Option<&Rates>,
        key: &String,
        of: &'static str,
        rate: u32,
    ) -> Result<(), Failure> {
        let Some(rates) = rates else { return Ok(()) };
        if rates.len() > REMEMBERED {
            rates.retain_recent();
        }
        rates.check_key(key).map_err(|_| {
            self.refused.add(1, &[KeyValue::new("muster.limit", of)]);
            Failure::new(
                StatusCode::TOO_MANY_REQUESTS,
                format!(
                    "there are more than {rate} requests a second with this {of}; try again later"
                ),
            )
        })
    }
}

/// Whose requests came last.
#[derive(Debug, Default)]
struct Lately {
    last: Option<(String, Instant)>,
    /// The last of any other organisation.
    other: Option<(String, Instant)>,
}

impl Lately {
    /// Notes a request, and tells whether no other organisation had one for a while.
    fn is_alone(&mut self, organisation: &str, now: Instant) -> bool {
        match &mut self.last {
            Some((last, at)) if last == organisation => *at = now,
            _ => self.other = self.last.replace((organisation.to_owned(), now)),
        }
        self.other.as_ref().is_none_or(|(_, at)| now.duration_since(*at) > LATELY)
    }
}

fn hashed(secret: &str) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, secret.as_bytes()).as_ref());
    hash
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    fn admission(limits: Limits) -> (Admission, Known) {
        let admission = Admission::new(limits);
        let key = ApiKey {
            id: "k".into(),
            source_networks: vec!["203.0.113.0/24".into(), "2001:db8::/32".into()],
            ..ApiKey::default()
        };
        let organisation = Organisation { id: "o".into(), ..Organisation::default() };
        let known = admission.learn("secret", &key, organisation);
        (admission, known)
    }

    async fn status(admission: &Admission, known: &Known, address: &str) -> u16 {
        let admitted = admission.admit(known, address.parse().ok()).await;
        admitted.map_or_else(|Failure(error)| error.status, |_| 200)
    }

    #[tokio::test]
    async fn a_key_is_good_in_its_networks_only() {
        let (admission, known) = admission(Limits::default());
        for (address, expected) in
            [("203.0.113.9", 200), ("2001:db8::1", 200), ("203.0.114.1", 403), ("", 403)]
        {
            assert_eq!(status(&admission, &known, address).await, expected, "{address}");
        }
        let anywhere = Known { networks: Vec::new(), ..known };
        assert_eq!(status(&admission, &anywhere, "").await, 200);
    }

    #[tokio::test]
    async fn the_first_request_over_the_rate_is_refused() {
        let (admission, known) = admission(Limits { key_rate: 3, ..Limits::default() });
        for expected in [200, 200, 200, 429] {
            assert_eq!(status(&admission, &known, "203.0.113.9").await, expected);
        }
        // Another key of the organisation has a rate of its own.
        let other = Known { api_key_id: "other".into(), ..known };
        assert_eq!(status(&admission, &other, "203.0.113.9").await, 200);
    }

    #[tokio::test]
    async fn the_first_request_over_those_under_way_waits_and_another_organisations_does_not() {
        let (admission, known) =
            admission(Limits { organisation_in_flight: 1, ..Limits::default() });
        let address = "203.0.113.9".parse().ok();
        let first = admission.admit(&known, address).await;
        let mut second = std::pin::pin!(admission.admit(&known, address));
        assert!(futures::poll!(second.as_mut()).is_pending());
        let organisation = Organisation { id: "p".into(), ..Organisation::default() };
        assert!(admission.admit(&Known { organisation, ..known.clone() }, address).await.is_ok());
        drop(first);
        assert!(second.await.is_ok());
    }

    #[tokio::test]
    async fn an_organisation_has_all_its_places_alone_and_few_beside_others() {
        let (admission, known) = admission(Limits {
            organisation_in_flight: 16,
            organisation_in_flight_beside: 2,
            ..Limits::default()
        });
        let address = "203.0.113.9".parse().ok();
        let fits = async |known: &Known| {
            let mut places = Vec::new();
            while let Some(place) = admission.admit(known, address).now_or_never() {
                places.push(place.map_err(|Failure(error)| error.status).unwrap());
            }
            places.len()
        };
        assert_eq!(fits(&known).await, 16);
        let organisation = Organisation { id: "p".into(), ..Organisation::default() };
        let other = Known { organisation, ..known.clone() };
        assert_eq!(fits(&other).await, 2);
        assert_eq!(fits(&known).await, 2);
    }

    #[tokio::test]
    async fn the_first_list_over_those_at_once_waits_and_another_organisations_does_not() {
        let (admission, known) = admission(Limits::default());
        let place = async |known: &Known| {
            let address = "203.0.113.9".parse().ok();
            admission.admit(known, address).await.map_err(|Failure(error)| error.status).unwrap()
        };
        let place_here = place(&known).await;
        let mut turns: Vec<_> =
            (0..LISTS).map(|_| place_here.turn_to_list().now_or_never()).collect();
        assert!(turns.iter().all(Option::is_some));
        assert!(place_here.turn_to_list().now_or_never().is_none());
        // Another request of the organisation waits as well.
        assert!(place(&known).await.turn_to_list().now_or_never().is_none());
        let organisation = Organisation { id: "p".into(), ..Organisation::default() };
        let other = Known { organisation, ..known.clone() };
        assert!(place(&other).await.turn_to_list().now_or_never().is_some());
        turns.pop();
        assert!(place_here.turn_to_list().now_or_never().is_some());
    }

    #[test]
    fn an_organisation_is_alone_when_the_others_have_been_quiet_for_a_second() {
        let (mut lately, now) = (Lately::default(), Instant::now());
        let after = |milliseconds| now + Duration::from_millis(milliseconds);
        assert!(lately.is_alone("o", now) && lately.is_alone("o", after(1)));
        assert!(!lately.is_alone("p", after(2)) && !lately.is_alone("o", after(3)));
        assert!(!lately.is_alone("o", after(1_002)));
        assert!(lately.is_alone("o", after(1_003)));
        assert!(!lately.is_alone("p", after(1_004)));
    }

    #[test]
    fn a_key_is_known_for_a_moment_and_never_after_it_expires() {
        let (admission, _) = admission(Limits::default());
        assert!(admission.known("secret").is_some() && admission.known("other").is_none());
        let expired = prost_types::Timestamp { seconds: 1, nanos: 0 };
        let key = ApiKey { expire_time: Some(expired), ..ApiKey::default() };
        admission.learn("expired", &key, Organisation::default());
        assert!(admission.known("expired").is_none());
        let limits = Limits { key_time: Duration::ZERO, ..Limits::default() };
        let forgetful = Admission::new(limits);
        forgetful.learn("secret", &ApiKey::default(), Organisation::default());
        assert!(forgetful.known("secret").is_none());
    }
}
