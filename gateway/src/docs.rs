//! `/docs`, open to anyone: the SCIM surface, written from the schema definitions that `/Schemas`
//! serves and the limits that requests meet, and the guides of `docs/`.

mod attributes;
mod examples;
mod guide;

use askama::Template;
use axum::Router;
use axum::extract::State;
use axum::middleware::from_fn;
use axum::response::{Html, IntoResponse as _, Response};
use axum::routing::get;
use http::StatusCode;
use muster_runtime::feed::PAGE_TOKEN_LIFETIME;
use muster_scim::resource;
use muster_scim::schema::{COMMON, ENTERPRISE_USER, GROUP, MUSTER_USER, USER};

use crate::errors::{self, Known};
use crate::scim::DEFAULT_RESULTS;
use crate::{Gateway, console};

use attributes::Described;
use examples::Example;
use guide::Guide;

pub(crate) fn routes() -> Router<Gateway> {
    Router::new()
        .route("/docs", get(start))
        .route("/docs/scim", get(scim))
        .route("/docs/errors", get(errors))
        .route("/docs/okta", get(async || guide_page(Place::Okta, guide::OKTA)))
        .route("/docs/approvers", get(async || guide_page(Place::Approvers, guide::APPROVERS)))
        .layer(from_fn(console::secured))
}

/// The pages, in the order of the navigation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Start,
    Okta,
    Approvers,
    Scim,
    Errors,
}

impl Place {
    const ALL: [Self; 5] = [Self::Start, Self::Okta, Self::Approvers, Self::Scim, Self::Errors];

    fn name(self) -> &'static str {
        match self {
            Self::Start => "Getting started",
            Self::Okta => "Okta",
            Self::Approvers => "Approvers",
            Self::Scim => "SCIM reference",
            Self::Errors => "Errors",
        }
    }

    fn address(self) -> &'static str {
        match self {
            Self::Start => "/docs",
            Self::Okta => "/docs/okta",
            Self::Approvers => "/docs/approvers",
            Self::Scim => "/docs/scim",
            Self::Errors => "/docs/errors",
        }
    }
}

/// What is around every page.
#[derive(Debug, Clone, Copy)]
struct Shell {
    place: Place,
}

#[expect(clippy::unused_self, reason = "templates have the shell at hand, not this module")]
impl Shell {
    fn places(self) -> [Place; 5] {
        Place::ALL
    }

    fn asset(self, name: &str) -> String {
        console::asset(name)
    }
}

#[derive(Template)]
#[template(path = "docs_start.html")]
struct Start {
    shell: Shell,
    scim_url: String,
    examples: &'static [Example],
}

async fn start(State(gateway): State<Gateway>) -> Response {
    page(&Start {
        shell: Shell { place: Place::Start },
        scim_url: gateway.scim_url.to_string(),
        examples: &examples::ALL,
    })
}

/// An endpoint of the SCIM surface.
#[derive(Debug, Clone, Copy)]
struct Endpoint {
    path: &'static str,
    methods: &'static str,
    what: &'static str,
}

const fn endpoint(path: &'static str, methods: &'static str, what: &'static str) -> Endpoint {
    Endpoint { path, methods, what }
}

const ENDPOINTS: [Endpoint; 14] = [
    endpoint("/Users", "GET", "Lists users, filtered, sorted and in pages."),
    endpoint("/Users", "POST", "Creates a user, or revives an inactive one of the same userName."),
    endpoint("/Users/{id}", "GET", "Reads a user."),
    endpoint("/Users/{id}", "PUT", "Replaces a user. Without active, that stays as it is."),
    endpoint("/Users/{id}", "PATCH", "Changes parts of a user."),
    endpoint("/Users/{id}", "DELETE", "Deletes a user. To deactivate one, set active to false."),
    endpoint("/Groups", "GET, POST", "Lists groups; creates one."),
    endpoint("/Groups/{id}", "GET, PUT, PATCH, DELETE", "Reads, replaces, changes, deletes one."),
    endpoint("/.search", "POST", "Lists users and groups together; the query is the body."),
    endpoint("/Users/.search, /Groups/.search", "POST", "The same for one kind."),
    endpoint("/Bulk", "POST", "Many operations in one request, with references between them."),
    endpoint("/ServiceProviderConfig", "GET", "What is supported, and the limits."),
    endpoint("/ResourceTypes", "GET", "The kinds of resource."),
    endpoint("/Schemas", "GET", "The schemas below, for programs."),
];

/// A group of attributes with a heading.
struct Table {
    anchor: &'static str,
    name: &'static str,
    urn: &'static str,
    description: &'static str,
    rows: Vec<Described>,
}

#[derive(Template)]
#[template(path = "docs_scim.html")]
struct Scim {
    shell: Shell,
    base_url: String,
    endpoints: [Endpoint; 14],
    tables: Vec<Table>,
    limits: Vec<(&'static str, String)>,
    user: &'static str,
    group: &'static str,
}

async fn scim(State(gateway): State<Gateway>) -> Response {
    let common = Table {
        anchor: "common",
        name: "Every resource",
        urn: "",
        description: "Attributes that users and groups both have.",
        rows: attributes::described(&COMMON, ""),
    };
    let schemas = [
        ("user", &USER),
        ("muster", &MUSTER_USER),
        ("enterprise", &ENTERPRISE_USER),
        ("group", &GROUP),
    ];
    let of_schemas = schemas.into_iter().map(|(anchor, schema)| Table {
        anchor,
        name: schema.name,
        urn: schema.id,
        description: schema.description,
        rows: attributes::described(schema.attributes, schema.id),
    });
    page(&Scim {
        shell: Shell { place: Place::Scim },
        base_url: gateway.scim_url.to_string(),
        endpoints: ENDPOINTS,
        tables: std::iter::once(common).chain(of_schemas).collect(),
        limits: limits(&gateway),
        user: attributes::USER_EXAMPLE,
        group: attributes::GROUP_EXAMPLE,
    })
}

/// What is too much, and what it is answered with.
fn limits(gateway: &Gateway) -> Vec<(&'static str, String)> {
    let limits = gateway.limits;
    let (results, default) = (limits.max_results, DEFAULT_RESULTS);
    vec![
        ("Request body", format!("{} bytes (413)", thousands(limits.body_bytes))),
        ("Request body of a group", format!("{} bytes (413)", thousands(limits.group_bytes))),
        ("Members in one request", format!("{} (413)", thousands(limits.scim.members))),
        ("Time for the body to arrive", format!("{} s (408)", limits.body_time.as_secs())),
        ("Time for a request", format!("{} s (503)", limits.request_time.as_secs())),
        ("Resources in a list", format!("{results}; {default} where count is not sent")),
        ("A cursor's life", format!("{} minutes", PAGE_TOKEN_LIFETIME.whole_minutes())),
        ("Operations in a PATCH", format!("{} (413)", thousands(limits.scim.patch_operations))),
        (
            "Bulk request",
            format!(
                "{} operations, {} bytes (413)",
                thousands(limits.bulk_operations),
                thousands(limits.bulk_bytes)
            ),
        ),
        (
            "Filter",
            format!(
                "{} bytes, {} levels deep, {} comparisons (400 invalidFilter)",
                thousands(limits.scim.filter_bytes),
                limits.scim.filter_depth,
                limits.scim.filter_comparisons
            ),
        ),
        ("JSON nesting", format!("{} levels (400 invalidSyntax)", limits.scim.json_depth)),
        ("Text", format!("{} characters (400 invalidValue)", thousands(resource::LONGEST_STRING))),
        (
            "Photo or certificate",
            format!("{} characters (400 invalidValue)", thousands(resource::LONGEST_BINARY)),
        ),
        (
            "Values of an attribute other than members",
            format!("{} (400 invalidValue)", thousands(resource::MOST_VALUES)),
        ),
    ]
}

/// A number as people read it: `1,048,576`.
fn thousands(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[derive(Template)]
#[template(path = "docs_errors.html")]
struct Errors {
    shell: Shell,
    errors: &'static [Known],
}

async fn errors() -> Response {
    page(&Errors { shell: Shell { place: Place::Errors }, errors: &errors::ALL })
}

#[derive(Template)]
#[template(path = "docs_guide.html")]
struct GuidePage {
    shell: Shell,
    guide: Guide,
}

fn guide_page(place: Place, markdown: &'static str) -> Response {
    page(&GuidePage { shell: Shell { place }, guide: Guide::of(markdown) })
}

fn page(template: &impl Template) -> Response {
    match template.render() {
        Ok(text) => Html(text).into_response(),
        Err(error) => {
            tracing::error!(%error, "a page of the documentation could not be rendered");
            (StatusCode::INTERNAL_SERVER_ERROR, "The page cannot be shown now.").into_response()
        }
    }
}
