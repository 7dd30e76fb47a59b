//! The clients of the services, and the wait for those who follow.

use std::collections::HashMap;
use std::time::Duration;

use muster_proto::approver::v1::approver_service_client::ApproverServiceClient;
use muster_proto::approver::v1::{self as approver, Approver, BatchGetApproversRequest};
use muster_proto::group::v1::group_service_client::GroupServiceClient;
use muster_proto::group::v1::{self as group, BatchListGroupsOfUsersRequest, Membership};
use muster_proto::identity::v1::admin_service_client::AdminServiceClient;
use muster_proto::identity::v1::api_key_service_client::ApiKeyServiceClient;
use muster_proto::identity::v1::audit_service_client::AuditServiceClient;
use muster_proto::identity::v1::import_service_client::ImportServiceClient;
use muster_proto::identity::v1::organisation_service_client::OrganisationServiceClient;
use muster_proto::identity::v1::provisioning_log_service_client::ProvisioningLogServiceClient;
use muster_proto::identity::v1::report_service_client::ReportServiceClient;
use muster_proto::identity::v1::session_service_client::SessionServiceClient;
use muster_proto::identity::v1::user_service_client::UserServiceClient;
use muster_proto::identity::v1::{BatchGetUsersRequest, User};
use muster_runtime::gathering::Reads;
use muster_runtime::grpc::max_message_bytes;
use muster_runtime::transport::Transport;
use muster_runtime::{clock, deadline};
use muster_scim::caseless;
use tonic::Status;

use crate::Config;

/// The most ids in one call of those that gather requests.
const LARGEST: usize = 100;
/// How long a request waits for others' calls before it makes its own.
const PATIENCE: Duration = Duration::from_millis(250);

/// Reads of many requests, made in one call: of ids of an organisation.
type Gathered<T> = Reads<String, String, T, Status>;

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
    /// A user.
    pub(crate) user: Gathered<User>,
    /// The user with the `user_name` of a key.
    pub(crate) user_named: Gathered<User>,
    /// The memberships of a user; none where there are none.
    pub(crate) memberships_of: Gathered<Vec<Membership>>,
    /// What has become of the declared approvers of a user; none where nobody was declared.
    pub(crate) approvers_of: Gathered<Vec<Approver>>,
    settle_time: Duration,
}

impl Parts {
    pub(crate) fn new(config: Config) -> Self {
        let users = UserServiceClient::new(config.identity.clone())
            .max_decoding_message_size(max_message_bytes());
        let groups =
            GroupServiceClient::new(config.group).max_decoding_message_size(max_message_bytes());
        let approvers = ApproverServiceClient::new(config.approver)
            .max_decoding_message_size(max_message_bytes());
        Self {
            user: user(users.clone()),
            user_named: user_named(users.clone()),
            memberships_of: memberships_of(groups.clone()),
            approvers_of: approvers_of(approvers.clone()),
            admins: AdminServiceClient::new(config.identity.clone()),
            audit: AuditServiceClient::new(config.identity.clone()),
            organisations: OrganisationServiceClient::new(config.identity.clone()),
            api_keys: ApiKeyServiceClient::new(config.identity.clone()),
            provisioning_log: ProvisioningLogServiceClient::new(config.identity.clone())
                .max_decoding_message_size(max_message_bytes()),
            imports: ImportServiceClient::new(config.identity.clone())
                .max_decoding_message_size(max_message_bytes()),
            reports: ReportServiceClient::new(config.identity.clone()),
            sessions: SessionServiceClient::new(config.identity),
            users,
            groups,
            approvers,
            settle_time: config.limits.settle_time,
        }
    }

    /// Waits until the approver service has taken a written user from identity's feed, where
    /// anybody's approvers follow from it, so that the client reads what it wrote. The write is
    /// committed: where the wait is too long, the feed brings it later.
    ///
    /// Returns the user's approvers; none where they are not known now.
    pub(crate) async fn settled(&self, user: &User) -> Option<Vec<Approver>> {
        #[cfg(feature = "failpoints")]
        muster_runtime::failpoint::crash("settle-before");
        let request = approver::AwaitUserRequest {
            organisation_id: user.organisation_id.clone(),
            user_id: user.id.clone(),
            revision: user.revision,
            update_time: user.update_time,
            // Who was released is nobody's approver any more, whatever else they are.
            user: (!user.released).then(|| approver::AwaitedUser {
                active: user.active(),
                primary_email: user.primary_email.clone(),
                declared_approvers: user.declared_approvers.clone(),
            }),
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
        let update_time = Some(clock::timestamp(clock::now()));
        let in_approver = approvers.await_user(approver::AwaitUserRequest {
            organisation_id: organisation.to_owned(),
            user_id: id.to_owned(),
            revision,
            update_time,
            user: None,
        });
        let in_group = groups.await_user(group::AwaitUserRequest {
            organisation_id: organisation.to_owned(),
            user_id: id.to_owned(),
            revision,
            update_time,
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

fn user(users: UserServiceClient<Transport>) -> Gathered<User> {
    Reads::new(LARGEST, PATIENCE, move |organisation_id, ids| {
        let mut users = users.clone();
        async move {
            let request =
                BatchGetUsersRequest { organisation_id, ids, ..BatchGetUsersRequest::default() };
            let found = users.batch_get_users(request).await?.into_inner().users;
            Ok(found.into_iter().map(|user| (user.id.clone(), user)).collect())
        }
    })
}

fn user_named(users: UserServiceClient<Transport>) -> Gathered<User> {
    Reads::new(LARGEST, PATIENCE, move |organisation_id, user_names| {
        let mut users = users.clone();
        async move {
            let request = BatchGetUsersRequest {
                organisation_id,
                user_names,
                ..BatchGetUsersRequest::default()
            };
            let found = users.batch_get_users(request).await?.into_inner().users;
            Ok(found.into_iter().map(|user| (caseless::key(user.user_name()), user)).collect())
        }
    })
}

fn memberships_of(groups: GroupServiceClient<Transport>) -> Gathered<Vec<Membership>> {
    Reads::new(LARGEST, PATIENCE, move |organisation_id, user_ids| {
        let mut groups = groups.clone();
        async move {
            let request = BatchListGroupsOfUsersRequest { organisation_id, user_ids };
            let answer = groups.batch_list_groups_of_users(request).await?.into_inner();
            let mut found: HashMap<String, Vec<Membership>> = HashMap::new();
            for membership in answer.memberships {
                found.entry(membership.user_id.clone()).or_default().push(membership);
            }
            Ok(found)
        }
    })
}

fn approvers_of(approvers: ApproverServiceClient<Transport>) -> Gathered<Vec<Approver>> {
    Reads::new(LARGEST, PATIENCE, move |organisation_id, user_ids| {
        let mut approvers = approvers.clone();
        async move {
            let request = BatchGetApproversRequest { organisation_id, user_ids };
            let found = approvers.batch_get_approvers(request).await?.into_inner().users;
            Ok(found.into_iter().map(|user| (user.user_id, user.approvers)).collect())
        }
    })
}

fn delayed(service: &str, status: &Status) {
    tracing::warn!(service, code = ?status.code(), "a change has not come yet; the feed brings it");
}
