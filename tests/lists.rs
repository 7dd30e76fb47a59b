//! Lists: order, search requests, and what is refused (RFC 7644 §3.4.2, §3.4.3, §4).

use http::{HeaderValue, Method, header};
use muster::scim_client::{Answer, ScimClient, query};
use serde_json::{Value, json};

use crate::support::system::{both, together};

async fn people() -> ScimClient {
    let client = together().tenant().await.client;
    for (name, title, given) in [
        ("cy", Some("Boss"), Some("Cyrus")),
        ("Ann", Some("aide"), None),
        ("bo", None, Some("Boris")),
    ] {
        let user = json!({
            "userName": name, "title": title, "name": {"givenName": given},
            "emails": [{"value": format!("z{name}@a.example")}, {"value": format!("a{name}@b.example"), "primary": true}],
        });
        let answer = client.post("/Users", &user).await.unwrap();
        assert_eq!(answer.status, 201, "{}", answer.text);
    }
    client
}

fn names(answer: &Answer) -> Vec<&str> {
    assert_eq!(answer.status, 200, "{}", answer.text);
    let resources = answer.at("/Resources").as_array().unwrap().iter();
    resources.map(|r| r["userName"].as_str().or(r["displayName"].as_str()).unwrap()).collect()
}

#[tokio::test]
async fn a_list_is_sorted_by_an_attribute_as_section_3_4_2_3_says() {
    let client = people().await;
    for (sort_by, sort_order, expected) in [
        // Without regard to case; what has no value comes last, and first the other way round.
        ("userName", "ascending", ["Ann", "bo", "cy"]),
        ("USERNAME", "Descending", ["cy", "bo", "Ann"]),
        ("title", "ascending", ["Ann", "cy", "bo"]),
        ("title", "descending", ["bo", "cy", "Ann"]),
        ("name.givenName", "", ["bo", "cy", "Ann"]),
        // By the primary value.
        ("emails", "ascending", ["Ann", "bo", "cy"]),
        ("emails.value", "descending", ["cy", "bo", "Ann"]),
        ("meta.created", "descending", ["bo", "Ann", "cy"]),
        ("id", "ascending", ["cy", "Ann", "bo"]),
    ] {
        let parameters = query(&[("sortBy", sort_by), ("sortOrder", sort_order)]);
        let answer = client.get(&format!("/Users{parameters}")).await.unwrap();
        assert_eq!(names(&answer), expected, "{sort_by} {sort_order}");
        // The same page by page.
        let mut paged = Vec::new();
        for start in ["1", "2", "3"] {
            let page = query(&[
                ("sortBy", sort_by),
                ("sortOrder", sort_order),
                ("startIndex", start),
                ("count", "1"),
            ]);
            let answer = client.get(&format!("/Users{page}")).await.unwrap();
            assert_eq!(answer.at("/totalResults"), 3);
            paged.extend(names(&answer).into_iter().map(str::to_owned));
        }
        assert_eq!(paged, expected, "{sort_by} {sort_order}");
    }
    for (sort_by, sort_order) in
        [("shoeSize", ""), ("userName", "up"), ("", "up"), ("groups", ""), ("name", "")]
    {
        let parameters = query(&[("sortBy", sort_by), ("sortOrder", sort_order)]);
        let refused = client.get(&format!("/Users{parameters}")).await.unwrap();
        assert_eq!(refused.status, 400, "{sort_by} {sort_order}: {}", refused.text);
    }
}

fn search(mut parts: Value) -> Value {
    parts["schemas"] = json!(["urn:ietf:params:scim:api:messages:2.0:SearchRequest"]);
    parts
}

#[tokio::test]
async fn a_search_request_asks_as_a_query_does() {
    let client = people().await;
    for name in ["Sales", "aides"] {
        client.post("/Groups", &json!({"displayName": name})).await.unwrap();
    }
    let body = search(json!({
        "filter": "userName ne \"bo\"", "sortBy": "userName", "attributes": ["userName"],
        "startIndex": 1, "count": 5,
    }));
    let found = client.post("/Users/.search", &body).await.unwrap();
    assert_eq!(names(&found), ["Ann", "cy"]);
    assert!(found.at("/Resources/0/emails").is_null(), "{}", found.text);
    let body = search(json!({"sortBy": "displayName", "sortOrder": "descending"}));
    assert_eq!(names(&client.post("/Groups/.search", &body).await.unwrap()), ["Sales", "aides"]);

    // Both types in one list.
    let all = client.post("/.search", &search(json!({}))).await.unwrap();
    assert_eq!(all.at("/totalResults"), 5);
    assert_eq!(names(&all), ["cy", "Ann", "bo", "Sales", "aides"]);
    let window =
        client.post("/.search", &search(json!({"startIndex": 3, "count": 2}))).await.unwrap();
    assert_eq!(names(&window), ["bo", "Sales"]);
    assert_eq!(window.at("/totalResults"), 5);
    let last = client.post("/.search", &search(json!({"startIndex": 5}))).await.unwrap();
    assert_eq!(names(&last), ["aides"]);
    let total = client.post("/.search", &search(json!({"count": 0}))).await.unwrap();
    assert_eq!((total.at("/totalResults"), names(&total).len()), (&json!(5), 0));
    // What only one of them has, only that one is found by.
    let one =
        client.post("/.search", &search(json!({"filter": "userName eq \"ann\""}))).await.unwrap();
    assert_eq!(names(&one), ["Ann"]);
    let kind = search(json!({"filter": "meta.resourceType eq \"Group\""}));
    assert_eq!(names(&client.post("/.search", &kind).await.unwrap()), ["Sales", "aides"]);

    // What a type does not have, it has no value of (§3.4.2.1).
    for (filter, expected) in [
        ("displayName sw \"a\" or userName eq \"bo\"", vec!["bo", "aides"]),
        ("displayName pr and not (userName pr)", vec!["Sales", "aides"]),
        ("userName ne \"bo\" and not (members pr)", vec!["cy", "Ann", "Sales", "aides"]),
        ("members eq \"nobody\" or emails pr", vec!["cy", "Ann", "bo"]),
    ] {
        let found = client.post("/.search", &search(json!({"filter": filter}))).await.unwrap();
        assert_eq!(names(&found), expected, "{filter}");
    }

    let unknown = search(json!({"foo": 1, "count": 0}));
    assert_eq!(client.post("/.search", &unknown).await.unwrap().status, 200);
    let refused = client.get("/Groups?sortBy=members").await.unwrap();
    assert_eq!((refused.status, refused.at("/scimType")), (400, &json!("invalidValue")));

    for wrong in [
        json!({"attributes": 5}),
        json!({"schemas": ["urn:other"]}),
        json!({"filter": "nothing eq 1"}),
        json!({"filter": {"a": 1}}),
        json!({"count": "many"}),
        json!([]),
    ] {
        let refused = client.post("/.search", &wrong).await.unwrap();
        assert_eq!(refused.status, 400, "{wrong}: {}", refused.text);
    }
    assert_eq!(client.get("/Users/.search").await.unwrap().status, 405);
}

#[tokio::test]
async fn what_describes_the_service_cannot_be_filtered_or_changed() {
    for system in both() {
        let client = system.tenant().await.client;
        for path in ["/ServiceProviderConfig", "/ResourceTypes", "/Schemas"] {
            assert_eq!(client.get(path).await.unwrap().status, 200);
            let filtered = format!("{path}{}", query(&[("filter", "id pr")]));
            assert_eq!(client.get(&filtered).await.unwrap().status, 403, "{path}");
            for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
                let answer = client.send(method, path, Some(&json!({}))).await.unwrap();
                assert_eq!(answer.status, 405, "{path}");
                assert!(answer.headers.contains_key(header::ALLOW));
            }
        }
    }
}

#[tokio::test]
async fn an_answer_is_json_or_is_not_made() {
    let client = together().tenant().await.client;
    let body = json!({"userName": "ann"}).to_string();
    for (accept, status) in [
        ("text/html", 406),
        ("application/json;q=0", 406),
        ("text/html, application/scim+json;q=0.5", 409),
        ("*/*", 409),
        ("application/json; charset=utf-8", 409),
    ] {
        let header = (header::ACCEPT, Some(HeaderValue::from_static(accept)));
        if status == 409 {
            // The first that is accepted creates her.
            client.post("/Users", &json!({"userName": "ann"})).await.unwrap();
        }
        let answer = client
            .send_bytes(Method::POST, "/Users", Some(body.clone().into()), &[header])
            .await
            .unwrap();
        assert_eq!(answer.status, status, "{accept}: {}", answer.text);
    }
}

/// Every name in a list by cursor, two at a time.
async fn by_cursor(
    client: &ScimClient,
    endpoint: &str,
    parameters: &[(&str, &str)],
) -> Vec<String> {
    let (mut all, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = [parameters, &[("count", "2"), ("cursor", cursor.as_str())]].concat();
        let answer = client.get(&format!("{endpoint}{}", query(&page))).await.unwrap();
        let page = names(&answer);
        assert!(page.len() <= 2 && answer.at("/startIndex").is_null(), "{}", answer.text);
        assert_eq!(answer.at("/itemsPerPage"), page.len());
        all.extend(page.into_iter().map(str::to_owned));
        match answer.at("/nextCursor").as_str() {
            Some(next) => next.clone_into(&mut cursor),
            None => return all,
        }
    }
}

#[tokio::test]
async fn a_list_goes_on_by_cursor_as_rfc_9865_says() {
    let client = people().await;
    for name in ["Sales", "aides", "Board"] {
        client.post("/Groups", &json!({"displayName": name})).await.unwrap();
    }
    assert_eq!(by_cursor(&client, "/Users", &[]).await, ["cy", "Ann", "bo"]);
    assert_eq!(by_cursor(&client, "/Users", &[("sortBy", "userName")]).await, ["Ann", "bo", "cy"]);
    let filter = ("filter", "userName ne \"bo\"");
    assert_eq!(by_cursor(&client, "/Users", &[filter]).await, ["cy", "Ann"]);
    assert_eq!(by_cursor(&client, "/Groups", &[]).await, ["Sales", "aides", "Board"]);
    let config = client.get("/ServiceProviderConfig").await.unwrap();
    assert_eq!(config.at("/pagination/cursor"), true);

    let first = client.get("/Users?count=1&cursor").await.unwrap();
    let cursor = first.at("/nextCursor").as_str().unwrap().to_owned();
    let other = together().tenant().await.client;
    other.post("/Users", &json!({"userName": "x"})).await.unwrap();
    for (client, path, parameters, keyword) in [
        (&client, "/Users", vec![("cursor", "nonsense")], "invalidCursor"),
        // For this organisation, these resources and this question only.
        (&other, "/Users", vec![("cursor", cursor.as_str())], "invalidCursor"),
        (&client, "/Groups", vec![("cursor", cursor.as_str())], "invalidCursor"),
        (&client, "/Users", vec![("cursor", cursor.as_str()), filter], "invalidCursor"),
        (&client, "/Users", vec![("cursor", cursor.as_str()), ("sortBy", "id")], "invalidCursor"),
        (&client, "/Users", vec![("cursor", ""), ("count", "1.5")], "invalidCount"),
        (&client, "/Users", vec![("cursor", ""), ("count", "x")], "invalidCount"),
        (&client, "/Users", vec![("cursor", ""), ("startIndex", "1")], "invalidValue"),
    ] {
        let refused = client.get(&format!("{path}{}", query(&parameters))).await.unwrap();
        assert_eq!(refused.status, 400, "{parameters:?}: {}", refused.text);
        assert_eq!(refused.at("/scimType"), keyword, "{parameters:?}");
    }
    let none = client.get("/Users?cursor=&count=-1").await.unwrap();
    assert_eq!((names(&none).len(), none.at("/totalResults")), (0, &json!(3)));
    let body = search(json!({"cursor": "", "count": 2}));
    let found = client.post("/Users/.search", &body).await.unwrap();
    assert_eq!(names(&found), ["cy", "Ann"]);
    assert!(found.at("/nextCursor").is_string(), "{}", found.text);
}

#[tokio::test]
async fn a_list_by_cursor_goes_back_as_it_came() {
    let client = people().await;
    for name in ["dee", "eve"] {
        client.post("/Users", &json!({"userName": name})).await.unwrap();
    }
    for name in ["Sales", "aides", "Board", "Crew", "Desk"] {
        client.post("/Groups", &json!({"displayName": name})).await.unwrap();
    }
    for (endpoint, sort_by) in
        [("/Users", ""), ("/Users", "userName"), ("/Groups", ""), ("/Groups", "displayName")]
    {
        let page = async |cursor: &str| {
            let parameters = query(&[("count", "2"), ("cursor", cursor), ("sortBy", sort_by)]);
            client.get(&format!("{endpoint}{parameters}")).await.unwrap()
        };
        let cursor = |answer: &Answer, name: &str| answer.at(name).as_str().map(str::to_owned);
        let (mut pages, mut next) = (Vec::new(), Some(String::new()));
        while let Some(cursor_now) = next {
            let answer = page(&cursor_now).await;
            next = cursor(&answer, "/nextCursor");
            pages.push(answer);
        }
        assert_eq!(pages.len(), 3);
        assert!(pages[0].at("/previousCursor").is_null(), "{}", pages[0].text);
        // Back from the last to the first, and forth again.
        let mut back = cursor(&pages[2], "/previousCursor");
        for expected in [&pages[1], &pages[0]] {
            let answer = page(&back.unwrap()).await;
            assert_eq!(names(&answer), names(expected), "{endpoint} {sort_by}");
            let forth = page(&cursor(&answer, "/nextCursor").unwrap()).await;
            let after = pages.iter().position(|page| names(page) == names(&answer)).unwrap() + 1;
            assert_eq!(names(&forth), names(&pages[after]));
            back = cursor(&answer, "/previousCursor");
        }
        assert_eq!(back, None);
    }
}

#[tokio::test]
async fn a_search_of_both_types_is_one_sorted_list() {
    let client = together().tenant().await.client;
    for name in ["b", "D", "f"] {
        let user = json!({"userName": name, "displayName": name});
        assert_eq!(client.post("/Users", &user).await.unwrap().status, 201);
    }
    client.post("/Users", &json!({"userName": "nameless"})).await.unwrap();
    for name in ["A", "c", "E"] {
        client.post("/Groups", &json!({"displayName": name})).await.unwrap();
    }
    let found = async |body: Value| client.post("/.search", &search(body)).await.unwrap();
    let by_name = json!({"sortBy": "displayName", "attributes": ["userName", "displayName"]});
    let all = ["A", "b", "c", "D", "E", "f", "nameless"];
    assert_eq!(names(&found(by_name.clone()).await), all);
    for start in 1..=7 {
        let mut body = by_name.clone();
        body["startIndex"] = start.into();
        body["count"] = 2.into();
        let answer = found(body).await;
        assert_eq!(names(&answer), all[start - 1..all.len().min(start + 1)]);
        assert_eq!(answer.at("/totalResults"), 7);
    }
    let mut descending = by_name.clone();
    descending["sortOrder"] = "descending".into();
    assert_eq!(names(&found(descending).await), ["nameless", "f", "E", "D", "c", "b", "A"]);
    let created = json!({"sortBy": "meta.created", "sortOrder": "descending"});
    assert_eq!(names(&found(created).await), ["E", "c", "A", "nameless", "f", "D", "b"]);
    // What has no such attribute comes last, and first the other way round.
    let by_user = json!({"sortBy": "userName"});
    assert_eq!(names(&found(by_user).await), ["b", "D", "f", "nameless", "A", "c", "E"]);
    let by_user = json!({"sortBy": "userName", "sortOrder": "descending"});
    assert_eq!(names(&found(by_user).await), ["A", "c", "E", "nameless", "f", "D", "b"]);
    for (body, keyword) in [
        (json!({"sortBy": "shoeSize"}), "invalidValue"),
        (json!({"sortBy": "name"}), "invalidValue"),
        (json!({"sortBy": "id", "startIndex": 1_000}), "tooMany"),
        (json!({"sortBy": "id", "cursor": ""}), "invalidCursor"),
    ] {
        let refused = found(body.clone()).await;
        assert_eq!((refused.status, refused.at("/scimType")), (400, &json!(keyword)), "{body}");
    }
}

#[tokio::test]
async fn a_search_of_both_types_goes_on_by_cursor() {
    let client = people().await;
    for name in ["Sales", "aides", "Board"] {
        client.post("/Groups", &json!({"displayName": name})).await.unwrap();
    }
    let everything = ["cy", "Ann", "bo", "Sales", "aides", "Board"];
    for count in 1..=7 {
        let (mut all, mut cursor) = (Vec::new(), String::new());
        loop {
            let body = search(json!({"cursor": cursor, "count": count}));
            let answer = client.post("/.search", &body).await.unwrap();
            assert_eq!(answer.at("/totalResults"), 6, "{}", answer.text);
            assert!(names(&answer).len() <= count);
            all.extend(names(&answer).into_iter().map(str::to_owned));
            match answer.at("/nextCursor").as_str() {
                Some(next) => next.clone_into(&mut cursor),
                None => break,
            }
        }
        assert_eq!(all, everything, "by {count}");
    }
    let body = search(json!({"cursor": "", "count": 2, "filter": "displayName co \"a\""}));
    let only_groups = client.post("/.search", &body).await.unwrap();
    assert_eq!(names(&only_groups), ["Sales", "aides"]);
    for cursor in ["x", "uAAAA", "gAAAA", "\u{e9}"] {
        let refused = client.post("/.search", &search(json!({"cursor": cursor}))).await.unwrap();
        assert_eq!(refused.at("/scimType"), "invalidCursor", "{cursor}: {}", refused.text);
    }
}

/// Pages by index, while users come and go before, between and behind them: each begins with exactly
/// the user whose turn it is.
#[tokio::test]
async fn a_page_by_index_begins_where_it_should_whoever_came_or_went_since_the_last() {
    for system in both() {
        let client = system.tenant().await.client;
        let create = async |name: String| {
            let answer = client.post("/Users", &json!({"userName": name})).await.unwrap();
            answer.at("/id").as_str().unwrap().to_owned()
        };
        let mut ids = Vec::new();
        for n in 0..40 {
            ids.push(create(format!("u{n}")).await);
        }
        // The first of a page, the last of one, somebody before, somebody behind, and who is new.
        for (round, gone) in [0, 9, 17, 30].into_iter().enumerate() {
            for start in [1, 6, 11, 16, 21, 36, 12, 40, 41, 60] {
                let path = format!("/Users?startIndex={start}&count=5&attributes=id");
                let answer = client.get(&path).await.unwrap();
                let page = answer.at("/Resources").as_array().cloned().unwrap_or_default();
                let found: Vec<_> = page.iter().map(|user| user["id"].as_str().unwrap()).collect();
                let expected: Vec<_> = ids.iter().skip(start - 1).take(5).collect();
                assert_eq!(found, expected, "{path} in round {round}");
            }
            let gone = ids.remove(gone);
            let deleted = client.delete(&format!("/Users/{gone}")).await.unwrap();
            assert_eq!(deleted.status, 204, "{}", deleted.text);
            ids.push(create(format!("v{round}")).await);
        }
    }
}
