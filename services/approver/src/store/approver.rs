//! The questions: who approves for whom.

use muster_proto::approver::v1::{
    Approvees, Approver, ApproverChange, AwaitedUser, UserApprovers, WatchChangesResponse,
};
use muster_runtime::feed::{Change, Watched};
use muster_runtime::id::{OrganisationId, Revision, UserId};
use sqlx::PgConnection;

use crate::declaration::{Facts, Snapshot, Somebody, distinct};

/// The approvers of each of these users for whom anyone was declared, by user, in declared order;
/// as if the `hidden` users did not exist, to whom nothing is linked.
pub(crate) async fn batch_get(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    users: Vec<UserId>,
    hidden: Vec<UserId>,
) -> Result<Vec<(UserId, Vec<Approver>)>, sqlx::Error> {
    let known = states(connection, organisation, users, hidden, false).await?.into_iter();
    let approvers = known.map(|(user, state)| (user, state.approvers));
    Ok(approvers.filter(|(_, approvers)| !approvers.is_empty()).collect())
}

/// How a user is known.
#[derive(Debug, Clone)]
pub(crate) struct State {
    /// From which of their revisions.
    pub revision: Revision,
    active: bool,
    email: String,
    /// Whether anybody declared them, where that was asked.
    is_declared: bool,
    /// What has become of those who were declared.
    pub approvers: Vec<Approver>,
}

impl State {
    /// Whether nobody's approvers follow from it that the user becomes this: neither their own, nor
    /// those of who declared them, or may have declared an address that they get or give up.
    pub(crate) fn is_same_to_approvers(&self, now: &AwaitedUser) -> bool {
        let declared = self.approvers.iter().map(|approver| &approver.declared_email);
        self.email == now.primary_email
            && (self.active == now.active || !self.is_declared)
            && declared.eq(distinct(&now.declared_approvers).iter().map(|d| &d.email))
    }
}

/// How those of these users are known who are, by user: the approvers in declared order, as if the
/// `hidden` users did not exist. Whether anybody declared them is found out where it is asked.
///
/// Each table is read once and what is read is joined: in a join of the tables, row-level security
/// would read the transaction's organisation for each row.
pub(crate) async fn states(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    users: Vec<UserId>,
    hidden: Vec<UserId>,
    ask_declared: bool,
) -> Result<Vec<(UserId, State)>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"WITH declared AS MATERIALIZED (
               SELECT user_id, position, email, email_key, approver_id
                 FROM approver.declaration
                WHERE organisation_id = $1 AND user_id = ANY ($2)
           ), linked AS MATERIALIZED (
               SELECT user_id, email, active FROM approver.person
                WHERE organisation_id = $1
                  AND user_id = ANY (ARRAY(SELECT approver_id FROM declared))
           ), owner AS MATERIALIZED (
               SELECT DISTINCT ON (email_key) email_key, user_id, email, active
                 FROM approver.person
                WHERE organisation_id = $1 AND user_id <> ALL ($3)
                  AND email_key = ANY (
                          ARRAY(SELECT email_key FROM declared WHERE approver_id IS NULL))
                ORDER BY email_key, user_id
           )
           SELECT p.user_id AS "user_id: UserId", p.revision AS "revision: Revision", p.active,
                  p.email,
                  $4 AND coalesce(
                      (SELECT true FROM approver.declaration
                        WHERE organisation_id = $1 AND approver_id = p.user_id LIMIT 1),
                      (SELECT true FROM approver.declaration
                        WHERE organisation_id = $1 AND email_key = p.email_key LIMIT 1),
                      false) AS "is_declared!",
                  d.email AS "declared?",
                  l.user_id AS "linked_id?: UserId", l.email AS "linked_email?",
                  l.active AS "linked_active?",
                  o.user_id AS "owner_id?: UserId", o.email AS "owner_email?",
                  o.active AS "owner_active?"
             FROM approver.person AS p
             LEFT JOIN declared AS d ON d.user_id = p.user_id
             LEFT JOIN linked AS l ON l.user_id = d.approver_id
             LEFT JOIN owner AS o ON o.email_key = d.email_key AND d.approver_id IS NULL
            WHERE p.organisation_id = $1 AND p.user_id = ANY ($2)
            ORDER BY p.user_id, d.position"#,
        organisation as OrganisationId,
        users as Vec<UserId>,
        hidden as Vec<UserId>,
        ask_declared,
    )
    .fetch_all(connection)
    .await?;
    let mut states: Vec<(UserId, State)> = Vec::new();
    for row in rows {
        let somebody = |id: Option<UserId>, email: Option<String>, active: Option<bool>| {
            Some(Somebody {
                id: id?,
                email: email.unwrap_or_default(),
                active: active.unwrap_or_default(),
            })
        };
        let approver = row.declared.map(|email| {
            Facts {
                user: row.user_id,
                email,
                linked: somebody(row.linked_id, row.linked_email, row.linked_active),
                owner: somebody(row.owner_id, row.owner_email, row.owner_active),
            }
            .to_proto()
        });
        match states.last_mut() {
            Some((user, state)) if *user == row.user_id => state.approvers.extend(approver),
            _ => {
                let state = State {
                    revision: row.revision,
                    active: row.active,
                    email: row.email,
                    is_declared: row.is_declared,
                    approvers: approver.into_iter().collect(),
                };
                states.push((row.user_id, state));
            }
        }
    }
    Ok(states)
}

/// The same as a message.
pub(crate) fn message((user, approvers): (UserId, Vec<Approver>)) -> UserApprovers {
    UserApprovers { user_id: user.to_string(), approvers }
}

/// For whom each of these users approves, by approver.
pub(crate) async fn approvees(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    approvers: Vec<UserId>,
) -> Result<Vec<Approvees>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"SELECT DISTINCT d.approver_id AS "approver_id!: UserId", d.user_id AS "user_id: UserId"
             FROM approver.declaration AS d
             JOIN approver.person AS p
               ON p.organisation_id = d.organisation_id AND p.user_id = d.approver_id AND p.active
            WHERE d.organisation_id = $1 AND d.approver_id = ANY ($2)
            ORDER BY 1, 2"#,
        organisation as OrganisationId,
        approvers as Vec<UserId>,
    )
    .fetch_all(connection)
    .await?;
    let mut approvees: Vec<Approvees> = Vec::new();
    for row in rows {
        let approver_id = row.approver_id.to_string();
        match approvees.last_mut() {
            Some(last) if last.approver_id == approver_id => {
                last.user_ids.push(row.user_id.to_string());
            }
            _ => approvees.push(Approvees { approver_id, user_ids: vec![row.user_id.to_string()] }),
        }
    }
    Ok(approvees)
}

/// The users after `after` of whose declared approvers one belongs to nobody, by id.
///
/// `OFFSET 0` keeps the planner from joining everybody to find the first few: whoever is declared is
/// looked up one by one, in order, until the page is full.
pub(crate) async fn users_waiting(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    after: Option<UserId>,
    limit: i64,
) -> Result<Vec<UserId>, sqlx::Error> {
    sqlx::query_scalar!(
        r#"SELECT DISTINCT d.user_id AS "user_id: UserId"
             FROM approver.declaration AS d
            WHERE d.organisation_id = $1 AND d.approver_id IS NULL
              AND ($2::uuid IS NULL OR d.user_id > $2)
              AND NOT EXISTS (SELECT FROM approver.person AS p
                               WHERE p.organisation_id = $1 AND p.email_key = d.email_key
                              OFFSET 0)
            ORDER BY 1 LIMIT $3"#,
        organisation as OrganisationId,
        after as Option<UserId>,
        limit,
    )
    .fetch_all(connection)
    .await
}

/// Whether each of these approvers may approve for the user beside them.
pub(crate) async fn check(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    approvers: Vec<Option<UserId>>,
    users: Vec<Option<UserId>>,
) -> Result<Vec<bool>, sqlx::Error> {
    sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM approver.declaration AS d
                            JOIN approver.person AS p
                              ON p.organisation_id = d.organisation_id
                             AND p.user_id = d.approver_id AND p.active
                           WHERE d.organisation_id = $1 AND d.approver_id = asked.approver_id
                             AND d.user_id = asked.user_id) AS "allowed!"
             FROM unnest($2::uuid[], $3::uuid[])
                  WITH ORDINALITY AS asked (approver_id, user_id, position)
            ORDER BY asked.position"#,
        organisation as OrganisationId,
        approvers as Vec<Option<UserId>>,
        users as Vec<Option<UserId>>,
    )
    .fetch_all(connection)
    .await
}

/// The change as readers of the feed get it.
pub(crate) fn change_message(change: &Change) -> ApproverChange {
    let restore = |snapshots: Option<Vec<Snapshot>>| -> Vec<Approver> {
        snapshots.unwrap_or_default().into_iter().map(Approver::from).collect()
    };
    ApproverChange {
        metadata: Some(change.metadata()),
        user_id: UserId::from(change.subject_id).to_string(),
        before: restore(change.before()),
        after: restore(change.after()),
    }
}

/// What a watch tells.
pub(crate) fn watched_message(watched: &Watched) -> WatchChangesResponse {
    WatchChangesResponse {
        resume_token: watched.resume_token.clone(),
        change: watched.change.as_deref().map(change_message),
        head_sequence: watched.head_sequence,
        out_of_range_organisation_id: watched.out_of_range_id(),
    }
}
