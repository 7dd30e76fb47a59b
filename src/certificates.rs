//! `muster certificates`: an authority and certificates to try mutual TLS with.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use time::{Duration, OffsetDateTime};

/// Make certificates for a development machine: an authority, one for each part, one for an
/// operator, and a policy
///
/// A part's certificate is for its name, localhost and the loopback addresses, for a year.
/// The authority's key is thrown away: for more, make a new set. In production let cert-manager, or
/// whatever your organisation has, make them (docs/certificates.md).
#[derive(Debug, Args)]
#[command(after_help = "Example:
  muster certificates --out certificates --name payroll
  muster identity --tls-certificate certificates/identity.pem \\
      --tls-key certificates/identity.key --tls-ca certificates/ca.pem \\
      --policy certificates/policy.toml --database-url …")]
pub struct CertificatesArgs {
    /// The folder to write to; a file that is there is not replaced
    #[arg(long, value_name = "FOLDER")]
    out: PathBuf,
    /// Another caller; can be given several times
    #[arg(long, value_name = "NAME")]
    name: Vec<String>,
}

/// The parts, which serve or call, and who operates them.
const NAMES: [&str; 5] = ["gateway", "identity", "group", "approver", "operator"];

/// The policy that the parts need among each other.
const POLICY: &str = include_str!("policy.toml");

/// Runs `muster certificates`.
pub fn run(args: CertificatesArgs) -> anyhow::Result<()> {
    let CertificatesArgs { out, name } = args;
    fs::create_dir_all(&out).with_context(|| format!("cannot make {}", out.display()))?;
    let authority = authority()?;
    write(&out.join("ca.pem"), &authority.0, 0o644)?;
    for name in NAMES.iter().copied().chain(name.iter().map(String::as_str)) {
        let (certificate, key) = certificate(name, &authority.1)?;
        write(&out.join(format!("{name}.pem")), &certificate, 0o644)?;
        write(&out.join(format!("{name}.key")), &key, 0o600)?;
    }
    write(&out.join("policy.toml"), POLICY, 0o644)?;
    println!("Wrote certificates and policy.toml to {}.", out.display());
    Ok(())
}

/// An authority's certificate, and what signs with it.
fn authority() -> anyhow::Result<(String, Issuer<'static, KeyPair>)> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "Muster development authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    good_for_a_year(&mut params);
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?.pem();
    Ok((certificate, Issuer::new(params, key)))
}

/// A certificate and its key, for a name.
fn certificate(name: &str, authority: &Issuer<'_, KeyPair>) -> anyhow::Result<(String, String)> {
    let names = [name, "localhost", "127.0.0.1", "::1"].map(str::to_owned);
    let mut params = CertificateParams::new(names)
        .with_context(|| format!("{name:?} is no name for a certificate; expected a DNS name"))?;
    params.distinguished_name.push(DnType::CommonName, name);
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    good_for_a_year(&mut params);
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, authority)?;
    Ok((certificate.pem(), key.serialize_pem()))
}

fn good_for_a_year(params: &mut CertificateParams) {
    let now = OffsetDateTime::now_utc();
    // Clocks differ.
    params.not_before = now - Duration::hours(1);
    params.not_after = now + Duration::days(365);
}

/// Writes a file that is not there.
fn write(path: &Path, text: &str, mode: u32) -> anyhow::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .with_context(|| format!("cannot write {}, which is not replaced", path.display()))?;
    file.write_all(text.as_bytes()).with_context(|| format!("cannot write {}", path.display()))
}
