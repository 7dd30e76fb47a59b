//! What an operator does when a person asks for their data, or wants it gone (`docs/personal-data.md`).

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use muster_proto::approver::v1 as approver;
use muster_proto::approver::v1::approver_service_client::ApproverServiceClient;
use muster_proto::filter::v1::{Comparison, Filter, Operator, comparison, filter};
use muster_proto::group::v1::BatchListGroupsOfUsersRequest;
use muster_proto::group::v1::group_service_client::GroupServiceClient;
use muster_proto::identity::v1::audit_service_client::AuditServiceClient;
use muster_proto::identity::v1::provisioning_log_service_client::ProvisioningLogServiceClient;
use muster_proto::identity::v1::user_service_client::UserServiceClient;
use muster_proto::identity::v1::{
    AuditAction, AuditEvent, CreateAuditEventRequest, DeleteUserRequest, EraseUserRequest,
    GetUserRequest, ListChangesRequest, ListProvisioningLogRequest, ListUsersRequest, User,
};
use muster_runtime::deadline;
use muster_runtime::grpc::max_message_bytes;
use muster_runtime::id::UserId;
use muster_runtime::transport::Transport;
use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage};
use serde_json::{Value, json};
use tonic::Code;

use crate::operate::{Identity, call, find, operator};

/// Data of one person.
#[derive(Debug, Subcommand)]
pub enum UserCommand {
    /// Print all that is kept of a user, as JSON
    #[command(after_help = "Example:
  muster user export --organisation acme ann@acme.example > ann.json")]
    Export {
        /// Who
        #[command(flatten)]
        user: Who,
        /// Where the services are
        #[command(flatten)]
        services: Services,
    },
    /// Delete an inactive user, and erase what is still kept of them; nothing brings it back
    ///
    /// What the changes of the user said goes, and their names in the provisioning log. The id
    /// stays, and when what was done to it by whom. Other people's declared approvers go on naming
    /// whom their organisation declares.
    #[command(after_help = "Example:
  muster user erase --organisation acme 01998f6e-… --yes

It can be done again: after a back-up was restored, for one.")]
    Erase {
        /// Who
        #[command(flatten)]
        user: Who,
        /// Erase, instead of saying what would be erased
        #[arg(long)]
        yes: bool,
        /// Where the services are
        #[command(flatten)]
        services: Services,
    },
}

/// Which user.
#[derive(Debug, Args)]
pub struct Who {
    /// The organisation's slug
    #[arg(long, value_name = "SLUG")]
    organisation: String,
    /// The user's id, or the `userName` of one who is not deleted
    #[arg(value_name = "USER")]
    user: String,
}

/// Where the services are.
#[derive(Debug, Args)]
pub struct Services {
    /// Where identity is
    #[command(flatten)]
    identity: Identity,
    /// Where the group service is, if elsewhere
    #[arg(long, env = "MUSTER_GROUP_URL", value_name = "URL")]
    group_url: Option<String>,
    /// Where the approver service is, if elsewhere
    #[arg(long, env = "MUSTER_APPROVER_URL", value_name = "URL")]
    approver_url: Option<String>,
}

/// How long an erasure may take: it looks through the whole provisioning log.
const ERASURE: std::time::Duration = std::time::Duration::from_mins(10);

/// The services, and one user of an organisation.
struct Known {
    identity: Transport,
    groups: Transport,
    approvers: Transport,
    organisation_id: String,
    id: String,
    /// None where they are deleted.
    user: Option<User>,
}

/// Runs `muster user …`.
pub async fn run(command: UserCommand) -> anyhow::Result<()> {
    match command {
        UserCommand::Export { user, services } => {
            let known = Known::find(user, services).await?;
            let data = known.data().await?;
            known.note_export().await?;
            println!("{data:#}");
        }
        UserCommand::Erase { user, yes, services } => {
            Known::find(user, services).await?.erase(yes).await?;
        }
    }
    Ok(())
}

impl Known {
    async fn find(who: Who, services: Services) -> anyhow::Result<Self> {
        let identity = services.identity.connect(None)?;
        let groups = services.identity.connect(services.group_url.as_deref())?;
        let approvers = services.identity.connect(services.approver_url.as_deref())?;
        let organisation_id = find(&identity, who.organisation).await?;
        let (id, user) = find_user(&identity, &organisation_id, &who.user).await?;
        Ok(Self { identity, groups, approvers, organisation_id, id, user })
    }

    fn users(&self) -> UserServiceClient<Transport> {
        UserServiceClient::new(self.identity.clone()).max_decoding_message_size(max_message_bytes())
    }

    fn approvers(&self) -> ApproverServiceClient<Transport> {
        ApproverServiceClient::new(self.approvers.clone())
            .max_decoding_message_size(max_message_bytes())
    }

    /// All that the services keep of the user.
    async fn data(&self) -> anyhow::Result<Value> {
        let contracts = Contracts::read()?;
        let (organisation_id, ids) = (self.organisation_id.clone(), vec![self.id.clone()]);
        let user = match &self.user {
            Some(user) => contracts.json("muster.identity.v1.User", user)?,
            None => Value::Null,
        };
        let groups = BatchListGroupsOfUsersRequest {
            organisation_id: organisation_id.clone(),
            user_ids: ids.clone(),
        };
        let mut group_service = GroupServiceClient::new(self.groups.clone());
        let groups = call(group_service.batch_list_groups_of_users(groups)).await?.memberships;
        let approvers = approver::BatchGetApproversRequest {
            organisation_id: organisation_id.clone(),
            user_ids: ids.clone(),
        };
        let approvers = call(self.approvers().batch_get_approvers(approvers)).await?.users;
        let approvees = approver::BatchListApproveesRequest { organisation_id, approver_ids: ids };
        let approvees = call(self.approvers().batch_list_approvees(approvees)).await?.approvers;
        let data = json!({
            "user": user,
            "groups": contracts.all("muster.group.v1.Membership", &groups)?,
            "approvers": contracts.all("muster.approver.v1.UserApprovers", &approvers)?,
            "approvesFor": contracts.all("muster.approver.v1.Approvees", &approvees)?,
            "changes": self.changes(&contracts).await?,
            "approverChanges": self.approver_changes(&contracts).await?,
            "provisioningLog": self.log(&contracts).await?,
        });
        Ok(data)
    }

    async fn changes(&self, contracts: &Contracts) -> anyhow::Result<Vec<Value>> {
        let mut request = ListChangesRequest {
            organisation_id: self.organisation_id.clone(),
            user_id: self.id.clone(),
            ..ListChangesRequest::default()
        };
        let mut changes = Vec::new();
        loop {
            let page = call(self.users().list_changes(request.clone())).await?;
            changes.extend(contracts.all("muster.identity.v1.UserChange", &page.changes)?);
            request.page_token = page.next_page_token;
            if request.page_token.is_empty() {
                return Ok(changes);
            }
        }
    }

    async fn approver_changes(&self, contracts: &Contracts) -> anyhow::Result<Vec<Value>> {
        let mut request = approver::ListChangesRequest {
            organisation_id: self.organisation_id.clone(),
            user_id: self.id.clone(),
            ..approver::ListChangesRequest::default()
        };
        let mut changes = Vec::new();
        loop {
            let page = call(self.approvers().list_changes(request.clone())).await?;
            changes.extend(contracts.all("muster.approver.v1.ApproverChange", &page.changes)?);
            request.page_token = page.next_page_token;
            if request.page_token.is_empty() {
                return Ok(changes);
            }
        }
    }

    async fn log(&self, contracts: &Contracts) -> anyhow::Result<Vec<Value>> {
        let mut log = ProvisioningLogServiceClient::new(self.identity.clone())
            .max_decoding_message_size(max_message_bytes());
        let mut request = ListProvisioningLogRequest {
            organisation_id: self.organisation_id.clone(),
            subject_id: self.id.clone(),
            ..ListProvisioningLogRequest::default()
        };
        let mut entries = Vec::new();
        loop {
            let page = call(log.list_provisioning_log(request.clone())).await?;
            entries
                .extend(contracts.all("muster.identity.v1.ProvisioningLogEntry", &page.entries)?);
            request.page_token = page.next_page_token;
            if request.page_token.is_empty() {
                return Ok(entries);
            }
        }
    }

    /// Whoever exports people's data is in the record of who did what.
    async fn note_export(&self) -> anyhow::Result<()> {
        let event = AuditEvent {
            organisation_id: self.organisation_id.clone(),
            actor: Some(operator()),
            action: AuditAction::Exported.into(),
            subject: format!("the user {}", self.id),
            ..AuditEvent::default()
        };
        let mut audit = AuditServiceClient::new(self.identity.clone());
        let request = CreateAuditEventRequest { event: Some(event) };
        call(audit.create_audit_event(request)).await?;
        Ok(())
    }

    async fn erase(&self, yes: bool) -> anyhow::Result<()> {
        let id = &self.id;
        if let Some(user) = &self.user {
            if user.active() {
                bail!(
                    "the user {id} is active: deactivate them first, in Okta where it provisions \
                     them, or in the console"
                );
            }
            if yes {
                let request = DeleteUserRequest {
                    organisation_id: self.organisation_id.clone(),
                    id: id.clone(),
                    revision: user.revision,
                    actor: Some(operator()),
                };
                call(self.users().delete_user(request)).await?;
                println!("Deleted the user {id}.");
            }
        }
        if !yes {
            let deleted = if self.user.is_some() { "delete the inactive" } else { "look for the" };
            println!(
                "With --yes this would {deleted} user {id}, and erase what is still kept of them."
            );
            return Ok(());
        }
        let request = EraseUserRequest {
            organisation_id: self.organisation_id.clone(),
            id: id.clone(),
            actor: Some(operator()),
        };
        let erased = deadline::within(ERASURE, self.users().erase_user(request)).await;
        let erased = match erased {
            Ok(erased) => erased.into_inner(),
            Err(status) => {
                bail!("{}; what was not erased yet is by the same command", status.message())
            }
        };
        println!(
            "Erased the user {id}: {} changes say nothing any more, and {} entries of the \
             provisioning log name nobody.",
            erased.change_count, erased.log_entry_count
        );
        Ok(())
    }
}

/// The id, and the user where they are not deleted.
async fn find_user(
    identity: &Transport,
    organisation_id: &str,
    text: &str,
) -> anyhow::Result<(String, Option<User>)> {
    let mut users = UserServiceClient::new(identity.clone());
    if text.parse::<UserId>().is_ok() {
        let request =
            GetUserRequest { organisation_id: organisation_id.to_owned(), id: text.to_owned() };
        return match users.get_user(request).await {
            Ok(user) => Ok((text.to_owned(), Some(user.into_inner()))),
            Err(status) if status.code() == Code::NotFound => Ok((text.to_owned(), None)),
            Err(status) => bail!("{}", status.message()),
        };
    }
    let comparison = Comparison {
        attribute: "user_name".to_owned(),
        operator: Operator::Equal.into(),
        operand: Some(comparison::Operand::Text(text.to_owned())),
    };
    let request = ListUsersRequest {
        organisation_id: organisation_id.to_owned(),
        filter: Some(Filter { kind: Some(filter::Kind::Comparison(comparison)) }),
        ..ListUsersRequest::default()
    };
    let found = call(users.list_users(request)).await?.users.pop();
    let user = found.with_context(|| {
        format!("no user has the userName {text:?}; a deleted one is found by id only")
    })?;
    Ok((user.id.clone(), Some(user)))
}

/// Messages as JSON, as Protocol Buffers has it.
struct Contracts(DescriptorPool);

impl Contracts {
    fn read() -> anyhow::Result<Self> {
        Ok(Self(DescriptorPool::decode(muster_proto::FILE_DESCRIPTOR_SET)?))
    }

    fn json(&self, name: &str, message: &impl Message) -> anyhow::Result<Value> {
        let descriptor =
            self.0.get_message_by_name(name).with_context(|| format!("no contract has {name}"))?;
        let message = DynamicMessage::decode(descriptor, message.encode_to_vec().as_slice())?;
        Ok(serde_json::to_value(message)?)
    }

    fn all(&self, name: &str, messages: &[impl Message]) -> anyhow::Result<Vec<Value>> {
        messages.iter().map(|message| self.json(name, message)).collect()
    }
}
