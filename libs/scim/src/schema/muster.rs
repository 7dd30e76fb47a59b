//! The Muster extension, under the URN that customers have typed into Okta.

use super::core::text;
use super::{Attribute, Schema};

/// `urn:learnerbly:params:scim:schemas:2.0:User`.
pub static MUSTER_USER: Schema = Schema {
    id: "urn:learnerbly:params:scim:schemas:2.0:User",
    name: "MusterUser",
    description: "Approvers, content region and custom fields.",
    attributes: &[
        Attribute {
            multi_valued: true,
            ..text(
                "approvers",
                "The e-mail addresses of the user's approvers, in order. An array; a single \
                 string, also of several addresses with commas between, is accepted. Answers have \
                 those in force: the active users whose addresses they are.",
            )
        },
        Attribute {
            canonical_values: &["GB", "ES", "DE", "US", "SE", "QQ"],
            ..text(
                "contentRegion",
                "Send the user's country as an ISO 3166-1 alpha-2 code; answers have the content \
                 region that it belongs to, QQ (Global) where it is none of the others.",
            )
        },
        text("customField1", "Free text; the organisation may name it."),
        text("customField2", "Free text; the organisation may name it."),
        text("customField3", "Free text; the organisation may name it."),
    ],
};
