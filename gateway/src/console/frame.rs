//! What is around every page, and the pages that say what went wrong.

use askama::Template;
use axum::response::{Html, IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use muster_runtime::grpc::is_away;
use muster_runtime::telemetry;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::assets;

/// The places in the console's navigation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Section {
    SetUp,
    People,
    Groups,
    Reports,
    Log,
    Settings,
}

impl Section {
    const ALL: [Self; 6] =
        [Self::SetUp, Self::People, Self::Groups, Self::Reports, Self::Log, Self::Settings];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::SetUp => "Set-up",
            Self::People => "People",
            Self::Groups => "Groups",
            Self::Reports => "Reports",
            Self::Log => "Provisioning log",
            Self::Settings => "Settings",
        }
    }

    pub(super) fn address(self) -> &'static str {
        match self {
            Self::SetUp => "/admin",
            Self::People => "/admin/people",
            Self::Groups => "/admin/groups",
            Self::Reports => "/admin/reports",
            Self::Log => "/admin/log",
            Self::Settings => "/admin/settings",
        }
    }
}

/// What `base.html` shows around a page.
#[derive(Debug, Clone)]
pub(super) struct Frame {
    /// The page's name, for the window's title.
    pub title: String,
    /// Goes into every form; empty where nobody is signed in.
    pub csrf: String,
    /// A word on what was just done, above the page.
    pub notice: Option<String>,
    /// Who is signed in.
    pub signed_in: Option<SignedIn>,
}

/// What the header shows of who is signed in.
#[derive(Debug, Clone)]
pub(super) struct SignedIn {
    pub organisation: String,
    pub name: String,
    pub email: String,
    pub section: Section,
}

impl Frame {
    /// Around a page that is for everybody.
    pub(super) fn open(title: impl Into<String>) -> Self {
        Self { title: title.into(), csrf: String::new(), notice: None, signed_in: None }
    }

    /// With a word on what was just done.
    pub(super) fn with_notice(mut self, notice: Option<impl Into<String>>) -> Self {
        self.notice = notice.map(Into::into);
        self
    }

    /// The address of one of the `assets`.
    #[expect(clippy::unused_self, reason = "templates have the frame at hand, not this module")]
    pub(super) fn asset(&self, name: &str) -> String {
        assets::address(name)
    }

    #[expect(clippy::unused_self, reason = "templates have the frame at hand, not this module")]
    pub(super) fn sections(&self) -> [Section; 6] {
        Section::ALL
    }
}

/// Answers with a page.
pub(super) fn page(template: &impl Template) -> Result<Response, Problem> {
    page_with(StatusCode::OK, template)
}

/// Answers with a page and another status: 422 for a form that is shown again.
pub(super) fn page_with(status: StatusCode, template: &impl Template) -> Result<Response, Problem> {
    match template.render() {
        Ok(text) => Ok((status, Html(text)).into_response()),
        Err(error) => {
            tracing::error!(%error, "a page could not be rendered");
            Err(Problem::failed())
        }
    }
}

/// A page that says what went wrong and what to do.
#[derive(Debug, Clone)]
pub(super) struct Problem {
    pub status: StatusCode,
    pub title: &'static str,
    pub advice: String,
}

#[derive(Template)]
#[template(path = "problem.html")]
struct ProblemPage<'a> {
    frame: Frame,
    problem: &'a Problem,
    trace: Option<String>,
}

impl Problem {
    pub(super) fn new(status: StatusCode, title: &'static str, advice: impl Into<String>) -> Self {
        Self { status, title, advice: advice.into() }
    }

    pub(super) fn no_such_page() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "There is no such page",
            "The address may be mistyped, or what it showed has been deleted. Begin again from \
             Set-up, or search in People.",
        )
    }

    pub(super) fn method_not_allowed() -> Self {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "That cannot be done at this address",
            "Go back to the page you came from and use its buttons.",
        )
    }

    /// A form that came from elsewhere, or is older than the session.
    pub(super) fn forged() -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "Nothing was changed",
            "The form did not come from this console, or you have signed in again since it was \
             opened. Go back, reload the page and send it again.",
        )
    }

    /// What the browser sent does not read as the form's.
    pub(super) fn unreadable(advice: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "The form did not arrive whole", advice)
    }

    pub(super) fn failed() -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "Something went wrong on our side",
            "Try again. If it goes on, tell whoever operates Muster, with the trace id below.",
        )
    }

    fn away() -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "A part of Muster is not available just now",
            "Nothing is lost. Wait a few seconds and reload the page.",
        )
    }
}

impl From<Status> for Problem {
    fn from(status: Status) -> Self {
        match status.code() {
            Code::NotFound => Self::no_such_page(),
            Code::InvalidArgument | Code::AlreadyExists | Code::FailedPrecondition => Self::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "That was not accepted",
                format!("{}.", in_words(&status)),
            ),
            Code::Aborted => Self::new(
                StatusCode::CONFLICT,
                "Somebody else changed it meanwhile",
                "Nothing was changed. Reload the page to see what it is now, and do it again.",
            ),
            Code::Unauthenticated => Self::new(
                StatusCode::UNAUTHORIZED,
                "You are not signed in",
                "Sign in and try again.",
            ),
            code if is_away(code) => Self::away(),
            code => {
                tracing::error!(?code, "a call of the console failed");
                Self::failed()
            }
        }
    }
}

/// What a refusal says to a person: the field's description, or the message.
pub(super) fn in_words(status: &Status) -> String {
    let violation = status
        .get_details_bad_request()
        .and_then(|details| details.field_violations.into_iter().next());
    let text = match violation {
        Some(violation) => {
            format!("{} {}", violation.field.replace('_', " "), violation.description)
        }
        None => status.message().to_owned(),
    };
    let mut characters = text.chars();
    match characters.next() {
        Some(first) => first.to_uppercase().collect::<String>() + characters.as_str(),
        None => text,
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let trace = telemetry::trace_id();
        let template = ProblemPage { frame: Frame::open(self.title), problem: &self, trace };
        let mut response = match template.render() {
            Ok(text) => (self.status, Html(text)).into_response(),
            Err(_) => (self.status, self.title).into_response(),
        };
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
        }
        response
    }
}
