//! Who calls, and what they may: by the names of their certificates and a policy.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::{BufMut as _, Bytes, BytesMut};
use futures::future::BoxFuture;
use http_body_util::{BodyExt as _, Full, Limited};
use prost_reflect::prost::Message as _;
use prost_reflect::{
    DescriptorPool, DynamicMessage, FieldDescriptor, MessageDescriptor, MethodDescriptor,
    ReflectMessage as _, Value,
};
use serde::Deserialize;
use tonic::Status;
use tonic::body::Body;
use tower::Service;

use crate::grpc::{max_message_bytes, service_and_method};
use crate::id::OrganisationId;

/// How often the policy's file is looked at, at most.
const LOOK: Duration = Duration::from_secs(1);

/// What every authenticated caller may call: whether a service is well, and what there is to call.
const OPEN: [&str; 2] = ["grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection"];

/// Why a policy is none.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its file cannot be read.
    #[error("{} cannot be read: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Its file is not as it should be.
    #[error("{} is no policy: {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Why it is not.
        reason: String,
    },
    /// It grants what there is not.
    #[error("{}: {caller:?} is granted {method:?}, which is no method of Muster; expected such as muster.identity.v1.UserService/GetUser, or …/* for a whole service", path.display())]
    NoMethod {
        /// The file.
        path: PathBuf,
        /// To whom.
        caller: String,
        /// What.
        method: String,
    },
    /// It names an organisation by something else than its id.
    #[error("{}: {caller:?} is granted the organisation {organisation:?}; expected ids (UUIDs), or organisations = \"any\"", path.display())]
    NoOrganisation {
        /// The file.
        path: PathBuf,
        /// To whom.
        caller: String,
        /// What.
        organisation: String,
    },
}

/// The policy's file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(default)]
    callers: BTreeMap<String, Entry>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    methods: Vec<String>,
    organisations: Organisations,
    #[serde(default)]
    names_actors: bool,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Organisations {
    Word(String),
    List(Vec<String>),
}

/// What one caller may.
#[derive(Debug, Clone)]
struct Grant {
    caller: String,
    /// As `service/method`.
    methods: BTreeSet<String>,
    /// None for any.
    organisations: Option<BTreeSet<OrganisationId>>,
    /// Whether it may say that an admin or an API key acts, as only the gateway knows.
    names_actors: bool,
}

type Grants = HashMap<String, Arc<Grant>>;

/// Who may call what. All clones are one; its file is read again when it has changed.
#[derive(Debug, Clone)]
pub struct Policy(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    contracts: DescriptorPool,
    current: Mutex<Current>,
}

#[derive(Debug)]
struct Current {
    text: String,
    looked: Instant,
    grants: Arc<Grants>,
}

impl Policy {
    /// Reads a policy about the methods of `descriptors`.
    #[expect(clippy::missing_panics_doc, reason = "the descriptors are made with the contracts")]
    pub fn open(path: PathBuf, descriptors: &'static [u8]) -> Result<Self, Error> {
        let contracts = DescriptorPool::decode(descriptors).expect("the contracts are whole");
        let text = read(&path)?;
        let grants = Arc::new(grants(&path, &text, &contracts)?);
        let current = Mutex::new(Current { text, looked: Instant::now(), grants });
        Ok(Self(Arc::new(Shared { path, contracts, current })))
    }

    /// What is granted now. Where the file cannot be used, what it granted before still is.
    fn grants(&self) -> Arc<Grants> {
        let Shared { path, contracts, current } = &*self.0;
        let mut current = crate::lock(current);
        if current.looked.elapsed() >= LOOK {
            current.looked = Instant::now();
            let changed = read(path).and_then(|text| {
                let changed = text != current.text;
                let grants = changed.then(|| grants(path, &text, contracts)).transpose()?;
                Ok(grants.map(|grants| (text, grants)))
            });
            match changed {
                Ok(Some((text, grants))) => {
                    tracing::info!("the policy has changed, and holds");
                    (current.text, current.grants) = (text, Arc::new(grants));
                }
                Ok(None) => {}
                Err(error) => tracing::warn!(%error, "the policy has changed to what is none"),
            }
        }
        current.grants.clone()
    }

    /// The grant by which somebody of these names may call a method.
    fn grant(&self, names: &[String], path: &str) -> Result<Option<Arc<Grant>>, Status> {
        if names.is_empty() {
            return Err(Status::unauthenticated(
                "the client certificate names nobody: it needs a DNS name as subject alternative \
                 name",
            ));
        }
        let method = path.trim_start_matches('/');
        if OPEN.contains(&service_and_method(path).0) {
            return Ok(None);
        }
        let grants = self.grants();
        let granted = names.iter().filter_map(|name| grants.get(name));
        let granted = granted.into_iter().find(|grant| grant.methods.contains(method));
        granted.cloned().map(Some).ok_or_else(|| {
            Status::permission_denied(format!("{} may not call {method}", names.join(", ")))
        })
    }

    fn method(&self, path: &str) -> Option<MethodDescriptor> {
        let (service, method) = service_and_method(path);
        let service = self.0.contracts.get_service_by_name(service)?;
        service.methods().find(|found| found.name() == method)
    }
}

fn read(path: &Path) -> Result<String, Error> {
    std::fs::read_to_string(path)
        .map_err(|source| Error::Unreadable { path: path.to_owned(), source })
}

fn grants(path: &Path, text: &str, contracts: &DescriptorPool) -> Result<Grants, Error> {
    let document: Document = toml::from_str(text).map_err(|error| {
        let line = error.span().map_or(1, |span| text[..span.start].lines().count().max(1));
        let reason = format!("{}, at line {line}", error.message());
        Error::Malformed { path: path.to_owned(), reason }
    })?;
    let grant = |(caller, entry): (String, Entry)| {
        let mut methods = BTreeSet::new();
        for granted in entry.methods {
            let found = found(contracts, &granted);
            if found.is_empty() {
                let (path, method) = (path.to_owned(), granted);
                return Err(Error::NoMethod { path, caller, method });
            }
            methods.extend(found);
        }
        let organisations = match entry.organisations {
            Organisations::Word(word) if word == "any" => None,
            Organisations::Word(word) => Some(vec![word]),
            Organisations::List(list) => Some(list),
        };
        let parse = |list: Vec<String>| {
            let ids = list.into_iter().map(|organisation| {
                organisation.parse().map_err(|_| Error::NoOrganisation {
                    path: path.to_owned(),
                    caller: caller.clone(),
                    organisation,
                })
            });
            ids.collect::<Result<BTreeSet<_>, _>>()
        };
        let organisations = organisations.map(parse).transpose()?;
        let names_actors = entry.names_actors;
        Ok((caller.clone(), Arc::new(Grant { caller, methods, organisations, names_actors })))
    };
    document.callers.into_iter().map(grant).collect()
}

/// The methods, as `service/method`, that a grant such as `service/*` means.
fn found(contracts: &DescriptorPool, granted: &str) -> Vec<String> {
    let (service, method) = service_and_method(granted);
    let Some(service) = contracts.get_service_by_name(service) else { return Vec::new() };
    let meant = service.methods().filter(|found| method == "*" || found.name() == method);
    meant.map(|found| format!("{}/{}", service.full_name(), found.name())).collect()
}

/// The names of a connection's client: goes with every request that came over mutual TLS.
#[derive(Debug, Clone)]
pub struct Names(pub Arc<[String]>);

/// A service that is called by whom a policy lets.
#[derive(Debug, Clone)]
pub struct Guarded<S> {
    service: S,
    policy: Policy,
}

impl<S> Guarded<S> {
    /// Guards `service`.
    pub fn new(service: S, policy: Policy) -> Self {
        Self { service, policy }
    }
}

impl<S> Service<http::Request<Body>> for Guarded<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let names = request.extensions().get::<Names>();
        let names = names.map_or_else(|| Vec::new().into(), |Names(names)| names.clone());
        let grant = match self.policy.grant(&names, request.uri().path()) {
            Ok(grant) => grant,
            Err(status) => return Box::pin(async move { Ok(status.into_http()) }),
        };
        let method = self.policy.method(request.uri().path());
        let looked_at = grant.zip(method).filter(|(grant, method)| grant.looks_at(method));
        let Some((grant, method)) = looked_at else {
            return Box::pin(self.service.call(request));
        };
        // The service that was polled ready is the one to call.
        let ready = self.service.clone();
        let mut service = std::mem::replace(&mut self.service, ready);
        Box::pin(async move {
            match grant.admitted(&method, request).await {
                Ok(request) => service.call(request).await,
                Err(status) => Ok(status.into_http()),
            }
        })
    }
}

impl Grant {
    /// Whether a call depends on what its message says.
    fn looks_at(&self, method: &MethodDescriptor) -> bool {
        self.organisations.is_some() || !self.names_actors && actor(&method.input()).is_some()
    }

    /// The call, if what it says is granted; the caller acts under its own name.
    async fn admitted(
        &self,
        method: &MethodDescriptor,
        request: http::Request<Body>,
    ) -> Result<http::Request<Body>, Status> {
        let (head, body) = request.into_parts();
        let body = Limited::new(body, max_message_bytes()).collect().await;
        let body = body.map_err(|_| Status::resource_exhausted("the message is too large"))?;
        let body = body.to_bytes();
        let mut message = opened(method.input(), &body)?;
        if let Some(allowed) = &self.organisations {
            self.admit_organisations(allowed, &message)?;
        }
        if let Some(field) = actor(&method.input()).filter(|_| !self.names_actors) {
            self.sign(&mut message, &field)?;
        }
        Ok(http::Request::from_parts(head, Body::new(Full::new(closed(&message)))))
    }

    fn admit_organisations(
        &self,
        allowed: &BTreeSet<OrganisationId>,
        message: &DynamicMessage,
    ) -> Result<(), Status> {
        let mut named = Vec::new();
        organisations(message, &mut named);
        let refused = named
            .iter()
            .find(|id| !id.parse().is_ok_and(|id: OrganisationId| allowed.contains(&id)));
        match (named.first(), refused) {
            (None, _) => Err(Status::permission_denied(format!(
                "{} may ask about some organisations only, and the call names none",
                self.caller
            ))),
            (_, Some(_)) => Err(Status::permission_denied(format!(
                "{} may not ask about that organisation",
                self.caller
            ))),
            (Some(_), None) => Ok(()),
        }
    }

    /// Whoever is authenticated is who acts.
    fn sign(&self, message: &mut DynamicMessage, field: &FieldDescriptor) -> Result<(), Status> {
        let given = message.has_field(field).then(|| message.get_field(field).into_owned());
        let given = given.as_ref().and_then(Value::as_message);
        let forged = ["api_key_id", "admin_id"];
        if given.is_some_and(|actor| forged.iter().any(|name| actor.has_field_by_name(name))) {
            return Err(Status::permission_denied(format!(
                "{} may not act as an admin or an API key",
                self.caller
            )));
        }
        let Some(actor) = field.kind().as_message().cloned() else { return Ok(()) };
        let mut signed = DynamicMessage::new(actor);
        signed.set_field_by_name("caller", Value::String(self.caller.clone()));
        message.set_field(field, Value::Message(signed));
        Ok(())
    }
}

/// The field of a request that says who acts.
fn actor(request: &MessageDescriptor) -> Option<FieldDescriptor> {
    let field = request.get_field_by_name("actor")?;
    let kind = field.kind();
    (kind.as_message()?.full_name() == "muster.feed.v1.Actor").then_some(field)
}

/// Every organisation that a message names, at whatever depth.
fn organisations(message: &DynamicMessage, named: &mut Vec<String>) {
    let named_by_id =
        ["muster.identity.v1.Organisation", "muster.identity.v1.GetOrganisationRequest"];
    let is_organisation = named_by_id.contains(&message.descriptor().full_name());
    for (field, value) in message.fields() {
        match value {
            Value::String(id)
                if field.name() == "organisation_id" || is_organisation && field.name() == "id" =>
            {
                named.push(id.clone());
            }
            Value::Message(inner) => organisations(inner, named),
            Value::List(list) => {
                list.iter().filter_map(Value::as_message).for_each(|m| organisations(m, named));
            }
            _ => {}
        }
    }
}

/// The one message of a call that does not stream (gRPC over HTTP/2, *Length-Prefixed-Message*).
fn opened(descriptor: MessageDescriptor, body: &Bytes) -> Result<DynamicMessage, Status> {
    let broken = || Status::invalid_argument("the call is not one uncompressed message");
    let (prefix, message) = body.split_at_checked(5).ok_or_else(broken)?;
    let length = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]);
    if prefix[0] != 0 || usize::try_from(length) != Ok(message.len()) {
        return Err(broken());
    }
    DynamicMessage::decode(descriptor, message)
        .map_err(|_| Status::invalid_argument("the message cannot be decoded"))
}

fn closed(message: &DynamicMessage) -> Bytes {
    let length = message.encoded_len();
    let mut body = BytesMut::with_capacity(5 + length);
    body.put_u8(0);
    body.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    body.extend_from_slice(&message.encode_to_vec());
    body.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(text: &str) -> Result<Grants, Error> {
        let contracts = DescriptorPool::decode(muster_proto::FILE_DESCRIPTOR_SET).unwrap();
        grants(Path::new("policy.toml"), text, &contracts)
    }

    #[test]
    fn a_whole_service_is_each_of_its_methods() {
        let grants = policy(
            r#"[callers.payroll]
               methods = ["muster.group.v1.GroupService/*", "muster.identity.v1.UserService/GetUser"]
               organisations = "any""#,
        )
        .unwrap();
        let methods = &grants["payroll"].methods;
        assert!(methods.contains("muster.group.v1.GroupService/ListMembers"));
        assert!(methods.contains("muster.identity.v1.UserService/GetUser"));
        assert!(!methods.contains("muster.identity.v1.UserService/DeleteUser"));
    }

    #[test]
    fn what_there_is_not_is_not_granted() {
        for (entry, says) in [
            (
                "methods = [\"muster.identity.v1.UserService/Get\"]\norganisations = \"any\"",
                "no method",
            ),
            ("methods = [\"muster.identity.v1.Users/*\"]\norganisations = \"any\"", "no method"),
            ("methods = []\norganisations = [\"acme\"]", "expected ids"),
            ("methods = []\norganisations = \"all\"", "expected ids"),
            ("methods = []", "organisations"),
            ("methods = []\norganisations = \"any\"\nadmin = true", "admin"),
        ] {
            let error = policy(&format!("[callers.payroll]\n{entry}")).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}
