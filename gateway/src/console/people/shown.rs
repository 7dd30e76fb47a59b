//! People in words, as pages and files show them.

use muster_proto::approver::v1::{Approver, ApproverState};
use muster_proto::group::v1::Membership;
use muster_proto::identity::v1::{ContentRegion, Organisation, Origin, User};

use super::super::frame::Problem;
use crate::Gateway;
use crate::scim::{approvers_of, groups_of};

/// How many groups and approvers a row shows; the rest is counted.
const SHOWN: usize = 2;

/// A person in a list.
#[derive(Debug, Clone)]
pub(in super::super) struct Row {
    pub user: User,
    pub name: String,
    pub groups: Vec<Membership>,
    pub approvers: Vec<Declared>,
}

impl Row {
    pub(super) fn first_groups(&self) -> &[Membership] {
        &self.groups[..self.groups.len().min(SHOWN)]
    }

    pub(super) fn other_groups(&self) -> usize {
        self.groups.len().saturating_sub(SHOWN)
    }

    pub(super) fn first_approvers(&self) -> &[Declared] {
        &self.approvers[..self.approvers.len().min(SHOWN)]
    }

    pub(super) fn other_approvers(&self) -> usize {
        self.approvers.len().saturating_sub(SHOWN)
    }

    pub(in super::super) fn region(&self) -> &'static str {
        region(&self.user)
    }

    pub(in super::super) fn source(&self) -> Source {
        Source::of(&self.user)
    }
}

/// A declared approver, and what has come of it.
#[derive(Debug, Clone)]
pub(in super::super) struct Declared {
    pub approver: Approver,
    /// The badge's class.
    pub class: &'static str,
    pub state: &'static str,
    /// Why it is so, and what to do.
    pub why: &'static str,
}

impl Declared {
    /// The address to show: the approver's now, else the one that was declared.
    pub(in super::super) fn address(&self) -> &str {
        match self.approver.email.as_str() {
            "" => &self.approver.declared_email,
            email => email,
        }
    }
}

impl From<Approver> for Declared {
    fn from(approver: Approver) -> Self {
        let (class, state, why) = match approver.state() {
            ApproverState::InForce => {
                ("good", "In force", "The address belongs to an active person.")
            }
            ApproverState::Suspended => (
                "off",
                "Suspended",
                "The person is not active. It comes back into force when they are reactivated.",
            ),
            ApproverState::OwnAddress => (
                "bad",
                "Own address",
                "Nobody approves for themselves. Correct the approver in Okta.",
            ),
            ApproverState::Pending | ApproverState::Unspecified => (
                "wait",
                "Pending",
                "Nobody in Muster has this address yet. It comes into force by itself when somebody does.",
            ),
        };
        Self { approver, class, state, why }
    }
}

/// Where a person comes from.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Source {
    /// The badge's class.
    pub class: &'static str,
    pub name: &'static str,
    pub why: &'static str,
}

impl Source {
    pub(in super::super) fn of(user: &User) -> Self {
        let (class, name, why) = match user.origin() {
            Origin::Console => (
                "info",
                "Added here",
                "Added in this console. Okta takes the person over when it first writes to them.",
            ),
            Origin::Csv => (
                "info",
                "From CSV",
                "Imported from a CSV file. Okta takes the person over when it first writes to them.",
            ),
            Origin::Scim | Origin::Unspecified => {
                ("good", "In sync", "Okta, or another SCIM client, writes this person.")
            }
        };
        Self { class, name, why }
    }
}

/// What to call a person: whatever there is of a name.
pub(in super::super) fn name(user: &User) -> String {
    let parts = user.name.clone().unwrap_or_default();
    let both = [parts.given_name, parts.family_name].into_iter().flatten();
    let both = both.collect::<Vec<_>>().join(" ");
    [user.display_name.clone(), Some(both), parts.formatted, user.user_name.clone()]
        .into_iter()
        .flatten()
        .find(|name| !name.trim().is_empty())
        .unwrap_or_else(|| "Somebody without a name".to_owned())
}

/// The content region's code.
pub(in super::super) fn region(user: &User) -> &'static str {
    region_code(user.content_region())
}

pub(in super::super) fn region_code(region: ContentRegion) -> &'static str {
    let name = region.as_str_name();
    name.strip_prefix("CONTENT_REGION_").unwrap_or(name)
}

/// What the organisation calls its custom fields.
pub(in super::super) fn field_names(organisation: &Organisation) -> [String; 3] {
    let names = [
        &organisation.custom_field_1_name,
        &organisation.custom_field_2_name,
        &organisation.custom_field_3_name,
    ];
    let mut number = 0;
    names.map(|name| {
        number += 1;
        if name.is_empty() { format!("Custom field {number}") } else { name.clone() }
    })
}

/// People with their groups and approvers, each service asked once.
pub(in super::super) async fn rows(gateway: &Gateway, users: &[User]) -> Result<Vec<Row>, Problem> {
    let (mut groups, mut approvers) =
        tokio::try_join!(groups_of(gateway, users), approvers_of(gateway, users))?;
    let row = |user: &User| Row {
        name: name(user),
        groups: groups.remove(&user.id).unwrap_or_default(),
        approvers: approvers
            .remove(&user.id)
            .unwrap_or_default()
            .into_iter()
            .map(Declared::from)
            .collect(),
        user: user.clone(),
    };
    Ok(users.iter().map(row).collect())
}

#[cfg(test)]
mod tests {
    use muster_proto::identity::v1::Name;

    use super::*;

    #[test]
    fn a_person_is_called_by_whatever_there_is_of_a_name() {
        let mut user = User { user_name: Some("abell".into()), ..User::default() };
        assert_eq!(name(&user), "abell");
        user.name = Some(Name { family_name: Some("Bell".into()), ..Name::default() });
        assert_eq!(name(&user), "Bell");
        user.display_name = Some("Ann Bell".into());
        assert_eq!(name(&user), "Ann Bell");
        user.display_name = Some(" ".into());
        assert_eq!(name(&user), "Bell");
    }

    #[test]
    fn a_custom_field_without_a_name_is_numbered() {
        let organisation =
            Organisation { custom_field_2_name: "Team".into(), ..Organisation::default() };
        assert_eq!(field_names(&organisation), ["Custom field 1", "Team", "Custom field 3"]);
    }
}
