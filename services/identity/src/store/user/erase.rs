//! Erasing what is still kept of a deleted user: what their changes say, and their names in the
//! provisioning log.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use muster_proto::identity::v1::{AuditAction, User};
use muster_runtime::feed::{self, Actor, Kind, NewChange};
use muster_runtime::id::{LogEntryId, OrganisationId, Revision, UserId};
use sqlx::PgConnection;
use time::OffsetDateTime;

use super::Snapshot;
use crate::Error;
use crate::store::audit;

/// How many entries of the log are looked at in one transaction.
const RANGE: i64 = 5_000;

/// What to look for in the log: what a deleted user was called.
#[derive(Debug, Clone)]
pub(crate) struct Names {
    /// A regular expression that finds each of them, also percent-encoded; none where nothing is
    /// known.
    pattern: Option<String>,
}

/// What a deleted user was called, by the changes and the log entries that are kept of them.
pub(crate) async fn names(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    id: UserId,
) -> Result<Names, Error> {
    let exists = sqlx::query_scalar!(
        r#"SELECT true AS "exists!" FROM identity.users
            WHERE organisation_id = $1 AND user_id = $2"#,
        organisation as OrganisationId,
        id as UserId,
    )
    .fetch_optional(&mut *connection)
    .await?;
    if exists.is_some() {
        return Err(Error::NotDeleted);
    }
    let changes = feed::history(connection, organisation, id.uuid()).await?;
    let logged = sqlx::query_scalar!(
        "SELECT subject_name FROM identity.provisioning_log
          WHERE organisation_id = $1 AND subject_id = $2",
        organisation as OrganisationId,
        id.uuid(),
    )
    .fetch_all(connection)
    .await?;
    if changes.is_empty() && logged.is_empty() {
        return Err(Error::NotFound("user, nor anything kept of one"));
    }
    let users = changes
        .iter()
        .flat_map(|change| [change.before::<Snapshot>(), change.after::<Snapshot>()])
        .flatten()
        .flat_map(|snapshot| called(snapshot.user.into_owned()));
    let names: BTreeSet<String> = users.chain(logged.into_iter().flatten()).collect();
    Ok(Names { pattern: pattern(names) })
}

/// What a client may have asked for a user by.
fn called(user: User) -> impl Iterator<Item = String> {
    let emails = user.emails.into_iter().filter_map(|email| email.value);
    let name = user.name.unwrap_or_default();
    let single = [user.user_name, user.external_id, user.display_name, name.formatted];
    emails.chain(single.into_iter().flatten())
}

/// Finds names as whole words, without regard to case, each character as it is or percent-encoded,
/// as the log's paths have it.
fn pattern(names: impl IntoIterator<Item = String>) -> Option<String> {
    let mut any = String::new();
    for name in names.into_iter().filter(|name| !name.trim().is_empty()) {
        if !any.is_empty() {
            any.push('|');
        }
        for character in name.trim().chars() {
            let mut bytes = [0; 4];
            let encoded: String =
                character.encode_utf8(&mut bytes).bytes().fold(String::new(), |mut text, byte| {
                    write!(text, "%{byte:02x}").expect("a string takes everything");
                    text
                });
            let plain = match character {
                ' ' => "[ +]".to_owned(),
                c if c.is_ascii_punctuation() => format!("\\{c}"),
                c => c.to_string(),
            };
            write!(any, "(?:{plain}|{encoded})").expect("a string takes everything");
        }
    }
    let edge = "[^[:alnum:]]|%[0-9a-f][0-9a-f]";
    (!any.is_empty()).then(|| format!("(?:^|{edge})(?:{any})(?:$|{edge})"))
}

/// Rids the next entries of the log after `after` of the names; how many had any, and after which
/// to go on: none at the end.
pub(crate) async fn log_entries(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    id: UserId,
    names: Names,
    after: LogEntryId,
) -> Result<(i64, Option<LogEntryId>), Error> {
    let erased = sqlx::query!(
        r#"WITH looked_at AS (
               SELECT entry_id FROM identity.provisioning_log
                WHERE organisation_id = $1 AND entry_id > $4 ORDER BY entry_id LIMIT $5),
           named AS (
               UPDATE identity.provisioning_log AS l
                  SET path = CASE WHEN l.path ~* $3 THEN split_part(l.path, '?', 1)
                             ELSE l.path END,
                      detail = CASE WHEN l.subject_id = $2 OR l.detail ~* $3 THEN ''
                               ELSE l.detail END,
                      subject_name = CASE WHEN l.subject_id = $2 OR l.subject_name ~* $3 THEN NULL
                                     ELSE l.subject_name END,
                      subject_name_key = CASE WHEN l.subject_id = $2 OR l.subject_name ~* $3
                                         THEN NULL ELSE l.subject_name_key END
                 FROM looked_at
                WHERE l.organisation_id = $1 AND l.entry_id = looked_at.entry_id
                  AND (l.path ~* $3 OR l.detail ~* $3 OR l.subject_name ~* $3
                       OR l.subject_id = $2 AND (l.subject_name IS NOT NULL OR l.detail <> ''))
               RETURNING 1)
           SELECT (SELECT count(*) FROM named) AS "erased!",
                  (SELECT entry_id FROM looked_at ORDER BY entry_id DESC LIMIT 1)
                      AS "last: LogEntryId""#,
        organisation as OrganisationId,
        id.uuid(),
        names.pattern as Option<String>,
        after as LogEntryId,
        RANGE,
    )
    .fetch_one(connection)
    .await?;
    Ok((erased.erased, erased.last))
}

/// Erases what the changes of a user say, notes who did it, and tells those who follow; how many
/// changes said anything.
pub(crate) async fn changes(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    id: UserId,
    actor: Actor,
    now: OffsetDateTime,
) -> Result<i64, Error> {
    let newest = feed::history(connection, organisation, id.uuid()).await?;
    let revision = newest.first().map_or(Revision::FIRST, |change| change.revision.next());
    let erased = feed::erase(connection, organisation, id.uuid()).await?;
    let event = audit::Event {
        actor: actor.clone(),
        action: AuditAction::UserErased,
        subject: id.to_string(),
        client_address: String::new(),
    };
    audit::add(connection, organisation, event, now).await?;
    let change = NewChange {
        kind: Kind::Erased,
        subject: id.uuid(),
        revision,
        before: None,
        after: None,
        total: 0,
        active: 0,
    };
    feed::append(connection, organisation, &actor, now, &[change]).await?;
    Ok(i64::try_from(erased).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_has_every_character_as_it_is_and_percent_encoded() {
        assert_eq!(pattern(["  ".to_owned()]), None);
        let pattern = pattern(["a@ü".to_owned(), "b".to_owned()]).unwrap();
        let names = "(?:a|%61)(?:\\@|%40)(?:ü|%c3%bc)|(?:b|%62)";
        assert!(pattern.contains(names), "{pattern}");
    }
}
