//! People and groups in the console.

use muster_proto::identity::v1::SearchUsersRequest;
use serde_json::{Value, json};

use crate::console_speed::crowd;
use crate::log::logged;
use crate::support::browser::{Browser, Page, email};
use crate::support::system::{Tenant, both, together};

const MUSTER: &str = "urn:learnerbly:params:scim:schemas:2.0:User";

async fn create(tenant: &Tenant, user: &Value) -> String {
    let answer = tenant.client.post("/Users", user).await.unwrap();
    assert_eq!(answer.status, 201, "{}", answer.text);
    answer.at("/id").as_str().unwrap().to_owned()
}

fn person(given: &str, family: &str, email: &str) -> Value {
    json!({
        "userName": email,
        "name": {"givenName": given, "familyName": family},
        "emails": [{"value": email, "type": "work"}],
    })
}

/// The names of the people on a page.
fn names(page: &str) -> Vec<String> {
    let rows = page.split("<th scope=\"row\"><a href=\"/admin/people/").skip(1);
    let names = rows.map(|row| {
        let (_, name) = row.split_once("\">").unwrap();
        name.split("</a>").next().unwrap().to_owned()
    });
    names.collect()
}

#[tokio::test]
async fn people_are_found_by_parts_of_their_names_and_addresses() {
    for system in both() {
        let (tenant, other) = (system.tenant().await, system.tenant().await);
        create(&tenant, &person("Ann", "Bell", "ann.bell@a.example")).await;
        create(&tenant, &person("Bo", "Campbell", "bo@a.example")).await;
        create(&tenant, &person("Zoë", "Ångström", "zoe@a.example")).await;
        create(&other, &person("Ann", "Bell", "ann.bell@a.example")).await;
        let console = system.admin(&tenant.id, &email("ada")).await;
        for (search, expected) in [
            ("bell", vec!["Ann Bell", "Bo Campbell"]),
            ("BELL ann", vec!["Ann Bell"]),
            ("bo", vec!["Bo Campbell"]),
            ("ngstr", vec!["Zoë Ångström"]),
            ("ÅNGSTRÖM", vec!["Zoë Ångström"]),
            ("bell@a.ex", vec!["Ann Bell"]),
            ("a.example", vec!["Ann Bell", "Bo Campbell", "Zoë Ångström"]),
            ("z", vec!["Zoë Ångström"]),
            ("mp", vec![]),
            ("%", vec![]),
            ("b_ll", vec![]),
        ] {
            let query = pair("search", search);
            let page = console.get(&format!("/admin/people?{query}")).await;
            assert_eq!(page.status, 200, "{}", page.text);
            assert_eq!(names(&page.text), expected, "{search}");
        }
    }
}

fn pair(name: &str, value: &str) -> String {
    use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
    format!("{name}={}", utf8_percent_encode(value, NON_ALPHANUMERIC))
}

#[tokio::test]
async fn who_is_found_stays_true_when_a_person_changes_or_goes() {
    let system = together();
    let tenant = system.tenant().await;
    let console = system.admin(&tenant.id, &email("ada")).await;
    let id = create(&tenant, &person("Ann", "Bell", "ann@a.example")).await;
    let path = format!("/Users/{id}");
    let found = async |search: &str| {
        let page = console.get(&format!("/admin/people?search={search}")).await;
        names(&page.text).len()
    };
    let renamed = person("Ann", "Urban", "ann@a.example");
    assert_eq!(tenant.client.put(&path, &renamed).await.unwrap().status, 200);
    assert_eq!((found("bell").await, found("urban").await), (0, 1));
    let off = json!({"Operations": [{"op": "replace", "value": {"active": false}}]});
    assert_eq!(tenant.client.patch(&path, &off).await.unwrap().status, 200);
    assert_eq!((found("urban&active=yes").await, found("urban&active=no").await), (0, 1));
    assert_eq!(tenant.client.delete(&path).await.unwrap().status, 204);
    assert_eq!(found("urban").await, 0);
}

#[tokio::test]
async fn people_are_filtered_by_all_that_the_console_offers() {
    for system in both() {
        let tenant = system.tenant().await;
        let console = system.admin(&tenant.id, &email("ada")).await;
        let mut ann = person("Ann", "Bell", "ann@a.example");
        ann[MUSTER] = json!({"contentRegion": "IT", "customField1": "Head of Sales",
                             "approvers": ["boss@a.example"]});
        let ann = create(&tenant, &ann).await;
        let mut bo = person("Bo", "Cole", "bo@a.example");
        bo[MUSTER] = json!({"contentRegion": "UK", "approvers": ["ann@a.example"]});
        bo["active"] = false.into();
        let bo = create(&tenant, &bo).await;
        let group = json!({"displayName": "Staff & friends",
                           "members": [{"value": ann}, {"value": bo}]});
        assert_eq!(tenant.client.post("/Groups", &group).await.unwrap().status, 201);
        for (query, expected) in [
            ("", vec!["Ann Bell", "Bo Cole"]),
            ("active=yes", vec!["Ann Bell"]),
            ("active=no", vec!["Bo Cole"]),
            ("region=ES", vec!["Ann Bell"]),
            ("region=qq", vec!["Bo Cole"]),
            ("field1=head%20of%20SALES", vec!["Ann Bell"]),
            ("field2=head%20of%20SALES", vec![]),
            ("country=unknown", vec!["Bo Cole"]),
            ("country=UK", vec!["Bo Cole"]),
            ("country=EL", vec![]),
            ("approvers=pending", vec!["Ann Bell"]),
            ("approvers=pending&active=no", vec![]),
            ("group=staff%20%26%20FRIENDS", vec!["Ann Bell", "Bo Cole"]),
            ("group=staff%20%26%20friends&approvers=pending", vec!["Ann Bell"]),
            ("group=staff%20%26%20friends&search=cole", vec!["Bo Cole"]),
            ("group=nobody", vec![]),
            ("source=other", vec![]),
        ] {
            let page = console.get(&format!("/admin/people?{query}")).await;
            assert_eq!(page.status, 200, "{}", page.text);
            assert_eq!(names(&page.text), expected, "{query}");
        }
        let page = console.get("/admin/people").await.text;
        assert!(page.contains("UK, 1 person</a>: GB?"), "{page}");
        assert!(page.contains("Pending</span> <span class=\"small\">boss@a.example"), "{page}");
        assert!(page.contains("In force</span> <span class=\"small\">ann@a.example"), "{page}");
        assert!(page.contains("2 people, 1 of them active"), "{page}");
    }
}

#[tokio::test]
async fn a_list_is_read_page_by_page_forth_and_back() {
    let system = together();
    let tenant = system.tenant().await;
    let console = system.admin(&tenant.id, &email("ada")).await;
    let mut ids = Vec::new();
    for n in 0..7 {
        let mut user = person("Ann", &format!("Bell{n}"), &format!("ann{n}@a.example"));
        user[MUSTER] = json!({"approvers": ["boss@a.example"]});
        ids.push(json!({"value": create(&tenant, &user).await}));
    }
    let group = json!({"displayName": "All", "members": ids});
    assert_eq!(tenant.client.post("/Groups", &group).await.unwrap().status, 201);
    for query in ["size=3", "size=3&search=bell", "size=3&group=all", "size=3&approvers=pending"] {
        let mut page = console.get(&format!("/admin/people?{query}")).await;
        let mut seen = names(&page.text);
        let first = seen.clone();
        while page.text.contains("rel=\"next\"") {
            let (before, _) = page.text.split_once("\" rel=\"next\"").unwrap();
            let address = before.rsplit("href=\"").next().unwrap().replace("&amp;", "&");
            let address = address.replace("&#38;", "&");
            page = console.get(&address).await;
            assert!(names(&page.text).len() <= 3);
            seen.extend(names(&page.text));
        }
        let expected: Vec<String> = (0..7).map(|n| format!("Ann Bell{n}")).collect();
        assert_eq!(seen, expected, "{query}");
        if page.text.contains("rel=\"prev\"") {
            for _ in 0..2 {
                let (before, _) = page.text.split_once("\" rel=\"prev\"").unwrap();
                let address = before.rsplit("href=\"").next().unwrap().replace("&amp;", "&");
                page = console.get(&address.replace("&#38;", "&")).await;
            }
            assert_eq!(names(&page.text), first, "{query}");
        }
    }
}

#[tokio::test]
async fn a_search_finds_the_same_by_its_index_as_by_reading_everybody() {
    let system = together();
    let tenant = system.tenant().await;
    crowd(system, &tenant, 9_000);
    let mut users = system.users();
    for query in ["katarina8999", "novakabc", "bo novak", "eva ka", "ova na"] {
        let mut found = Vec::new();
        let mut page_token = String::new();
        loop {
            let request = SearchUsersRequest {
                organisation_id: tenant.id.clone(),
                query: query.to_owned(),
                page_size: 100,
                page_token,
                ..SearchUsersRequest::default()
            };
            let answer = users.search_users(request).await.unwrap().into_inner();
            found.extend(answer.users.into_iter().map(|user| user.user_name.unwrap()));
            page_token = answer.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
        let has = |n: &u32| {
            let given = ["ann", "bo", "eva", "katarina"][(n % 4) as usize];
            let family = format!("novak{:03x}", n * 7919 % 4096);
            let words = format!("{given} {family} {given}{n} {given}{n}@a.example");
            query.split(' ').all(|part| match part.len() {
                1 | 2 => format!(" {words}").contains(&format!(" {part}")),
                _ => words.contains(part),
            })
        };
        let expected = (1..=9_000).filter(has).count();
        assert_eq!(found.len(), expected, "{query}");
    }
}

/// What a form sends: every field as the page has it, and these instead.
async fn form_of(console: &Browser, path: &str, typed: &[(&str, &str)]) -> Vec<(String, String)> {
    let page = console.get(path).await;
    assert_eq!(page.status, 200, "{}", page.text);
    filled(&page.text, typed)
}

/// The fields of the last form on a page, with these typed.
fn filled(page: &str, typed: &[(&str, &str)]) -> Vec<(String, String)> {
    let (_, form) = page.rsplit_once("<form class=\"stack\" method=\"post\"").unwrap();
    let mut fields = Vec::new();
    for input in form.split("<input ").skip(1) {
        let input = input.split('>').next().unwrap();
        let name = after(input, "name=\"").to_owned();
        if name != "csrf" {
            fields.push((name, unescaped(after(input, "value=\""))));
        }
    }
    let (_, area) = form.split_once("name=\"approvers\"").unwrap();
    let (_, area) = area.split_once('>').unwrap();
    let area = area.split("</textarea>").next().unwrap();
    fields.push(("approvers".to_owned(), unescaped(area)));
    for (name, value) in typed {
        let field = fields.iter_mut().find(|(field, _)| field == name).unwrap();
        (*value).clone_into(&mut field.1);
    }
    fields
}

/// The value of an attribute of the first element that has it after `mark`.
fn after<'t>(text: &'t str, mark: &str) -> &'t str {
    let (_, rest) = text.split_once(mark).unwrap_or_else(|| panic!("no {mark:?} in {text}"));
    rest.split('"').next().unwrap()
}

fn unescaped(text: &str) -> String {
    let text = text.replace("&#60;", "<").replace("&#62;", ">").replace("&#34;", "\"");
    text.replace("&#39;", "'").replace("&#38;", "&")
}

async fn send(console: &Browser, path: &str, fields: &[(String, String)]) -> Page {
    let fields: Vec<(&str, &str)> = fields.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    console.post(path, &fields).await
}

#[tokio::test]
async fn an_admin_adds_a_person_whom_okta_takes_over_with_its_first_write() {
    for system in both() {
        let tenant = system.tenant().await;
        let console = system.admin(&tenant.id, &email("ada")).await;
        let typed = [
            ("given_name", "Ann"),
            ("family_name", "Bell"),
            ("email", "Ann@a.example"),
            ("country", "it"),
            ("approvers", "boss@a.example\r\nann@a.example"),
            ("field1", "Sales"),
        ];
        let form = form_of(&console, "/admin/people/new", &typed).await;
        let added = send(&console, "/admin/people/new", &form).await;
        let address = added.sent_to();
        let page = console.get(&address).await.text;
        for shown in [
            "The person was added.",
            "<h1>Ann Bell</h1>",
            "Added here",
            "Ann@a.example (work)",
            "ES (country code IT)",
            ">Sales<",
            "Pending",
            "Own address",
            "<strong>Created</strong> by Admin ada-",
        ] {
            assert!(page.contains(shown), "{shown}: {page}");
        }
        let id = address.split(['/', '?']).nth(3).unwrap();
        let path = format!("/Users/{id}");
        let user = tenant.client.get(&path).await.unwrap();
        assert_eq!(user.at("/userName"), "Ann@a.example");
        let list = console.get("/admin/people?source=other").await.text;
        assert_eq!(names(&list), ["Ann Bell"]);
        // Okta matches by e-mail address, and writes.
        let mut put = person("Ann", "Bell", "Ann@a.example");
        put["externalId"] = "00u1".into();
        assert_eq!(tenant.client.put(&path, &put).await.unwrap().status, 200);
        assert_eq!(names(&console.get("/admin/people?source=other").await.text).len(), 0);
        let page = console.get(&format!("/admin/people/{id}")).await.text;
        assert!(page.contains("In sync"), "{page}");
        assert!(page.contains("by API key “test”"), "{page}");
        assert!(page.contains("<del>boss@a.example, ann@a.example</del>"), "{page}");
    }
}

#[tokio::test]
async fn a_persons_page_shows_the_last_requests_about_them() {
    let system = together();
    let tenant = system.tenant().await;
    let console = system.admin(&tenant.id, &email("ada")).await;
    let id = create(&tenant, &person("Ann", "Bell", "ann@a.example")).await;
    let path = format!("/admin/people/{id}");
    for n in 0..11 {
        let user = person("Ann", &format!("Bell{n}"), "ann@a.example");
        assert_eq!(tenant.client.put(&format!("/Users/{id}"), &user).await.unwrap().status, 200);
    }
    let refused = json!({"name": {"familyName": 5}});
    assert_eq!(tenant.client.put(&format!("/Users/{id}"), &refused).await.unwrap().status, 400);
    create(&tenant, &person("Bo", "Cole", "bo@a.example")).await;
    let entries = logged(system, &tenant, 14).await;
    let page = console.get(&path).await.text;
    let (_, calls) = page.split_once("id=\"calls\"").unwrap();
    let (calls, _) = calls.split_once("</section>").unwrap();
    let ids: Vec<&str> =
        calls.split("href=\"/admin/log/").skip(1).map(|c| c.split('"').next().unwrap()).collect();
    let expected: Vec<&str> = entries[3..13].iter().rev().map(|e| e.id.as_str()).collect();
    assert_eq!(ids, expected);
    assert_eq!(calls.matches("badge good\">Applied").count(), 9);
    assert_eq!(calls.matches("badge bad\">Failed").count(), 1);
    let all = console.get(&format!("/admin/log?about={id}")).await.text;
    assert!(calls.contains(&format!("\"/admin/log?about={id}\"")), "{calls}");
    assert_eq!(all.matches("<th scope=\"row\"").count(), 13);
    // Whom Okta has never asked about.
    let made = form_of(&console, "/admin/people/new", &[("email", "cy@a.example")]).await;
    let address = send(&console, "/admin/people/new", &made).await.sent_to();
    assert!(console.get(&address).await.text.contains("no request about this person"));
}

#[tokio::test]
async fn an_admin_corrects_an_address_and_the_next_import_matches() {
    for system in both() {
        let tenant = system.tenant().await;
        let console = system.admin(&tenant.id, &email("ada")).await;
        let mut ann = person("Ann", "Bell", "ann@wrong.example");
        ann["title"] = "Head".into();
        ann["phoneNumbers"] = json!([{"value": "+44 20", "type": "work"}]);
        let id = create(&tenant, &ann).await;
        let path = format!("/admin/people/{id}/edit");
        let typed = [("email", " ann@a.example "), ("user_name", "ann@a.example")];
        let form = form_of(&console, &path, &typed).await;
        let saved = send(&console, &path, &form).await;
        let page = console.get(&saved.sent_to()).await.text;
        assert!(page.contains("The changes were saved."), "{page}");
        assert!(page.contains("<del>ann@wrong.example (work)</del>"), "{page}");
        let filter = "/Users?filter=userName%20eq%20%22ann%40a.example%22";
        let found = tenant.client.get(filter).await.unwrap();
        assert_eq!(found.at("/totalResults"), 1);
        assert_eq!(found.at("/Resources/0/id"), id.as_str());
        assert_eq!(found.at("/Resources/0/title"), "Head");
        assert_eq!(found.at("/Resources/0/phoneNumbers/0/value"), "+44 20");
        assert_eq!(found.at("/Resources/0/emails/0/value"), "ann@a.example");
        // The same again changes nothing.
        let form = form_of(&console, &path, &[]).await;
        let saved = send(&console, &path, &form).await;
        assert!(saved.sent_to().ends_with("done=same"));
        let user = tenant.client.get(&format!("/Users/{id}")).await.unwrap();
        assert_eq!(user.at("/meta/version"), "W/\"2\"");
    }
}

#[tokio::test]
async fn nothing_that_was_typed_is_lost_when_a_form_is_refused() {
    let system = together();
    let tenant = system.tenant().await;
    let console = system.admin(&tenant.id, &email("ada")).await;
    create(&tenant, &person("Bo", "Cole", "bo@a.example")).await;
    for (field, value, says) in [
        ("country", "Germany", "for Germany send"),
        ("email", "BO@a.example", "Somebody else has this already"),
        ("user_name", "Bo@a.example", "Somebody else has this already"),
        ("display_name", "Ann\u{2}", "displayName"),
    ] {
        let mut typed = vec![("given_name", "Ann <b>"), ("email", "ann@a.example")];
        typed.push(("approvers", "x@a.example\r\ny@a.example"));
        typed.push((field, value));
        let form = form_of(&console, "/admin/people/new", &typed).await;
        let refused = send(&console, "/admin/people/new", &form).await;
        assert_eq!(refused.status, 422, "{field}: {}", refused.text);
        assert!(refused.text.contains(says), "{says}: {}", refused.text);
        let again = filled(&refused.text, &[]);
        for (name, value) in &form {
            let (_, kept) = again.iter().find(|(field, _)| field == name).unwrap();
            assert_eq!(kept.replace('\r', ""), value.replace('\r', ""), "{name}");
        }
    }
    assert_eq!(names(&console.get("/admin/people").await.text), ["Bo Cole"]);
}

#[tokio::test]
async fn who_loses_a_race_is_told_what_changed_and_keeps_what_was_typed() {
    let system = together();
    let tenant = system.tenant().await;
    let console = system.admin(&tenant.id, &email("ada")).await;
    let id = create(&tenant, &person("Ann", "Bell", "ann@a.example")).await;
    let path = format!("/admin/people/{id}/edit");
    let form = form_of(&console, &path, &[("display_name", "Ann B.")]).await;
    let mut put = person("Ann", "Urban", "ann@a.example");
    put["title"] = "Head".into();
    assert_eq!(tenant.client.put(&format!("/Users/{id}"), &put).await.unwrap().status, 200);
    let lost = send(&console, &path, &form).await;
    assert_eq!(lost.status, 409, "{}", lost.text);
    assert!(lost.text.contains("Last name: <del>Bell</del> → <ins>Urban</ins>"), "{}", lost.text);
    assert!(lost.text.contains("title: <ins>Head</ins>"), "{}", lost.text);
    let again = filled(&lost.text, &[]);
    let value = |name: &str| again.iter().find(|(field, _)| field == name).unwrap().1.clone();
    assert_eq!((value("display_name"), value("family_name")), ("Ann B.".into(), "Urban".into()));
    let saved = send(&console, &path, &again).await;
    assert!(saved.sent_to().ends_with("done=saved"));
    let user = tenant.client.get(&format!("/Users/{id}")).await.unwrap();
    assert_eq!(user.at("/displayName"), "Ann B.");
    assert_eq!(user.at("/name/familyName"), "Urban");
    assert_eq!(user.at("/title"), "Head");
}

#[tokio::test]
async fn a_leaver_is_deactivated_and_their_name_released() {
    for system in both() {
        let tenant = system.tenant().await;
        let console = system.admin(&tenant.id, &email("ada")).await;
        let id = create(&tenant, &person("Ann", "Bell", "ann@a.example")).await;
        let path = format!("/admin/people/{id}");
        assert_eq!(console.get(&format!("{path}/release")).await.status, 409);
        let press = [("revision", "1"), ("active", "no")];
        let done = console.post(&format!("{path}/active"), &press).await;
        let page = console.get(&done.sent_to()).await.text;
        assert!(page.contains("The person is inactive now."), "{page}");
        // A button of a page that is out of date does nothing.
        assert_eq!(console.post(&format!("{path}/active"), &press).await.status, 409);
        let confirm = console.get(&format!("{path}/release")).await.text;
        assert!(confirm.contains("ann@a.example"), "{confirm}");
        let done = console.post(&format!("{path}/release"), &[("revision", "2")]).await;
        let page = console.get(&done.sent_to()).await.text;
        assert!(page.contains("free for somebody else"), "{page}");
        assert!(!page.contains("Release userName"), "{page}");
        create(&tenant, &person("Ann", "Bell", "ann@a.example")).await;
        let back = [("revision", "3"), ("active", "yes")];
        let done = console.post(&format!("{path}/active"), &back).await;
        assert!(done.sent_to().ends_with("done=reactivated"));
    }
}

const PAYLOAD: &str = "\"><script>alert(1)</script><img src=x onerror=alert(1)>";

#[tokio::test]
async fn whatever_is_in_a_field_is_shown_as_text() {
    let system = together();
    let tenant = system.tenant().await;
    let console = system.admin(&tenant.id, &email("ada")).await;
    let mut user = json!({
        "userName": PAYLOAD, "displayName": PAYLOAD, "title": PAYLOAD, "locale": "en",
        "externalId": PAYLOAD,
        "name": {"givenName": PAYLOAD, "familyName": PAYLOAD},
        "emails": [{"value": PAYLOAD, "type": PAYLOAD}],
    });
    user[MUSTER] = json!({"customField1": PAYLOAD, "customField2": PAYLOAD,
                          "customField3": PAYLOAD, "approvers": [PAYLOAD]});
    let id = create(&tenant, &user).await;
    let group = json!({"displayName": PAYLOAD, "members": [{"value": id}]});
    let group = tenant.client.post("/Groups", &group).await.unwrap();
    let group = group.at("/id").as_str().unwrap();
    let query = pair("search", PAYLOAD);
    for path in [
        "/admin/people".to_owned(),
        format!("/admin/people?{query}"),
        format!("/admin/people?{}", pair("group", PAYLOAD)),
        format!("/admin/people?{}", pair("field1", PAYLOAD)),
        format!("/admin/people?{}", pair("country", PAYLOAD)),
        format!("/admin/people/{id}"),
        format!("/admin/people/{id}/edit"),
        format!("/admin/people/{id}?{}", pair("done", PAYLOAD)),
        "/admin/groups".to_owned(),
        format!("/admin/groups?{query}"),
        format!("/admin/groups/{group}"),
    ] {
        let page = console.get(&path).await;
        assert_eq!(page.status, 200, "{path}: {}", page.text);
        assert!(!page.text.contains("<script>alert"), "{path}");
        assert!(!page.text.contains("<img src=x"), "{path}");
        assert!(page.headers.contains_key("content-security-policy"), "{path}");
    }
}

#[tokio::test]
async fn nobody_and_nothing_of_another_organisation_is_there() {
    for system in both() {
        let (ours, theirs) = (system.tenant().await, system.tenant().await);
        let console = system.admin(&ours.id, &email("ada")).await;
        let id = create(&theirs, &person("Ann", "Bell", "ann@a.example")).await;
        let group = theirs.client.post("/Groups", &json!({"displayName": "g"})).await.unwrap();
        let group = group.at("/id").as_str().unwrap().to_owned();
        let nobody = "01a20dd5-057c-7370-95bc-182bcdb7607e".to_owned();
        for [id, group] in
            [[id.clone(), group.clone()], [nobody.clone(), nobody], ["x".into(), "x".into()]]
        {
            for path in [
                format!("/admin/people/{id}"),
                format!("/admin/people/{id}/edit"),
                format!("/admin/people/{id}/release"),
                format!("/admin/groups/{group}"),
                format!("/admin/groups/{group}/delete"),
            ] {
                let page = console.get(&path).await;
                assert_eq!(page.status, 404, "{path}: {}", page.text);
            }
            let fields =
                [("revision", "1"), ("active", "no"), ("display_name", "x"), ("user_name", "x")];
            for path in [
                format!("/admin/people/{id}/active"),
                format!("/admin/people/{id}/edit"),
                format!("/admin/people/{id}/release"),
                format!("/admin/groups/{group}"),
                format!("/admin/groups/{group}/delete"),
            ] {
                let answer = console.post(&path, &fields).await;
                assert_eq!(answer.status, 404, "{path}: {}", answer.text);
            }
        }
        let user = theirs.client.get(&format!("/Users/{id}")).await.unwrap();
        assert_eq!(user.at("/meta/version"), "W/\"1\"");
    }
}

#[tokio::test]
async fn an_admin_creates_renames_and_deletes_a_group() {
    for system in both() {
        let tenant = system.tenant().await;
        let console = system.admin(&tenant.id, &email("ada")).await;
        let made = console.post("/admin/groups/new", &[("display_name", " Sales & more ")]).await;
        let address = made.sent_to();
        let page = console.get(&address).await.text;
        assert!(page.contains("The group was created.") && page.contains("Added here"), "{page}");
        let clash = console.post("/admin/groups/new", &[("display_name", "SALES & more")]).await;
        assert_eq!(clash.status, 422);
        assert!(clash.text.contains("There is a group of this name already."), "{}", clash.text);
        assert!(clash.text.contains("value=\"SALES &#38; more\""), "{}", clash.text);
        for wrong in ["", " ", "a\u{1}"] {
            let refused = console.post("/admin/groups/new", &[("display_name", wrong)]).await;
            assert_eq!(refused.status, 422, "{}", refused.text);
        }
        let path = address.split('?').next().unwrap();
        let renamed = [("display_name", "Sales"), ("revision", "1")];
        let answer = console.post(path, &renamed).await;
        assert!(console.get(&answer.sent_to()).await.text.contains("The group was renamed."));
        let late = console.post(path, &[("display_name", "Selling"), ("revision", "1")]).await;
        assert_eq!(late.status, 409);
        assert!(late.text.contains("value=\"Selling\""), "{}", late.text);
        // Okta links to it by name, and adopts it.
        let found =
            tenant.client.get("/Groups?filter=displayName%20eq%20%22Sales%22").await.unwrap();
        assert_eq!(found.at("/totalResults"), 1);
        let id = found.at("/Resources/0/id").as_str().unwrap();
        let user = create(&tenant, &person("Ann", "Bell", "ann@a.example")).await;
        let add =
            json!({"Operations": [{"op": "add", "path": "members", "value": [{"value": user}]}]});
        let patched = tenant.client.patch(&format!("/Groups/{id}"), &add).await.unwrap();
        assert_eq!(patched.status, 204, "{}", patched.text);
        let page = console.get(path).await.text;
        assert!(page.contains("In sync") && page.contains("1 member"), "{page}");
        assert_eq!(names(&page), ["Ann Bell"]);
        let confirm = console.get(&format!("{path}/delete")).await.text;
        assert!(confirm.contains("Delete Sales?"), "{confirm}");
        let gone = console.post(&format!("{path}/delete"), &[("revision", "3")]).await;
        assert!(console.get(&gone.sent_to()).await.text.contains("The group was deleted."));
        assert_eq!(console.get(path).await.status, 404);
    }
}

#[tokio::test]
async fn a_groups_member_count_is_what_its_members_are() {
    let system = together();
    let tenant = system.tenant().await;
    let console = system.admin(&tenant.id, &email("ada")).await;
    let mut ids = Vec::new();
    for n in 0..4 {
        let email = format!("p{n}@a.example");
        ids.push(create(&tenant, &person("P", &n.to_string(), &email)).await);
    }
    let member = |n: usize| json!({"value": ids[n]});
    let group = json!({"displayName": "g", "members": [member(0), member(1), member(1)]});
    let group = tenant.client.post("/Groups", &group).await.unwrap();
    let path = format!("/Groups/{}", group.at("/id").as_str().unwrap());
    let counted = async || {
        let page = console.get("/admin/groups").await.text;
        let (_, rest) = page.split_once("data-label=\"Members\">").unwrap();
        rest.split('<').next().unwrap().to_owned()
    };
    assert_eq!(counted().await, "2");
    let add = json!({"Operations": [
        {"op": "add", "path": "members", "value": [member(1), member(2), member(3)]},
        {"op": "remove", "path": "members", "value": [member(0)]}
    ]});
    assert_eq!(tenant.client.patch(&path, &add).await.unwrap().status, 204);
    assert_eq!(counted().await, "3");
    let put = json!({"displayName": "g", "members": [member(0), member(3)]});
    assert_eq!(tenant.client.put(&path, &put).await.unwrap().status, 200);
    assert_eq!(counted().await, "2");
    assert_eq!(tenant.client.delete(&format!("/Users/{}", ids[3])).await.unwrap().status, 204);
    assert_eq!(counted().await, "1");
}

#[tokio::test]
async fn groups_are_found_by_how_their_names_begin_and_read_page_by_page() {
    let system = together();
    let tenant = system.tenant().await;
    let console = system.admin(&tenant.id, &email("ada")).await;
    for n in 0..60 {
        let name = if n < 55 { format!("Team {n:02}") } else { format!("Ünit {n}") };
        let made = tenant.client.post("/Groups", &json!({"displayName": name})).await.unwrap();
        assert_eq!(made.status, 201);
    }
    let group_names = |page: &str| -> Vec<String> {
        let rows = page.split("<th scope=\"row\"><a href=\"/admin/groups/").skip(1);
        let name =
            |row: &str| row.split_once("\">").unwrap().1.split('<').next().unwrap().to_owned();
        rows.map(name).collect()
    };
    let page = console.get("/admin/groups").await.text;
    assert_eq!(group_names(&page).len(), 50);
    let (before, _) = page.split_once("\" rel=\"next\"").unwrap();
    let next = unescaped(before.rsplit("href=\"").next().unwrap());
    let rest = group_names(&console.get(&next).await.text);
    let expected: Vec<String> = (50..55)
        .map(|n| format!("Team {n}"))
        .chain((55..60).map(|n| format!("Ünit {n}")))
        .collect();
    assert_eq!(rest, expected);
    let found = console.get(&format!("/admin/groups?{}", pair("search", "üN"))).await.text;
    assert_eq!(group_names(&found).len(), 5);
    let none = console.get("/admin/groups?search=%25").await.text;
    assert!(none.contains("No group found"), "{none}");
}

#[tokio::test]
async fn reports_count_people_by_region_group_and_custom_field() {
    for system in both() {
        let tenant = system.tenant().await;
        let console = system.admin(&tenant.id, &email("ada")).await;
        let mut ids = Vec::new();
        for (n, (country, job, active)) in
            [("GB", "Sales", true), ("IT", "SALES", false), ("ES", "=Chef", true), ("GB", "", true)]
                .into_iter()
                .enumerate()
        {
            let mut user = person("P", &n.to_string(), &format!("p{n}@a.example"));
            user[MUSTER] = json!({"contentRegion": country, "customField1": job});
            user["active"] = active.into();
            ids.push(json!({"value": create(&tenant, &user).await}));
        }
        let group = json!({"displayName": "Team", "members": ids[..3]});
        assert_eq!(tenant.client.post("/Groups", &group).await.unwrap().status, 201);
        let report = async || {
            let text = console.get("/admin/reports.csv").await.text;
            text.lines().skip(1).map(str::to_owned).collect::<Vec<_>>()
        };
        let expected = |rows: &[&str]| {
            let mut rows: Vec<String> = rows.iter().map(|row| (*row).to_owned()).collect();
            rows.sort();
            rows
        };
        let sorted = async || {
            let mut rows = report().await;
            rows.sort();
            rows
        };
        let first = expected(&[
            "Content region,GB,2,0,2",
            "Content region,ES,1,1,2",
            "Group,Team,2,1,3",
            "Custom field 1,SALES,1,1,2",
            "Custom field 1,'=Chef,1,0,1",
        ]);
        assert_eq!(sorted().await, first);
        // Remembered until somebody changes.
        assert_eq!(sorted().await, first);
        let back = json!({"Operations": [{"op": "replace", "value": {"active": true}}]});
        let path = format!("/Users/{}", ids[1]["value"].as_str().unwrap());
        assert_eq!(tenant.client.patch(&path, &back).await.unwrap().status, 200);
        let second = expected(&[
            "Content region,GB,2,0,2",
            "Content region,ES,2,0,2",
            "Group,Team,3,0,3",
            "Custom field 1,SALES,2,0,2",
            "Custom field 1,'=Chef,1,0,1",
        ]);
        for _ in 0..200 {
            if sorted().await == second {
                break;
            }
            // The group service follows.
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        assert_eq!(sorted().await, second);
        let page = console.get("/admin/reports").await;
        assert_eq!(page.status, 200);
        assert!(page.text.contains("<svg class=\"chart\""), "{}", page.text);
        assert!(page.text.contains("=Chef"), "{}", page.text);
    }
}
