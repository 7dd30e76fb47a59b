//! Every method of every service.

use std::future::Future;

use muster_identity::secret;
use muster_proto::approver::v1 as approver;
use muster_proto::approver::v1::approver_service_client::ApproverServiceClient;
use muster_proto::group::v1 as group;
use muster_proto::identity::v1 as identity;
use muster_proto::identity::v1::admin_service_client::AdminServiceClient;
use muster_proto::identity::v1::api_key_service_client::ApiKeyServiceClient;
use muster_proto::identity::v1::audit_service_client::AuditServiceClient;
use muster_proto::identity::v1::organisation_service_client::OrganisationServiceClient;
use muster_proto::identity::v1::provisioning_log_service_client::ProvisioningLogServiceClient;
use muster_proto::identity::v1::session_service_client::SessionServiceClient;
use muster_runtime::transport::Transport;
use tonic::{Code, Response, Status, Streaming};

use super::{Call, Here, Subject};
use crate::support::feed::user;

/// A call of one method; an error that a request of its kind may have is none.
fn call<C, R, F>(service: &str, method: &str, client: &C, ask: fn(C, Subject) -> F) -> Call
where
    C: Clone + Send + Sync + 'static,
    F: Future<Output = Result<Response<R>, Status>> + Send + 'static,
{
    let client = client.clone();
    let make = move |subject: Subject| {
        let answer = ask(client.clone(), subject);
        Box::pin(async move {
            drop(answer.await.unwrap());
        }) as _
    };
    Call { name: format!("{service}/{method}"), make: Box::new(make) }
}

pub(super) fn all(here: &Here) -> Vec<Call> {
    let mut calls = users(here);
    calls.extend(organisations(here));
    calls.extend(admins(here));
    calls.extend(provisioning_log(here));
    calls.extend(groups(here));
    calls.extend(approvers(here));
    calls
}

/// The first message of a stream.
async fn first<T>(
    answer: impl Future<Output = Result<Response<Streaming<T>>, Status>>,
) -> Result<Response<Option<T>>, Status> {
    answer.await?.into_inner().message().await.map(Response::new)
}

/// Done where the service refuses the secret that it was sent.
async fn refused<T>(
    answer: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<Response<()>, Status> {
    let status = answer.await.err().unwrap();
    let is_refusal = matches!(status.code(), Code::Unauthenticated | Code::NotFound);
    if is_refusal { Ok(Response::new(())) } else { Err(status) }
}

fn organisation(subject: &Subject) -> String {
    subject.user.organisation_id.clone()
}

macro_rules! of {
    ($service:literal, $client:expr, { $($method:literal => |$c:ident, $s:ident| $ask:expr;)* }) => {
        vec![$(call($service, $method, &$client, |mut $c, $s| async move { $ask.await }),)*]
    };
}

fn users(here: &Here) -> Vec<Call> {
    use identity::*;
    of!("muster.identity.v1.UserService", here.users(), {
        "CreateUser" => |c, s| c.create_user(CreateUserRequest {
            user: Some(user(&organisation(&s), &format!("new{}@a.example", s.number), &["u1@a.example"])),
            actor: None,
        });
        "GetUser" => |c, s| c.get_user(GetUserRequest {
            organisation_id: organisation(&s),
            id: s.user.id,
        });
        "BatchGetUsers" => |c, s| c.batch_get_users(BatchGetUsersRequest {
            organisation_id: organisation(&s),
            ids: vec![s.user.id],
            ids_only: false,
        });
        "ListUsers" => |c, s| c.list_users(ListUsersRequest {
            organisation_id: organisation(&s),
            ..ListUsersRequest::default()
        });
        "UpdateUser" => |c, s| c.update_user(UpdateUserRequest {
            user: Some(user(&organisation(&s), &format!("v{}@a.example", s.number), &["u2@a.example"]))
                .map(|user| User { id: s.user.id, ..user }),
            ..UpdateUserRequest::default()
        });
        "ReleaseUserName" => |c, s| {
            let inactive = User { active: Some(false), revision: 0, ..s.user.clone() };
            async move {
                // Nobody's name is released while they are active.
                let request = UpdateUserRequest {
                    user: Some(inactive),
                    ..UpdateUserRequest::default()
                };
                c.update_user(request).await?;
                c.release_user_name(ReleaseUserNameRequest {
                    organisation_id: organisation(&s),
                    id: s.user.id,
                    ..ReleaseUserNameRequest::default()
                })
                .await
            }
        };
        "DeleteUser" => |c, s| c.delete_user(DeleteUserRequest {
            organisation_id: organisation(&s),
            id: s.user.id,
            ..DeleteUserRequest::default()
        });
        "Recount" => |c, s| c.recount(RecountRequest { organisation_id: organisation(&s) });
        "WatchChanges" => |c, s| first(c.watch_changes(WatchChangesRequest {
            organisation_id: organisation(&s),
            ..WatchChangesRequest::default()
        }));
        "ListChanges" => |c, s| c.list_changes(ListChangesRequest {
            organisation_id: organisation(&s),
            user_id: s.user.id,
            ..ListChangesRequest::default()
        });
    })
}

fn organisations(here: &Here) -> Vec<Call> {
    use identity::*;
    let mut calls = of!(
        "muster.identity.v1.OrganisationService",
        OrganisationServiceClient::new(here.identity.clone()),
        {
            "CreateOrganisation" => |c, s| c.create_organisation(CreateOrganisationRequest {
                organisation: Some(Organisation {
                    slug: format!("new-{}", s.number),
                    display_name: "New".into(),
                    ..Organisation::default()
                }),
            });
            "GetOrganisation" => |c, s| c.get_organisation(GetOrganisationRequest {
                key: Some(get_organisation_request::Key::Id(organisation(&s))),
            });
            "ListOrganisations" => |c, _s| c.list_organisations(ListOrganisationsRequest::default());
            "UpdateOrganisation" => |c, s| c.update_organisation(UpdateOrganisationRequest {
                organisation: Some(Organisation {
                    id: organisation(&s),
                    display_name: format!("Name {}", s.number),
                    default_locale: "en-GB".into(),
                    unknown_members: UnknownMembers::LeaveOut.into(),
                    ..Organisation::default()
                }),
                ..UpdateOrganisationRequest::default()
            });
        }
    );
    calls.extend(of!(
        "muster.identity.v1.ApiKeyService",
        ApiKeyServiceClient::new(here.identity.clone()),
        {
            "CreateApiKey" => |c, s| create_key(&mut c, organisation(&s));
            "ListApiKeys" => |c, s| c.list_api_keys(ListApiKeysRequest {
                organisation_id: organisation(&s),
            });
            "RevokeApiKey" => |c, s| async {
                let key = create_key(&mut c, organisation(&s)).await?.into_inner().api_key;
                c.revoke_api_key(RevokeApiKeyRequest {
                    organisation_id: organisation(&s),
                    id: key.unwrap_or_default().id,
                    ..RevokeApiKeyRequest::default()
                })
                .await
            };
            "AuthenticateApiKey" => |c, s| async {
                let secret = create_key(&mut c, organisation(&s)).await?.into_inner().secret;
                c.authenticate_api_key(AuthenticateApiKeyRequest { secret }).await
            };
        }
    ));
    calls
}

/// What an admin is asked for.
const PASSWORD: &str = "a horse that is correct";

/// Calls about one admin of the subject's own.
#[derive(Clone)]
struct Admins {
    admins: AdminServiceClient<Transport>,
    sessions: SessionServiceClient<Transport>,
}

impl Admins {
    /// Invites somebody; the admin and the secret of the link.
    async fn invite(&mut self, subject: &Subject) -> Result<(identity::Admin, String), Status> {
        let admin = identity::Admin {
            organisation_id: organisation(subject),
            email: format!("admin{}@a.example", subject.number),
            display_name: "Ann".into(),
            ..identity::Admin::default()
        };
        let request = identity::CreateAdminRequest {
            admin: Some(admin),
            ..identity::CreateAdminRequest::default()
        };
        let created = self.admins.create_admin(request).await?.into_inner();
        Ok((created.admin.unwrap_or_default(), created.invitation))
    }

    async fn accept(
        &mut self,
        secret: String,
    ) -> Result<Response<identity::SignInResponse>, Status> {
        let request = identity::AcceptInvitationRequest {
            secret,
            password: PASSWORD.into(),
            ..identity::AcceptInvitationRequest::default()
        };
        self.sessions.accept_invitation(request).await
    }

    /// An admin with a password, and the secret of a session.
    async fn signed_in(&mut self, subject: &Subject) -> Result<(identity::Admin, String), Status> {
        let (admin, invitation) = self.invite(subject).await?;
        Ok((admin, self.accept(invitation).await?.into_inner().session))
    }
}

fn admins(here: &Here) -> Vec<Call> {
    use identity::*;
    let client = Admins {
        admins: AdminServiceClient::new(here.identity.clone()),
        sessions: SessionServiceClient::new(here.identity.clone()),
    };
    let mut calls = of!("muster.identity.v1.AdminService", client, {
        "CreateAdmin" => |c, s| async { c.invite(&s).await.map(Response::new) };
        "ListAdmins" => |c, s| c.admins.list_admins(ListAdminsRequest {
            organisation_id: organisation(&s),
        });
        "ResetAdmin" => |c, s| async {
            let (admin, _) = c.invite(&s).await?;
            c.admins.reset_admin(ResetAdminRequest {
                organisation_id: organisation(&s),
                key: Some(reset_admin_request::Key::Id(admin.id)),
                ..ResetAdminRequest::default()
            })
            .await
        };
        "DeleteAdmin" => |c, s| async {
            let (admin, _) = c.invite(&s).await?;
            c.admins.delete_admin(DeleteAdminRequest {
                organisation_id: organisation(&s),
                id: admin.id,
                ..DeleteAdminRequest::default()
            })
            .await
        };
    });
    calls.extend(of!("muster.identity.v1.SessionService", client, {
        "SignIn" => |c, s| async {
            let (admin, _) = c.signed_in(&s).await?;
            let password = PASSWORD.into();
            let request = SignInRequest { email: admin.email, password, ..SignInRequest::default() };
            c.sessions.sign_in(request).await
        };
        "SignInVerified" => |c, s| async {
            let (admin, _) = c.invite(&s).await?;
            let request =
                SignInVerifiedRequest { email: admin.email, ..SignInVerifiedRequest::default() };
            c.sessions.sign_in_verified(request).await
        };
        "ChooseOrganisation" => |c, s| refused(c.sessions.choose_organisation(
            ChooseOrganisationRequest {
                secret: nobodys(secret::Kind::Choice, &s),
                ..ChooseOrganisationRequest::default()
            },
        ));
        "GetInvitation" => |c, s| async {
            let (_, secret) = c.invite(&s).await?;
            c.sessions.get_invitation(GetInvitationRequest { secret }).await
        };
        "AcceptInvitation" => |c, s| async {
            let (_, invitation) = c.invite(&s).await?;
            c.accept(invitation).await
        };
        "ChangePassword" => |c, s| async {
            let (admin, _) = c.signed_in(&s).await?;
            c.sessions.change_password(ChangePasswordRequest {
                organisation_id: organisation(&s),
                admin_id: admin.id,
                current_password: PASSWORD.into(),
                new_password: "another horse, as correct".into(),
                ..ChangePasswordRequest::default()
            })
            .await
        };
        "AuthenticateSession" => |c, s| async {
            let (_, secret) = c.signed_in(&s).await?;
            let request = AuthenticateSessionRequest { secret, unattended: false };
            c.sessions.authenticate_session(request).await
        };
        "EndSession" => |c, s| async {
            let (_, secret) = c.signed_in(&s).await?;
            c.sessions.end_session(EndSessionRequest { secret, ..EndSessionRequest::default() }).await
        };
        "EndSessions" => |c, s| async {
            let (admin, _) = c.signed_in(&s).await?;
            c.sessions.end_sessions(EndSessionsRequest {
                organisation_id: organisation(&s),
                admin_id: admin.id,
                ..EndSessionsRequest::default()
            })
            .await
        };
    }));
    calls.extend(of!(
        "muster.identity.v1.AuditService",
        AuditServiceClient::new(here.identity.clone()),
        {
            "CreateAuditEvent" => |c, s| c.create_audit_event(CreateAuditEventRequest {
                event: Some(AuditEvent {
                    organisation_id: organisation(&s),
                    action: AuditAction::Exported.into(),
                    ..AuditEvent::default()
                }),
            });
            "ListAuditEvents" => |c, s| c.list_audit_events(ListAuditEventsRequest {
                organisation_id: organisation(&s),
                ..ListAuditEventsRequest::default()
            });
        }
    ));
    calls
}

/// A secret that nobody has.
fn nobodys(kind: secret::Kind, subject: &Subject) -> String {
    secret::generate(kind, organisation(subject).parse().unwrap())
}

fn provisioning_log(here: &Here) -> Vec<Call> {
    use identity::*;
    of!(
        "muster.identity.v1.ProvisioningLogService",
        ProvisioningLogServiceClient::new(here.identity.clone()),
        {
            "AppendProvisioningLog" => |c, s| c.append_provisioning_log(
                AppendProvisioningLogRequest { entries: vec![entry(&s)] },
            );
            "GetProvisioningLogEntry" => |c, s| async {
                let entry = entry(&s);
                let (organisation_id, id) = (entry.organisation_id.clone(), entry.id.clone());
                let entries = vec![entry];
                c.append_provisioning_log(AppendProvisioningLogRequest { entries }).await?;
                let request = GetProvisioningLogEntryRequest { organisation_id, id };
                c.get_provisioning_log_entry(request).await
            };
            "ListProvisioningLog" => |c, s| c.list_provisioning_log(ListProvisioningLogRequest {
                organisation_id: organisation(&s),
                ..ListProvisioningLogRequest::default()
            });
            "SummariseProvisioning" => |c, s| c.summarise_provisioning(
                SummariseProvisioningRequest { organisation_id: organisation(&s) },
            );
        }
    )
}

fn entry(subject: &Subject) -> identity::ProvisioningLogEntry {
    identity::ProvisioningLogEntry {
        id: uuid::Uuid::now_v7().to_string(),
        organisation_id: organisation(subject),
        request_time: Some(std::time::SystemTime::now().into()),
        method: "GET".into(),
        path: "/Users".into(),
        action: identity::ProvisioningAction::GetUser.into(),
        outcome: identity::ProvisioningOutcome::Applied.into(),
        status: 200,
        ..identity::ProvisioningLogEntry::default()
    }
}

async fn create_key(
    keys: &mut ApiKeyServiceClient<Transport>,
    organisation_id: String,
) -> Result<Response<identity::CreateApiKeyResponse>, Status> {
    let key = identity::ApiKey {
        organisation_id,
        label: "another".into(),
        ..identity::ApiKey::default()
    };
    let request = identity::CreateApiKeyRequest {
        api_key: Some(key),
        ..identity::CreateApiKeyRequest::default()
    };
    keys.create_api_key(request).await
}

fn groups(here: &Here) -> Vec<Call> {
    use group::*;
    of!("muster.group.v1.GroupService", here.groups(), {
        "CreateGroup" => |c, s| c.create_group(CreateGroupRequest {
            group: Some(Group {
                organisation_id: organisation(&s),
                display_name: format!("new{}", s.number),
                member_ids: vec![s.user.id],
                ..Group::default()
            }),
            ..CreateGroupRequest::default()
        });
        "GetGroup" => |c, s| c.get_group(GetGroupRequest {
            organisation_id: organisation(&s),
            id: s.group.id,
            view: GroupView::Full.into(),
        });
        "BatchGetGroups" => |c, s| c.batch_get_groups(BatchGetGroupsRequest {
            organisation_id: organisation(&s),
            ids: vec![s.group.id],
        });
        "ListGroups" => |c, s| c.list_groups(ListGroupsRequest {
            organisation_id: organisation(&s),
            ..ListGroupsRequest::default()
        });
        "UpdateGroup" => |c, s| c.update_group(UpdateGroupRequest {
            organisation_id: organisation(&s),
            id: s.group.id,
            display_name: Some(format!("renamed{}", s.number)),
            members: Some(update_group_request::Members::Delta(MemberDelta {
                add: Vec::new(),
                remove: vec![s.user.id],
            })),
            ..UpdateGroupRequest::default()
        });
        "DeleteGroup" => |c, s| c.delete_group(DeleteGroupRequest {
            organisation_id: organisation(&s),
            id: s.group.id,
            ..DeleteGroupRequest::default()
        });
        "ListMembers" => |c, s| c.list_members(ListMembersRequest {
            organisation_id: organisation(&s),
            group_id: s.group.id,
            ..ListMembersRequest::default()
        });
        "BatchListGroupsOfUsers" => |c, s| {
            c.batch_list_groups_of_users(BatchListGroupsOfUsersRequest {
                organisation_id: organisation(&s),
                user_ids: vec![s.user.id],
            })
        };
        "ListUsersInGroups" => |c, s| c.list_users_in_groups(ListUsersInGroupsRequest {
            organisation_id: organisation(&s),
            ..ListUsersInGroupsRequest::default()
        });
        "AwaitUser" => |c, s| c.await_user(AwaitUserRequest {
            organisation_id: organisation(&s),
            user_id: s.user.id,
            revision: s.user.revision,
        });
        "Reconcile" => |c, s| c.reconcile(ReconcileRequest {
            organisation_id: organisation(&s),
            dry_run: false,
        });
        "Recount" => |c, s| c.recount(RecountRequest { organisation_id: organisation(&s) });
        "WatchChanges" => |c, s| first(c.watch_changes(WatchChangesRequest {
            organisation_id: organisation(&s),
            ..WatchChangesRequest::default()
        }));
        "ListChanges" => |c, s| c.list_changes(ListChangesRequest {
            organisation_id: organisation(&s),
            group_id: s.group.id,
            ..ListChangesRequest::default()
        });
    })
}

fn approvers(here: &Here) -> Vec<Call> {
    use approver::*;
    of!("muster.approver.v1.ApproverService", ApproverServiceClient::new(here.approver.clone()), {
        "BatchGetApprovers" => |c, s| c.batch_get_approvers(BatchGetApproversRequest {
            organisation_id: organisation(&s),
            user_ids: vec![s.user.id],
        });
        "BatchListApprovees" => |c, s| c.batch_list_approvees(BatchListApproveesRequest {
            organisation_id: organisation(&s),
            approver_ids: vec![s.user.id],
        });
        "BatchCheckApprovals" => |c, s| c.batch_check_approvals(BatchCheckApprovalsRequest {
            organisation_id: organisation(&s),
            questions: vec![ApprovalQuestion { approver_id: s.user.id.clone(), user_id: s.user.id }],
        });
        "ListUsersByApprover" => |c, s| c.list_users_by_approver(ListUsersByApproverRequest {
            organisation_id: organisation(&s),
            ..ListUsersByApproverRequest::default()
        });
        "AwaitUser" => |c, s| c.await_user(AwaitUserRequest {
            organisation_id: organisation(&s),
            user_id: s.user.id,
            revision: s.user.revision,
        });
        "Reconcile" => |c, s| c.reconcile(ReconcileRequest {
            organisation_id: organisation(&s),
            dry_run: false,
        });
        "WatchChanges" => |c, s| first(c.watch_changes(WatchChangesRequest {
            organisation_id: organisation(&s),
            ..WatchChangesRequest::default()
        }));
        "ListChanges" => |c, s| c.list_changes(ListChangesRequest {
            organisation_id: organisation(&s),
            user_id: s.user.id,
            ..ListChangesRequest::default()
        });
    })
}
