//! The clients of the services, and the hand-over of a user to those who follow.

use muster_proto::approver::v1::approver_service_client::ApproverServiceClient;
use muster_proto::approver::v1::{self as approver, Approver};
use muster_proto::group::v1 as group;
use muster_proto::group::v1::group_service_client::GroupServiceClient;
use muster_proto::identity::v1::api_key_service_client::ApiKeyServiceClient;
use muster_proto::identity::v1::user_service_client::UserServiceClient;
use muster_proto::identity::v1::{User, UserState};
use muster_runtime::deadline;
use muster_runtime::grpc::MAX_MESSAGE_BYTES;
use muster_runtime::transport::Transport;
use tonic::Status;

use crate::Config;

/// Clients of the services. Cloning them is cheap.
#[derive(Debug, Clone)]
pub struct Parts {
    /// API keys, in identity.
    pub api_keys: ApiKeyServiceClient<Transport>,
    /// Users, in identity.
    pub users: UserServiceClient<Transport>,
    /// Groups.
    pub groups: GroupServiceClient<Transport>,
    /// Approvers.
    pub approvers: ApproverServiceClient<Transport>,
    hand_over_time: std::time::Duration,
}

impl Parts {
    pub(crate) fn new(config: Config) -> Self {
        Self {
            api_keys: ApiKeyServiceClient::new(config.identity.clone()),
            users: UserServiceClient::new(config.identity)
                .max_decoding_message_size(MAX_MESSAGE_BYTES),
            groups: GroupServiceClient::new(config.group)
                .max_decoding_message_size(MAX_MESSAGE_BYTES),
            approvers: ApproverServiceClient::new(config.approver)
                .max_decoding_message_size(MAX_MESSAGE_BYTES),
            hand_over_time: config.limits.hand_over_time,
        }
    }

    /// Hands a written user to the approver service before the client is answered, so that the
    /// client reads what it wrote. The write is committed: where this fails, the feed delivers it.
    ///
    /// Returns the user's approvers; none where they are not known now.
    pub(crate) async fn hand_over(&self, user: &User) -> Option<Vec<Approver>> {
        #[cfg(feature = "failpoints")]
        muster_runtime::failpoint::crash("hand-over-before");
        let state = UserState {
            organisation_id: user.organisation_id.clone(),
            user_id: user.id.clone(),
            revision: user.revision,
            deleted: false,
            active: user.active(),
            primary_email: user.primary_email.clone(),
            declared_approvers: user.declared_approvers.clone(),
        };
        let request = approver::ApplyUserRequest { user: Some(state) };
        let mut approvers = self.approvers.clone();
        let applied = deadline::within(self.hand_over_time, approvers.apply_user(request)).await;
        match applied {
            Ok(response) => Some(response.into_inner().approvers),
            Err(status) => {
                delayed("approver", &status);
                None
            }
        }
    }

    /// Hands a deleted user to the services that follow.
    pub(crate) async fn hand_over_deletion(&self, organisation: &str, id: &str, revision: i64) {
        #[cfg(feature = "failpoints")]
        muster_runtime::failpoint::crash("hand-over-before");
        let state = UserState {
            organisation_id: organisation.to_owned(),
            user_id: id.to_owned(),
            revision,
            deleted: true,
            ..UserState::default()
        };
        let (mut approvers, mut groups) = (self.approvers.clone(), self.groups.clone());
        let to_approver =
            approvers.apply_user(approver::ApplyUserRequest { user: Some(state.clone()) });
        let to_group = groups.apply_user(group::ApplyUserRequest { user: Some(state) });
        let (approver, group) =
            deadline::within(self.hand_over_time, async { tokio::join!(to_approver, to_group) })
                .await;
        if let Err(status) = approver {
            delayed("approver", &status);
        }
        if let Err(status) = group {
            delayed("group", &status);
        }
    }
}

fn delayed(service: &str, status: &Status) {
    tracing::warn!(service, code = ?status.code(), "a change was not handed over; the feed delivers it");
}
