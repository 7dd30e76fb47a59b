//! A browser without a screen: it keeps its cookie, says where its forms come from, and sends their
//! token along.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use muster_proto::identity::v1::admin_service_client::AdminServiceClient;
use muster_proto::identity::v1::session_service_client::SessionServiceClient;
use muster_proto::identity::v1::{AcceptInvitationRequest, Admin, CreateAdminRequest};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use uuid::Uuid;

use super::system::System;

/// The password of every admin that `System::admin` makes.
pub(crate) const PASSWORD: &str = "plum torch canvas";

/// An e-mail address that no other test has.
pub(crate) fn email(name: &str) -> String {
    format!("{name}-{}@example.com", Uuid::new_v4().simple())
}

/// A browser. It asks from an address of its own, so that what one does wrong is held against no
/// other.
pub(crate) struct Browser {
    http: Client<HttpConnector, Full<Bytes>>,
    /// Where the console is, without `/admin`.
    pub(crate) url: String,
    /// Name and value, as it was set.
    cookie: Mutex<Option<String>>,
    pub(crate) address: IpAddr,
}

/// What a browser shows.
#[derive(Debug, Clone)]
pub(crate) struct Page {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Page {
    /// Where it sends the browser; empty where it does not.
    pub(crate) fn location(&self) -> &str {
        self.header("location")
    }

    /// Where a form that was accepted sends the browser.
    pub(crate) fn sent_to(&self) -> String {
        assert_eq!(self.status, StatusCode::SEE_OTHER, "{}", self.text);
        self.location().to_owned()
    }

    /// The value of a header; empty where there is none.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// What stands between two texts, first.
    pub(crate) fn between(&self, before: &str, after: &str) -> Option<&str> {
        let (_, rest) = self.text.split_once(before)?;
        rest.split_once(after).map(|(found, _)| found)
    }

    /// The token of its forms.
    pub(crate) fn csrf(&self) -> Option<&str> {
        self.between("name=\"csrf\" value=\"", "\"")
    }
}

impl Browser {
    /// A browser in which nobody is signed in.
    pub(crate) fn new(system: &System) -> Self {
        Self::at(system.scim_url.strip_suffix("/scim/v2").unwrap())
    }

    /// The same, for a console elsewhere.
    pub(crate) fn at(url: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        let address = IpAddr::V4(Ipv4Addr::new(127, 77, number[2], number[3]));
        let mut connector = HttpConnector::new();
        connector.set_local_address(Some(address));
        Self {
            http: Client::builder(TokioExecutor::new()).build(connector),
            url: url.to_owned(),
            cookie: Mutex::new(None),
            address,
        }
    }

    pub(crate) fn cookie(&self) -> Option<String> {
        self.cookie.lock().unwrap().clone()
    }

    pub(crate) fn set_cookie(&self, cookie: Option<String>) {
        *self.cookie.lock().unwrap() = cookie;
    }

    /// Asks for a page.
    pub(crate) async fn get(&self, path: &str) -> Page {
        self.send(Method::GET, path, &[], String::new()).await
    }

    /// Asks for a page, and for the one that it sends to, and so on.
    pub(crate) async fn visit(&self, path: &str) -> Page {
        let mut page = self.get(path).await;
        for _ in 0..5 {
            if !page.status.is_redirection() {
                break;
            }
            page = self.get(page.location()).await;
        }
        page
    }

    /// Sends a form with these fields, as the console's own page would.
    pub(crate) async fn post(&self, path: &str, fields: &[(&str, &str)]) -> Page {
        let mut fields = fields.to_vec();
        let page;
        if self.cookie().is_some() {
            page = self.get("/admin").await;
            fields.extend(page.csrf().map(|token| ("csrf", token)));
        }
        let origin = [("origin", &*self.url)];
        self.send_form(path, &origin, &fields).await
    }

    /// Sends a form with a file.
    pub(crate) async fn upload(&self, path: &str, file: &[u8]) -> Page {
        let page = self.get("/admin").await;
        let before = format!(
            "--XX\r\nContent-Disposition: form-data; name=\"csrf\"\r\n\r\n{}\r\n\
             --XX\r\nContent-Disposition: form-data; name=\"file\"; filename=\"p.csv\"\r\n\
             Content-Type: text/csv\r\n\r\n",
            page.csrf().unwrap()
        );
        let form = [before.as_bytes(), file, b"\r\n--XX--\r\n"].concat();
        let kind = "multipart/form-data; boundary=XX";
        let headers = [("origin", &*self.url), ("content-type", kind)];
        self.send(Method::POST, path, &headers, form).await
    }

    /// Sends a form with these headers and fields and nothing else.
    pub(crate) async fn send_form(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        fields: &[(&str, &str)],
    ) -> Page {
        let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let pairs = fields.iter().map(|(k, v)| format!("{}={}", encode(k), encode(v)));
        let body = pairs.collect::<Vec<_>>().join("&");
        let mut headers = headers.to_vec();
        headers.push(("content-type", "application/x-www-form-urlencoded"));
        self.send(Method::POST, path, &headers, body).await
    }

    /// Sends a request, with the cookie, and keeps the cookie of the answer.
    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Page {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.url));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(cookie) = self.cookie() {
            request = request.header(header::COOKIE, cookie);
        }
        let request = request.body(Full::new(body.into())).unwrap();
        let (head, body) = self.http.request(request).await.unwrap().into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        if let Some(set) = head.headers.get(header::SET_COOKIE) {
            let pair = set.to_str().unwrap().split(';').next().unwrap();
            let gone = pair.ends_with('=');
            self.set_cookie((!gone).then(|| pair.to_owned()));
        }
        let text = String::from_utf8_lossy(&bytes).into_owned();
        Page { status: head.status, headers: head.headers, text }
    }

    /// Signs in with a password.
    pub(crate) async fn sign_in(&self, email: &str, password: &str) -> Page {
        self.post("/admin/sign-in", &[("email", email), ("password", password)]).await
    }
}

impl System {
    /// A new admin without a password; the secret of their link.
    pub(crate) async fn invited(&self, organisation: &str, email: &str) -> String {
        let admin = Admin {
            organisation_id: organisation.to_owned(),
            email: email.to_owned(),
            display_name: format!("Admin {email}"),
            ..Admin::default()
        };
        let request = CreateAdminRequest { admin: Some(admin), ..CreateAdminRequest::default() };
        let mut admins = AdminServiceClient::new(self.identity());
        admins.create_admin(request).await.unwrap().into_inner().invitation
    }

    /// A new admin of an organisation, signed in. The password is `PASSWORD`.
    pub(crate) async fn admin(&self, organisation: &str, email: &str) -> Browser {
        let request = AcceptInvitationRequest {
            secret: self.invited(organisation, email).await,
            password: PASSWORD.into(),
            client_address: String::new(),
        };
        let mut sessions = SessionServiceClient::new(self.identity());
        let session = sessions.accept_invitation(request).await.unwrap().into_inner().session;
        let browser = Browser::new(self);
        browser.set_cookie(Some(format!("muster={session}")));
        browser
    }
}
