//! Guessing at passwords, and telling who is an admin.

use std::time::{Duration, Instant};

use http::StatusCode;
use sqlx::{Connection as _, PgConnection};

use crate::support::browser::{Browser, PASSWORD, email};
use crate::support::system::{System, apart, run_sql, together};

/// Lets an e-mail address try again at once, as if it had waited.
fn waited(system: &System, email: &str) {
    run_sql(
        &system.database_url("postgres"),
        &format!(
            "UPDATE identity.sign_in_attempt SET free_at = free_at - interval '2 minutes'
              WHERE subject = sha256(convert_to('e-mail {email}', 'UTF8'))"
        ),
    );
}

#[tokio::test]
async fn an_address_that_is_guessed_at_waits_ever_longer_and_the_right_password_works_after_that() {
    let system = together();
    let (tenant, ann) = (system.tenant().await, email("ann"));
    system.admin(&tenant.id, &ann).await;
    let mut waits = Vec::new();
    for _ in 0..8 {
        let guess = Browser::new(system).sign_in(&ann, "not the password").await;
        assert_eq!(guess.status, StatusCode::UNPROCESSABLE_ENTITY);
        let right = Browser::new(system).sign_in(&ann, PASSWORD).await;
        assert_eq!(right.status, StatusCode::TOO_MANY_REQUESTS, "also the right one has to wait");
        waits.push(right.header("retry-after").parse::<u64>().unwrap());
        waited(system, &ann);
    }
    assert!(waits.is_sorted() && waits[0] <= 1 && waits[3] > 4 && waits[7] > 50, "{waits:?}");
    assert!(waits[7] <= 60, "{waits:?}");
    let right = Browser::new(system).sign_in(&ann, PASSWORD).await;
    assert_eq!(right.location(), "/admin");
    // It begins anew after that.
    Browser::new(system).sign_in(&ann, "not the password").await;
    let soon = Browser::new(system).sign_in(&ann, PASSWORD).await;
    assert_eq!(soon.header("retry-after"), "1");
}

#[tokio::test]
async fn of_a_thousand_guesses_few_are_tried() {
    let system = together();
    let tenant = system.tenant().await;
    let mut addresses = Vec::new();
    for _ in 0..4 {
        let ann = email("ann");
        system.admin(&tenant.id, &ann).await;
        addresses.push(ann);
    }
    // From one client, at admins and at others.
    let browser = Browser::new(system);
    let begin = Instant::now();
    let mut tried = 0;
    for guess in 0..1_000 {
        let address = addresses.get(guess % 5).cloned().unwrap_or_else(|| email("nobody"));
        let page = browser.sign_in(&address, "not the password").await;
        match page.status {
            StatusCode::UNPROCESSABLE_ENTITY => tried += 1,
            StatusCode::TOO_MANY_REQUESTS => {}
            other => panic!("{other}"),
        }
    }
    // Ten at once and then one in six seconds.
    let allowed = 10 + begin.elapsed().as_secs() / 6 + 1;
    assert!(tried <= allowed, "{tried} of {allowed}");
    // Nobody else is held up, and no admin for good.
    waited(system, &addresses[0]);
    assert_eq!(Browser::new(system).sign_in(&addresses[0], PASSWORD).await.location(), "/admin");
}

#[tokio::test]
async fn who_is_an_admin_cannot_be_told_from_the_time_that_an_answer_takes() {
    let system = together();
    let (tenant, ann) = (system.tenant().await, email("ann"));
    system.admin(&tenant.id, &ann).await;
    let mut known = Vec::new();
    let mut unknown = Vec::new();
    // In turns, so that what else the machine does is in both.
    for _ in 0..9 {
        for (address, times) in [(ann.clone(), &mut known), (email("nobody"), &mut unknown)] {
            waited(system, &address);
            let browser = Browser::new(system);
            let begin = Instant::now();
            let page = browser.sign_in(&address, "not the password").await;
            times.push(begin.elapsed());
            assert_eq!(page.status, StatusCode::UNPROCESSABLE_ENTITY);
        }
    }
    known.sort();
    unknown.sort();
    // The least of each: a machine that is busy adds to times, and takes nothing away. The work of a
    // password is several times what is left.
    let least = known[0].min(unknown[0]);
    let apart = known[0].abs_diff(unknown[0]);
    assert!(apart < least / 2 + Duration::from_millis(5), "{known:?} {unknown:?}");
}

#[tokio::test]
async fn a_hundred_who_sign_in_at_once_wait_for_each_other_and_not_for_memory() {
    let system = apart();
    let tenant = system.tenant().await;
    let admins: Vec<_> = (0..10).map(|_| email("ann")).collect();
    for admin in &admins {
        system.invited(&tenant.id, admin).await;
    }
    // Each from a client of its own; those who are nobody do not wait for each other's turn.
    let attempts = (0..100).map(|at| {
        let address = admins.get(at).cloned().unwrap_or_else(|| email("nobody"));
        async move { Browser::new(system).sign_in(&address, "not the password").await.status }
    });
    let answers = futures::future::join_all(attempts).await;
    let refused = answers.iter().filter(|s| **s == StatusCode::UNPROCESSABLE_ENTITY).count();
    // Whoever waits too long for a core is told so by 503, and never by a crash.
    assert!(refused >= 50, "{answers:?}");
    let status = std::fs::read_to_string(format!("/proc/{}/status", system.pid("identity")));
    let status = status.unwrap();
    let most = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let kilobytes: u64 = most.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(kilobytes < 300 * 1024, "{most}");
}

#[tokio::test]
async fn a_password_that_was_hashed_more_cheaply_is_hashed_again_at_sign_in() {
    let system = together();
    let (tenant, ann) = (system.tenant().await, email("ann"));
    system.admin(&tenant.id, &ann).await;
    let url = system.database_url("postgres");
    // The reference implementation's of `PASSWORD`, with less memory and one pass.
    let cheap = "$argon2id$v=19$m=4096,t=1,p=1$YW4gb2xkZXIgc2FsdCAxNg$\
                 pKnOCnAGgYzmg32B5bmrVC5kUn9Bo8V2Ix7TU26ofaA";
    let set = format!(
        "UPDATE identity.admin SET password_hash = '{cheap}' WHERE organisation_id = '{}'",
        tenant.id
    );
    run_sql(&url, &set);
    let kept = async || -> String {
        let mut connection = PgConnection::connect(&url).await.unwrap();
        let select = "SELECT password_hash FROM identity.admin WHERE organisation_id = $1::uuid";
        sqlx::query_scalar(select).bind(&tenant.id).fetch_one(&mut connection).await.unwrap()
    };
    Browser::new(system).sign_in(&ann, "not the password").await;
    assert_eq!(kept().await, cheap);
    waited(system, &ann);
    assert_eq!(Browser::new(system).sign_in(&ann, PASSWORD).await.location(), "/admin");
    assert!(kept().await.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"));
    assert_eq!(Browser::new(system).sign_in(&ann, PASSWORD).await.location(), "/admin");
}
