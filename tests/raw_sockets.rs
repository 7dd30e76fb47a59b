//! What no HTTP client sends: bytes that are not, or not quite, HTTP.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use serde_json::json;

use crate::support::process::{MUSTER, Process};
use crate::support::system::{Tenant, together};

/// A gateway that soon gives up on whoever is slow.
fn gateway() -> (Process, String) {
    let system = together();
    let args = [
        "gateway",
        "--plain-text",
        "--listen",
        "127.0.0.1:0",
        "--identity-url",
        &system.identity_url,
        "--group-url",
        &system.group_url,
        "--approver-url",
        &system.approver_url,
        "--header-seconds",
        "1",
        "--body-seconds",
        "1",
    ];
    let process = Process::start_as(MUSTER, "gateway", &args, &["HTTP address"], &[]);
    let address = process.told[0].clone();
    (process, address)
}

/// Sends bytes, and nothing more; what comes back until the server closes the connection.
fn exchange(address: &str, bytes: &[u8], then_close: bool) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    // A server that closes before it has read all resets the connection.
    let sent = stream.write_all(bytes).is_ok();
    if sent && then_close {
        drop(stream.shutdown(Shutdown::Write));
    }
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
            panic!("the server keeps the connection: {}", String::from_utf8_lossy(&answer))
        }
        _ => String::from_utf8_lossy(&answer).into_owned(),
    }
}

/// The statuses of the answers in a text.
fn statuses(answer: &str) -> Vec<u16> {
    let answers = answer.match_indices("HTTP/1.1 ");
    answers.filter_map(|(at, _)| answer.get(at + 9..at + 12)?.parse().ok()).collect()
}

/// The bytes of each case, what is wrong with them, and whether the client closes its side.
#[expect(clippy::too_many_lines, reason = "a table")]
fn cases(key: &str) -> Vec<(&'static str, Vec<u8>, bool)> {
    let head = format!("Host: x\r\nAuthorization: Static {key}\r\n");
    let post =
        format!("POST /scim/v2/Users HTTP/1.1\r\n{head}Content-Type: application/scim+json\r\n");
    let user = r#"{"userName":"smuggled"}"#;
    let smuggled = format!("GET /scim/v2/Users HTTP/1.1\r\n{head}\r\n");
    let text = |text: String| text.into_bytes();
    vec![
        (
            "Content-Length and Transfer-Encoding",
            text(format!(
                "{post}Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}"
            )),
            false,
        ),
        (
            "two different lengths",
            text(format!(
                "{post}Content-Length: 0\r\nContent-Length: {}\r\n\r\n{user}",
                user.len()
            )),
            false,
        ),
        (
            "an unknown transfer encoding",
            text(format!("{post}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n")),
            false,
        ),
        (
            "a chunk's length that is none",
            text(format!("{post}Transfer-Encoding: chunked\r\n\r\nxyz\r\n{user}\r\n0\r\n\r\n")),
            false,
        ),
        (
            "a chunk's length that is too long",
            text(format!(
                "{post}Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n{user}\r\n0\r\n\r\n"
            )),
            false,
        ),
        (
            "chunks that do not end",
            text(format!("{post}Transfer-Encoding: chunked\r\n\r\n17\r\n{user}\r\n")),
            false,
        ),
        (
            "chunks that break off",
            text(format!("{post}Transfer-Encoding: chunked\r\n\r\n17\r\n{user}\r\n")),
            true,
        ),
        ("a negative length", text(format!("{post}Content-Length: -1\r\n\r\n{user}")), false),
        (
            "a length that is no number",
            text(format!("{post}Content-Length: 1e3\r\n\r\n{user}")),
            false,
        ),
        (
            "a length that is too long",
            text(format!("{post}Content-Length: 99999999999999999999\r\n\r\n{user}")),
            false,
        ),
        (
            "a body shorter than its length",
            text(format!("{post}Content-Length: 500\r\n\r\n{user}")),
            false,
        ),
        ("a body that breaks off", text(format!("{post}Content-Length: 500\r\n\r\n{user}")), true),
        (
            "a folded header",
            text(format!("GET /scim/v2/Users HTTP/1.1\r\n{head}X-A: b\r\n  c\r\n\r\n")),
            false,
        ),
        (
            "a blank before the colon",
            text(format!("GET /scim/v2/Users HTTP/1.1\r\n{head}Content-Length : 4\r\n\r\n")),
            false,
        ),
        (
            "a NUL in a header",
            text(format!("GET /scim/v2/Users HTTP/1.1\r\n{head}X-A: b\0c\r\n\r\n")),
            false,
        ),
        (
            "a bare CR in a header",
            text(format!("GET /scim/v2/Users HTTP/1.1\r\n{head}X-A: b\rc\r\n\r\n")),
            false,
        ),
        (
            "a header of 100 KiB",
            text(format!(
                "GET /scim/v2/Users HTTP/1.1\r\n{head}X-A: {}\r\n\r\n",
                "x".repeat(100_000)
            )),
            false,
        ),
        (
            "200 headers",
            text(format!("GET /scim/v2/Users HTTP/1.1\r\n{head}{}\r\n", "X-A: b\r\n".repeat(200))),
            false,
        ),
        (
            "a target of 100 KiB",
            text(format!("GET /{} HTTP/1.1\r\n{head}\r\n", "x".repeat(100_000))),
            false,
        ),
        (
            "a target with blanks",
            text(format!("GET /scim/v2/Users x HTTP/1.1\r\n{head}\r\n")),
            false,
        ),
        (
            "a method that is none",
            text(format!("G\u{7f}T /scim/v2/Users HTTP/1.1\r\n{head}\r\n")),
            false,
        ),
        ("another version", text(format!("GET /scim/v2/Users HTTP/9.9\r\n{head}\r\n")), false),
        ("no version", text(format!("GET /scim/v2/Users\r\n{head}\r\n")), false),
        (
            "a header that does not end",
            text(format!("GET /scim/v2/Users HTTP/1.1\r\n{head}")),
            false,
        ),
        ("nothing", Vec::new(), false),
        ("half a line", b"GET /sc".to_vec(), false),
        ("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(), false),
        (
            "HTTP/2 that is none",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff".to_vec(),
            true,
        ),
        (
            "random bytes",
            (0..5_000_u32).map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[1]).collect(),
            true,
        ),
    ]
}

async fn nothing_was_done(tenant: &Tenant, address: &str) {
    let url = format!("http://{address}/scim/v2");
    let key = format!("Static {}", tenant.client.key());
    let client = muster::scim_client::ScimClient::new(&url, key).unwrap();
    let listed = client.get("/Users").await.unwrap();
    assert_eq!(listed.status, 200, "{}", listed.text);
    assert_eq!(listed.at("/totalResults"), 1, "{}", listed.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_not_quite_http_are_refused_and_do_nothing() {
    let tenant = together().tenant().await;
    let ann = tenant.client.post("/Users", &json!({"userName": "ann"})).await.unwrap();
    assert_eq!(ann.status, 201);
    let (process, address) = gateway();
    for (what, bytes, then_close) in cases(tenant.client.key()) {
        let to = address.clone();
        let answer =
            tokio::task::spawn_blocking(move || exchange(&to, &bytes, then_close)).await.unwrap();
        let statuses = statuses(&answer);
        println!("{what}: {statuses:?}");
        assert!(statuses.len() <= 1, "{what}: {answer}");
        assert!(statuses.iter().all(|status| (400..500).contains(status)), "{what}: {answer}");
        nothing_was_done(&tenant, &address).await;
    }
    assert!(!process.log().contains("panicked"), "{}", process.log());
}
