//! Who gets into the console, and who does not.

use std::process::Command;

use http::{Method, StatusCode};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};
use uuid::Uuid;

use crate::support::browser::{Browser, PASSWORD, Page, email};
use crate::support::process::Process;
use crate::support::system::{run_sql, together};

fn is_sign_in(page: &Page) -> bool {
    page.status == StatusCode::SEE_OTHER && page.location().starts_with("/admin/sign-in?next=")
}

#[tokio::test]
async fn an_admin_signs_in_with_e_mail_and_password_and_out_again() {
    let system = together();
    let (tenant, ann) = (system.tenant().await, email("ann"));
    system.admin(&tenant.id, &ann).await;
    let browser = Browser::new(system);
    assert!(is_sign_in(&browser.get("/admin").await));
    let form = browser.visit("/admin?x=y").await;
    assert_eq!(form.status, StatusCode::OK);
    assert!(form.text.contains("<h1>Sign in</h1>"), "{}", form.text);

    // The e-mail address in any case, and blanks around it.
    let signed = browser.sign_in(&format!(" {} ", ann.to_uppercase()), PASSWORD).await;
    assert_eq!((signed.status, signed.location()), (StatusCode::SEE_OTHER, "/admin"));
    let cookie = signed.header("set-cookie").to_owned();
    assert!(cookie.starts_with("muster=session_"), "{cookie}");
    assert!(cookie.ends_with("; Path=/; HttpOnly; SameSite=Lax"), "{cookie}");
    let home = browser.get("/admin").await;
    assert_eq!(home.status, StatusCode::OK);
    assert!(home.text.contains(&format!("Admin {ann}")), "{}", home.text);
    // Who is signed in is led on.
    let again = browser.get("/admin/sign-in?next=%2Fadmin%2Fsettings").await;
    assert_eq!(again.location(), "/admin/settings");

    assert!(!system.logs().contains(PASSWORD), "no password is in the log");

    let old = browser.cookie();
    let out = browser.post("/admin/sign-out", &[]).await;
    assert_eq!(out.location(), "/admin/sign-in");
    assert_eq!(browser.cookie(), None);
    browser.set_cookie(old);
    assert!(is_sign_in(&browser.get("/admin").await));
}

#[tokio::test]
async fn a_wrong_password_and_an_unknown_address_are_answered_alike_and_the_address_is_kept() {
    let system = together();
    let (tenant, ann) = (system.tenant().await, email("ann"));
    system.admin(&tenant.id, &ann).await;
    let browser = Browser::new(system);
    let wrong = browser.sign_in(&ann, "not the password").await;
    let unknown = browser.sign_in(&email("nobody"), PASSWORD).await;
    assert_eq!(wrong.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(unknown.status, StatusCode::UNPROCESSABLE_ENTITY);
    let said = |page: &Page| page.between("role=\"alert\">", "</div>").unwrap().to_owned();
    assert_eq!(said(&wrong), said(&unknown));
    assert!(wrong.text.contains(&format!("value=\"{ann}\"")), "{}", wrong.text);
    assert!(!wrong.text.contains("not the password"));
    assert_eq!(browser.cookie(), None);
}

#[tokio::test]
async fn a_new_session_takes_the_place_of_the_one_that_the_browser_had() {
    let system = together();
    let (tenant, ann) = (system.tenant().await, email("ann"));
    let browser = system.admin(&tenant.id, &ann).await;
    let before = browser.cookie();
    assert!(browser.sign_in(&ann, PASSWORD).await.status.is_redirection());
    let after = browser.cookie();
    assert_ne!(before, after);
    browser.set_cookie(before);
    assert!(is_sign_in(&browser.get("/admin").await), "the session before has ended");
    // A cookie that somebody else made up is never taken over.
    let made_up = "muster=session_0000000000000000000000_00000000000000000000000000";
    browser.set_cookie(Some(made_up.into()));
    assert!(is_sign_in(&browser.get("/admin").await));
    browser.sign_in(&ann, PASSWORD).await;
    assert_ne!(browser.cookie().as_deref(), Some(made_up));
}

#[tokio::test]
async fn a_session_ends_unused_after_half_an_hour_and_used_after_twelve_hours() {
    let system = together();
    let tenant = system.tenant().await;
    let browser = system.admin(&tenant.id, &email("ann")).await;
    let age = |set: &str| {
        run_sql(
            &system.database_url("postgres"),
            &format!("UPDATE identity.session SET {set} WHERE organisation_id = '{}'", tenant.id),
        );
    };
    age("used_at = now() - interval '29 minutes'");
    // A page that keeps itself up to date is not a use; a page that is asked for is.
    let poll = [("hx-request", "true"), ("x-unattended", "true")];
    let polled = browser.send(Method::GET, "/admin", &poll, String::new()).await;
    assert_eq!(polled.status, StatusCode::OK);
    age("used_at = used_at - interval '2 minutes'");
    let polled = browser.send(Method::GET, "/admin", &poll, String::new()).await;
    assert_eq!(polled.status, StatusCode::UNAUTHORIZED);
    assert_eq!(polled.header("hx-redirect"), "/admin/sign-in?next=%2Fadmin");
    assert!(is_sign_in(&browser.get("/admin").await));

    age("used_at = now() - interval '29 minutes'");
    assert_eq!(browser.get("/admin").await.status, StatusCode::OK);
    age("used_at = used_at - interval '2 minutes'");
    assert_eq!(browser.get("/admin").await.status, StatusCode::OK, "the use was noted");
    age("created_at = now() - interval '721 minutes'");
    assert!(is_sign_in(&browser.get("/admin").await));
}

#[tokio::test]
async fn a_one_time_link_sets_the_password_once_and_signs_in() {
    let system = together();
    let (tenant, ann) = (system.tenant().await, email("ann"));
    let link = format!("/admin/invitation/{}", system.invited(&tenant.id, &ann).await);
    let browser = Browser::new(system);
    // Looking at it, as mail scanners do, does not use it up.
    for _ in 0..2 {
        let form = browser.get(&link).await;
        assert_eq!(form.status, StatusCode::OK);
        assert!(form.text.contains(&ann), "{}", form.text);
    }
    for (refused, why) in [
        ("short", "Password has 5 characters; expected at least 12"),
        ("password1234", "guessed first"),
        (&*ann, "guessed first"),
    ] {
        let form = browser.post(&link, &[("password", refused)]).await;
        assert_eq!(form.status, StatusCode::UNPROCESSABLE_ENTITY);
        assert!(form.text.contains(why), "{}", form.text);
    }
    let signed = browser.post(&link, &[("password", PASSWORD)]).await;
    assert_eq!(signed.location(), "/admin");
    assert_eq!(browser.get("/admin").await.status, StatusCode::OK);

    let other = Browser::new(system);
    for page in
        [other.get(&link).await, other.post(&link, &[("password", "an other password")]).await]
    {
        assert_eq!(page.status, StatusCode::NOT_FOUND);
        assert!(page.text.contains("does not work any more"), "{}", page.text);
    }
    assert!(other.sign_in(&ann, "an other password").await.status.is_client_error());
    assert_eq!(other.get("/admin/invitation/made-up").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn of_many_who_use_a_link_at_once_one_is_let_in() {
    let system = together();
    let tenant = system.tenant().await;
    let link = format!("/admin/invitation/{}", system.invited(&tenant.id, &email("ann")).await);
    let browsers: Vec<_> = (0..4).map(|_| Browser::new(system)).collect();
    let fields = [("password", PASSWORD)];
    let pages =
        futures::future::join_all(browsers.iter().map(|browser| browser.post(&link, &fields)))
            .await;
    let let_in = pages.iter().filter(|page| page.status == StatusCode::SEE_OTHER).count();
    assert_eq!(let_in, 1);
}

#[tokio::test]
async fn an_operators_reset_ends_every_session_once_the_link_is_used() {
    let system = together();
    let (tenant, ann) = (system.tenant().await, email("ann"));
    let browser = system.admin(&tenant.id, &ann).await;
    let slug = browser.get("/admin").await;
    let slug = slug.between("class=\"organisation\">", "<").unwrap().to_owned();
    let output = Command::new(env!("CARGO_BIN_EXE_muster"))
        .args(["admin", "reset", "--organisation", &slug, "--email", &ann.to_uppercase()])
        .args(["--public-url", &browser.url])
        .env("MUSTER_IDENTITY_URL", &system.identity_url)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let link = String::from_utf8(output.stdout).unwrap();
    assert_eq!(link.lines().count(), 1, "the link alone");
    let path = link.trim().strip_prefix(&browser.url).unwrap();
    assert_eq!(browser.get("/admin").await.status, StatusCode::OK, "until it is used");
    let other = Browser::new(system);
    assert_eq!(other.post(path, &[("password", "violet anchor maple")]).await.location(), "/admin");
    assert!(is_sign_in(&browser.get("/admin").await));
    assert!(browser.sign_in(&ann, PASSWORD).await.status.is_client_error());
}

#[tokio::test]
async fn the_password_says_which_of_several_organisations_and_where_it_is_the_same_the_person_does()
{
    let system = together();
    let (one, two, ann) = (system.tenant().await, system.tenant().await, email("ann"));
    system.admin(&one.id, &ann).await;
    let link = format!("/admin/invitation/{}", system.invited(&two.id, &ann).await);
    let browser = Browser::new(system);
    browser.post(&link, &[("password", "violet anchor maple")]).await;
    let name = |page: &Page| page.between("class=\"organisation\">", "<").unwrap().to_owned();
    let in_two = name(&browser.get("/admin").await);
    let browser = Browser::new(system);
    browser.sign_in(&ann, PASSWORD).await;
    let in_one = name(&browser.get("/admin").await);
    assert_ne!(in_one, in_two);

    // The same password in a third.
    let three = system.tenant().await;
    system.admin(&three.id, &ann).await;
    let browser = Browser::new(system);
    let choose = browser.sign_in(&ann, PASSWORD).await;
    assert_eq!(choose.status, StatusCode::OK);
    assert!(choose.text.contains(&in_one) && !choose.text.contains(&in_two), "{}", choose.text);
    let choice = choose.between("name=\"choice\" value=\"", "\"").unwrap();
    let fields = [("choice", choice), ("next", "/admin/settings")];
    assert_eq!(
        browser.post("/admin/sign-in/organisation", &fields).await.location(),
        "/admin/settings"
    );
    assert_eq!(name(&browser.get("/admin").await), in_one);
    let again = Browser::new(system).post("/admin/sign-in/organisation", &fields).await;
    assert_eq!(again.location(), "/admin/sign-in", "a choice is made once");
}

#[tokio::test]
async fn an_admin_of_a_suspended_organisation_is_refused() {
    let system = together();
    let (tenant, ann) = (system.tenant().await, email("ann"));
    let browser = system.admin(&tenant.id, &ann).await;
    system.suspend(&tenant.id).await;
    assert!(is_sign_in(&browser.get("/admin").await));
    assert!(browser.sign_in(&ann, PASSWORD).await.status.is_client_error());
}

#[tokio::test]
async fn over_https_the_cookie_goes_over_tls_alone_and_a_trusted_proxy_names_the_client() {
    let system = together();
    let (tenant, ann) = (system.tenant().await, email("ann"));
    system.admin(&tenant.id, &ann).await;
    let url = "https://muster.example.com";
    let args = [
        "gateway",
        "--plain-text",
        "--listen",
        "127.0.0.1:0",
        "--public-url",
        url,
        "--trust-forwarded-for",
        "--identity-url",
        &system.identity_url,
    ];
    let gateway = Process::start("gateway", &args, &["HTTP address"]);
    let browser = Browser::at(&format!("http://{}", gateway.told[0]));
    let fields = [("email", &*ann), ("password", PASSWORD)];
    let from = |origin| [("origin", origin), ("x-forwarded-for", "203.0.113.9, 198.51.100.7")];
    let refused = browser.send_form("/admin/sign-in", &from(&browser.url), &fields).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN, "the public URL counts");
    let signed = browser.send_form("/admin/sign-in", &from(url), &fields).await;
    let cookie = signed.header("set-cookie");
    assert!(cookie.starts_with("__Host-muster=session_"), "{cookie}");
    assert!(cookie.ends_with("; Path=/; HttpOnly; SameSite=Lax; Secure"), "{cookie}");
    let activity = browser.get("/admin/settings/activity").await;
    assert!(activity.header("strict-transport-security").starts_with("max-age="));
    assert!(activity.text.contains("198.51.100.7"), "what the proxy added");
    assert!(!activity.text.contains("203.0.113.9"), "what the client made up");
    // The same session under the other name is none.
    let held = browser.cookie().unwrap();
    browser.set_cookie(Some(held.replace("__Host-", "")));
    assert!(is_sign_in(&browser.get("/admin").await));
}

#[tokio::test]
async fn after_sign_in_only_a_page_of_the_console_is_led_to() {
    let system = together();
    let (tenant, ann) = (system.tenant().await, email("ann"));
    system.admin(&tenant.id, &ann).await;
    for (next, to) in [
        ("/admin/people?search=ann", "/admin/people?search=ann"),
        ("//evil.test", "/admin"),
        ("/\\evil.test", "/admin"),
        ("https://evil.test/admin/", "/admin"),
        ("/admin/\r\nx: y", "/admin"),
        ("/admin/..//evil.test", "/admin"),
    ] {
        let browser = Browser::new(system);
        let fields = [("email", &*ann), ("password", PASSWORD), ("next", next)];
        assert_eq!(browser.post("/admin/sign-in", &fields).await.location(), to, "{next}");
    }
}

#[tokio::test]
async fn a_form_from_elsewhere_or_without_the_sessions_token_changes_nothing() {
    let system = together();
    let (tenant, ann) = (system.tenant().await, email("ann"));
    let browser = system.admin(&tenant.id, &ann).await;
    let page = browser.get("/admin").await;
    let token = page.csrf().unwrap();
    let theirs = system.admin(&tenant.id, &email("bo")).await.get("/admin").await;
    let own = ("origin", &*browser.url);
    let out = "/admin/sign-out";
    for (what, headers, token) in [
        ("no origin", vec![], Some(token)),
        ("another origin", vec![("origin", "https://evil.test")], Some(token)),
        ("no origin to tell", vec![("origin", "null")], Some(token)),
        ("another site", vec![("sec-fetch-site", "cross-site"), own], Some(token)),
        ("another host of the site", vec![("sec-fetch-site", "same-site"), own], Some(token)),
        ("no token", vec![own], None),
        ("an empty token", vec![own], Some("")),
        ("another session's token", vec![own], theirs.csrf()),
        ("a wrong token by script", vec![own, ("x-csrf-token", "wrong")], Some(token)),
    ] {
        let fields: Vec<_> = token.map(|token| ("csrf", token)).into_iter().collect();
        let refused = browser.send_form(out, &headers, &fields).await;
        assert_eq!(refused.status, StatusCode::FORBIDDEN, "{what}");
        assert_eq!(browser.get("/admin").await.status, StatusCode::OK, "{what}");
    }
    assert_eq!(browser.get(out).await.status, StatusCode::METHOD_NOT_ALLOWED);
    let by_script = [("sec-fetch-site", "same-origin"), ("x-csrf-token", token)];
    assert_eq!(browser.send_form(out, &by_script, &[]).await.location(), "/admin/sign-in");
    // Nor is anybody signed in from elsewhere, as somebody else.
    let fields = [("email", &*ann), ("password", PASSWORD)];
    let other = Browser::new(system);
    let refused =
        other.send_form("/admin/sign-in", &[("origin", "https://evil.test")], &fields).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    assert_eq!(other.cookie(), None);
}

#[tokio::test]
async fn every_answer_of_the_console_keeps_to_itself() {
    let system = together();
    let tenant = system.tenant().await;
    let browser = system.admin(&tenant.id, &email("ann")).await;
    for path in ["/admin", "/admin/sign-in", "/admin/nothing-here", "/admin/settings"] {
        let page = browser.get(path).await;
        let policy = page.header("content-security-policy");
        assert!(policy.starts_with("default-src 'none'; script-src 'self';"), "{path}: {policy}");
        assert!(!policy.contains("unsafe"), "{policy}");
        assert_eq!(page.header("x-content-type-options"), "nosniff");
        assert_eq!(page.header("referrer-policy"), "no-referrer");
        assert_eq!(page.header("cache-control"), "no-store");
        assert!(!page.text.contains("<style") && !page.text.contains(" style="), "{path}");
        assert!(!page.text.contains(" onclick="), "{path}");
    }
    let home = browser.get("/admin").await;
    let style = home.between("<link rel=\"stylesheet\" href=\"", "\"").unwrap();
    let style = browser.get(style).await;
    assert_eq!(style.status, StatusCode::OK);
    assert!(style.header("cache-control").contains("immutable"));
    assert_eq!(browser.get("/admin/assets/x/secret").await.status, StatusCode::NOT_FOUND);
    let missing = browser.get("/admin/nothing-here").await;
    assert_eq!(missing.status, StatusCode::NOT_FOUND);
    assert!(missing.text.contains("There is no such page"));
}

#[tokio::test]
async fn the_services_role_reads_no_login_but_one_by_one_and_changes_no_audit() {
    let system = together();
    let tenant = system.tenant().await;
    let ann = email("ann");
    system.admin(&tenant.id, &ann).await;
    let url = system.database_url("muster_identity");
    let mut connection = PgConnection::connect(&url).await.unwrap();
    let set = format!("SET muster.organisation_id = '{}'", tenant.id);
    connection.execute(AssertSqlSafe(set)).await.unwrap();
    for statement in [
        "SELECT FROM identity.admin_login",
        "UPDATE identity.admin_login SET email_key = ''",
        "DELETE FROM identity.admin_login",
        "UPDATE identity.audit SET subject = ''",
        "DELETE FROM identity.audit",
        "TRUNCATE identity.audit",
    ] {
        let refused = connection.execute(statement).await.unwrap_err();
        assert!(refused.to_string().contains("permission denied"), "{statement}: {refused}");
    }
    let account: Vec<Uuid> =
        sqlx::query_scalar("SELECT organisation_id FROM identity.sign_in_account($1)")
            .bind(&ann)
            .fetch_all(&mut connection)
            .await
            .unwrap();
    assert_eq!(account, [tenant.id.parse::<Uuid>().unwrap()]);
    // For nobody else.
    let url = system.database_url("muster_group");
    let mut other = PgConnection::connect(&url).await.unwrap();
    assert!(other.execute("SELECT identity.sign_in_account('x')").await.is_err());
}
