//! Names and addresses that look alike, or are alike and look different: Unicode, over HTTP and gRPC.

use muster::scim_client::query;
use muster_proto::identity::v1::{CreateUserRequest, User};
use serde_json::json;
use tonic::Code;

use crate::support::system::{System, both};

/// Two texts, and whether they are one name.
const ALIKE: [(&str, &str, bool); 18] = [
    // Composed, decomposed; marks in another order.
    ("Andr\u{e9}", "Andre\u{301}", true),
    ("q\u{307}\u{323}", "q\u{323}\u{307}", true),
    ("\u{1f0}ana", "J\u{30c}ANA", true),
    ("Andr\u{e9}", "Andre", false),
    // Turkish: dotted and dotless i are letters of their own.
    ("\u{130}pek", "ipek", false),
    ("\u{131}rmak", "irmak", false),
    ("IRMAK", "irmak", true),
    // German: one sharp s, in both cases; two s are another name.
    ("Stra\u{df}e", "STRA\u{1e9e}E", true),
    ("Stra\u{df}e", "strasse", false),
    // Greek: the sigma at the end is a sigma.
    ("\u{39d}\u{399}\u{39a}\u{39f}\u{3a3}", "\u{3bd}\u{3b9}\u{3ba}\u{3bf}\u{3c2}", true),
    // Compatibility: the Kelvin sign and the long s fold, ligatures and wide letters do not.
    ("\u{212a}elvin", "kelvin", true),
    ("Ma\u{17f}t", "mast", true),
    ("\u{fb01}nn", "finn", false),
    ("\u{ff21}nn", "ann", false),
    // What nobody sees: zero width, joiner, soft hyphen, direction.
    ("ann\u{200b}bell", "annbell", true),
    ("ann\u{200d}bell", "annb\u{ad}ell", true),
    ("\u{202e}annbell\u{202c}", "annbell", true),
    // Another alphabet is another name, however it looks.
    ("\u{430}nn", "ann", false),
];

/// Creates a user over gRPC.
async fn create(system: &System, tenant: &str, user_name: &str) -> Code {
    let user = User {
        organisation_id: tenant.to_owned(),
        user_name: Some(user_name.to_owned()),
        active: Some(true),
        ..User::default()
    };
    let request = CreateUserRequest { user: Some(user), ..CreateUserRequest::default() };
    system.users().create_user(request).await.err().map_or(Code::Ok, |status| status.code())
}

#[tokio::test]
async fn what_is_one_name_is_taken_and_found_and_what_is_another_is_not() {
    for system in both() {
        for (first, second, same) in ALIKE {
            let tenant = system.tenant().await;
            let client = &tenant.client;
            let what = format!("{first:?} and {second:?} in {}", system.name);
            let (taken, found) = if same { (409, 1) } else { (201, 0) };
            // As userName, over HTTP and over gRPC.
            let created = client.post("/Users", &json!({"userName": first})).await.unwrap();
            assert_eq!(created.status, 201, "{what}: {}", created.text);
            // It is kept as it came.
            assert_eq!(created.at("/userName"), first);
            let filter = format!("userName eq \"{second}\"");
            let listed = client.get(&format!("/Users{}", query(&[("filter", &filter)]))).await;
            assert_eq!(listed.unwrap().at("/totalResults"), found, "{what}");
            let expected = if same { Code::AlreadyExists } else { Code::Ok };
            assert_eq!(create(system, &tenant.id, second).await, expected, "{what}");
            // As an address: what stands before the @.
            let address = |name: &str| {
                json!({"userName": format!("of-{name}-{}", name.len()),
                       "emails": [{"value": format!("{name}@northwind.example"), "type": "work"}]})
            };
            let one = client.post("/Users", &address(first)).await.unwrap();
            let two = client.post("/Users", &address(second)).await.unwrap();
            let expected = if one.status == 201 { taken } else { two.status };
            assert_eq!(two.status, expected, "{what}: {} {}", one.text, two.text);
            // As a group's name.
            let group = |name: &str| json!({"displayName": name});
            assert_eq!(client.post("/Groups", &group(first)).await.unwrap().status, 201, "{what}");
            let two = client.post("/Groups", &group(second)).await.unwrap();
            assert_eq!(two.status, taken, "{what}: {}", two.text);
        }
    }
}
