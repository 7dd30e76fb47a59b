//! What clients ask, and the statements of a bare PostgreSQL that do the least of the same.

use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;
use http::Method;
use rand::RngExt as _;
use rand::rngs::SmallRng;
use serde_json::{Value, json};

use crate::seed::{self, Seed};

/// One kind of request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    GetUser,
    FilterUserName,
    List100,
    PatchActive,
    PutUser,
    PostUser,
    /// A member comes or goes, in turn, in a group of so many.
    Member(u32),
    /// A group of so many with its members.
    GetGroup(u32),
    /// A hundred of an import, page after page from the given one on; or the first page again and
    /// again.
    Import(u32),
}

pub(crate) const ALL: [Operation; 11] = [
    Operation::GetUser,
    Operation::FilterUserName,
    Operation::List100,
    Operation::PatchActive,
    Operation::PutUser,
    Operation::PostUser,
    Operation::Member(10),
    Operation::Member(100_000),
    Operation::GetGroup(10_000),
    Operation::Import(1),
    Operation::Import(900),
];

/// What is sent to many organisations at once, too.
pub(crate) const WRITES: [Operation; 3] =
    [Operation::PatchActive, Operation::PutUser, Operation::PostUser];

/// How the bare statements are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// As fast as may be: by whoever sees everything, a read outside of a transaction.
    Plain,
    /// Under row-level security, in a transaction that names its organisation.
    Isolated,
}

impl Form {
    /// Who makes them.
    pub(crate) fn role(self) -> &'static str {
        match self {
            Self::Plain => "postgres",
            Self::Isolated => "muster_identity",
        }
    }
}

/// A request to send.
pub(crate) struct Request {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) body: Bytes,
}

impl Operation {
    pub(crate) fn name(self) -> String {
        match self {
            Self::GetUser => "get-user".into(),
            Self::FilterUserName => "filter-user-name".into(),
            Self::List100 => "list-100".into(),
            Self::PatchActive => "patch-active".into(),
            Self::PutUser => "put-user".into(),
            Self::PostUser => "post-user".into(),
            Self::Member(size) => format!("member-of-{size}"),
            Self::GetGroup(size) => format!("get-group-of-{size}"),
            Self::Import(page) => format!("import-page-{page}"),
        }
    }

    /// Whether an organisation has what it is about.
    pub(crate) fn fits(self, seed: &Seed) -> bool {
        match self {
            Self::Member(size) | Self::GetGroup(size) => seed.groups.contains_key(&size),
            Self::Import(_) => seed.size >= 100_000,
            _ => true,
        }
    }

    /// The `turn`th request of a connection.
    pub(crate) fn request(self, seed: &Seed, turn: u64, random: &mut SmallRng) -> Request {
        let at = random.random_range(0..seed.users.len());
        let user = &seed.users[at];
        let get = |path| Request { method: Method::GET, path, body: Bytes::new() };
        let send =
            |method, path, body: Value| Request { method, path, body: body.to_string().into() };
        match self {
            Self::GetUser => get(format!("/scim/v2/Users/{user}")),
            Self::FilterUserName => {
                let name = seed::user_name(at);
                get(format!("/scim/v2/Users?filter=userName%20eq%20%22{name}%22"))
            }
            Self::List100 => {
                let pages = (seed.users.len() / 100).min(50);
                let start = random.random_range(0..pages) * 100 + 1;
                get(format!("/scim/v2/Users?startIndex={start}&count=100"))
            }
            Self::PatchActive => {
                // Not the first, who approves for all that POST has created.
                let (user, active) = (&seed.users[at.max(1)], &seed.active[at.max(1)]);
                let active = !active.fetch_xor(true, Relaxed);
                let operation = json!({"op": "replace", "value": {"active": active}});
                send(Method::PATCH, format!("/scim/v2/Users/{user}"), patch(operation))
            }
            Self::PutUser => {
                let mut body = seed::user(at);
                // Not active again, which PATCH has ended.
                body["active"] = seed.active[at].load(Relaxed).into();
                body["title"] = Value::from(format!("Engineer {}", random.random::<u32>()));
                send(Method::PUT, format!("/scim/v2/Users/{user}"), body)
            }
            Self::PostUser => {
                let name = format!("new-{:x}@bench.example", random.random::<u128>());
                send(Method::POST, "/scim/v2/Users".into(), seed::person(&name, 0))
            }
            Self::Member(size) => {
                let group = &seed.groups[&size];
                let user = &seed.users[usize::try_from(turn / 2).unwrap_or(0) % seed.users.len()];
                let operation = if turn.is_multiple_of(2) {
                    json!({"op": "add", "path": "members", "value": [{"value": user}]})
                } else {
                    json!({"op": "remove", "path": format!("members[value eq \"{user}\"]")})
                };
                send(Method::PATCH, format!("/scim/v2/Groups/{group}"), patch(operation))
            }
            Self::GetGroup(size) => get(format!("/scim/v2/Groups/{}", seed.groups[&size])),
            Self::Import(page) => {
                let page = if page == 1 { 1 } else { u64::from(page) + turn % 100 };
                let start = (page - 1) * 100 + 1;
                get(format!("/scim/v2/Users?startIndex={start}&count=100"))
            }
        }
    }

    /// The same of the bare tables, in pgbench's language; `:n` is one of the users.
    pub(crate) fn script(self, seed: &Seed, form: Form) -> String {
        let (organisation, size) = (&seed.organisation, seed.size);
        let mut script = format!(
            "\\set n random(1, {size})\n\
             \\set m random(0, 1000000000)\n"
        );
        for mut statements in self.transactions(seed) {
            if form == Form::Isolated {
                let set =
                    format!("SELECT set_config('muster.organisation_id', '{organisation}', true)");
                statements.insert(0, set);
            }
            if statements.len() > 1 {
                statements.insert(0, "BEGIN".into());
                statements.push("COMMIT".into());
            }
            for statement in statements {
                // One a line, as pgbench wants it.
                script += &statement.split_whitespace().collect::<Vec<_>>().join(" ");
                script += ";\n";
            }
        }
        script
    }

    /// What is to be done of the bare tables, transaction by transaction.
    fn transactions(self, seed: &Seed) -> Vec<Vec<String>> {
        let organisation = &seed.organisation;
        let user = "('00000000-0000-4000-8000-' || lpad(to_hex(:n::int), 12, '0'))::uuid";
        let of = format!("organisation_id = '{organisation}' AND");
        let columns = "user_id, revision, created_at, updated_at, active, document";
        let change = format!(
            "INSERT INTO bare.change (organisation_id, subject_id, after)
               VALUES ('{organisation}', {user}, '{{\"active\": true, \"revision\": 7}}')"
        );
        let users = seed.bare_table();
        let read = |statement: String| vec![vec![statement]];
        let write = |statement: String| vec![vec![statement, change.clone()]];
        match self {
            Self::GetUser => {
                read(format!("SELECT {columns} FROM {users} WHERE {of} user_id = {user}"))
            }
            Self::FilterUserName => read(format!(
                "SELECT {columns} FROM {users}
                  WHERE {of} user_name_key = 'user-' || :n::int || '@bench.example'"
            )),
            Self::List100 | Self::Import(_) => read(format!(
                "SELECT {columns} FROM {users} WHERE {of} user_id >= {user}
                  ORDER BY user_id LIMIT 100"
            )),
            Self::PatchActive => write(format!(
                "UPDATE {users} SET active = NOT active, revision = revision + 1,
                        updated_at = now() WHERE {of} user_id = {user}"
            )),
            Self::PutUser => write(format!(
                "UPDATE {users} SET document = document || '{{\"title\": \"Engineer\"}}',
                        revision = revision + 1, updated_at = now() WHERE {of} user_id = {user}"
            )),
            Self::PostUser => write(format!(
                "INSERT INTO bare.created
                 SELECT organisation_id, gen_random_uuid(), 1, now(), now(), true,
                        user_name_key || :m::int, document
                   FROM {users} WHERE {of} user_id = {user}"
            )),
            Self::Member(_) => {
                let add = format!(
                    "INSERT INTO bare.member VALUES ('{organisation}', 1, {user})
                         ON CONFLICT DO NOTHING"
                );
                let remove =
                    format!("DELETE FROM bare.member WHERE {of} group_id = 1 AND user_id = {user}");
                [write(add), write(remove)].concat()
            }
            Self::GetGroup(members) => read(format!(
                "SELECT user_id FROM {users} WHERE organisation_id = '{organisation}'
                  ORDER BY user_id LIMIT {members}"
            )),
        }
    }

    /// How many requests one run of the script stands for.
    pub(crate) fn requests_of_script(self) -> f64 {
        if matches!(self, Self::Member(_)) { 2.0 } else { 1.0 }
    }
}

fn patch(operation: Value) -> Value {
    json!({"schemas": ["urn:ietf:params:scim:api:messages:2.0:PatchOp"], "Operations": [operation]})
}
