//! The Muster extension, under the URN that customers have typed into Okta.

use super::Schema;

/// `urn:learnerbly:params:scim:schemas:2.0:User`.
pub static MUSTER_USER: Schema = Schema {
    id: "urn:learnerbly:params:scim:schemas:2.0:User",
    name: "MusterUser",
    description: "Approvers, content region and custom fields.",
    attributes: &[],
};
