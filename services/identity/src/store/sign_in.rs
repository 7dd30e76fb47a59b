//! Signing in: where an e-mail address leads, and how often it may be tried.

use muster_runtime::id::{AdminId, OrganisationId};
use sqlx::PgConnection;
use time::{Duration, OffsetDateTime};

use crate::Error;
use crate::secret::Hash;
use crate::session::{BUCKET, BUCKET_INTERVAL, LONGEST_WAIT};

/// An admin of an organisation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Account {
    pub organisation: OrganisationId,
    pub admin: AdminId,
}

/// What is known of an account that is signed in to.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    pub email: String,
    pub password_hash: Option<String>,
    pub organisation_name: String,
}

/// Where an e-mail address signs in to.
pub(crate) async fn accounts(
    connection: &mut PgConnection,
    email_key: String,
) -> Result<Vec<Account>, Error> {
    let rows = sqlx::query!(
        r#"SELECT organisation_id AS "organisation!: OrganisationId",
                  admin_id AS "admin!: AdminId"
             FROM identity.sign_in_account($1)"#,
        email_key,
    )
    .fetch_all(connection)
    .await?;
    let account = |organisation, admin| Account { organisation, admin };
    Ok(rows.into_iter().map(|row| account(row.organisation, row.admin)).collect())
}

/// An account of an organisation that is not suspended.
pub(crate) async fn known(
    connection: &mut PgConnection,
    account: Account,
) -> Result<Option<Known>, Error> {
    let known = sqlx::query_as!(
        Known,
        r#"SELECT a.email, a.password_hash, o.display_name AS organisation_name
             FROM identity.admin AS a
             JOIN identity.organisation AS o ON o.organisation_id = a.organisation_id
            WHERE a.organisation_id = $1 AND a.admin_id = $2 AND NOT o.suspended"#,
        account.organisation as OrganisationId,
        account.admin as AdminId,
    )
    .fetch_optional(connection)
    .await?;
    Ok(known)
}

/// Takes a turn to try a password for `subject`, or says how long to wait. A turn that is not given
/// back is a failure: the next comes a second later, then two, and so on up to the longest wait.
pub(crate) async fn take_turn(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    subject: Hash,
    now: OffsetDateTime,
) -> Result<Result<(), Duration>, Error> {
    let taken = sqlx::query!(
        "INSERT INTO identity.sign_in_attempt AS s (organisation_id, subject, failures, free_at)
         VALUES ($1, $2, 1, $3::timestamptz + interval '1 second')
         ON CONFLICT (organisation_id, subject) DO UPDATE
            SET failures = least(s.failures + 1, 20),
                free_at = $3::timestamptz
                    + make_interval(secs => least(power(2, least(s.failures, 10)), $4::float8))
          WHERE s.free_at <= $3
         RETURNING free_at",
        organisation as OrganisationId,
        &subject[..],
        now,
        LONGEST_WAIT.as_seconds_f64(),
    )
    .fetch_optional(&mut *connection)
    .await?;
    turn(connection, organisation, subject, now, taken.is_some(), Duration::ZERO).await
}

/// Gives a turn back, and forgets the failures before it.
pub(crate) async fn forget_failures(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    subject: Hash,
) -> Result<(), Error> {
    sqlx::query!(
        "DELETE FROM identity.sign_in_attempt WHERE organisation_id = $1 AND subject = $2",
        organisation as OrganisationId,
        &subject[..],
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Takes one of a client's attempts, or says how long to wait for the next. `free_at` is when the
/// bucket is full again (the generic cell rate algorithm: ITU-T I.371).
pub(crate) async fn take_from_bucket(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    subject: Hash,
    now: OffsetDateTime,
) -> Result<Result<(), Duration>, Error> {
    let depth = BUCKET_INTERVAL * (BUCKET - 1);
    let taken = sqlx::query!(
        "INSERT INTO identity.sign_in_attempt AS s (organisation_id, subject, failures, free_at)
         VALUES ($1, $2, 0, $3::timestamptz + make_interval(secs => $4::float8))
         ON CONFLICT (organisation_id, subject) DO UPDATE
            SET free_at = greatest(s.free_at, $3) + make_interval(secs => $4::float8)
          WHERE s.free_at <= $5
         RETURNING free_at",
        organisation as OrganisationId,
        &subject[..],
        now,
        BUCKET_INTERVAL.as_seconds_f64(),
        now + depth,
    )
    .fetch_optional(&mut *connection)
    .await?;
    turn(connection, organisation, subject, now, taken.is_some(), depth).await
}

/// Gives an attempt back.
pub(crate) async fn put_into_bucket(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    subject: Hash,
) -> Result<(), Error> {
    sqlx::query!(
        "UPDATE identity.sign_in_attempt SET free_at = free_at - make_interval(secs => $3::float8)
          WHERE organisation_id = $1 AND subject = $2",
        organisation as OrganisationId,
        &subject[..],
        BUCKET_INTERVAL.as_seconds_f64(),
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// How long to wait for a turn that was not given. Whoever fails also sweeps what is long forgotten,
/// a little at a time.
async fn turn(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    subject: Hash,
    now: OffsetDateTime,
    taken: bool,
    depth: Duration,
) -> Result<Result<(), Duration>, Error> {
    if taken {
        sqlx::query!(
            "DELETE FROM identity.sign_in_attempt
              WHERE organisation_id = $1
                AND subject = ANY (ARRAY(SELECT subject FROM identity.sign_in_attempt
                                          WHERE organisation_id = $1 AND free_at < $2
                                          ORDER BY free_at LIMIT 20 FOR UPDATE SKIP LOCKED))",
            organisation as OrganisationId,
            now - Duration::HOUR,
        )
        .execute(connection)
        .await?;
        return Ok(Ok(()));
    }
    let free_at = sqlx::query_scalar!(
        "SELECT free_at FROM identity.sign_in_attempt
          WHERE organisation_id = $1 AND subject = $2",
        organisation as OrganisationId,
        &subject[..],
    )
    .fetch_optional(connection)
    .await?;
    Ok(Err(free_at.map_or(Duration::SECOND, |free_at| free_at - depth - now)))
}
