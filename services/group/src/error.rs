//! What can be wrong with a call.

use std::collections::HashMap;

use muster_runtime::feed::InvalidPageToken;
use muster_runtime::grpc::database_status;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

/// Why the service refuses a call.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no group with that id.
    #[error("there is no such group")]
    NotFound,
    /// A field's value is not acceptable.
    #[error("{field} {description}")]
    Invalid {
        /// The field, as the contract names it.
        field: &'static str,
        /// What came and what was expected.
        description: String,
    },
    /// The name is another group's.
    #[error("display_name {0:?} is already in use")]
    Taken(String),
    /// The revision given is no longer the group's.
    #[error("the revision is {current}, not the one given: read it again")]
    RevisionMismatch {
        /// What it is now.
        current: i64,
    },
    /// Identity could not be asked about members.
    #[error("identity failed: {0}")]
    Identity(Status),
    /// A page token that is no longer good.
    #[error("page_token has expired; begin again without it")]
    PageTokenExpired,
    /// The database failed.
    #[error("the database failed")]
    Database(#[from] sqlx::Error),
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
            Error::NotFound => Status::not_found(message),
            Error::Invalid { field, description } => Status::with_error_details(
                Code::InvalidArgument,
                message,
                ErrorDetails::with_bad_request_violation(field, description),
            ),
            Error::Taken(name) => Status::with_error_details(
                Code::AlreadyExists,
                message,
                info("UNIQUENESS", &[("attribute", "display_name"), ("value", &name)]),
            ),
            Error::RevisionMismatch { .. } => {
                Status::with_error_details(Code::Aborted, message, info("REVISION_MISMATCH", &[]))
            }
            Error::Identity(status) => {
                Status::new(status.code(), "identity could not be asked about members")
            }
            Error::PageTokenExpired => Status::failed_precondition(message),
            Error::Database(error) => database_status(&error),
        }
    }
}
