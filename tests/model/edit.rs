//! What one operation of a PATCH does to a user or a group.

use super::key::{key, same};
use super::user::TEXTS;
use super::{Doc, Email, Group, Refusal};

/// One operation on a user; `op.rs` has the forms it is sent in.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum UserEdit {
    UserName(String),
    Active(bool),
    RemoveActive,
    /// One of [`TEXTS`], and its value.
    Text(&'static str, String),
    RemoveText(&'static str),
    Country(String),
    RemoveCountry,
    Emails(Vec<Email>),
    AddEmail(Email),
    /// `emails[type eq "…"].value`.
    EmailOfType(&'static str, String),
    /// `emails[primary eq true].value`.
    PrimaryEmail(String),
    RemoveEmails(&'static str),
    Approvers(Vec<String>),
    AddApprovers(Vec<String>),
    RemoveApprovers(Vec<String>),
    RemoveAllApprovers,
    /// Something that is refused, whatever the user is.
    Wrong(Wrong),
}

/// What no PATCH may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wrong {
    /// `id` with an explicit path.
    ReadOnly,
    /// A path that no schema declares.
    UnknownPath,
    /// A remove without a path.
    NoTarget,
    /// A required attribute removed.
    RemoveUserName,
    /// A value of another type.
    Type,
}

/// One operation on a group.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum GroupEdit {
    Rename(String),
    ExternalId(Option<String>),
    AddMembers(Vec<String>),
    /// By a value list.
    RemoveMembers(Vec<String>),
    /// By `members[value eq "…"]`.
    RemoveMember(String),
    ReplaceMembers(Vec<String>),
    RemoveAllMembers,
    /// A group as a member, which is refused.
    Nested(String),
    /// The name removed, which is refused.
    RemoveName,
}

impl UserEdit {
    /// The approvers that it names.
    pub(crate) fn named_approvers(&self) -> &[String] {
        match self {
            Self::Approvers(emails)
            | Self::AddApprovers(emails)
            | Self::RemoveApprovers(emails) => emails,
            _ => &[],
        }
    }
}

pub(crate) fn index_of(name: &str) -> usize {
    TEXTS.iter().position(|text| *text == name).expect("a text attribute")
}

/// Applies operations in order. `shown` are the declared approvers as the client sees them, and as
/// they were declared.
pub(super) fn apply(
    doc: &mut Doc,
    shown: &[(String, String)],
    edits: &[UserEdit],
) -> Result<(), Refusal> {
    let mut approvers: Vec<String> = shown.iter().map(|(shown, _)| shown.clone()).collect();
    let mut names_approvers = false;
    for edit in edits {
        match edit {
            UserEdit::UserName(name) => doc.user_name = Some(name.clone()),
            UserEdit::Active(active) => doc.active = Some(*active),
            UserEdit::RemoveActive => doc.active = None,
            UserEdit::Text(name, value) => doc.texts[index_of(name)] = Some(value.clone()),
            UserEdit::RemoveText(name) => doc.texts[index_of(name)] = None,
            UserEdit::Country(code) => doc.country = Some(code.clone()),
            UserEdit::RemoveCountry => doc.country = None,
            UserEdit::Emails(emails) => doc.emails.clone_from(emails),
            UserEdit::AddEmail(email) => {
                if email.primary == Some(true) {
                    no_primary(&mut doc.emails);
                }
                let alike = |a: &Option<String>, b: &Option<String>| match (a, b) {
                    (Some(a), Some(b)) => same(a, b),
                    (a, b) => a == b,
                };
                let is_there = |own: &&mut Email| {
                    alike(&own.value, &email.value) && alike(&own.kind, &email.kind)
                };
                match doc.emails.iter_mut().find(is_there) {
                    // One that is there takes what else is said of it.
                    Some(own) => {
                        *own = Email { primary: email.primary.or(own.primary), ..email.clone() };
                    }
                    None => doc.emails.push(email.clone()),
                }
            }
            UserEdit::EmailOfType(kind, value) => set_value(
                &mut doc.emails,
                value,
                &Email { kind: Some((*kind).into()), ..Email::default() },
            ),
            UserEdit::PrimaryEmail(value) => set_value(
                &mut doc.emails,
                value,
                &Email { primary: Some(true), ..Email::default() },
            ),
            UserEdit::RemoveEmails(kind) => {
                doc.emails.retain(|e| e.kind.as_deref().is_none_or(|own| !same(own, kind)));
            }
            UserEdit::Approvers(emails) | UserEdit::AddApprovers(emails) => {
                if matches!(edit, UserEdit::Approvers(_)) {
                    approvers.clear();
                }
                // Who is named twice is named once.
                for email in emails {
                    if !approvers.iter().any(|known| same(known, email)) {
                        approvers.push(email.clone());
                    }
                }
            }
            UserEdit::RemoveApprovers(emails) => {
                approvers.retain(|own| !emails.iter().any(|email| same(own, email)));
            }
            UserEdit::RemoveAllApprovers => approvers.clear(),
            UserEdit::Wrong(wrong) => return Err(wrong.refusal()),
        }
        names_approvers |=
            *edit == UserEdit::RemoveAllApprovers || !edit.named_approvers().is_empty();
    }
    if names_approvers {
        // What was left as it was shown is still declared as it was declared.
        let mut left: Vec<&(String, String)> = shown.iter().collect();
        let restored = approvers.into_iter().map(|email| {
            match left.iter().position(|(shown, _)| key(shown) == key(&email)) {
                Some(at) => left.remove(at).1.clone(),
                None => email,
            }
        });
        doc.approvers = restored.collect();
    }
    Ok(())
}

/// Sets the value of the addresses that are like `like`; where there is none, adds one.
fn set_value(emails: &mut Vec<Email>, value: &str, like: &Email) {
    let meets = |email: &&mut Email| match &like.kind {
        Some(kind) => email.kind.as_deref().is_some_and(|own| same(own, kind)),
        None => email.primary == like.primary,
    };
    let mut met = false;
    for email in emails.iter_mut().filter(meets) {
        email.value = Some(value.to_owned());
        met = true;
    }
    if !met {
        emails.push(Email { value: Some(value.to_owned()), ..like.clone() });
    }
}

fn no_primary(emails: &mut [Email]) {
    for email in emails.iter_mut().filter(|email| email.primary == Some(true)) {
        email.primary = Some(false);
    }
}

impl Wrong {
    fn refusal(self) -> Refusal {
        match self {
            Self::ReadOnly => Refusal::new(400, Some("mutability"), "id"),
            Self::UnknownPath => Refusal::new(400, Some("invalidPath"), ""),
            Self::NoTarget => Refusal::new(400, Some("noTarget"), ""),
            Self::RemoveUserName => Refusal::new(400, Some("mutability"), "userName"),
            Self::Type => Refusal::invalid_value("title"),
        }
    }
}

impl GroupEdit {
    pub(super) fn refusal(&self) -> Option<Refusal> {
        match self {
            Self::Nested(_) => Some(Refusal::invalid_value("group")),
            Self::RemoveName => Some(Refusal::new(400, Some("mutability"), "displayName")),
            _ => None,
        }
    }

    pub(super) fn apply(&self, group: &mut Group) {
        match self {
            Self::Rename(name) => group.name.clone_from(name),
            Self::ExternalId(id) => group.external_id.clone_from(id),
            Self::AddMembers(ids) => group.members.extend(ids.iter().cloned()),
            Self::RemoveMembers(ids) => group.members.retain(|member| !ids.contains(member)),
            Self::RemoveMember(id) => group.members.retain(|member| member != id),
            Self::ReplaceMembers(ids) => group.members.clone_from(ids),
            Self::RemoveAllMembers => group.members.clear(),
            Self::Nested(_) | Self::RemoveName => {}
        }
    }
}
