//! `muster check`: whether what the services know of an organisation fits together.

mod compare;

use std::collections::BTreeSet;
use std::future::Future;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use muster_proto::approver::v1 as approver;
use muster_proto::approver::v1::approver_service_client::ApproverServiceClient;
use muster_proto::group::v1 as group;
use muster_proto::group::v1::group_service_client::GroupServiceClient;
use muster_proto::identity::v1::organisation_service_client::OrganisationServiceClient;
use muster_proto::identity::v1::user_service_client::UserServiceClient;
use muster_proto::identity::v1::{
    ListOrganisationsRequest, ListUsersRequest, Organisation, RecountRequest, User,
};
use muster_runtime::deadline;
use muster_runtime::grpc::max_message_bytes;
use muster_runtime::transport::Transport;
use tonic::{Response, Status};

use crate::operate::{Identity, find};
use compare::{Known, differences};

/// Compare what the services know of an organisation, and mend it where asked
///
/// Every membership and every approver must be a user who exists, every declared approver's state
/// must be what the users make it, and the totals of lists must be what can be counted. A difference
/// that is gone when it is looked at again was on its way, and is none.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  muster check --organisation acme --repair

The last line counts; the exit code is 0 only where nothing differs (any more).")]
pub struct CheckArgs {
    /// The organisation's slug; every organisation where it is left out
    #[arg(long, value_name = "SLUG")]
    organisation: Option<String>,
    /// Let the services mend what differs
    #[arg(long)]
    repair: bool,
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

/// How long one call may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often a difference is looked at before it is one.
const LOOKS: u32 = 3;
/// How long what is on its way is given between two looks.
const PAUSE: Duration = Duration::from_secs(1);
/// How many users or groups are read at once.
const PAGE: i32 = 1_000;
/// How many groups are read at once with their members.
const GROUP_PAGE: i32 = 100;

/// Runs `muster check`.
pub async fn run(args: CheckArgs) -> anyhow::Result<()> {
    let CheckArgs { organisation, repair, identity, group_url, approver_url } = args;
    let transport = identity.connect(None)?;
    let organisations = match organisation {
        Some(slug) => {
            let id = find(&transport, slug.clone()).await?;
            vec![Organisation { id, slug, ..Organisation::default() }]
        }
        None => all_organisations(transport.clone()).await?,
    };
    let services = Services {
        users: UserServiceClient::new(transport).max_decoding_message_size(max_message_bytes()),
        groups: GroupServiceClient::new(identity.connect(group_url.as_deref())?)
            .max_decoding_message_size(max_message_bytes()),
        approvers: ApproverServiceClient::new(identity.connect(approver_url.as_deref())?)
            .max_decoding_message_size(max_message_bytes()),
    };
    let mut left = 0;
    for organisation in organisations {
        let slug = &organisation.slug;
        let mut found = services.look(&organisation.id).await?;
        for difference in &found.differences {
            println!("{slug}: {difference}");
        }
        if repair && !found.differences.is_empty() {
            let mended = services.mend(&organisation.id).await?;
            found = services.look(&organisation.id).await?;
            println!("{slug}: mended {mended} users; {} differences left", found.differences.len());
        }
        let Found { users, groups, declared, differences } = found;
        left += differences.len();
        println!(
            "{slug}: {users} users, {groups} groups, {declared} declared approvers, {} differences",
            differences.len()
        );
    }
    if left > 0 {
        bail!("{left} differences; `muster check --repair` mends what the services can");
    }
    Ok(())
}

/// What a look at an organisation found.
struct Found {
    users: usize,
    groups: usize,
    declared: usize,
    differences: BTreeSet<String>,
}

struct Services {
    users: UserServiceClient<Transport>,
    groups: GroupServiceClient<Transport>,
    approvers: ApproverServiceClient<Transport>,
}

impl Services {
    /// Looks until two looks agree that there is nothing, or nothing goes away any more.
    async fn look(&self, organisation: &str) -> anyhow::Result<Found> {
        let mut found = self.look_once(organisation).await?;
        for _ in 1..LOOKS {
            if found.differences.is_empty() {
                break;
            }
            tokio::time::sleep(PAUSE).await;
            let again = self.look_once(organisation).await?;
            let both = found.differences.intersection(&again.differences).cloned().collect();
            found = Found { differences: both, ..again };
        }
        Ok(found)
    }

    async fn look_once(&self, organisation: &str) -> anyhow::Result<Found> {
        let known = Known {
            users: self.users(organisation).await?,
            groups: self.groups(organisation).await?,
            approvers: Vec::new(),
        };
        let approvers = self.approvers(organisation, &known.users.list).await?;
        let known = Known { approvers, ..known };
        let mut differences = differences(&known);
        for (service, user_ids) in self.stale(organisation).await? {
            differences.extend(user_ids.into_iter().map(|id| {
                format!("{service} knows something else of the user {id} than identity says")
            }));
        }
        Ok(Found {
            users: known.users.list.len(),
            groups: known.groups.list.len(),
            declared: known.users.list.iter().map(|user| user.declared_approvers.len()).sum(),
            differences,
        })
    }

    async fn users(&self, organisation: &str) -> anyhow::Result<Listed<User>> {
        let mut listed = Listed::default();
        let mut page_token = String::new();
        loop {
            let request = ListUsersRequest {
                organisation_id: organisation.to_owned(),
                page_size: PAGE,
                page_token,
                ..ListUsersRequest::default()
            };
            let page = call("identity", self.users.clone().list_users(request)).await?;
            listed.list.extend(page.users);
            listed.total = page.total_size;
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return Ok(listed);
            }
        }
    }

    async fn groups(&self, organisation: &str) -> anyhow::Result<Listed<group::Group>> {
        let mut listed = Listed::default();
        let mut page_token = String::new();
        loop {
            let request = group::ListGroupsRequest {
                organisation_id: organisation.to_owned(),
                page_size: GROUP_PAGE,
                page_token,
                view: group::GroupView::Full.into(),
                ..group::ListGroupsRequest::default()
            };
            let page = call("the group service", self.groups.clone().list_groups(request)).await?;
            listed.list.extend(page.groups);
            listed.total = page.total_size;
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return Ok(listed);
            }
        }
    }

    async fn approvers(
        &self,
        organisation: &str,
        users: &[User],
    ) -> anyhow::Result<Vec<approver::UserApprovers>> {
        let mut all = Vec::new();
        for users in users.chunks(usize::try_from(PAGE)?) {
            let request = approver::BatchGetApproversRequest {
                organisation_id: organisation.to_owned(),
                user_ids: users.iter().map(|user| user.id.clone()).collect(),
            };
            let mut approvers = self.approvers.clone();
            let answer = call("the approver service", approvers.batch_get_approvers(request)).await;
            all.extend(answer?.users);
        }
        Ok(all)
    }

    /// Of which users each follower knows something else than identity says.
    async fn stale(&self, organisation: &str) -> anyhow::Result<[(&'static str, Vec<String>); 2]> {
        let (groups, approvers) = self.reconcile(organisation, true).await?;
        Ok([("the group service", groups.user_ids), ("the approver service", approvers.user_ids)])
    }

    /// Lets the followers take everything from identity, and the owners count anew; of how many
    /// users the followers knew else.
    async fn mend(&self, organisation: &str) -> anyhow::Result<i32> {
        self.recount(organisation).await?;
        let (groups, approvers) = self.reconcile(organisation, false).await?;
        Ok(groups.difference_count + approvers.difference_count)
    }

    async fn reconcile(
        &self,
        organisation: &str,
        dry_run: bool,
    ) -> anyhow::Result<(group::ReconcileResponse, approver::ReconcileResponse)> {
        let organisation_id = organisation.to_owned();
        let request = group::ReconcileRequest { organisation_id: organisation_id.clone(), dry_run };
        let (mut groups, mut approvers) = (self.groups.clone(), self.approvers.clone());
        let in_groups = call("the group service", groups.reconcile(request));
        let request = approver::ReconcileRequest { organisation_id, dry_run };
        let in_approvers = call("the approver service", approvers.reconcile(request));
        tokio::try_join!(in_groups, in_approvers)
    }

    /// Lets the owners count anew.
    async fn recount(&self, organisation: &str) -> anyhow::Result<()> {
        let organisation_id = organisation.to_owned();
        let request = RecountRequest { organisation_id: organisation_id.clone() };
        call("identity", self.users.clone().recount(request)).await?;
        let request = group::RecountRequest { organisation_id };
        call("the group service", self.groups.clone().recount(request)).await?;
        Ok(())
    }
}

/// A whole list, and the total that its last page told.
#[derive(Debug)]
struct Listed<T> {
    list: Vec<T>,
    total: i32,
}

impl<T> Default for Listed<T> {
    fn default() -> Self {
        Self { list: Vec::new(), total: 0 }
    }
}

async fn all_organisations(transport: Transport) -> anyhow::Result<Vec<Organisation>> {
    let mut client = OrganisationServiceClient::new(transport);
    let (mut all, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = ListOrganisationsRequest { page_size: PAGE, page_token };
        let page = call("identity", client.list_organisations(request)).await?;
        all.extend(page.organisations);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return Ok(all);
        }
    }
}

async fn call<T>(
    service: &str,
    answer: impl Future<Output = Result<Response<T>, Status>>,
) -> anyhow::Result<T> {
    let answer = deadline::within(PATIENCE, answer).await;
    let answer = answer.map_err(|status| anyhow::anyhow!("{}", status.message()));
    Ok(answer.with_context(|| format!("{service} does not answer"))?.into_inner())
}
