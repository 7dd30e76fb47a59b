//! What operators do from the command line, over gRPC to identity.

use anyhow::Context as _;
use clap::{Args, Subcommand};
use muster_proto::feed::v1::{Actor, actor};
use muster_proto::identity::v1::admin_service_client::AdminServiceClient;
use muster_proto::identity::v1::api_key_service_client::ApiKeyServiceClient;
use muster_proto::identity::v1::get_organisation_request::Key;
use muster_proto::identity::v1::organisation_service_client::OrganisationServiceClient;
use muster_proto::identity::v1::{
    Admin, ApiKey, CreateAdminRequest, CreateApiKeyRequest, CreateOrganisationRequest,
    GetOrganisationRequest, ListApiKeysRequest, Organisation, ResetAdminRequest,
    RevokeApiKeyRequest, reset_admin_request,
};
use muster_runtime::deadline;
use muster_runtime::transport::Transport;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::tls_args::TlsArgs;

/// Where identity is.
#[derive(Debug, Args)]
pub struct Identity {
    /// Where identity listens
    #[arg(
        long,
        env = "MUSTER_IDENTITY_URL",
        default_value = "http://127.0.0.1:50051",
        value_name = "URL"
    )]
    pub identity_url: String,
    /// The operator's certificate
    #[command(flatten)]
    pub tls: TlsArgs,
}

impl Identity {
    /// Calls the service at `url`, which is identity's where there is none.
    pub(crate) fn connect(&self, url: Option<&str>) -> anyhow::Result<Transport> {
        self.tls.connect(url.unwrap_or(&self.identity_url))
    }
}

/// Organisations.
#[derive(Debug, Subcommand)]
pub enum OrganisationCommand {
    /// Create an organisation
    #[command(after_help = "Example:
  muster organisation create --slug acme --name \"Acme Ltd\"")]
    Create {
        /// Its name in commands: lower-case letters, digits and hyphens
        #[arg(long)]
        slug: String,
        /// Its name for people
        #[arg(long)]
        name: String,
        /// Where identity is
        #[command(flatten)]
        identity: Identity,
    },
}

/// Admins.
#[derive(Debug, Subcommand)]
pub enum AdminCommand {
    /// Create an admin and print a one-time link to set a password with
    #[command(after_help = "Example:
  muster admin create --organisation acme --email ann@acme.example --name \"Ann Bell\"")]
    Create {
        /// The organisation's slug
        #[arg(long, value_name = "SLUG")]
        organisation: String,
        /// The address to sign in with
        #[arg(long)]
        email: String,
        /// The name for people
        #[arg(long)]
        name: String,
        /// Where the console is
        #[command(flatten)]
        console: Console,
        /// Where identity is
        #[command(flatten)]
        identity: Identity,
    },
    /// Print a one-time link for an admin to set another password with
    #[command(after_help = "Example:
  muster admin reset --organisation acme --email ann@acme.example")]
    Reset {
        /// The organisation's slug
        #[arg(long, value_name = "SLUG")]
        organisation: String,
        /// The address that the admin signs in with
        #[arg(long)]
        email: String,
        /// Where the console is
        #[command(flatten)]
        console: Console,
        /// Where identity is
        #[command(flatten)]
        identity: Identity,
    },
}

/// API keys.
#[derive(Debug, Subcommand)]
pub enum ApiKeyCommand {
    /// Create a key and print it, and nothing else, on standard output
    #[command(after_help = "Example:
  muster api-key create --organisation acme --label Okta")]
    Create {
        /// The organisation's slug
        #[arg(long, value_name = "SLUG")]
        organisation: String,
        /// What to call the key
        #[arg(long, value_name = "TEXT")]
        label: String,
        /// A network that it may be used from, such as 203.0.113.0/24; can be given several times
        #[arg(long, value_name = "NETWORK")]
        network: Vec<String>,
        /// After how many days it expires
        #[arg(long, value_name = "DAYS")]
        expire_days: Option<u32>,
        /// Where identity is
        #[command(flatten)]
        identity: Identity,
    },
    /// List an organisation's keys, without their secrets
    #[command(after_help = "Example:
  muster api-key list --organisation acme")]
    List {
        /// The organisation's slug
        #[arg(long, value_name = "SLUG")]
        organisation: String,
        /// Where identity is
        #[command(flatten)]
        identity: Identity,
    },
    /// Revoke a key at once
    #[command(after_help = "Example:
  muster api-key revoke --organisation acme 01998f6e-…")]
    Revoke {
        /// The organisation's slug
        #[arg(long, value_name = "SLUG")]
        organisation: String,
        /// The key's id, as the list shows it
        id: String,
        /// Where identity is
        #[command(flatten)]
        identity: Identity,
    },
}

/// Where the console is.
#[derive(Debug, Args)]
pub struct Console {
    /// Where the console is
    #[arg(
        long,
        env = "MUSTER_PUBLIC_URL",
        default_value = "http://127.0.0.1:8080",
        value_name = "URL"
    )]
    pub public_url: String,
}

impl Console {
    fn link(&self, invitation: &str) -> String {
        format!("{}/admin/invitation/{invitation}", self.public_url.trim_end_matches('/'))
    }
}

/// How long an operator waits.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(15);

/// Runs `muster organisation …`.
pub async fn organisation(command: OrganisationCommand) -> anyhow::Result<()> {
    let OrganisationCommand::Create { slug, name, identity } = command;
    let organisation = Organisation { slug, display_name: name, ..Organisation::default() };
    let mut organisations = OrganisationServiceClient::new(identity.connect(None)?);
    let request = CreateOrganisationRequest { organisation: Some(organisation) };
    let created = call(organisations.create_organisation(request)).await?;
    println!("Created the organisation {} ({}).", created.slug, created.id);
    Ok(())
}

/// Runs `muster admin …`.
pub async fn admin(command: AdminCommand) -> anyhow::Result<()> {
    match command {
        AdminCommand::Create { organisation, email, name, console, identity } => {
            let transport = identity.connect(None)?;
            let organisation_id = find(&transport, organisation).await?;
            let admin = Admin { organisation_id, email, display_name: name, ..Admin::default() };
            let request = CreateAdminRequest {
                admin: Some(admin),
                actor: Some(operator()),
                client_address: String::new(),
            };
            let created = call(AdminServiceClient::new(transport).create_admin(request)).await?;
            eprintln!("Created the admin. The link works once, within 30 minutes:");
            println!("{}", console.link(&created.invitation));
        }
        AdminCommand::Reset { organisation, email, console, identity } => {
            let transport = identity.connect(None)?;
            let organisation_id = find(&transport, organisation.clone()).await?;
            let request = ResetAdminRequest {
                organisation_id,
                key: Some(reset_admin_request::Key::Email(email.clone())),
                actor: Some(operator()),
                client_address: String::new(),
            };
            let reset = call(AdminServiceClient::new(transport).reset_admin(request)).await;
            let reset = reset.with_context(|| format!("admin {email:?} of {organisation:?}"))?;
            eprintln!("The link works once, within 30 minutes; the password works until then:");
            println!("{}", console.link(&reset.invitation));
        }
    }
    Ok(())
}

/// Runs `muster api-key …`.
pub async fn api_key(command: ApiKeyCommand) -> anyhow::Result<()> {
    match command {
        ApiKeyCommand::Create { organisation, label, network, expire_days, identity } => {
            let transport = identity.connect(None)?;
            let organisation_id = find(&transport, organisation).await?;
            let expire_time = expire_days.map(|days| {
                let at = OffsetDateTime::now_utc() + time::Duration::days(days.into());
                prost_types::Timestamp { seconds: at.unix_timestamp(), nanos: 0 }
            });
            let api_key = ApiKey {
                organisation_id,
                label,
                expire_time,
                source_networks: network,
                ..ApiKey::default()
            };
            let request = CreateApiKeyRequest {
                api_key: Some(api_key),
                actor: Some(operator()),
                client_address: String::new(),
            };
            let mut keys = ApiKeyServiceClient::new(transport);
            println!("{}", call(keys.create_api_key(request)).await?.secret);
        }
        ApiKeyCommand::List { organisation, identity } => {
            let transport = identity.connect(None)?;
            let organisation_id = find(&transport, organisation).await?;
            let mut keys = ApiKeyServiceClient::new(transport);
            let listed = call(keys.list_api_keys(ListApiKeysRequest { organisation_id })).await?;
            println!("{:36}  {:34}  {:20}  {:20}  LABEL", "ID", "PREFIX", "CREATED", "LAST USED");
            for key in listed.api_keys {
                let used = match &key.revoke_time {
                    Some(_) => "revoked".to_owned(),
                    None => moment(key.last_use_time),
                };
                let created = moment(key.create_time);
                println!(
                    "{:36}  {:34}  {created:20}  {used:20}  {}",
                    key.id, key.prefix, key.label
                );
            }
        }
        ApiKeyCommand::Revoke { organisation, id, identity } => {
            let transport = identity.connect(None)?;
            let organisation_id = find(&transport, organisation).await?;
            let request = RevokeApiKeyRequest {
                organisation_id,
                id,
                actor: Some(operator()),
                client_address: String::new(),
            };
            let revoked = call(ApiKeyServiceClient::new(transport).revoke_api_key(request)).await?;
            println!("Revoked the key {:?} ({}).", revoked.label, revoked.id);
        }
    }
    Ok(())
}

pub(crate) async fn find(transport: &Transport, slug: String) -> anyhow::Result<String> {
    let mut organisations = OrganisationServiceClient::new(transport.clone());
    let request = GetOrganisationRequest { key: Some(Key::Slug(slug.clone())) };
    match call(organisations.get_organisation(request)).await {
        Ok(organisation) => Ok(organisation.id),
        Err(error) => Err(error.context(format!("organisation {slug:?}"))),
    }
}

/// What identity answers, or its refusal in words.
pub(crate) async fn call<T>(
    answer: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
) -> anyhow::Result<T> {
    match deadline::within(PATIENCE, answer).await {
        Ok(answer) => Ok(answer.into_inner()),
        Err(status) if status.code() == tonic::Code::Unavailable => Err(anyhow::anyhow!(
            "identity does not answer ({}); is muster running, and MUSTER_IDENTITY_URL right?",
            status.message()
        )),
        Err(status) => Err(anyhow::anyhow!("{}", status.message())),
    }
}

pub(crate) fn operator() -> Actor {
    Actor { kind: Some(actor::Kind::Caller("operator".into())) }
}

pub(crate) fn moment(timestamp: Option<prost_types::Timestamp>) -> String {
    timestamp
        .and_then(|t| OffsetDateTime::from_unix_timestamp(t.seconds).ok()?.format(&Rfc3339).ok())
        .unwrap_or_else(|| "never".to_owned())
}
