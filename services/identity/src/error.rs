//! What can be wrong with a call.

use std::collections::HashMap;

use muster_runtime::feed::InvalidPageToken;
use muster_runtime::grpc::database_status;
use muster_runtime::id::{ApiKeyId, InvalidId, OrganisationId};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

/// Why the service refuses a call.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is nothing with that id.
    #[error("there is no such {0}")]
    NotFound(&'static str),
    /// A field's value is not acceptable.
    #[error("{field} {description}")]
    Invalid {
        /// The field, as the contract names it.
        field: &'static str,
        /// What came and what was expected: "was …; expected …".
        description: String,
    },
    /// A value is taken by another.
    #[error("{attribute} {value:?} is already in use")]
    Taken {
        /// The field, as the contract names it.
        attribute: &'static str,
        /// Its value.
        value: String,
    },
    /// The `user_name` belongs to an inactive user who is somebody else by `external_id`.
    #[error(
        "user_name {user_name:?} belongs to an inactive user with another external_id: a namesake, not a rehire; an admin can release the old user's name and e-mail"
    )]
    Namesake {
        /// The name.
        user_name: String,
    },
    /// The `user_name` of a user who is active is not released.
    #[error("the user is active; deactivate them before their name is released")]
    StillActive,
    /// A user who exists is not erased.
    #[error("the user exists; delete them before what is kept of them is erased")]
    NotDeleted,
    /// The import has begun already.
    #[error("the import has begun already")]
    Started,
    /// The revision given is no longer the resource's.
    #[error("the revision is {current}, not the one given: read it again")]
    RevisionMismatch {
        /// What it is now.
        current: i64,
    },
    /// A secret that is unknown, revoked or expired, or of a suspended organisation.
    #[error("the key is unknown, revoked or expired, or its organisation is suspended")]
    Unauthenticated,
    /// The same for a key that there is: whoever sent it holds its secret.
    #[error("the key is unknown, revoked or expired, or its organisation is suspended")]
    KeyRefused {
        /// Whose it is.
        organisation: OrganisationId,
        /// The key.
        api_key: ApiKeyId,
    },
    /// An e-mail address and password that sign nobody in.
    #[error("the e-mail address or the password is not right")]
    NotRight,
    /// Too many were wrong before.
    #[error("there were too many wrong attempts; wait {} seconds and try again", seconds(*wait))]
    TooManyAttempts {
        /// How long until the next.
        wait: time::Duration,
    },
    /// An admin who would remove themselves.
    #[error("nobody removes themselves; ask another admin to")]
    Oneself,
    /// A password that could not be hashed.
    #[error("a password could not be hashed")]
    Hashing,
    /// A page token that is no longer good.
    #[error("page_token has expired; begin again without it")]
    PageTokenExpired,
    /// Others write the same all the time.
    #[error("others are writing the same user all the time; try again")]
    Busy,
    /// The database failed.
    #[error("the database failed")]
    Database(#[from] sqlx::Error),
}

/// Whole seconds, at least one.
fn seconds(wait: time::Duration) -> u64 {
    let rounded = wait.whole_seconds() + i64::from(wait.subsec_nanoseconds() > 0);
    u64::try_from(rounded).unwrap_or_default().max(1)
}

impl Error {
    /// The violated unique constraint, where that is what a database error says.
    pub(crate) fn constraint(error: &sqlx::Error) -> Option<&str> {
        let error = error.as_database_error()?;
        error.is_unique_violation().then(|| error.constraint()).flatten()
    }
}

/// Whether a row was to be of an organisation that there is not.
fn names_no_organisation(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|error| {
        let constraint = error.constraint().unwrap_or_default();
        error.is_foreign_key_violation() && constraint.ends_with("organisation_id_fkey")
    })
}

impl From<InvalidId> for Error {
    fn from(_: InvalidId) -> Self {
        Self::Invalid { field: "id", description: "is not a UUID".into() }
    }
}

impl From<InvalidPageToken> for Error {
    fn from(invalid: InvalidPageToken) -> Self {
        match invalid {
            InvalidPageToken::Foreign => {
                Self::Invalid { field: "page_token", description: invalid.to_string() }
            }
            InvalidPageToken::Expired => Self::PageTokenExpired,
        }
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        let info = |reason: &str, metadata: &[(&str, &str)]| {
            let metadata: HashMap<_, _> =
                metadata.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
            ErrorDetails::with_error_info(reason, "muster", metadata)
        };
        match error {
            Error::NotFound(_) => Status::not_found(message),
            Error::Invalid { field, description } => Status::with_error_details(
                Code::InvalidArgument,
                message,
                ErrorDetails::with_bad_request_violation(field, description),
            ),
            Error::Taken { attribute, value } => Status::with_error_details(
                Code::AlreadyExists,
                message,
                info("UNIQUENESS", &[("attribute", attribute), ("value", &value)]),
            ),
            Error::Namesake { user_name } => Status::with_error_details(
                Code::AlreadyExists,
                message,
                info("NAMESAKE", &[("attribute", "user_name"), ("value", &user_name)]),
            ),
            Error::RevisionMismatch { .. } => {
                Status::with_error_details(Code::Aborted, message, info("REVISION_MISMATCH", &[]))
            }
            Error::StillActive => Status::with_error_details(
                Code::FailedPrecondition,
                message,
                info("STILL_ACTIVE", &[]),
            ),
            Error::NotDeleted => Status::with_error_details(
                Code::FailedPrecondition,
                message,
                info("NOT_DELETED", &[]),
            ),
            Error::KeyRefused { organisation, api_key } => Status::with_error_details(
                Code::Unauthenticated,
                message,
                info(
                    "API_KEY_REFUSED",
                    &[
                        ("organisation_id", &organisation.to_string()),
                        ("api_key_id", &api_key.to_string()),
                    ],
                ),
            ),
            Error::Unauthenticated | Error::NotRight => Status::unauthenticated(message),
            Error::TooManyAttempts { wait } => Status::with_error_details(
                Code::ResourceExhausted,
                message,
                ErrorDetails::with_retry_info(Some(std::time::Duration::from_secs(seconds(wait)))),
            ),
            Error::Oneself => {
                Status::with_error_details(Code::FailedPrecondition, message, info("ONESELF", &[]))
            }
            Error::Hashing => Status::internal(message),
            Error::Started => Status::failed_precondition(message),
            Error::PageTokenExpired => Status::failed_precondition(message),
            Error::Busy => Status::unavailable(message),
            Error::Database(error) if names_no_organisation(&error) => {
                Status::not_found(Error::NotFound("organisation").to_string())
            }
            Error::Database(error) => database_status(&error),
        }
    }
}
