//! Organisations of so many users, made once as Okta makes them, and kept.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::{Context as _, ensure};
use http::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection};
use uuid::Uuid;

use crate::load::Connection;
use crate::system::{Composition, Machine};

/// An organisation to ask about.
pub(crate) struct Seed {
    pub(crate) size: u32,
    pub(crate) organisation: String,
    pub(crate) key: String,
    /// The ids of the users whose names are known, in the order of their numbers.
    pub(crate) users: Vec<String>,
    /// A group of each size.
    pub(crate) groups: BTreeMap<u32, String>,
}

/// What is kept of it beside the database.
#[derive(Serialize, Deserialize)]
struct Kept {
    organisation: String,
    key: String,
    groups: BTreeMap<u32, String>,
}

/// How many connections send it.
const CONNECTIONS: usize = 32;

impl Seed {
    /// The organisation of that size; made where there is none yet.
    ///
    /// There may be several of a size, told apart by `number`.
    pub(crate) async fn grow(machine: &Machine, size: u32, number: u32) -> anyhow::Result<Self> {
        let name = if number == 0 { format!("{size}") } else { format!("{size}-{number}") };
        let file = machine.folder().join(format!("seed-{name}.json"));
        if !file.exists() {
            let kept = make(machine, size, &name).await?;
            std::fs::write(&file, serde_json::to_string(&kept)?)?;
        }
        let kept: Kept = serde_json::from_str(&std::fs::read_to_string(&file)?)?;
        let mut sql = PgConnection::connect(&machine.url("postgres")).await?;
        let users: Vec<Uuid> = sqlx::query_scalar(
            "SELECT user_id FROM identity.users
              WHERE organisation_id = $1::uuid AND user_name_key LIKE 'user-%'
              ORDER BY substring(user_name_key from 'user-([0-9]+)')::int",
        )
        .bind(&kept.organisation)
        .fetch_all(&mut sql)
        .await?;
        let Kept { organisation, key, groups } = kept;
        let users: Vec<String> = users.iter().map(Uuid::to_string).collect();
        ensure!(users.len() == size as usize, "{} users instead of {size}", users.len());
        Ok(Self { size, organisation, key, users, groups })
    }

    /// The table of the same users without Muster.
    pub(crate) fn bare_table(&self) -> String {
        format!("bare.users_{}", self.organisation.replace('-', "_"))
    }
}

/// The name of a user, by place.
pub(crate) fn user_name(at: usize) -> String {
    format!("user-{}@bench.example", at + 1)
}

/// A user as Okta sends it, by place.
pub(crate) fn user(at: usize) -> Value {
    person(&user_name(at))
}

/// A user of that name as Okta sends it.
pub(crate) fn person(name: &str) -> Value {
    json!({
        "schemas": ["urn:ietf:params:scim:schemas:core:2.0:User",
                    "urn:learnerbly:params:scim:schemas:2.0:User"],
        "userName": name,
        "name": {"givenName": "Ann", "familyName": "Bell"},
        "emails": [{"primary": true, "value": name, "type": "work"}],
        "displayName": "Ann Bell",
        "locale": "en-GB",
        "externalId": format!("00u{name}"),
        "active": true,
        "urn:learnerbly:params:scim:schemas:2.0:User": {
            "contentRegion": "GB", "customField1": "Sales", "approvers": ["user-1@bench.example"],
        },
    })
}

/// The initial sync: look for each, create each; then groups.
async fn make(machine: &Machine, size: u32, name: &str) -> anyhow::Result<Kept> {
    let system = machine.run(Composition::One, &[])?;
    let slug = format!("bench-{name}-{:x}", std::process::id());
    system.operate(&["organisation", "create", "--slug", &slug, "--name", "Bench"])?;
    let key =
        system.operate(&["api-key", "create", "--organisation", &slug, "--label", "Bench"])?;
    let key = key.lines().last().unwrap_or_default().to_owned();
    let (next, begun) = (AtomicUsize::new(1), Instant::now());
    let ids = tokio::sync::Mutex::new(vec![String::new(); size as usize]);
    let workers = (0..CONNECTIONS).map(|_| async {
        let mut connection = Connection::open(&system.address, &key).await?;
        loop {
            let n = next.fetch_add(1, Ordering::Relaxed);
            if n > size as usize {
                return anyhow::Ok(());
            }
            let name = format!("user-{n}@bench.example");
            let filter = format!("/scim/v2/Users?filter=userName%20eq%20%22{name}%22");
            let (status, _) = connection.send(Method::GET, &filter, String::new().into()).await?;
            ensure!(status == 200, "the look-up is answered {status}");
            let body = person(&name).to_string().into();
            let (status, answer) = connection.send(Method::POST, "/scim/v2/Users", body).await?;
            ensure!(status == 201, "{status}: {}", String::from_utf8_lossy(&answer));
            let answer: Value = serde_json::from_slice(&answer)?;
            let id = answer["id"].as_str().context("a user has an id")?.to_owned();
            ids.lock().await[n - 1] = id;
        }
    });
    for done in join_all(workers).await {
        done?;
    }
    let seconds = begun.elapsed().as_secs_f64();
    eprintln!(
        "initial sync of {size} users, each looked for and created: {seconds:.0} s, {:.0} a second; \
         memory {:?}",
        f64::from(size) / seconds,
        system.memory(),
    );
    let ids = ids.into_inner();
    let mut groups = BTreeMap::new();
    let mut connection = Connection::open(&system.address, &key).await?;
    for members in [10, 10_000, 100_000] {
        if members > size {
            continue;
        }
        let begun = Instant::now();
        let list: Vec<Value> =
            ids.iter().take(members as usize).map(|id| json!({"value": id})).collect();
        let group = json!({"displayName": format!("Group of {members}"), "members": list});
        let body = group.to_string().into();
        let (status, answer) = connection.send(Method::POST, "/scim/v2/Groups", body).await?;
        ensure!(status == 201, "{status}: {}", String::from_utf8_lossy(&answer[..200]));
        let answer: Value = serde_json::from_slice(&answer)?;
        groups.insert(members, answer["id"].as_str().context("a group has an id")?.to_owned());
        eprintln!("a group of {members}: {:.1} s", begun.elapsed().as_secs_f64());
    }
    let organisation = Uuid::parse_str(&organisation_of(machine, &slug).await?)?.to_string();
    system.stop()?;
    let mut sql = PgConnection::connect(&machine.url("postgres")).await?;
    sqlx::query("VACUUM ANALYZE").execute(&mut sql).await?;
    Ok(Kept { organisation, key, groups })
}

async fn organisation_of(machine: &Machine, slug: &str) -> anyhow::Result<String> {
    let mut sql = PgConnection::connect(&machine.url("postgres")).await?;
    let query = "SELECT organisation_id::text FROM identity.organisation WHERE slug = $1";
    Ok(sqlx::query_scalar(query).bind(slug).fetch_one(&mut sql).await?)
}

/// Runs all of them side by side on this task.
pub(crate) async fn join_all<F: Future>(futures: impl Iterator<Item = F>) -> Vec<F::Output> {
    futures::future::join_all(futures).await
}
