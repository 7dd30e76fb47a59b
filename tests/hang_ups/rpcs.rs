//! Every method of every service.

use std::future::Future;

use muster_proto::approver::v1 as approver;
use muster_proto::approver::v1::approver_service_client::ApproverServiceClient;
use muster_proto::group::v1 as group;
use muster_proto::identity::v1 as identity;
use muster_proto::identity::v1::api_key_service_client::ApiKeyServiceClient;
use muster_proto::identity::v1::organisation_service_client::OrganisationServiceClient;
use muster_runtime::transport::Transport;
use tonic::{Code, Response, Status, Streaming};

use super::{Call, Here, Subject, consoles};
use crate::support::feed::user;

/// A call of one method; an error that a request of its kind may have is none.
pub(super) fn call<C, R, F>(
    service: &str,
    method: &str,
    client: &C,
    ask: fn(C, Subject) -> F,
) -> Call
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
    calls.extend(consoles::all(here));
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
pub(super) async fn refused<T>(
    answer: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<Response<()>, Status> {
    let status = answer.await.err().unwrap();
    let is_refusal = matches!(status.code(), Code::Unauthenticated | Code::NotFound);
    if is_refusal { Ok(Response::new(())) } else { Err(status) }
}

pub(super) fn organisation(subject: &Subject) -> String {
    subject.user.organisation_id.clone()
}

macro_rules! of {
    ($service:literal, $client:expr, { $($method:literal => |$c:ident, $s:ident| $ask:expr;)* }) => {
        vec![$(call($service, $method, &$client, |mut $c, $s| async move { $ask.await }),)*]
    };
}

pub(super) use of;

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
            ..BatchGetUsersRequest::default()
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
        "EraseUser" => |c, s| async move {
            c.delete_user(DeleteUserRequest {
                organisation_id: organisation(&s),
                id: s.user.id.clone(),
                ..DeleteUserRequest::default()
            })
            .await?;
            c.erase_user(EraseUserRequest {
                organisation_id: organisation(&s),
                id: s.user.id,
                actor: None,
            })
            .await
        };
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
        "SearchUsers" => |c, s| c.search_users(SearchUsersRequest {
            organisation_id: organisation(&s),
            query: "example".into(),
            ..SearchUsersRequest::default()
        });
        "ListUnknownCountries" => |c, s| c.list_unknown_countries(ListUnknownCountriesRequest {
            organisation_id: organisation(&s),
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
        "BatchCountInactiveMembers" => |c, s| {
            c.batch_count_inactive_members(BatchCountInactiveMembersRequest {
                organisation_id: organisation(&s),
                group_ids: vec![s.group.id],
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
            update_time: None,
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
        "GetApproverTotals" => |c, s| c.get_approver_totals(GetApproverTotalsRequest {
            organisation_id: organisation(&s),
        });
        "ListUsersWithPendingApprovers" => |c, s| {
            c.list_users_with_pending_approvers(ListUsersWithPendingApproversRequest {
                organisation_id: organisation(&s),
                ..ListUsersWithPendingApproversRequest::default()
            })
        };
        "AwaitUser" => |c, s| c.await_user(AwaitUserRequest {
            organisation_id: organisation(&s),
            user_id: s.user.id,
            revision: s.user.revision,
            update_time: None,
            user: None,
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
