//! How far an organisation is with the guide: what its provisioning log, its totals and the people
//! who came last say. Nothing is counted for it.

use muster_proto::approver::v1::{GetApproverTotalsRequest, ListUsersWithPendingApproversRequest};
use muster_proto::group::v1::{GroupView, ListGroupsRequest};
use muster_proto::identity::v1::{
    ListProvisioningLogRequest, ListUsersRequest, Origin, ProvisioningAction as Action,
    ProvisioningCount, ProvisioningOutcome as Outcome, SummariseProvisioningRequest, User,
};
use prost_types::Timestamp;
use tonic::Status;

use super::super::log::keys;
use super::super::log::shown::{Shown, labels};
use crate::Gateway;

/// How many of the people who changed last are looked at.
const PEOPLE: i32 = 20;
/// How many failures are shown.
const FAILURES: i32 = 3;

/// How far the organisation is.
#[derive(Debug)]
pub(super) struct Progress {
    /// How many keys there are that may be used.
    pub keys: usize,
    counts: Vec<ProvisioningCount>,
    pub users: i64,
    pub groups: i64,
    pub declared: i64,
    pub in_force: i64,
    /// Whether a declared approver belongs to nobody yet. Others that are not in force have left, or
    /// are somebody's own address: nothing waits for them.
    pub waits_for_approvers: bool,
    pub attributes: Vec<Seen>,
    pub people_seen: usize,
    pub failures: Vec<Shown>,
}

/// For how many of the people who came last an attribute was sent.
#[derive(Debug)]
pub(super) struct Seen {
    pub name: &'static str,
    pub count: usize,
    /// Whether the guide only recommends it.
    pub is_optional: bool,
    /// What to do where it is missing.
    pub advice: &'static str,
}

impl Progress {
    pub(super) async fn of(gateway: &Gateway, organisation: &str) -> Result<Self, Status> {
        let parts = &gateway.parts;
        let organisation_id = || organisation.to_owned();
        let summary = async {
            let request = SummariseProvisioningRequest { organisation_id: organisation_id() };
            let summary = parts.provisioning_log.clone().summarise_provisioning(request).await?;
            Ok(summary.into_inner().counts)
        };
        let users = async {
            let request = ListUsersRequest {
                organisation_id: organisation_id(),
                total_only: true,
                ..ListUsersRequest::default()
            };
            Ok(parts.users.clone().list_users(request).await?.into_inner().total_size)
        };
        let groups = async {
            let request = ListGroupsRequest {
                organisation_id: organisation_id(),
                total_only: true,
                view: GroupView::Basic.into(),
                ..ListGroupsRequest::default()
            };
            Ok(parts.groups.clone().list_groups(request).await?.into_inner().total_size)
        };
        let approvers = async {
            let request = GetApproverTotalsRequest { organisation_id: organisation_id() };
            Ok(parts.approvers.clone().get_approver_totals(request).await?.into_inner())
        };
        let waiting = async {
            let request = ListUsersWithPendingApproversRequest {
                organisation_id: organisation_id(),
                page_size: 1,
                page_token: String::new(),
            };
            let mut approvers = parts.approvers.clone();
            let waiting = approvers.list_users_with_pending_approvers(request).await?;
            Ok(!waiting.into_inner().user_ids.is_empty())
        };
        let failures = async {
            let request = ListProvisioningLogRequest {
                organisation_id: organisation_id(),
                page_size: FAILURES,
                outcome: Outcome::Failed.into(),
                ..ListProvisioningLogRequest::default()
            };
            let mut log = parts.provisioning_log.clone();
            Ok(log.list_provisioning_log(request).await?.into_inner().entries)
        };
        let keys = keys(gateway, organisation);
        let last = last_people(gateway, organisation);
        let (counts, users, groups, approvers, waits_for_approvers, failures, keys, last) =
            tokio::try_join!(summary, users, groups, approvers, waiting, failures, keys, last)?;
        let usable = keys.iter().filter(|key| key.revoke_time.is_none()).count();
        let names = labels(keys);
        Ok(Self {
            keys: usable,
            counts,
            users: users.into(),
            groups: groups.into(),
            declared: approvers.declared_count,
            in_force: approvers.in_force_count,
            waits_for_approvers,
            attributes: attributes(&last),
            people_seen: last.len(),
            failures: failures.into_iter().map(|entry| Shown::of(entry, &names)).collect(),
        })
    }

    fn matching(
        &self,
        actions: &'static [Action],
        outcomes: &'static [Outcome],
    ) -> impl Iterator<Item = &ProvisioningCount> {
        self.counts
            .iter()
            .filter(|c| actions.contains(&c.action()) && outcomes.contains(&c.outcome()))
    }

    fn sum(&self, actions: &'static [Action], outcomes: &'static [Outcome]) -> i64 {
        self.matching(actions, outcomes).map(|count| count.count).sum()
    }

    /// Step 1: Okta reached us with a key.
    pub(super) fn is_connected(&self) -> bool {
        self.counts.iter().any(|count| count.action() != Action::RefusedKey)
    }

    /// Whether the last request came with a key that may not be used any more.
    pub(super) fn uses_refused_key(&self) -> bool {
        let last = |refused: bool| {
            let counts = self.counts.iter();
            let counts = counts.filter(|c| (c.action() == Action::RefusedKey) == refused);
            counts.filter_map(|count| count.last_time).map(order).max()
        };
        last(true) > last(false)
    }

    /// Step 2: people came with what the guide asks for. What it only recommends may be missing.
    pub(super) fn is_mapped(&self) -> bool {
        let has_come = |seen: &Seen| seen.is_optional || seen.count > 0;
        self.people_seen > 0 && self.attributes.iter().all(has_come)
    }

    /// How many people Okta has created here.
    pub(super) fn created(&self) -> i64 {
        self.sum(&[Action::CreateUser], DONE)
    }

    /// How often creating one failed.
    pub(super) fn not_created(&self) -> i64 {
        self.sum(&[Action::CreateUser], &[Outcome::Failed])
    }

    /// Whether Okta has read all people: *Import Now*.
    pub(super) fn is_imported(&self) -> bool {
        self.sum(&[Action::ImportUsers], DONE) > 0
    }

    /// How many updates of people there were.
    pub(super) fn updated(&self) -> i64 {
        self.sum(&[Action::ReplaceUser, Action::PatchUser], DONE)
    }

    /// People came from Okta, or those who are here were matched.
    pub(super) fn is_assigned(&self) -> bool {
        self.created() > 0 || (self.is_imported() && self.updated() > 0)
    }

    /// How many declared approvers do not approve.
    pub(super) fn not_in_force(&self) -> i64 {
        self.declared - self.in_force
    }

    /// Step 3: people are assigned, and nobody waits for an approver.
    pub(super) fn is_complete(&self) -> bool {
        self.is_assigned() && !self.waits_for_approvers
    }

    /// Step 4: groups were pushed.
    pub(super) fn is_pushed(&self) -> bool {
        self.sum(&[Action::CreateGroup, Action::ReplaceGroup, Action::PatchGroup], DONE) > 0
    }

    /// How many pushes left members out.
    pub(super) fn in_part(&self) -> i64 {
        self.counts
            .iter()
            .filter(|count| count.outcome() == Outcome::AppliedInPart)
            .map(|count| count.count)
            .sum()
    }

    /// Step 5: nothing is left to do.
    pub(super) fn is_verified(&self) -> bool {
        self.is_connected() && self.is_mapped() && self.is_complete() && self.is_pushed()
    }

    /// The number of the first step that is not done; 6 where all are.
    pub(super) fn now(&self) -> usize {
        let steps = [
            self.is_connected() && !self.uses_refused_key(),
            self.is_mapped(),
            self.is_complete(),
            self.is_pushed(),
            self.is_verified(),
        ];
        // People come before their attributes can be seen: step 2 is for later where nobody came.
        let waits = |n: usize| n == 1 && self.people_seen == 0 && !self.is_assigned();
        let open = steps.iter().enumerate().position(|(n, done)| !done && !waits(n));
        open.map_or(6, |n| n + 1)
    }

    /// The class of a step of the list.
    pub(super) fn class(&self, number: usize, done: bool) -> &'static str {
        match (done, self.now() == number) {
            (true, _) => "done",
            (false, true) => "now",
            (false, false) => "",
        }
    }

    /// Which of Okta's dialects it speaks; empty as long as that is not to be seen.
    pub(super) fn dialect(&self) -> &'static str {
        let any = &[Outcome::Applied, Outcome::AppliedInPart, Outcome::Failed];
        if self.sum(&[Action::PatchUser, Action::PatchGroup], any) > 0 {
            "PATCH"
        } else if self.sum(&[Action::ReplaceUser, Action::ReplaceGroup], any) > 0 {
            "PUT"
        } else {
            ""
        }
    }
}

const DONE: &[Outcome] = &[Outcome::Applied, Outcome::AppliedInPart];

fn order(time: Timestamp) -> (i64, i32) {
    (time.seconds, time.nanos)
}

/// The people who changed last, those of them who are from Okta.
async fn last_people(gateway: &Gateway, organisation: &str) -> Result<Vec<User>, Status> {
    let request = ListUsersRequest {
        organisation_id: organisation.to_owned(),
        page_size: PEOPLE,
        order_by: "update_time desc".to_owned(),
        ..ListUsersRequest::default()
    };
    let users = gateway.parts.users.clone().list_users(request).await?.into_inner().users;
    Ok(users
        .into_iter()
        .filter(|user| !matches!(user.origin(), Origin::Console | Origin::Csv))
        .collect())
}

/// Whether a user came with an attribute.
type Has = fn(&User) -> bool;

fn attributes(people: &[User]) -> Vec<Seen> {
    let name = |user: &User| user.name.as_ref().is_some_and(|n| n.family_name.is_some());
    let seen: [(&str, Has, bool, &str); 4] = [
        ("name", name, false, "Map givenName and familyName."),
        (
            "e-mail",
            |user| !user.primary_email.is_empty(),
            false,
            "Map email: approvers and imports are matched by it.",
        ),
        (
            "contentRegion",
            // QQ is what one who comes without a country is given.
            |user| user.country_code.as_ref().is_some_and(|code| code != "QQ"),
            true,
            "Map the person’s country code to contentRegion; without it everybody is Global (QQ).",
        ),
        (
            "approvers",
            |user| !user.declared_approvers.is_empty(),
            true,
            "Define approvers in Okta, fill it from your HRIS, and map it to approvers.",
        ),
    ];
    seen.into_iter()
        .map(|(name, has, is_optional, advice)| Seen {
            name,
            count: people.iter().filter(|user| has(user)).count(),
            is_optional,
            advice,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use muster_proto::identity::v1::Name;

    use super::*;

    fn progress(counts: &[(Action, Outcome, i64)]) -> Progress {
        let counts = counts.iter().map(|(action, outcome, seconds)| ProvisioningCount {
            action: (*action).into(),
            outcome: (*outcome).into(),
            count: 1,
            first_time: None,
            last_time: Some(Timestamp { seconds: *seconds, nanos: 0 }),
        });
        Progress {
            keys: 1,
            counts: counts.collect(),
            users: 0,
            groups: 0,
            declared: 0,
            in_force: 0,
            waits_for_approvers: false,
            attributes: attributes(&[]),
            people_seen: 0,
            failures: Vec::new(),
        }
    }

    #[test]
    fn the_step_to_do_now_is_the_first_that_is_open() {
        assert_eq!(progress(&[]).now(), 1);
        let tested = progress(&[(Action::Test, Outcome::Applied, 1)]);
        assert_eq!((tested.now(), tested.dialect()), (3, ""));
        let assigned = progress(&[(Action::CreateUser, Outcome::Applied, 1)]);
        assert_eq!(assigned.now(), 2);
    }

    #[test]
    fn a_key_that_is_refused_matters_until_another_is_used() {
        let refused = progress(&[
            (Action::Test, Outcome::Applied, 1),
            (Action::RefusedKey, Outcome::Failed, 2),
        ]);
        assert!(refused.uses_refused_key() && refused.now() == 1);
        let mended = progress(&[
            (Action::Test, Outcome::Applied, 3),
            (Action::RefusedKey, Outcome::Failed, 2),
        ]);
        assert!(!mended.uses_refused_key());
        assert!(!progress(&[(Action::RefusedKey, Outcome::Failed, 2)]).is_connected());
    }

    #[test]
    fn an_approver_who_has_left_keeps_nobody_waiting() {
        let mut progress = progress(&[
            (Action::CreateUser, Outcome::Applied, 1),
            (Action::CreateGroup, Outcome::Applied, 2),
        ]);
        progress.people_seen = 1;
        progress.attributes.iter_mut().for_each(|seen| seen.count = 1);
        (progress.declared, progress.in_force) = (3, 2);
        assert_eq!((progress.now(), progress.not_in_force()), (6, 1));
        progress.waits_for_approvers = true;
        assert_eq!((progress.now(), progress.is_verified()), (3, false));
    }

    #[test]
    fn what_is_only_recommended_may_be_missing() {
        let name = Name { family_name: Some("Moss".into()), ..Name::default() };
        let mut ivy = User { name: Some(name), ..User::default() };
        let mapped = |user: &User| {
            let attributes = attributes(std::slice::from_ref(user));
            Progress { people_seen: 1, attributes, ..progress(&[]) }.is_mapped()
        };
        assert!(!mapped(&ivy), "there is no e-mail address");
        ivy.primary_email = "ivy@a.example".into();
        assert!(mapped(&ivy));
    }

    #[test]
    fn one_patch_tells_the_dialect() {
        let put = (Action::ReplaceUser, Outcome::Applied, 1);
        assert_eq!(progress(&[put]).dialect(), "PUT");
        let patch = (Action::PatchGroup, Outcome::AppliedInPart, 1);
        assert_eq!(progress(&[put, patch]).dialect(), "PATCH");
    }
}
