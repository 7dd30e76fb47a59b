//! Mutual TLS: who is let in, and what they may call.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use http_body_util::{BodyExt as _, Full};
use muster_proto::feed::v1::{Actor, actor};
use muster_proto::identity::v1::get_organisation_request::Key::{Id, Slug};
use muster_proto::identity::v1::organisation_service_client::OrganisationServiceClient;
use muster_proto::identity::v1::user_service_client::UserServiceClient;
use muster_proto::identity::v1::{
    CreateUserRequest, GetOrganisationRequest, GetUserRequest, ListChangesRequest,
    ListUsersRequest, User,
};
use muster_runtime::tls::{Files, Tls};
use muster_runtime::transport::Transport;
use prost_reflect::DescriptorPool;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tonic::body::Body;
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tower::{Service as _, ServiceExt as _};
use uuid::Uuid;

use crate::support::process::{MUSTER, Process};
use crate::support::system::{Tenant, apart, scratch};
use crate::support::tls::{certificates, files};

/// An authority of a test's own.
struct Authority {
    folder: PathBuf,
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let folder = scratch().join(format!("tls-{}", Uuid::new_v4()));
        std::fs::create_dir_all(&folder).unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        let this = Self { folder, pem, issuer: Issuer::new(params, key) };
        std::fs::write(this.folder.join("ca.pem"), &this.pem).unwrap();
        this
    }

    /// Signs a certificate for these names, put into files called `file`.
    fn sign(
        &self,
        file: &str,
        names: &[&str],
        change: impl FnOnce(&mut CertificateParams),
    ) -> Files {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let files = files(&self.folder, file);
        std::fs::write(&files.certificate, certificate.pem()).unwrap();
        std::fs::write(&files.key, key.serialize_pem()).unwrap();
        files
    }

    /// A running identity that trusts this authority, with a policy.
    fn identity(&self, policy: &str) -> (Process, String) {
        let Files { certificate, key, authorities } =
            self.sign("identity", &["identity", "127.0.0.1"], |_| {});
        let file = self.folder.join("policy.toml");
        std::fs::write(&file, policy).unwrap();
        let database = apart().database_url("muster_identity");
        let paths = [certificate, key, authorities, file];
        let [certificate, key, authorities, policy] = paths.map(|p| p.to_str().unwrap().to_owned());
        let args = [
            "identity",
            "--grpc-listen",
            "127.0.0.1:0",
            "--database-url",
            &database,
            "--tls-certificate",
            &certificate,
            "--tls-key",
            &key,
            "--tls-ca",
            &authorities,
            "--policy",
            &policy,
        ];
        let process = Process::start("identity", &args, &["gRPC address"]);
        let url = format!("https://{}", process.told[0]);
        (process, url)
    }
}

fn call(url: &str, files: Files) -> UserServiceClient<Transport> {
    UserServiceClient::new(Transport::connect_mutual(url, Tls::open(files).unwrap()).unwrap())
}

fn nobody(organisation_id: &str) -> GetUserRequest {
    GetUserRequest { organisation_id: organisation_id.into(), id: Uuid::new_v4().to_string() }
}

async fn asked(client: &mut UserServiceClient<Transport>, organisation: &str) -> Status {
    client.get_user(nobody(organisation)).await.unwrap_err()
}

const PAYROLL: &str = r#"
[callers.payroll]
methods = ["muster.identity.v1.UserService/GetUser", "muster.identity.v1.UserService/CreateUser"]
organisations = "any"
"#;

#[tokio::test]
async fn only_a_certificate_of_our_authority_that_names_a_granted_caller_is_let_in() {
    let ours = Authority::new();
    let (identity, url) = ours.identity(PAYROLL);
    let organisation = Uuid::new_v4().to_string();

    let mut payroll = call(&url, ours.sign("payroll", &["payroll"], |_| {}));
    assert_eq!(asked(&mut payroll, &organisation).await.code(), Code::NotFound, "let in");
    let status = payroll.list_users(ListUsersRequest::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    assert!(status.message().contains("payroll may not call"), "{status:?}");

    // Any of its names will do; a name that nobody is granted will not.
    let mut named_twice = call(&url, ours.sign("twice", &["other", "payroll"], |_| {}));
    assert_eq!(asked(&mut named_twice, &organisation).await.code(), Code::NotFound);
    let mut other = call(&url, ours.sign("other", &["other"], |_| {}));
    assert_eq!(asked(&mut other, &organisation).await.code(), Code::PermissionDenied);

    // The common name is no name.
    let common = |params: &mut CertificateParams| {
        params.distinguished_name.push(DnType::CommonName, "payroll");
    };
    let mut unnamed = call(&url, ours.sign("common", &[], common));
    assert_eq!(asked(&mut unnamed, &organisation).await.code(), Code::Unauthenticated);

    // The same name by a foreign authority; one that trusts ours, so that it shakes hands.
    let foreign = Authority::new();
    let stranger = foreign.sign("payroll", &["payroll"], |_| {});
    let stranger = Files { authorities: ours.folder.join("ca.pem"), ..stranger };
    let status = asked(&mut call(&url, stranger), &organisation).await;
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");

    let expired = ours.sign("expired", &["payroll"], |params| {
        let now = time::OffsetDateTime::now_utc();
        params.not_before = now - time::Duration::days(2);
        params.not_after = now - time::Duration::days(1);
    });
    let status = asked(&mut call(&url, expired), &organisation).await;
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");

    // Plain text, and TLS without a certificate.
    let plain = Transport::connect(&url.replace("https", "http")).unwrap();
    let status = asked(&mut UserServiceClient::new(plain), &organisation).await;
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    assert!(!without_certificate(&url, &ours.pem).await);

    // Whoever is let in sees whether the service is well, and nothing is left of the refused.
    let other = Tls::open(files(&ours.folder, "other")).unwrap();
    let mut health = HealthClient::new(Transport::connect_mutual(&url, other).unwrap());
    health.check(HealthCheckRequest::default()).await.unwrap();
    let log = identity.log();
    assert!(!log.contains("panicked") && log.contains("a caller was refused"), "{log}");
}

/// Whether a client without a certificate gets an answer.
async fn without_certificate(url: &str, authority: &str) -> bool {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio_rustls::rustls::pki_types::pem::PemObject as _;
    use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
    use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto::ring, version::TLS13};
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.as_bytes()).unwrap()).unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let address: SocketAddr = url.strip_prefix("https://").unwrap().parse().unwrap();
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let Ok(mut stream) = connector.connect(name, stream).await else { return false };
    // TLS 1.3 lets a client believe that it is in; the server's alert comes with the first answer.
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    stream.write_all(preface).await.is_ok() && stream.read_u8().await.is_ok()
}

#[tokio::test]
async fn a_caller_acts_under_its_own_name_and_only_the_gateway_says_that_an_admin_acts() {
    let system = apart();
    let tenant = system.tenant().await;
    let ours = Authority::new();
    let granted = PAYROLL
        .replace("/CreateUser\"", "/CreateUser\", \"muster.identity.v1.UserService/ListChanges\"");
    let (_identity, url) = ours.identity(&granted);
    let mut payroll = call(&url, ours.sign("payroll", &["payroll"], |_| {}));
    let request = |kind| CreateUserRequest {
        user: Some(User {
            organisation_id: tenant.id.clone(),
            user_name: Some(format!("ann-{}", Uuid::new_v4())),
            ..User::default()
        }),
        actor: Some(Actor { kind }),
    };
    for forged in [
        actor::Kind::AdminId(Uuid::new_v4().to_string()),
        actor::Kind::ApiKeyId(Uuid::new_v4().to_string()),
    ] {
        let refused = payroll.create_user(request(Some(forged))).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied, "{refused:?}");
    }
    for kind in [None, Some(actor::Kind::Caller("gateway".into()))] {
        let created = payroll.create_user(request(kind)).await.unwrap().into_inner();
        let request = ListChangesRequest {
            organisation_id: tenant.id.clone(),
            user_id: created.id,
            ..ListChangesRequest::default()
        };
        let changes = payroll.list_changes(request).await.unwrap().into_inner().changes;
        let actor = changes[0].metadata.clone().unwrap().actor.unwrap().kind.unwrap();
        assert_eq!(actor, actor::Kind::Caller("payroll".into()));
    }
}

#[tokio::test]
async fn a_caller_with_some_organisations_asks_about_those_only() {
    let system = apart();
    let (own, other) = (system.tenant().await, system.tenant().await);
    let ours = Authority::new();
    let policy = format!(
        r#"[callers.payroll]
           methods = ["muster.identity.v1.UserService/*", "muster.identity.v1.OrganisationService/*"]
           organisations = ["{}"]"#,
        own.id
    );
    let (_identity, url) = ours.identity(&policy);
    let tls = Tls::open(ours.sign("payroll", &["payroll"], |_| {})).unwrap();
    let transport = Transport::connect_mutual(&url, tls).unwrap();
    let mut users = UserServiceClient::new(transport.clone());
    let list = |id: &str| ListUsersRequest { organisation_id: id.into(), ..Default::default() };
    assert!(users.list_users(list(&own.id)).await.is_ok());
    let create = |tenant: &Tenant| CreateUserRequest {
        user: Some(User {
            organisation_id: tenant.id.clone(),
            user_name: Some("ann".into()),
            ..User::default()
        }),
        actor: None,
    };
    assert!(users.create_user(create(&own)).await.is_ok(), "named in the user");
    let mut organisations = OrganisationServiceClient::new(transport);
    let mut get = async |key| {
        let request = GetOrganisationRequest { key: Some(key) };
        organisations.get_organisation(request).await.map(drop).map_err(|status| status.code())
    };
    assert_eq!(get(Id(own.id.clone())).await, Ok(()));
    let denied = Err(Code::PermissionDenied);
    assert_eq!(get(Id(other.id.clone())).await, denied);
    assert_eq!(get(Slug("acme".into())).await, denied, "by a name that is no id");
    for id in [&*other.id, "", "no id"] {
        let refused = users.list_users(list(id)).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied, "{id:?}: {refused:?}");
    }
    assert_eq!(users.create_user(create(&other)).await.unwrap_err().code(), Code::PermissionDenied);
    let everything =
        users.watch_changes(muster_proto::identity::v1::WatchChangesRequest::default());
    assert_eq!(everything.await.unwrap_err().code(), Code::PermissionDenied);
}

/// Calls a method with an empty message; the code that comes.
async fn code(transport: &Transport, method: &str) -> Code {
    let mut transport = transport.clone();
    let body = Full::new(bytes::Bytes::from_static(&[0; 5]));
    let request = http::Request::post(format!("/{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Body::new(body.map_err(|never| match never {})))
        .unwrap();
    let response = transport.ready().await.unwrap().call(request).await.unwrap();
    let from = |headers: &http::HeaderMap| Status::from_header_map(headers).map(|s| s.code());
    match from(response.headers()) {
        Some(code) => code,
        // A stream that has begun is let in.
        None => Code::Ok,
    }
}

#[tokio::test]
async fn every_caller_may_call_exactly_what_the_policy_grants() {
    let system = apart();
    let contracts = DescriptorPool::decode(muster_proto::FILE_DESCRIPTOR_SET).unwrap();
    let policy = std::fs::read_to_string(certificates().join("policy.toml")).unwrap();
    let policy: toml::Table = policy.parse().unwrap();
    let callers = policy["callers"].as_table().unwrap();
    let (mut let_in, mut refused) = (0, 0);
    for caller in ["gateway", "identity", "group", "approver", "operator", "tests"] {
        let granted: Vec<&str> = callers
            .get(caller)
            .map(|entry| entry["methods"].as_array().unwrap().iter())
            .into_iter()
            .flatten()
            .map(|method| method.as_str().unwrap())
            .collect();
        let tls = Tls::open(files(certificates(), caller)).unwrap();
        for service in contracts.services() {
            let name = service.full_name().to_owned();
            let url = match name.split('.').nth(1).unwrap() {
                "identity" => &system.identity_url,
                "group" => &system.group_url,
                _ => &system.approver_url,
            };
            let transport = Transport::connect_mutual(url, tls.clone()).unwrap();
            for method in service.methods() {
                let method = format!("{name}/{}", method.name());
                let may = granted.contains(&&*method) || granted.contains(&&*format!("{name}/*"));
                let code = code(&transport, &method).await;
                let is_let_in = code != Code::PermissionDenied && code != Code::Unauthenticated
                    // Which needs a key or a session, that the empty message has not.
                    || may && code == Code::Unauthenticated;
                assert_eq!(is_let_in, may, "{caller} calls {method}: {code:?}");
                *(if may { &mut let_in } else { &mut refused }) += 1;
            }
        }
    }
    println!("{let_in} calls were let in, {refused} refused");
    assert!(let_in > 100 && refused > 100);
}

#[tokio::test]
async fn certificates_and_policy_are_exchanged_under_load_without_an_error() {
    let ours = Authority::new();
    let (_identity, url) = ours.identity(PAYROLL);
    let organisation = Uuid::new_v4().to_string();
    let payroll = ours.sign("payroll", &["payroll"], |_| {});
    let (stop, calls) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let load: Vec<_> = (0..4)
        .map(|_| {
            let (url, files, organisation) = (url.clone(), payroll.clone(), organisation.clone());
            let (stop, calls) = (stop.clone(), calls.clone());
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    // A connection each, so that each shakes hands.
                    let mut client = call(&url, files.clone());
                    for _ in 0..3 {
                        let status = asked(&mut client, &organisation).await;
                        assert_eq!(status.code(), Code::NotFound, "{status:?}");
                        calls.fetch_add(1, Ordering::Relaxed);
                    }
                }
            })
        })
        .collect();
    let serial = || served_serial(&url, &payroll);
    let before = serial().await;
    // Another certificate of the same authority, file after file as a person copies them: written
    // beside and renamed, so that nobody reads half a file.
    let next = ours.sign("next", &["identity", "127.0.0.1"], |_| {});
    let theirs = files(&ours.folder, "identity");
    std::fs::rename(&next.certificate, &theirs.certificate).unwrap();
    std::fs::rename(&next.key, &theirs.key).unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    while serial().await == before {
        assert!(Instant::now() < deadline, "the certificate is not exchanged");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // A policy that is none changes nothing; one that is, holds.
    let policy = ours.folder.join("policy.toml");
    std::fs::write(&policy, "callers = 1").unwrap();
    let more = format!(
        "{PAYROLL}\n[callers.other]\nmethods = [\"muster.identity.v1.UserService/GetUser\"]\norganisations = \"any\"\n"
    );
    let mut other = call(&url, ours.sign("other", &["other"], |_| {}));
    assert_eq!(asked(&mut other, &organisation).await.code(), Code::PermissionDenied);
    std::fs::write(&policy, more).unwrap();
    while asked(&mut other, &organisation).await.code() != Code::NotFound {
        assert!(Instant::now() < deadline, "the policy is not exchanged");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    stop.store(true, Ordering::Relaxed);
    for load in load {
        load.await.unwrap();
    }
    assert!(calls.load(Ordering::Relaxed) > 20, "there was no load");
}

/// The certificate that the server shows.
async fn served_serial(url: &str, files: &Files) -> Vec<u8> {
    let address: SocketAddr = url.strip_prefix("https://").unwrap().parse().unwrap();
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let tls = Tls::open(files.clone()).unwrap();
    let stream = tls.connect("127.0.0.1", stream).await.unwrap();
    stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

fn refused(args: &[&str]) -> String {
    let database = apart().database_url("muster_identity");
    let output = Command::new(MUSTER)
        .args(["identity", "--grpc-listen", "127.0.0.1:0", "--database-url", &database])
        .args(args)
        .output()
        .unwrap();
    assert!(!output.status.success(), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn a_part_without_certificate_policy_or_leave_does_not_start() {
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let Files { certificate, key, authorities } = files(certificates(), "identity");
    let policy = text(&certificates().join("policy.toml"));
    let (certificate, key, authorities) = (text(&certificate), text(&key), text(&authorities));
    let tls = ["--tls-certificate", &certificate, "--tls-key", &key, "--tls-ca", &authorities];
    let one_line = |said: &str, expected: &str| {
        assert_eq!(said.trim_end().lines().count(), 1, "{said}");
        assert!(said.contains(expected), "{said}");
    };
    one_line(&refused(&[]), "--plain-text");
    one_line(&refused(&tls), "--policy");
    let own = scratch().join("bad-policy.toml");
    std::fs::write(&own, "[callers.x]\nmethods = [\"muster.identity.v1.UserService/Nothing\"]\norganisations = \"any\"").unwrap();
    one_line(&refused(&[&tls[..], &["--policy", &text(&own)]].concat()), "is no method of Muster");
    std::fs::write(&own, "[callers.x]\nmethods = 5\n").unwrap();
    one_line(&refused(&[&tls[..], &["--policy", &text(&own)]].concat()), "line 2");
    let mixed = ["--tls-certificate", &certificate, "--tls-key", &certificate];
    let said = refused(&[&mixed[..], &["--tls-ca", &authorities, "--policy", &policy]].concat());
    one_line(&said, "private key");
    assert!(
        refused(&["--plain-text", "--tls-certificate", &certificate]).contains("cannot be used")
    );
    // Neither is anybody else called in plain text, nor made to answer.
    let output = Command::new(MUSTER)
        .args(["check", "--identity-url", "http://192.0.2.1:50051"])
        .output()
        .unwrap();
    one_line(&String::from_utf8(output.stderr).unwrap(), "another machine");
    let key_mode =
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(key).unwrap().permissions());
    assert_eq!(key_mode & 0o777, 0o600);
    let again = Command::new(MUSTER).args(["certificates", "--out"]).arg(certificates()).output();
    one_line(&String::from_utf8(again.unwrap().stderr).unwrap(), "not replaced");
}
