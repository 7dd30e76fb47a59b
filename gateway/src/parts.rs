//! The clients of the services, and the wait for those who follow.

use muster_proto::approver::v1::approver_service_client::ApproverServiceClient;
use muster_proto::approver::v1::{self as approver, Approver};
use muster_proto::group::v1 as group;
use muster_proto::group::v1::group_service_client::GroupServiceClient;
use muster_proto::identity::v1::User;
use muster_proto::identity::v1::admin_service_client::AdminServiceClient;
use muster_proto::identity::v1::api_key_service_client::ApiKeyServiceClient;
use muster_proto::identity::v1::audit_service_client::AuditServiceClient;
use muster_proto::identity::v1::import_service_client::ImportServiceClient;
use muster_proto::identity::v1::organisation_service_client::OrganisationServiceClient;
use muster_proto::identity::v1::provisioning_log_service_client::ProvisioningLogServiceClient;
use muster_proto::identity::v1::report_service_client::ReportServiceClient;
use muster_proto::identity::v1::session_service_client::SessionServiceClient;
use muster_proto::identity::v1::user_service_client::UserServiceClient;
use muster_runtime::deadline;
use muster_runtime::grpc::max_message_bytes;
use muster_runtime::transport::Transport;
use tonic::Status;

use crate::Config;

/// Clients of the services. Cloning them is cheap.
#[derive(Debug, Clone)]
pub struct Parts {
    /// Admins, in identity.
    pub admins: AdminServiceClient<Transport>,
    /// What admins have done, in identity.
    pub audit: AuditServiceClient<Transport>,
    /// Organisations, in identity.
    pub organisations: OrganisationServiceClient<Transport>,
    /// API keys, in identity.
    pub api_keys: ApiKeyServiceClient<Transport>,
    /// The provisioning log, in identity.
    pub provisioning_log: ProvisioningLogServiceClient<Transport>,
    /// Imports of people, in identity.
    pub imports: ImportServiceClient<Transport>,
    /// Reports on users, in identity.
    pub reports: ReportServiceClient<Transport>,
    /// Sessions in the console, in identity.
    pub sessions: SessionServiceClient<Transport>,
    /// Users, in identity.
    pub users: UserServiceClient<Transport>,
    /// Groups.
    pub groups: GroupServiceClient<Transport>,
    /// Approvers.
    pub approvers: ApproverServiceClient<Transport>,
    settle_time: std::time::Duration,
}

impl Parts {
    pub(crate) fn new(config: Config) -> Self {
        Self {
            admins: AdminServiceClient::new(config.identity.clone()),
            audit: AuditServiceClient::new(config.identity.clone()),
            organisations: OrganisationServiceClient::new(config.identity.clone()),
            api_keys: ApiKeyServiceClient::new(config.identity.clone()),
            provisioning_log: ProvisioningLogServiceClient::new(config.identity.clone())
                .max_decoding_message_size(max_message_bytes()),
            imports: ImportServiceClient::new(config.identity.clone())
                .max_decoding_message_size(max_message_bytes()),
            reports: ReportServiceClient::new(config.identity.clone()),
            sessions: SessionServiceClient::new(config.identity.clone()),
            users: UserServiceClient::new(config.identity)
                .max_decoding_message_size(max_message_bytes()),
            groups: GroupServiceClient::new(config.group)
                .max_decoding_message_size(max_message_bytes()),
            approvers: ApproverServiceClient::new(config.approver)
                .max_decoding_message_size(max_message_bytes()),
            settle_time: config.limits.settle_time,
        }
    }

    /// Waits until the approver service has taken a written user from identity's feed, so that the
    /// client reads what it wrote. The write is committed: where the wait is too long, the feed
    /// brings it later.
    ///
    /// Returns the user's approvers; none where they are not known now.
    pub(crate) async fn settled(&self, user: &User) -> Option<Vec<Approver>> {
        #[cfg(feature = "failpoints")]
        muster_runtime::failpoint::crash("settle-before");
        let request = approver::AwaitUserRequest {
            organisation_id: user.organisation_id.clone(),
            user_id: user.id.clone(),
            revision: user.revision,
        };
        let mut approvers = self.approvers.clone();
        let settled = deadline::within(self.settle_time, approvers.await_user(request)).await;
        match settled {
            Ok(response) => Some(response.into_inner().approvers),
            Err(status) => {
                delayed("approver", &status);
                None
            }
        }
    }

    /// Waits until the services that follow have taken a user's deletion.
    pub(crate) async fn settled_deletion(&self, organisation: &str, id: &str, revision: i64) {
        #[cfg(feature = "failpoints")]
        muster_runtime::failpoint::crash("settle-before");
        let (mut approvers, mut groups) = (self.approvers.clone(), self.groups.clone());
        let in_approver = approvers.await_user(approver::AwaitUserRequest {
            organisation_id: organisation.to_owned(),
            user_id: id.to_owned(),
            revision,
        });
        let in_group = groups.await_user(group::AwaitUserRequest {
            organisation_id: organisation.to_owned(),
            user_id: id.to_owned(),
            revision,
        });
        let both = async { tokio::join!(in_approver, in_group) };
        let (approver, group) = deadline::within(self.settle_time, both).await;
        if let Err(status) = approver {
            delayed("approver", &status);
        }
        if let Err(status) = group {
            delayed("group", &status);
        }
    }
}

fn delayed(service: &str, status: &Status) {
    tracing::warn!(service, code = ?status.code(), "a change has not come yet; the feed brings it");
}
