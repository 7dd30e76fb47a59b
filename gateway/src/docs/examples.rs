//! What to paste into a shell. A test pastes all of it, one after the other.

/// A step of the tour.
#[derive(Debug)]
pub(super) struct Example {
    pub anchor: &'static str,
    pub title: &'static str,
    pub text: &'static str,
    pub shell: &'static str,
}

pub(super) static ALL: [Example; 9] = [
    Example {
        anchor: "test",
        title: "Test the connection",
        text: "What Okta sends for Test API Credentials.",
        shell: r#"curl -sS --fail-with-body "$MUSTER/Users?startIndex=1&count=2" -H "$AUTH""#,
    },
    Example {
        anchor: "create",
        title: "Create a user",
        text: "The answer has the id that Muster gave the user. The approver belongs to nobody \
               yet: it comes into force by itself when that person is created.",
        shell: r#"ADA=$(curl -sS --fail-with-body "$MUSTER/Users" -H "$AUTH" -H "$JSON" -d '{
  "schemas": ["urn:ietf:params:scim:schemas:core:2.0:User",
              "urn:learnerbly:params:scim:schemas:2.0:User"],
  "userName": "ada.quist@northwind.example",
  "name": {"givenName": "Ada", "familyName": "Quist"},
  "emails": [{"value": "ada.quist@northwind.example", "type": "work", "primary": true}],
  "urn:learnerbly:params:scim:schemas:2.0:User": {
    "approvers": ["bo.lund@northwind.example"],
    "contentRegion": "GB"
  }
}' | grep -o '"id":"[^"]*"' | head -n 1 | cut -d '"' -f 4)
echo "$ADA""#,
    },
    Example {
        anchor: "approver",
        title: "Create their approver",
        text: "And see that the approver is in force.",
        shell: r#"BO=$(curl -sS --fail-with-body "$MUSTER/Users" -H "$AUTH" -H "$JSON" -d '{
  "schemas": ["urn:ietf:params:scim:schemas:core:2.0:User"],
  "userName": "bo.lund@northwind.example",
  "emails": [{"value": "bo.lund@northwind.example", "type": "work", "primary": true}]
}' | grep -o '"id":"[^"]*"' | head -n 1 | cut -d '"' -f 4)
curl -sS --fail-with-body "$MUSTER/Users/$ADA" -H "$AUTH""#,
    },
    Example {
        anchor: "find",
        title: "Find a user",
        text: "A filter is compared without regard to case, and percent-encoded in the address.",
        shell: r#"curl -sS --fail-with-body --get "$MUSTER/Users" -H "$AUTH" \
  --data-urlencode 'filter=userName eq "ADA.QUIST@northwind.example"'"#,
    },
    Example {
        anchor: "change",
        title: "Change one attribute",
        text: "PATCH touches what it names and nothing else.",
        shell: r#"curl -sS --fail-with-body -X PATCH "$MUSTER/Users/$ADA" -H "$AUTH" -H "$JSON" -d '{
  "schemas": ["urn:ietf:params:scim:api:messages:2.0:PatchOp"],
  "Operations": [{"op": "replace", "path": "title", "value": "Head of Learning"}]
}'"#,
    },
    Example {
        anchor: "group",
        title: "Create a group with members",
        text: "Members who are no users are left out, and the others are added.",
        shell: r#"GROUP=$(curl -sS --fail-with-body "$MUSTER/Groups" -H "$AUTH" -H "$JSON" -d '{
  "schemas": ["urn:ietf:params:scim:schemas:core:2.0:Group"],
  "displayName": "Learning",
  "members": [{"value": "'"$ADA"'"}]
}' | grep -o '"id":"[^"]*"' | head -n 1 | cut -d '"' -f 4)
echo "$GROUP""#,
    },
    Example {
        anchor: "members",
        title: "Add and remove members",
        text: "However large the group is, this costs the same. The answer is empty: 204.",
        shell: r#"curl -sS --fail-with-body -X PATCH "$MUSTER/Groups/$GROUP" -H "$AUTH" -H "$JSON" -d '{
  "schemas": ["urn:ietf:params:scim:api:messages:2.0:PatchOp"],
  "Operations": [
    {"op": "add", "path": "members", "value": [{"value": "'"$BO"'"}]},
    {"op": "remove", "path": "members[value eq \"'"$ADA"'\"]"}
  ]
}'"#,
    },
    Example {
        anchor: "deactivate",
        title: "Deactivate and revive a user",
        text: "An inactive user keeps their id, groups and history.",
        shell: r#"for ACTIVE in false true; do
  curl -sS --fail-with-body -X PATCH "$MUSTER/Users/$ADA" -H "$AUTH" -H "$JSON" -d '{
    "schemas": ["urn:ietf:params:scim:api:messages:2.0:PatchOp"],
    "Operations": [{"op": "replace", "value": {"active": '"$ACTIVE"'}}]
  }'
done"#,
    },
    Example {
        anchor: "delete",
        title: "Delete what was made",
        text: "A deleted user is gone: their memberships and approvals too.",
        shell: r#"for RESOURCE in "Groups/$GROUP" "Users/$ADA" "Users/$BO"; do
  curl -sS --fail-with-body -X DELETE "$MUSTER/$RESOURCE" -H "$AUTH"
done"#,
    },
];
