//! The console as a browser without JavaScript sees it: pages and forms over HTTP.

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, COOKIE, HeaderName, LOCATION};
use http::{HeaderValue, Method};
use muster::scim_client::{Answer, ScimClient};
use muster_identity::secret;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::system::{System, Tenant, run_sql};

/// An admin's session.
pub(crate) struct Console {
    client: ScimClient,
    cookie: String,
    csrf: String,
}

impl Console {
    /// A new admin of the organisation, signed in.
    pub(crate) async fn of(system: &System, tenant: &Tenant) -> Self {
        let organisation = &tenant.id;
        let secret = secret::generate(secret::Kind::Session, organisation.parse().unwrap());
        let hash = secret::hash(&secret);
        let hash: Vec<String> = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        let hash = hash.concat();
        let admin_id = uuid::Uuid::now_v7().to_string();
        run_sql(
            &system.database_url("postgres"),
            &format!(
                "INSERT INTO identity.admin
                        (organisation_id, admin_id, email, email_key, display_name, created_at)
                 VALUES ('{organisation}', '{admin_id}', 'admin@x.example', '{admin_id}',
                         'Ada Admin', now());
                 INSERT INTO identity.session
                        (organisation_id, secret_hash, admin_id, created_at, used_at)
                 VALUES ('{organisation}', decode('{hash}', 'hex'), '{admin_id}', now(), now())"
            ),
        );
        let base = system.scim_url.strip_suffix("/scim/v2").unwrap();
        let mut this = Self {
            client: ScimClient::new(base, "none").unwrap(),
            cookie: format!("muster={secret}"),
            csrf: String::new(),
        };
        let page = this.get("/admin").await;
        assert_eq!(page.status, 200, "{}", page.text);
        let (_, rest) = page.text.split_once("name=\"csrf\" value=\"").unwrap();
        rest.split('"').next().unwrap().clone_into(&mut this.csrf);
        this
    }

    async fn send(&self, method: Method, path: &str, kind: &str, body: Option<Bytes>) -> Answer {
        let text = |text: &str| Some(HeaderValue::from_str(text).unwrap());
        let mut headers = vec![
            (AUTHORIZATION, None),
            (COOKIE, text(&self.cookie)),
            (HeaderName::from_static("sec-fetch-site"), text("same-origin")),
            (HeaderName::from_static("accept"), text("text/html,*/*")),
        ];
        if body.is_some() {
            headers.push((CONTENT_TYPE, text(kind)));
        }
        self.client.send_bytes(method, path, body, &headers).await.unwrap()
    }

    /// A page.
    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, "", None).await
    }

    /// Sends a form.
    pub(crate) async fn post(&self, path: &str, fields: &[(&str, &str)]) -> Answer {
        let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let csrf = [("csrf", self.csrf.as_str())];
        let fields = csrf.iter().chain(fields);
        let pairs = fields.map(|(name, value)| format!("{}={}", encode(name), encode(value)));
        let form = pairs.collect::<Vec<_>>().join("&");
        let kind = "application/x-www-form-urlencoded";
        self.send(Method::POST, path, kind, Some(Bytes::from(form))).await
    }

    /// Sends a form with a file.
    pub(crate) async fn upload(&self, path: &str, file: &[u8]) -> Answer {
        let mut form = Vec::new();
        form.extend_from_slice(
            format!(
                "--XX\r\nContent-Disposition: form-data; name=\"csrf\"\r\n\r\n{}\r\n\
                 --XX\r\nContent-Disposition: form-data; name=\"file\"; filename=\"p.csv\"\r\n\
                 Content-Type: text/csv\r\n\r\n",
                self.csrf
            )
            .as_bytes(),
        );
        form.extend_from_slice(file);
        form.extend_from_slice(b"\r\n--XX--\r\n");
        let kind = "multipart/form-data; boundary=XX";
        self.send(Method::POST, path, kind, Some(Bytes::from(form))).await
    }
}

/// Where an answer sends the browser.
pub(crate) fn location(answer: &Answer) -> String {
    assert_eq!(answer.status, 303, "{}", answer.text);
    answer.headers.get(LOCATION).unwrap().to_str().unwrap().to_owned()
}

/// The value of an attribute of the first element that has it after `mark`.
pub(crate) fn after<'t>(text: &'t str, mark: &str) -> &'t str {
    let (_, rest) = text.split_once(mark).unwrap_or_else(|| panic!("no {mark:?} in {text}"));
    rest.split('"').next().unwrap()
}
