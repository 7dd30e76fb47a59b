//! The demonstration: an organisation with people, made on an empty data folder by playing the
//! guide into our own SCIM endpoint, as Okta would.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressStyle};
use muster_proto::feed::v1::{Actor, actor};
use muster_proto::identity::v1::admin_service_client::AdminServiceClient;
use muster_proto::identity::v1::api_key_service_client::ApiKeyServiceClient;
use muster_proto::identity::v1::get_organisation_request::Key;
use muster_proto::identity::v1::organisation_service_client::OrganisationServiceClient;
use muster_proto::identity::v1::session_service_client::SessionServiceClient;
use muster_proto::identity::v1::{
    AcceptInvitationRequest, Admin, ApiKey, CreateAdminRequest, CreateApiKeyRequest,
    CreateOrganisationRequest, GetOrganisationRequest, Organisation, ResetAdminRequest,
    reset_admin_request,
};
use muster_runtime::transport::Transport;
use tonic::Code;

use crate::everything::Everything;
use crate::rehearsal::{self, Dialect};
use crate::scim_client::ScimClient;

/// The slug of the demonstration organisation.
const SLUG: &str = "northwind";

/// The e-mail address of its admin.
pub const ADMIN: &str = "admin@northwind.example";

/// What a person needs to try the demonstration.
#[derive(Debug)]
pub struct Demonstration {
    /// The API key.
    pub key: String,
    /// The password that `ADMIN` signs in to the console with.
    pub password: String,
    /// What playing the guide found, where it was played now: passed, failed and the failures.
    pub played: Option<(usize, usize, Vec<String>)>,
}

/// Makes the demonstration where there is none yet. Its key and password are kept beside the data,
/// readable by this user only, so that they can be shown again.
pub async fn ensure(everything: &Everything, data_dir: &Path) -> anyhow::Result<Demonstration> {
    let (key_file, done_file) = (file(data_dir, "key"), file(data_dir, "played"));
    let password_file = file(data_dir, "password");
    let key = if let Ok(key) = fs::read_to_string(&key_file) {
        key.trim().to_owned()
    } else {
        let key = create(everything.identity.clone()).await?;
        write_private(&key_file, &key)?;
        key
    };
    let password = if let Ok(password) = fs::read_to_string(&password_file) {
        password.trim().to_owned()
    } else {
        let password = set_password(everything.identity.clone()).await?;
        write_private(&password_file, &password)?;
        password
    };
    if done_file.exists() {
        return Ok(Demonstration { key, password, played: None });
    }
    // A run that was killed half-way is played again: the guide can be.
    let scim_url = format!("http://{}/scim/v2", everything.http_address);
    let client = ScimClient::new(scim_url, format!("Static {key}"))?;
    let bar = ProgressBar::new(0).with_style(
        ProgressStyle::with_template("Playing the guide {bar:30} {pos}/{len} {msg}")
            .context("the progress bar")?,
    );
    let report = rehearsal::play(&client, Dialect::Put, |progress| {
        bar.set_length(progress.total as u64);
        bar.set_position(progress.done as u64);
        bar.set_message(progress.what.to_owned());
    })
    .await;
    bar.finish_and_clear();
    let failed = report.steps.iter().filter(|step| !step.passed());
    let failures =
        failed.map(|step| format!("{}: {}", step.name, step.failures.join("; "))).collect();
    if report.failed() == 0 {
        write_private(&done_file, "")?;
    }
    Ok(Demonstration { key, password, played: Some((report.passed(), report.failed(), failures)) })
}

/// Makes the organisation, where it is not there, and a key.
async fn create(identity: Transport) -> anyhow::Result<String> {
    let mut organisations = OrganisationServiceClient::new(identity.clone());
    let by_slug = GetOrganisationRequest { key: Some(Key::Slug(SLUG.into())) };
    let organisation = match organisations.get_organisation(by_slug).await {
        Ok(found) => found.into_inner(),
        Err(status) if status.code() == Code::NotFound => {
            let organisation = Organisation {
                slug: SLUG.into(),
                display_name: "Northwind".into(),
                custom_field_1_name: "Job function".into(),
                ..Organisation::default()
            };
            let request = CreateOrganisationRequest { organisation: Some(organisation) };
            organisations.create_organisation(request).await?.into_inner()
        }
        Err(status) => return Err(status.into()),
    };
    let key = ApiKey {
        organisation_id: organisation.id,
        label: "Demonstration".into(),
        ..ApiKey::default()
    };
    let by = Actor { kind: Some(actor::Kind::Caller("demonstration".into())) };
    let request =
        CreateApiKeyRequest { api_key: Some(key), actor: Some(by), client_address: String::new() };
    Ok(ApiKeyServiceClient::new(identity).create_api_key(request).await?.into_inner().secret)
}

/// Gives the admin, who is made where there is none, a password that nobody has had before.
async fn set_password(identity: Transport) -> anyhow::Result<String> {
    let mut organisations = OrganisationServiceClient::new(identity.clone());
    let by_slug = GetOrganisationRequest { key: Some(Key::Slug(SLUG.into())) };
    let organisation_id = organisations.get_organisation(by_slug).await?.into_inner().id;
    let by = || Some(Actor { kind: Some(actor::Kind::Caller("demonstration".into())) });
    let admin = Admin {
        organisation_id: organisation_id.clone(),
        email: ADMIN.into(),
        display_name: "Robin Hale".into(),
        ..Admin::default()
    };
    let mut admins = AdminServiceClient::new(identity.clone());
    let create =
        CreateAdminRequest { admin: Some(admin), actor: by(), client_address: String::new() };
    let secret = match admins.create_admin(create).await {
        Ok(created) => created.into_inner().invitation,
        Err(status) if status.code() == Code::AlreadyExists => {
            let reset = ResetAdminRequest {
                organisation_id,
                key: Some(reset_admin_request::Key::Email(ADMIN.into())),
                actor: by(),
                client_address: String::new(),
            };
            admins.reset_admin(reset).await?.into_inner().invitation
        }
        Err(status) => return Err(status.into()),
    };
    let password = readable(rand::random());
    let accept = AcceptInvitationRequest {
        secret,
        password: password.clone(),
        client_address: String::new(),
    };
    SessionServiceClient::new(identity).accept_invitation(accept).await?;
    Ok(password)
}

/// Random bits as letters and digits that are not taken for each other: `k3fd-…`.
fn readable(bits: [u8; 16]) -> String {
    const CHARACTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let groups = bits.chunks(4).map(|group| {
        group.iter().map(|byte| char::from(CHARACTERS[usize::from(byte % 32)])).collect::<String>()
    });
    groups.collect::<Vec<_>>().join("-")
}

fn file(data_dir: &Path, name: &str) -> PathBuf {
    data_dir.join(format!("demonstration.{name}"))
}

fn write_private(path: &Path, text: &str) -> anyhow::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let file =
        fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes()))
        .with_context(|| format!("{} cannot be written", path.display()))
}
