//! Every SCIM error that Muster sends: when, and what to do. `/docs` lists them, and the
//! provisioning log advises by them.

/// An error, by its status and keyword.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Known {
    pub status: u16,
    /// The `scimType`; empty where there is none.
    pub scim_type: &'static str,
    pub when: &'static str,
    /// For a person who looks after the client.
    pub advice: &'static str,
}

impl Known {
    /// Where it stands on the page of errors.
    pub(crate) fn anchor(&self) -> String {
        if self.scim_type.is_empty() {
            self.status.to_string()
        } else {
            format!("{}-{}", self.status, self.scim_type)
        }
    }
}

const fn known(
    status: u16,
    scim_type: &'static str,
    when: &'static str,
    advice: &'static str,
) -> Known {
    Known { status, scim_type, when, advice }
}

/// By status, then by keyword.
pub(crate) static ALL: [Known; 25] = [
    known(
        400,
        "",
        "The body broke off before it was whole.",
        "Send the request again. If it goes on, look for a proxy between the client and Muster.",
    ),
    known(
        400,
        "expiredCursor",
        "A list by cursor went on later than a cursor is good for.",
        "Begin the list again with an empty cursor.",
    ),
    known(
        400,
        "invalidCount",
        "The count of a list by cursor is no whole number.",
        "Send count as a whole number, or leave it out.",
    ),
    known(
        400,
        "invalidCursor",
        "A cursor was changed, or belongs to another list.",
        "Send the cursor exactly as the page before gave it, with the same filter and order.",
    ),
    known(
        400,
        "invalidFilter",
        "The filter cannot be parsed, or asks for what cannot be filtered by.",
        "Correct the filter: the detail says where it stopped making sense.",
    ),
    known(
        400,
        "invalidPath",
        "The path of a PATCH operation cannot be parsed.",
        "Correct the path: an attribute, attribute.part, attribute[filter] or URN:attribute.",
    ),
    known(
        400,
        "invalidSyntax",
        "The body is not the JSON that was expected.",
        "Correct the body: the detail names the place.",
    ),
    known(
        400,
        "invalidValue",
        "A value is missing or not of the attribute's kind.",
        "In Okta, correct the person's value or the attribute mapping that the detail names, then \
         retry the task under Dashboard, Tasks, or use Force Sync.",
    ),
    known(
        400,
        "mutability",
        "A PATCH names an attribute that clients do not write.",
        "Take that attribute out of the mapping: it is read-only.",
    ),
    known(
        400,
        "noTarget",
        "A PATCH names what is not there.",
        "Name an attribute that the schema has, or a value that the resource has.",
    ),
    known(
        400,
        "tooMany",
        "A filter matches more than can be answered, or takes too long.",
        "Ask for less: narrow the filter.",
    ),
    known(
        401,
        "",
        "The key is missing, unknown, revoked or expired, or the organisation is suspended.",
        "Generate a key under Settings, API, and put it into Okta under Provisioning, Integration, \
         API Token as: Static, a blank, the key. Then Test API Credentials and Save.",
    ),
    known(
        403,
        "",
        "A filter on Schemas, ResourceTypes or ServiceProviderConfig, or a key that is limited to \
         networks, from an address outside of them.",
        "Read the former whole: SCIM forbids a filter there. For the latter, make a key for the \
         client's networks: muster api-key create --network.",
    ),
    known(
        404,
        "",
        "There is no such resource in this organisation, or no such endpoint.",
        "If the person or group was deleted in Muster, unassign and assign them again in Okta (for \
         a group: unlink and push it again), so that Okta creates them anew.",
    ),
    known(
        405,
        "",
        "The method is not possible at this address.",
        "Use a method that the Allow header names.",
    ),
    known(
        406,
        "",
        "The client accepts no JSON.",
        "Send Accept: application/scim+json, or no Accept header.",
    ),
    known(
        408,
        "",
        "The body took too long to arrive.",
        "Send it again. If it goes on, look at the network between the client and Muster.",
    ),
    known(
        409,
        "uniqueness",
        "The userName, the primary e-mail address or the group's name is taken.",
        "Find who has it under People or Groups. If it is the same person, correct the e-mail or \
         userName that differs and import again in Okta; if a leaver has it, release their \
         userName on their page; for a group, choose Link Group instead of Create Group.",
    ),
    known(
        412,
        "",
        "The resource has changed since the version in If-Match.",
        "Read the resource again and repeat the change on what it is now.",
    ),
    known(
        413,
        "",
        "The body has more bytes or operations than allowed.",
        "Send it in smaller parts.",
    ),
    known(
        415,
        "",
        "The body is not JSON, or is compressed.",
        "Send Content-Type: application/scim+json and no Content-Encoding.",
    ),
    known(
        429,
        "",
        "There were more requests in a second with this key, or of this organisation, than may be.",
        "Nothing: the client sends the request again after the seconds of Retry-After, as Okta \
         does. If it goes on, look for a second client with the same key.",
    ),
    known(
        500,
        "",
        "Muster failed.",
        "Tell whoever operates Muster, with the trace id. Okta tries again by itself.",
    ),
    known(501, "", "The endpoint is not offered: /Me.", "Ask for /Users/{id} instead."),
    known(
        503,
        "",
        "A part of Muster is away for a moment, or the request took longer than it may.",
        "Nothing to correct: send it again. Okta does so by itself.",
    ),
];

/// What is known of an error; of its status alone where the keyword is not among them.
pub(crate) fn find(status: u16, scim_type: &str) -> Option<&'static Known> {
    let of_status = || ALL.iter().filter(move |known| known.status == status);
    of_status().find(|known| known.scim_type == scim_type).or_else(|| of_status().next())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_stand_in_order_and_each_once() {
        let keys: Vec<_> = ALL.iter().map(|known| (known.status, known.scim_type)).collect();
        assert!(keys.is_sorted_by(|a, b| a < b), "{keys:?}");
        assert_eq!(find(409, "uniqueness").unwrap().anchor(), "409-uniqueness");
        assert_eq!(find(404, "").unwrap().anchor(), "404");
        assert_eq!(find(418, ""), None);
    }
}
