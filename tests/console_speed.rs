//! Every page of the console, with a hundred thousand people in the organisation: how long each takes
//! is printed, how much is on it is held to two hundred rows.

use std::time::{Duration, Instant};

use muster_proto::identity::v1::api_key_service_client::ApiKeyServiceClient;
use muster_proto::identity::v1::{ApiKey, CreateApiKeyRequest};
use serde_json::json;

use crate::support::browser::{Browser, Page, email};
use crate::support::system::{System, Tenant, run_sql, together};

const PEOPLE: usize = 100_000;

/// The id of the nth person of a crowd, as SQL has it.
pub(crate) fn id(prefix: &str, n: usize) -> String {
    format!("{prefix}{n:012}")
}

/// So many people straight into identity's tables; how their ids begin. Everybody has an approver:
/// the first ten thousand the first, most of the others one of their ten, and every thousandth
/// nobody who is there.
pub(crate) fn crowd(system: &System, tenant: &Tenant, count: usize) -> String {
    let organisation = &tenant.id;
    let prefix = uuid::Uuid::now_v7().to_string()[..24].to_owned();
    run_sql(
        &system.database_url("postgres"),
        &format!(
            "CREATE TEMPORARY TABLE people AS
             SELECT ('{prefix}' || lpad(n::text, 12, '0'))::uuid AS id, n,
                    (ARRAY['ann', 'bo', 'eva', 'katarina'])[1 + n % 4] AS given,
                    'novak' || lpad(to_hex(n * 7919 % 4096), 3, '0') AS family,
                    (ARRAY['ann', 'bo', 'eva', 'katarina'])[1 + n % 4] || n || '@a.example' AS email,
                    CASE WHEN n % 1000 = 0 THEN 'nobody' || n || '@a.example'
                         WHEN n <= 10000 THEN 'bo1@a.example'
                         WHEN n % 10 IN (0, 2) THEN 'katarina3@a.example'
                         ELSE 'eva' || n / 10 * 10 + 2 - n / 10 * 10 % 4 || '@a.example'
                    END AS approver
               FROM generate_series(1, {count}) AS n;
             INSERT INTO identity.users
                    (organisation_id, user_id, revision, created_at, updated_at, origin, active,
                     user_name_key, primary_email_key, document, search)
             SELECT '{organisation}', id, 1, now(), now(), 1, n % 20 <> 0,
                    given || n, email,
                    jsonb_build_object(
                        'user_name', given || n, 'active', n % 20 <> 0,
                        'name', jsonb_build_object('given_name', given, 'family_name', family),
                        'emails', jsonb_build_array(
                            jsonb_build_object('value', email, 'type', 'work')),
                        'declared_approvers', jsonb_build_array(approver)),
                    jsonb_build_object('custom_field_1', 'job ' || n % 30)
               FROM people;
             INSERT INTO identity.listed_user
                    (organisation_id, user_id, active, origin, content_region, unknown_country,
                     custom_field_1, custom_field_1_key, words)
             SELECT '{organisation}', id, n % 20 <> 0, CASE WHEN n % 50 = 0 THEN 2 ELSE 1 END,
                    1 + n % 6, CASE n % 1000 WHEN 0 THEN 'UK' WHEN 500 THEN 'Z' || chr(65 + n / 1000 % 26) END,
                    'Job ' || n % 30, 'job ' || n % 30,
                    given || ' ' || family || ' ' || given || n || ' ' || email
               FROM people;
             INSERT INTO groups.person (organisation_id, user_id, revision, deleted, active)
             SELECT '{organisation}', id, 1, false, n % 20 <> 0 FROM people;
             INSERT INTO approver.person
                    (organisation_id, user_id, revision, active, deleted, email, email_key)
             SELECT '{organisation}', id, 1, n % 20 <> 0, false, email, email FROM people;
             INSERT INTO approver.declaration
                    (organisation_id, user_id, email_key, position, email, approver_id)
             SELECT '{organisation}', p.id, p.approver, 0, p.approver, a.id
               FROM people AS p LEFT JOIN people AS a ON a.email = p.approver AND a.n <> p.n;
             ANALYZE identity.users; ANALYZE identity.listed_user; ANALYZE groups.person;
             ANALYZE approver.person; ANALYZE approver.declaration"
        ),
    );
    prefix
}

/// A thousand groups: everybody in two, ten
/// thousand in the second, the second person in fifty, and the fourth in all.
fn groups(system: &System, tenant: &Tenant, prefix: &str) {
    let organisation = &tenant.id;
    let group = "('{prefix}' || lpad(g::text, 12, '0'))::uuid".replace("{prefix}", prefix);
    run_sql(
        &system.database_url("postgres"),
        &format!(
            "INSERT INTO groups.groups
                    (organisation_id, group_id, revision, created_at, updated_at, origin,
                     display_name, display_name_key)
             SELECT '{organisation}', {group}, 1, now(), now(), 1, 'Team ' || g, 'team ' || g
               FROM generate_series(1, 1000) AS g;
             INSERT INTO groups.membership (organisation_id, group_id, user_id)
             SELECT '{organisation}', {group},
                    ('{prefix}' || lpad(n::text, 12, '0'))::uuid
               FROM (SELECT 1 + n % 1000, n FROM generate_series(1, {PEOPLE}) AS n
                      UNION SELECT 1 + n / 100 % 1000, n FROM generate_series(1, {PEOPLE}) AS n
                      UNION SELECT 2, n FROM generate_series(1, 100000, 10) AS n
                      UNION SELECT g, 2 FROM generate_series(100, 147) AS g
                      UNION SELECT g, 4 FROM generate_series(1, 1000) AS g) AS members (g, n);
             UPDATE groups.groups AS g
                SET member_count = (SELECT count(*) FROM groups.membership AS m
                                     WHERE m.organisation_id = g.organisation_id
                                       AND m.group_id = g.group_id)
              WHERE organisation_id = '{organisation}';
             ANALYZE groups.groups; ANALYZE groups.membership"
        ),
    );
}

/// A hundred thousand entries of the provisioning log, half of them reads, one in a hundred failed.
fn log(system: &System, tenant: &Tenant, prefix: &str, key: &str) {
    let organisation = &tenant.id;
    run_sql(
        &system.database_url("postgres"),
        &format!(
            "INSERT INTO identity.provisioning_log
                    (organisation_id, entry_id, requested_at, duration_us, api_key_id, method,
                     path, action, outcome, status, subject, subject_id, subject_name,
                     subject_name_key, scim_type, detail, unknown_member_ids,
                     unknown_member_count, trace_id, user_agent)
             SELECT '{organisation}',
                    (substr(hex, 1, 8) || '-' || substr(hex, 9, 4) || '-7000-8000-'
                     || lpad(to_hex(n), 12, '0'))::uuid,
                    to_timestamp(ms / 1000.0), 12345, '{key}',
                    CASE WHEN n % 2 = 0 THEN 'GET' ELSE 'PUT' END, '/Users/x',
                    CASE WHEN n % 2 = 0 THEN 6 ELSE 8 END,
                    CASE n % 100 WHEN 1 THEN 3 WHEN 51 THEN 2 ELSE 1 END,
                    CASE WHEN n % 100 = 1 THEN 409 ELSE 200 END, 1,
                    ('{prefix}' || lpad(n::text, 12, '0'))::uuid, 'ann' || n, 'ann' || n,
                    CASE WHEN n % 100 = 1 THEN 'uniqueness' ELSE '' END, '', '[]', 0,
                    md5(n::text), 'Okta SCIM Client 1.0.0'
               FROM (SELECT n, ms, lpad(to_hex(ms), 12, '0') AS hex
                       FROM (SELECT n, (extract(epoch FROM now()) * 1000)::bigint
                                       - ({PEOPLE} - n) * 1000 AS ms
                               FROM generate_series(1, {PEOPLE}) AS n) AS at) AS entries;
             INSERT INTO identity.provisioning_count
                    (organisation_id, action, outcome, count, first_at, last_at)
             SELECT organisation_id, action, outcome, count(*), min(requested_at),
                    max(requested_at)
               FROM identity.provisioning_log WHERE organisation_id = '{organisation}'
              GROUP BY organisation_id, action, outcome
             ON CONFLICT (organisation_id, action, outcome) DO UPDATE SET count = EXCLUDED.count;
             ANALYZE identity.provisioning_log"
        ),
    );
}

fn rows(page: &Page) -> usize {
    page.text.matches("<th scope=\"row\"").count()
}

/// How many people, groups and entries each page of theirs has.
pub(crate) fn lists(prefix: &str, key: &str) -> Vec<(String, usize)> {
    let first = id(prefix, 1);
    let people = [
        ("", 50),
        ("search=novak", 50),
        ("search=a.example", 50),
        ("search=katarina7331@", 1),
        ("search=bo+novak1", 50),
        ("search=nobody", 0),
        ("search=ka", 50),
        ("active=no", 50),
        ("active=yes&search=eva", 50),
        ("source=other&search=eva", 50),
        ("region=SE", 50),
        ("region=SE&field1=job+4", 50),
        ("field1=job+7", 50),
        ("field2=job+7", 0),
        ("country=unknown", 50),
        ("country=UK", 50),
        ("approvers=pending", 50),
        ("approvers=pending&search=nobody", 0),
        ("group=team+2", 50),
        ("group=team+2&size=200", 200),
        ("group=team+2&search=nobody", 0),
        ("group=team+2&approvers=pending", 0),
        ("group=team+2&active=no", 5),
        ("group=nobody", 0),
        ("size=200&search=eva", 200),
    ];
    let groups = [("", 50), ("search=team+99", 11), ("search=x", 0), ("after=team+5", 50)];
    let entries = [
        (String::new(), 100),
        ("show=changes".into(), 100),
        ("show=failed".into(), 100),
        ("show=in-part".into(), 100),
        (format!("about={first}"), 1),
        ("about=ann".into(), 100),
        ("about=ann99999".into(), 1),
        ("about=zoe".into(), 0),
        (format!("key={key}"), 100),
        (format!("key={}", id(prefix, 0)), 0),
        ("show=failed&about=ann5".into(), 100),
        ("show=failed&about=zoe".into(), 0),
        ("show=changes&about=zoe".into(), 0),
        (format!("show=failed&key={}", id(prefix, 0)), 0),
    ];
    let of = |page: &str, query: &str| match query {
        "" => format!("/admin/{page}"),
        query => format!("/admin/{page}?{query}"),
    };
    let people = people.iter().map(|(query, count)| (of("people", query), *count));
    let groups = groups.iter().map(|(query, count)| (of("groups", query), *count));
    let entries = entries.iter().map(|(query, count)| (of("log", query), *count));
    people.chain(groups).chain(entries).collect()
}

/// The others, without those that read nothing but the session.
pub(crate) async fn others(
    console: &Browser,
    prefix: &str,
    key: &str,
) -> Vec<(&'static str, String)> {
    let log = console.get("/admin/log").await;
    let entry = log.between("<a id=\"entry-", "\"").unwrap().to_owned();
    let import = console.upload("/admin/people/import", b"email\nbo1@a.example\n").await.sent_to();
    let settings = console.get("/admin/settings").await;
    let (before, _) = settings.text.split_once("/remove\"").unwrap();
    let admin = before.rsplit('/').next().unwrap();
    let person = |n| format!("/admin/people/{}", id(prefix, n));
    let group = |n| format!("/admin/groups/{}", id(prefix, n));
    let older = console.get(&person(3)).await.between("?history=", "#").unwrap().to_owned();
    vec![
        ("Set-up", "/admin".into()),
        ("a person who approves for ten thousand", person(1)),
        ("a person in fifty groups", person(2)),
        ("a person in every group", person(4)),
        ("a person with forty changes", person(3)),
        ("older changes", format!("{}?history={older}", person(3))),
        ("editing a person", format!("{}/edit", person(2))),
        ("releasing a name", format!("{}/release", person(20))),
        ("adding a person", "/admin/people/new".into()),
        ("importing", "/admin/people/import".into()),
        ("an import", import),
        ("a group of a hundred", group(1)),
        ("a group of ten thousand", group(2)),
        ("its last members", format!("{}?after={}", group(2), id(prefix, 99_000))),
        ("deleting a group", format!("{}/delete", group(2))),
        ("creating a group", "/admin/groups/new".into()),
        ("an entry of the log", format!("/admin/log/{entry}")),
        ("Reports", "/admin/reports".into()),
        ("Settings", "/admin/settings".into()),
        ("activity", "/admin/settings/activity".into()),
        ("a password", "/admin/settings/password".into()),
        ("generating a key", "/admin/settings/api-keys/new".into()),
        ("revoking a key", format!("/admin/settings/api-keys/{key}/revoke")),
        ("removing an admin", format!("/admin/settings/admins/{admin}/remove")),
    ]
}

/// A page, asked for often enough that its median means something, and how long that was.
async fn timed(console: &Browser, path: &str) -> (Page, Duration) {
    let mut times = Vec::new();
    let mut last = None;
    for _ in 0..7 {
        let start = Instant::now();
        let page = console.get(path).await;
        times.push(start.elapsed());
        assert_eq!(page.status, 200, "{path}: {}", page.text);
        last = Some(page);
    }
    times.sort();
    let page = last.unwrap();
    for row in ["<tr>", "<li", "<option"] {
        let count = page.text.matches(row).count();
        assert!(count <= 201, "{path} has {count} of {row}");
    }
    assert!(rows(&page) <= 200, "{path} has {} rows", rows(&page));
    (page, times[3])
}

/// An organisation with all of that, the prefix of its people's ids, and a key; an admin's browser.
pub(crate) async fn grown(system: &System, tenant: &Tenant) -> (Browser, String, String) {
    let console = system.admin(&tenant.id, &email("ada")).await;
    system.invited(&tenant.id, &email("bo")).await;
    let request = CreateApiKeyRequest {
        api_key: Some(ApiKey {
            organisation_id: tenant.id.clone(),
            label: "Okta".into(),
            ..ApiKey::default()
        }),
        ..CreateApiKeyRequest::default()
    };
    let mut keys = ApiKeyServiceClient::new(system.identity());
    let key = keys.create_api_key(request).await.unwrap().into_inner().api_key.unwrap().id;
    let prefix = crowd(system, tenant, PEOPLE);
    groups(system, tenant, &prefix);
    log(system, tenant, &prefix, &key);
    // The feeds count these; nothing is listed where they count nothing.
    for (path, body) in
        [("/Users", json!({"userName": "zed"})), ("/Groups", json!({"displayName": "Zed"}))]
    {
        assert_eq!(tenant.client.post(path, &body).await.unwrap().status, 201);
    }
    let path = format!("/Users/{}", id(&prefix, 3));
    for n in 0..40 {
        let user = json!({"userName": "katarina3", "title": format!("Head {n}"),
                          "emails": [{"value": "katarina3@a.example", "type": "work"}]});
        assert_eq!(tenant.client.put(&path, &user).await.unwrap().status, 200);
    }
    (console, prefix, key)
}

#[tokio::test]
async fn every_page_shows_two_hundred_rows_at_most_of_a_hundred_thousand_in_a_moment() {
    let system = together();
    let tenant = system.tenant().await;
    let (console, prefix, key) = grown(system, &tenant).await;

    let mut medians = Vec::new();
    for (path, expected) in lists(&prefix, &key) {
        let (page, median) = timed(&console, &path).await;
        assert_eq!(rows(&page), expected, "{path}");
        medians.push((median, path));
    }
    for (what, path) in others(&console, &prefix, &key).await {
        let (_, median) = timed(&console, &path).await;
        medians.push((median, what.to_owned()));
    }
    medians.sort();
    for (median, page) in medians {
        eprintln!("{median:>9.1?} {}", page.replace(&prefix, ""));
    }
}
