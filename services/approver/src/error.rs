//! What can be wrong with a call.

use muster_runtime::grpc::database_status;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

/// Why the service refuses a call.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A field's value is not acceptable.
    #[error("{field} {description}")]
    Invalid {
        /// The field, as the contract names it.
        field: &'static str,
        /// What came and what was expected.
        description: String,
    },
    /// The database failed.
    #[error("the database failed")]
    Database(#[from] sqlx::Error),
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        match error {
            Error::Invalid { field, description } => Self::with_error_details(
                Code::InvalidArgument,
                message,
                ErrorDetails::with_bad_request_violation(field, description),
            ),
            Error::Database(error) => database_status(&error),
        }
    }
}
