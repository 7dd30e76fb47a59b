//! People as CSV files: import, all or nothing, and export.

use std::time::{Duration, Instant};

use muster::scim_client::Answer;
use muster_proto::identity::v1::{ListChangesRequest, Organisation};
use serde_json::json;

use crate::support::browser::{Browser, email};
use crate::support::system::{System, Tenant, both, run_sql, together};

/// Uploads a file; the address of its check.
async fn upload(console: &Browser, file: &[u8]) -> String {
    console.upload("/admin/people/import", file).await.sent_to()
}

/// Starts an import and waits for its end; the last page.
async fn import(console: &Browser, address: &str) -> String {
    assert_eq!(console.post(address, &[]).await.sent_to(), address);
    for _ in 0..6_000 {
        let page = console.get(address).await;
        assert_eq!(page.status, 200, "{}", page.text);
        if !page.text.contains("<progress") {
            return page.text;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the import does not end");
}

async fn name_fields(system: &System, tenant: &Tenant) {
    system
        .update(Organisation {
            id: tenant.id.clone(),
            display_name: "Named".into(),
            default_locale: "en-GB".into(),
            custom_field_1_name: "Job function".into(),
            ..Organisation::default()
        })
        .await;
}

async fn total(tenant: &Tenant) -> u64 {
    let answer = tenant.client.get("/Users?count=0").await.unwrap();
    answer.at("/totalResults").as_u64().unwrap()
}

async fn by_name(tenant: &Tenant, user_name: &str) -> Answer {
    let filter = format!("/Users?filter=userName%20eq%20%22{}%22", user_name.replace('@', "%40"));
    tenant.client.get(&filter).await.unwrap()
}

#[tokio::test]
async fn a_file_is_checked_then_imported_and_updates_when_it_comes_again() {
    for system in both() {
        let tenant = system.tenant().await;
        name_fields(system, &tenant).await;
        let console = system.admin(&tenant.id, &email("ada")).await;
        let here = json!({"userName": "bo@a.example", "title": "Head",
                          "emails": [{"value": "bo@a.example", "type": "work"}]});
        let bo = tenant.client.post("/Users", &here).await.unwrap();
        let file = "\u{feff}Surname;First Name;E-Mail;job function;Country;Approvers;shoe size\r\n\
                    Bell;Ann;ann@a.example;Sales;it;\"bo@a.example; cy@a.example\";38\r\n\
                    Cole;Bo;BO@a.example;;gb;;40\r\n";
        let address = upload(&console, file.as_bytes()).await;
        let page = console.get(&address).await.text;
        for shown in [
            "<dt>People in the file</dt><dd>2</dd>",
            "<dt>To add</dt><dd>1</dd>",
            "<dt>To update</dt><dd>1</dd>",
            "<dt>Columns that are ignored</dt><dd>shoe size</dd>",
        ] {
            assert!(page.contains(shown), "{shown}: {page}");
        }
        // A look changes nothing.
        assert_eq!(total(&tenant).await, 1);
        let page = import(&console, &address).await;
        assert!(page.contains("1 added, 1 updated, 0 were the same already."), "{page}");
        assert_eq!(total(&tenant).await, 2);
        let ann = by_name(&tenant, "ann@a.example").await;
        let ann = ann.at("/Resources/0");
        let muster = &ann["urn:learnerbly:params:scim:schemas:2.0:User"];
        assert_eq!(muster["contentRegion"], "ES");
        assert_eq!(muster["customField1"], "Sales");
        assert_eq!(ann["name"]["familyName"], "Bell");
        assert_eq!(ann["locale"], "en-GB");
        let now = tenant.client.get(&format!("/Users/{}", bo.at("/id").as_str().unwrap())).await;
        let now = now.unwrap();
        assert_eq!((now.at("/title"), now.at("/name/givenName")), (&"Head".into(), &"Bo".into()));
        let list = console.get("/admin/people?source=other").await.text;
        assert!(list.contains("From CSV") && list.contains("Ann Bell"), "{list}");
        assert!(!list.contains("Bo Cole"), "{list}");
        // The approver who is there comes into force.
        for _ in 0..200 {
            if by_name(&tenant, "ann@a.example").await.text.contains("\"approvers\":[") {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let ann = by_name(&tenant, "ann@a.example").await;
        let muster = &ann.at("/Resources/0")["urn:learnerbly:params:scim:schemas:2.0:User"];
        assert_eq!(muster["approvers"].as_array().unwrap().len(), 1, "{}", ann.text);
        // The same file again changes nobody; pressing twice imports once.
        let address = upload(&console, file.as_bytes()).await;
        let page = import(&console, &address).await;
        assert!(page.contains("0 added, 0 updated, 2 were the same already."), "{page}");
        assert_eq!(console.post(&address, &[]).await.sent_to(), address);
        let id = ann.at("/Resources/0/id").as_str().unwrap();
        let person = console.get(&format!("/admin/people/{id}")).await.text;
        assert!(person.contains("<strong>Created</strong> by Admin ada-"), "{person}");
        // Changed in the file, changed here.
        let changed = file.replace("Bell", "Urban");
        let address = upload(&console, changed.as_bytes()).await;
        let page = import(&console, &address).await;
        assert!(page.contains("0 added, 1 updated, 1 were the same already."), "{page}");
    }
}

#[tokio::test]
async fn every_problem_is_told_by_its_line_and_nothing_is_imported() {
    let system = together();
    let tenant = system.tenant().await;
    let console = system.admin(&tenant.id, &email("ada")).await;
    for (name, email) in [("one", "one@a.example"), ("two", "two@a.example")] {
        let user = json!({"userName": name, "emails": [{"value": email, "type": "work"}]});
        assert_eq!(tenant.client.post("/Users", &user).await.unwrap().status, 201);
    }
    let file = "userName,email,country,active,display name\n\
                ok,ok@a.example,GB,yes,Fine\n\
                a,a@a.example,Germany,yes,A\n\
                b,b@a.example,GB,perhaps,B\n\
                ,,GB,,Nobody\n\
                OK,ok2@a.example,GB,,Twice\n\
                c,OK@a.example,GB,,Twice too\n\
                one,two@a.example,GB,,Two people\n\
                d,d@a.example,GB,,\"two\nlines\"\n\
                e,e@a.example,GB,,E,more\n";
    let address = upload(&console, file.as_bytes()).await;
    let page = console.get(&address).await.text;
    assert!(page.contains("8 problems"), "{page}");
    for (line, says) in [
        (3, "for Germany send"),
        (4, "active is &#34;perhaps&#34;; expected yes or no."),
        (5, "neither an e-mail address nor a user name"),
        (6, "the person of line 2 again"),
        (7, "the person of line 2 again"),
        (8, "Somebody else has this e-mail address."),
        (9, "line break"),
        (11, "6 cells"),
    ] {
        let (_, rest) = page.split_once(&format!("class=\"number\">{line}</th>")).unwrap();
        let told = rest.split("</td>").next().unwrap();
        assert!(told.contains(says), "{line}: {told}");
    }
    // Whoever starts it all the same is told, and nobody is there.
    let page = import(&console, &address).await;
    assert!(page.contains("Nothing was imported"), "{page}");
    assert_eq!(total(&tenant).await, 2);
    for (file, says) in [
        (&b"\xff\xfee\0m\0a\0"[..], "UTF-16"),
        (b"email\na\"b\n", "2:2</th><td>There is a quote inside a cell"),
        (b"email,E-Mail\nx,y\n", "1:7</th><td>The columns &#34;email&#34; and &#34;E-Mail&#34;"),
        (b"shoe size\n38\n", "There is no column for the e-mail address"),
    ] {
        let address = upload(&console, file).await;
        let page = console.get(&address).await.text;
        assert!(page.contains(says), "{says}: {page}");
    }
    let empty = console.upload("/admin/people/import", b"").await;
    assert_eq!(empty.status, 422, "{}", empty.text);
    let large = console.upload("/admin/people/import", &vec![b'a'; 10 * 1024 * 1024 + 1]).await;
    assert_eq!(large.status, 413, "{}", large.text);
    assert!(large.text.contains("larger than 10 MiB"), "{}", large.text);
}

#[tokio::test]
async fn an_import_of_another_organisation_is_not_there() {
    let system = together();
    let (ours, theirs) = (system.tenant().await, system.tenant().await);
    let (console, other) = (
        system.admin(&ours.id, &email("ada")).await,
        system.admin(&theirs.id, &email("ada")).await,
    );
    let address = upload(&other, b"email\nann@a.example\n").await;
    assert_eq!(console.get(&address).await.status, 404);
    assert_eq!(console.post(&address, &[]).await.status, 404);
    assert_eq!(console.get("/admin/people/import/x").await.status, 404);
    assert_eq!(total(&theirs).await, 0);
}

#[tokio::test]
async fn fifty_thousand_people_are_imported_while_others_write() {
    let system = together();
    let tenant = system.tenant().await;
    let console = system.admin(&tenant.id, &email("ada")).await;
    let mut lines = vec!["email,first name,last name,country,approvers".to_owned()];
    lines.extend((0..50_000).map(|n| {
        let boss = n / 10 * 10;
        format!("p{n}@a.example,Ann,Bell{n},GB,p{boss}@a.example")
    }));
    let file = lines.join("\n");
    let start = Instant::now();
    let address = upload(&console, file.as_bytes()).await;
    let page = console.get(&address).await.text;
    assert!(page.contains("<dt>To add</dt><dd>50000</dd>"), "{page}");
    eprintln!("checked after {:?}", start.elapsed());
    assert_eq!(console.post(&address, &[]).await.sent_to(), address);
    let mut written = 0;
    let mut seen_progress = false;
    let page = loop {
        let page = console.get(&address).await.text;
        if !page.contains("<progress") {
            break page;
        }
        seen_progress |= page.contains(" of 50000 people");
        // Okta goes on meanwhile, and sees none of it until all of it is there.
        let user = json!({"userName": format!("okta{written}")});
        assert_eq!(tenant.client.post("/Users", &user).await.unwrap().status, 201);
        written += 1;
        let now = total(&tenant).await;
        assert!(now == written || now == written + 50_000, "{now} of {written}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    eprintln!("imported after {:?}, {written} others written meanwhile", start.elapsed());
    assert!(page.contains("50000 added, 0 updated"), "{page}");
    assert!(seen_progress);
    assert_eq!(total(&tenant).await, written + 50_000);
    // The feed has each of them, without a gap, and the totals that go with it.
    let all = written + 50_000;
    let organisation = &tenant.id;
    run_sql(
        &system.database_url("postgres"),
        &format!(
            "DO $$ BEGIN
                 ASSERT (SELECT (count(*), min(sequence), max(sequence), max(total), max(active),
                                 count(DISTINCT subject_id), count(*) FILTER (WHERE kind = 1))
                           FROM identity.change WHERE organisation_id = '{organisation}')
                        = ({all}::bigint, 1::bigint, {all}::bigint, {all}::bigint, {all}::bigint,
                           {all}::bigint, {all}::bigint);
                 ASSERT (SELECT count(*) FROM identity.import_change
                          WHERE organisation_id = '{organisation}') = 0;
             END $$"
        ),
    );
}

#[tokio::test]
async fn what_is_exported_is_imported_again_as_it_was() {
    for system in both() {
        let tenant = system.tenant().await;
        name_fields(system, &tenant).await;
        let console = system.admin(&tenant.id, &email("ada")).await;
        let values = ["=1+1", "+44 20", "-1", "@SUM(A1)", "'=x", "'tis", "a,b;\"c\"", "plain"];
        let mut ids = Vec::new();
        for (n, value) in values.into_iter().enumerate() {
            let user = json!({
                "userName": format!("p{n}"), "displayName": value, "locale": "de",
                "name": {"givenName": value, "familyName": "Bell"},
                "emails": [{"value": format!("p{n}@a.example"), "type": "work"}],
                "urn:learnerbly:params:scim:schemas:2.0:User":
                    {"customField1": value, "contentRegion": "IT", "approvers": ["x@a.example", "y@a.example"]},
            });
            let made = tenant.client.post("/Users", &user).await.unwrap();
            assert_eq!(made.status, 201, "{}", made.text);
            ids.push(made.at("/id").as_str().unwrap().to_owned());
        }
        let export = console.get("/admin/people.csv").await;
        assert_eq!(export.header("content-type"), "text/csv; charset=utf-8");
        let text = &export.text;
        assert!(text.starts_with("\u{feff}userName,email,"), "{text}");
        for safe in [",'=1+1,", ",'+44 20,", ",'-1,", ",'@SUM(A1),", ",''=x,", ",'tis,"] {
            assert!(text.contains(safe), "{safe}: {text}");
        }
        for line in text.lines().skip(1) {
            for cell in line.split(',') {
                assert!(!cell.starts_with(['=', '+', '-', '@']), "{line}");
            }
        }
        let address = upload(&console, text.as_bytes()).await;
        let page = import(&console, &address).await;
        assert!(page.contains("0 added, 0 updated, 8 were the same already."), "{page}");
        // Elsewhere it makes the same people.
        let other = system.tenant().await;
        name_fields(system, &other).await;
        let elsewhere = system.admin(&other.id, &email("ada")).await;
        let address = upload(&elsewhere, text.as_bytes()).await;
        let page = import(&elsewhere, &address).await;
        assert!(page.contains("8 added"), "{page}");
        for (n, value) in values.into_iter().enumerate() {
            let found = by_name(&other, &format!("p{n}")).await;
            assert_eq!(found.at("/Resources/0/displayName"), value);
            let changes = ListChangesRequest {
                organisation_id: other.id.clone(),
                user_id: found.at("/Resources/0/id").as_str().unwrap().to_owned(),
                ..ListChangesRequest::default()
            };
            let changes = system.users().list_changes(changes).await.unwrap().into_inner().changes;
            assert_eq!(changes.len(), 1);
        }
        // With the page's filters.
        let some = console.get("/admin/people.csv?search=p3").await.text;
        assert_eq!(some.lines().count(), 2, "{some}");
        let group = json!({"displayName": "=G", "members": [{"value": ids[0]}]});
        assert_eq!(tenant.client.post("/Groups", &group).await.unwrap().status, 201);
        let groups = console.get("/admin/groups.csv").await.text;
        assert!(groups.contains("\n'=G,1,,In sync,"), "{groups}");
        let of_group = console.get("/admin/people.csv?group=%3Dg").await.text;
        assert_eq!(of_group.lines().count(), 2, "{of_group}");
        // Each is recorded, and the import is where it was started.
        for (console, recorded) in [
            (&console, [("exported: people", 3), ("exported: groups", 1), ("imported: people", 1)]),
            (
                &elsewhere,
                [("exported: people", 0), ("exported: groups", 0), ("imported: people", 1)],
            ),
        ] {
            let activity = console.get("/admin/settings/activity").await.text;
            for (what, times) in recorded {
                assert_eq!(activity.matches(what).count(), times, "{what}: {activity}");
            }
        }
    }
}
