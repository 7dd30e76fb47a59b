//! `/docs`: open to anyone, true to what is served, and its examples work when pasted.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use muster::scim_client::{Answer, ScimClient};

use crate::support::system::{System, both, together};

const PAGES: [&str; 5] = ["/docs", "/docs/okta", "/docs/approvers", "/docs/scim", "/docs/errors"];

/// Asks for a page without a key that anybody knows.
async fn page(system: &System, path: &str) -> Answer {
    let url = system.scim_url.strip_suffix("/scim/v2").unwrap();
    ScimClient::new(url, "Static none").unwrap().get(path).await.unwrap()
}

fn unescaped(html: &str) -> String {
    const CHARACTERS: [(&str, &str); 5] =
        [("&#60;", "<"), ("&#62;", ">"), ("&#34;", "\""), ("&#39;", "'"), ("&#38;", "&")];
    CHARACTERS.iter().fold(html.to_owned(), |text, (from, to)| text.replace(from, to))
}

/// What stands between two texts, each time.
fn between<'a>(text: &'a str, start: &'a str, end: &'a str) -> impl Iterator<Item = &'a str> {
    text.split(start).skip(1).filter_map(move |rest| rest.split(end).next())
}

#[tokio::test]
async fn the_documentation_is_open_to_anyone_and_runs_no_script_but_ours() {
    for system in both() {
        for path in PAGES {
            let page = page(system, path).await;
            assert_eq!(page.status, 200, "{path}");
            let policy = page.headers.get("content-security-policy").unwrap().to_str().unwrap();
            assert!(policy.starts_with("default-src 'none'"), "{policy}");
            assert_eq!(between(&page.text, "<h1>", "</h1>").count(), 1, "{path}");
            for other in PAGES {
                assert!(page.text.contains(&format!("href=\"{other}\"")), "{path} to {other}");
            }
        }
    }
}

#[tokio::test]
async fn every_link_of_the_documentation_leads_somewhere() {
    let system = together();
    for path in PAGES {
        let text = page(system, path).await.text;
        for link in between(&text, "href=\"", "\"").collect::<BTreeSet<_>>() {
            let (target, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if target.is_empty() { path } else { target };
            if !target.starts_with('/') || target.starts_with("/admin/assets") {
                continue;
            }
            let there = page(system, target).await;
            assert!([200, 303].contains(&there.status), "{path}: {link} is {}", there.status);
            let named = anchor.is_empty() || there.text.contains(&format!("id=\"{anchor}\""));
            assert!(named, "{path}: {link} leads to no place");
        }
    }
}

#[tokio::test]
async fn every_attribute_that_schemas_serves_is_documented() {
    let system = together();
    let tenant = system.tenant().await;
    let text = unescaped(&page(system, "/docs/scim").await.text);
    let schemas = tenant.client.get("/Schemas").await.unwrap();
    let mut count = 0;
    for schema in schemas.at("/Resources").as_array().unwrap() {
        assert!(text.contains(schema["id"].as_str().unwrap()));
        for attribute in schema["attributes"].as_array().unwrap() {
            let name = attribute["name"].as_str().unwrap();
            let parts = attribute["subAttributes"].as_array().into_iter().flatten();
            let paths = parts.map(|part| format!("{name}.{}", part["name"].as_str().unwrap()));
            for path in std::iter::once(name.to_owned()).chain(paths) {
                assert!(text.contains(&format!("<code>{path}</code>")), "{path}");
                count += 1;
            }
            assert!(text.contains(attribute["description"].as_str().unwrap()), "{name}");
        }
    }
    assert!(count > 80, "{count}");
}

#[tokio::test]
async fn the_user_and_the_group_of_the_documentation_can_be_created() {
    let system = together();
    let client = system.tenant().await.client;
    let text = page(system, "/docs/scim").await.text;
    for (anchor, endpoint) in [("user-json", "/Users"), ("group-json", "/Groups")] {
        let start = format!("<pre id=\"{anchor}\"><code>");
        let shown = unescaped(between(&text, &start, "</code>").next().unwrap());
        let shown = serde_json::from_str(&shown).unwrap();
        let created = client.post(endpoint, &shown).await.unwrap();
        assert_eq!(created.status, 201, "{}", created.text);
    }
}

#[tokio::test]
async fn the_examples_work_when_they_are_pasted() {
    for system in both() {
        let client = system.tenant().await.client;
        let text = page(system, "/docs").await.text;
        let blocks: Vec<String> = between(&text, "<pre id=\"shell-", "</code>")
            .map(|block| unescaped(block.split_once("<code>").unwrap().1))
            .collect();
        assert!(blocks.len() > 8, "{blocks:?}");
        assert!(blocks[0].contains(&format!("MUSTER='{}'", system.scim_url)), "{}", blocks[0]);
        let script = blocks.join("\n").replace("muster_…", client.key());
        let output =
            Command::new("bash").args(["-euo", "pipefail", "-c", &script]).output().unwrap();
        let (told, wrong) = (String::from_utf8(output.stdout), String::from_utf8(output.stderr));
        let told = told.unwrap();
        assert!(output.status.success(), "{told}\n{}", wrong.unwrap());
        // What the text says of them: the approver came into force, and the user was found.
        assert!(told.contains("\"approvers\":[\"bo.lund@northwind.example\"]"), "{told}");
        assert!(told.contains("\"totalResults\":1"), "{told}");
        // Nothing is left behind.
        assert_eq!(client.get("/Users").await.unwrap().at("/totalResults"), 0);
    }
}

/// The sources of what answers SCIM requests.
fn sources() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut text = String::new();
    for folder in ["gateway/src", "gateway/src/scim", "gateway/src/scim/filter", "libs/scim/src"] {
        for entry in fs::read_dir(root.join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "rs") {
                text += &fs::read_to_string(path).unwrap();
            }
        }
    }
    text
}

#[tokio::test]
async fn every_error_that_is_sent_is_in_the_catalogue() {
    let text = page(together(), "/docs/errors").await.text;
    let sources = sources();
    let mut wanted = BTreeSet::new();
    for rest in sources.split("StatusCode::").skip(1) {
        let end = rest.find(|c: char| !c.is_ascii_uppercase() && c != '_').unwrap_or(rest.len());
        let name = &rest[..end];
        let status = match name {
            "" | "OK" | "CREATED" | "NO_CONTENT" | "NOT_MODIFIED" => continue,
            "BAD_REQUEST" => 400,
            "UNAUTHORIZED" => 401,
            "FORBIDDEN" => 403,
            "NOT_FOUND" => 404,
            "METHOD_NOT_ALLOWED" => 405,
            "NOT_ACCEPTABLE" => 406,
            "REQUEST_TIMEOUT" => 408,
            "PRECONDITION_FAILED" => 412,
            "PAYLOAD_TOO_LARGE" => 413,
            "UNSUPPORTED_MEDIA_TYPE" => 415,
            "TOO_MANY_REQUESTS" => 429,
            "INTERNAL_SERVER_ERROR" => 500,
            "NOT_IMPLEMENTED" => 501,
            "SERVICE_UNAVAILABLE" => 503,
            other => panic!("{other} is new: name its number here"),
        };
        wanted.insert(format!("<code>{status}</code>"));
    }
    // The keywords, from the one place that spells them.
    let error = Path::new(env!("CARGO_MANIFEST_DIR")).join("libs/scim/src/error.rs");
    let error = fs::read_to_string(error).unwrap();
    wanted.extend(between(&error, "=> \"", "\"").map(|name| format!("<code>{name}</code>")));
    let missing: Vec<_> = wanted.iter().filter(|code| !text.contains(*code)).collect();
    assert!(missing.is_empty(), "{missing:?}");
    assert!(wanted.len() >= 24, "{wanted:?}");
}
