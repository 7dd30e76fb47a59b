//! Mutual TLS between parts, and with internal callers: TLS 1.3, a certificate at both ends, each
//! signed by an authority that the other trusts.
//!
//! The three files are read again when they have changed, so certificates are exchanged without a
//! restart: connections that are made from then on have the new ones.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, InvalidDnsNameError, PrivateKeyDer, ServerName};
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use rustls::{CertificateError, ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::{clock, metrics};

/// How often the files are looked at, at most.
const LOOK: Duration = Duration::from_secs(1);

/// Where a part's certificate is, and by whom others' are signed; all PEM.
#[derive(Debug, Clone)]
pub struct Files {
    /// The certificate, and those between it and the authority.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The authorities that are trusted.
    pub authorities: PathBuf,
}

/// Why there is no TLS with these files.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read.
    #[error("{} cannot be read: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file is not what it should be.
    #[error("{} holds no {expected} in PEM: {source}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What it should be.
        expected: &'static str,
        /// Why it is not.
        source: pem::Error,
    },
    /// The files do not fit together.
    #[error("the certificate, its key and the authorities do not fit together: {0}")]
    Unfit(#[from] rustls::Error),
    /// The authorities are none.
    #[error("the file of authorities is not usable: {0}")]
    Authorities(#[from] VerifierBuilderError),
    /// The address to call holds no name that a certificate could be for.
    #[error("{host:?} is no name that a certificate is for: {source}")]
    Name {
        /// What was to be called.
        host: String,
        /// Why it is none.
        source: InvalidDnsNameError,
    },
}

/// A part's own certificate and whom it trusts. All clones are one.
#[derive(Debug, Clone)]
pub struct Tls(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    files: Files,
    current: Mutex<Current>,
}

#[derive(Debug)]
struct Current {
    read: Read,
    looked: Instant,
    /// Until when the certificate is valid, in seconds of Unix.
    until: i64,
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

/// The files as they were read.
#[derive(Debug, PartialEq, Eq)]
struct Read {
    certificate: Vec<u8>,
    key: Vec<u8>,
    authorities: Vec<u8>,
}

impl Tls {
    /// Reads the files.
    pub fn open(files: Files) -> Result<Self, Error> {
        let read = Read::files(&files)?;
        let current = read.configured(&files)?;
        let shared = Arc::new(Shared { files, current: Mutex::new(current) });
        let told = Arc::downgrade(&shared);
        metrics::CERTIFICATE_LEFT.gauge([], move || {
            let until = Self(told.upgrade()?).with_current(|current| current.until);
            Some(metrics::number((until - clock::now().unix_timestamp()).max(0)))
        });
        Ok(Self(shared))
    }

    /// Does the server's part of the handshake: the client must have a certificate.
    pub async fn accept<S>(&self, stream: S) -> std::io::Result<server::TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let config = self.with_current(|current| current.server.clone());
        TlsAcceptor::from(config).accept(stream).await
    }

    /// Does the client's part of the handshake with `host`, whose certificate must be for it.
    pub async fn connect<S>(
        &self,
        host: &str,
        stream: S,
    ) -> Result<client::TlsStream<S>, std::io::Error>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let config = self.with_current(|current| current.client.clone());
        let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned())
            .map_err(|source| Error::Name { host: host.to_owned(), source })
            .map_err(std::io::Error::other)?;
        TlsConnector::from(config).connect(name, stream).await
    }

    /// What is in the files now. Where they cannot be used, what was in them before still is.
    fn with_current<T>(&self, take: impl FnOnce(&Current) -> T) -> T {
        let mut current = crate::lock(&self.0.current);
        if current.looked.elapsed() >= LOOK {
            current.looked = Instant::now();
            match self.changed(&current.read) {
                Ok(Some(changed)) => {
                    tracing::info!("certificates have changed, and are in use");
                    *current = changed;
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(%error, "certificates have changed to what cannot be used");
                }
            }
        }
        take(&current)
    }

    fn changed(&self, before: &Read) -> Result<Option<Current>, Error> {
        let files = &self.0.files;
        let read = Read::files(files)?;
        if read == *before { Ok(None) } else { read.configured(files).map(Some) }
    }
}

impl Read {
    fn files(files: &Files) -> Result<Self, Error> {
        let read = |path: &Path| {
            std::fs::read(path)
                .map_err(|source| Error::Unreadable { path: path.to_owned(), source })
        };
        Ok(Self {
            certificate: read(&files.certificate)?,
            key: read(&files.key)?,
            authorities: read(&files.authorities)?,
        })
    }

    fn configured(self, files: &Files) -> Result<Current, Error> {
        let provider = Arc::new(ring::default_provider());
        let chain = certificates(&files.certificate, &self.certificate)?;
        let (_, own) = X509Certificate::from_der(&chain[0])
            .map_err(|_| rustls::Error::InvalidCertificate(CertificateError::BadEncoding))?;
        let until = own.validity().not_after.timestamp();
        let key = PrivateKeyDer::from_pem_slice(&self.key).map_err(|source| Error::Malformed {
            path: files.key.clone(),
            expected: "private key",
            source,
        })?;
        let mut roots = RootCertStore::empty();
        for authority in certificates(&files.authorities, &self.authorities)? {
            roots.add(authority)?;
        }
        let roots = Arc::new(roots);
        let verifier =
            WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone()).build()?;
        let mut server = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain.clone(), key.clone_key())?;
        server.alpn_protocols = vec![b"h2".to_vec()];
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)?;
        client.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Current {
            read: self,
            looked: Instant::now(),
            until,
            server: Arc::new(server),
            client: Arc::new(client),
        })
    }
}

fn certificates(path: &Path, text: &[u8]) -> Result<Vec<CertificateDer<'static>>, Error> {
    let malformed =
        |source| Error::Malformed { path: path.to_owned(), expected: "certificate", source };
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
    let found = found.map_err(malformed)?;
    if found.is_empty() { Err(malformed(pem::Error::NoItemsFound)) } else { Ok(found) }
}

/// The DNS names that a client's certificate is for. The common name is none of them.
#[must_use]
pub fn names(certificate: &CertificateDer<'_>) -> Vec<String> {
    let Ok(certificate) = webpki::EndEntityCert::try_from(certificate) else { return Vec::new() };
    certificate.valid_dns_names().map(str::to_owned).collect()
}
