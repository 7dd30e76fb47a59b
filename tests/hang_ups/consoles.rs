//! The methods that the console calls: admins, their sessions, what they did, the provisioning log and
//! imports.

use std::time::SystemTime;

use muster_identity::secret;
use muster_proto::identity::v1 as identity;
use muster_proto::identity::v1::admin_service_client::AdminServiceClient;
use muster_proto::identity::v1::audit_service_client::AuditServiceClient;
use muster_proto::identity::v1::import_service_client::ImportServiceClient;
use muster_proto::identity::v1::provisioning_log_service_client::ProvisioningLogServiceClient;
use muster_proto::identity::v1::report_service_client::ReportServiceClient;
use muster_proto::identity::v1::session_service_client::SessionServiceClient;
use muster_runtime::transport::Transport;
use tonic::{Response, Status};
use uuid::Uuid;

use super::rpcs::{call, of, organisation, refused};
use super::{Call, Here, Subject};

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

pub(super) fn all(here: &Here) -> Vec<Call> {
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
    calls.extend(sessions(&client));
    calls.extend(of!(
        "muster.identity.v1.AuditService",
        AuditServiceClient::new(here.identity.clone()),
        {
            "CreateAuditEvent" => |c, s| c.create_audit_event(CreateAuditEventRequest {
                event: Some(AuditEvent {
                    organisation_id: organisation(&s),
                    action: AuditAction::Exported.into(),
                    subject: "People".into(),
                    ..AuditEvent::default()
                }),
            });
            "ListAuditEvents" => |c, s| c.list_audit_events(ListAuditEventsRequest {
                organisation_id: organisation(&s),
                ..ListAuditEventsRequest::default()
            });
        }
    ));
    calls.extend(provisioning_log(here));
    calls.extend(imports(here));
    calls.extend(of!(
        "muster.identity.v1.ReportService",
        ReportServiceClient::new(here.identity.clone()),
        {
            "GetHeadCounts" => |c, s| c.get_head_counts(GetHeadCountsRequest {
                organisation_id: organisation(&s),
            });
        }
    ));
    calls
}

fn sessions(client: &Admins) -> Vec<Call> {
    use identity::*;
    of!("muster.identity.v1.SessionService", client.clone(), {
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
    })
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
        id: Uuid::now_v7().to_string(),
        organisation_id: organisation(subject),
        request_time: Some(SystemTime::now().into()),
        method: "GET".into(),
        path: "/Users".into(),
        action: identity::ProvisioningAction::GetUser.into(),
        outcome: identity::ProvisioningOutcome::Applied.into(),
        status: 200,
        ..identity::ProvisioningLogEntry::default()
    }
}

fn imports(here: &Here) -> Vec<Call> {
    use identity::*;
    let client = ImportServiceClient::new(here.identity.clone());
    of!("muster.identity.v1.ImportService", client, {
        "CreateImport" => |c, s| keep(&mut c, &s);
        "GetImport" => |c, s| async {
            let id = keep(&mut c, &s).await?.into_inner().id;
            c.get_import(GetImportRequest { organisation_id: organisation(&s), id }).await
        };
        "CheckImport" => |c, s| async {
            let id = keep(&mut c, &s).await?.into_inner().id;
            c.check_import(CheckImportRequest { organisation_id: organisation(&s), id }).await
        };
        "StartImport" => |c, s| async {
            let id = keep(&mut c, &s).await?.into_inner().id;
            let organisation_id = organisation(&s);
            c.start_import(StartImportRequest { organisation_id, id, actor: None }).await
        };
    })
}

/// Keeps a file of one person.
async fn keep(
    imports: &mut ImportServiceClient<Transport>,
    subject: &Subject,
) -> Result<Response<identity::Import>, Status> {
    let file = format!("userName,email\nfile{n},file{n}@a.example\n", n = subject.number);
    let organisation_id = organisation(subject);
    let request = identity::CreateImportRequest { organisation_id, file: file.into() };
    imports.create_import(request).await
}
