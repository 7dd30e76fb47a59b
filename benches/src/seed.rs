//! Organisations of so many users, made once as Okta makes them, and kept.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use anyhow::ensure;
use http::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection};
use uuid::Uuid;

use crate::load::{Connection, each};
use crate::system::{Composition, Machine, System};

/// An organisation to ask about.
pub(crate) struct Seed {
    pub(crate) size: u32,
    pub(crate) organisation: String,
    pub(crate) key: String,
    /// The ids of the users whose names are known, in the order of their numbers.
    pub(crate) users: Vec<String>,
    /// Whether each of them is active.
    pub(crate) active: Vec<AtomicBool>,
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
        let users: Vec<(Uuid, bool)> = sqlx::query_as(
            "SELECT user_id, active FROM identity.users
              WHERE organisation_id = $1::uuid AND user_name_key LIKE 'user-%'
              ORDER BY substring(user_name_key from 'user-([0-9]+)')::int",
        )
        .bind(&kept.organisation)
        .fetch_all(&mut sql)
        .await?;
        let Kept { organisation, key, groups } = kept;
        let (users, active): (Vec<String>, Vec<AtomicBool>) =
            users.into_iter().map(|(id, active)| (id.to_string(), active.into())).unzip();
        ensure!(users.len() == size as usize, "{} users instead of {size}", users.len());
        Ok(Self { size, organisation, key, users, active, groups })
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

/// A user as Okta sends it, by place. The first tenth approve for ten each.
pub(crate) fn user(at: usize) -> Value {
    person(&user_name(at), at / 10)
}

/// A user of that name as Okta sends it, for whom the user of a place approves.
pub(crate) fn person(name: &str, approver: usize) -> Value {
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
            "contentRegion": "GB", "customField1": "Sales", "approvers": [user_name(approver)],
        },
    })
}

/// A group of that name and of these users.
pub(crate) fn group<'a>(name: &str, members: impl Iterator<Item = &'a String>) -> Value {
    let members: Vec<Value> = members.map(|id| json!({"value": id})).collect();
    json!({"displayName": name, "members": members})
}

/// A new organisation.
pub(crate) struct New {
    pub(crate) organisation: String,
    pub(crate) key: String,
}

/// Makes an organisation, and a key to it.
pub(crate) async fn organisation(
    machine: &Machine,
    system: &System,
    name: &str,
) -> anyhow::Result<New> {
    let slug = format!("bench-{name}-{:x}", rand::random::<u32>());
    system.operate(&["organisation", "create", "--slug", &slug, "--name", "Bench"])?;
    let key =
        system.operate(&["api-key", "create", "--organisation", &slug, "--label", "Bench"])?;
    let key = key.lines().last().unwrap_or_default().to_owned();
    let mut sql = PgConnection::connect(&machine.url("postgres")).await?;
    let query = "SELECT organisation_id::text FROM identity.organisation WHERE slug = $1";
    let organisation: String = sqlx::query_scalar(query).bind(slug).fetch_one(&mut sql).await?;
    Ok(New { organisation, key })
}

/// The initial sync of so many users: looks for each, and creates each; their ids.
async fn sync(system: &System, key: &str, size: usize) -> anyhow::Result<Vec<String>> {
    let ids = tokio::sync::Mutex::new(vec![String::new(); size]);
    each(system, key, size, async |connection, at| {
        let filter = format!("/scim/v2/Users?filter=userName%20eq%20%22{}%22", user_name(at));
        connection.expect(Method::GET, &filter, None, 200).await?;
        let id = connection.create("Users", &user(at)).await?;
        ids.lock().await[at] = id;
        Ok(())
    })
    .await?;
    Ok(ids.into_inner())
}

/// Fills an organisation, and makes groups in it.
async fn make(machine: &Machine, size: u32, name: &str) -> anyhow::Result<Kept> {
    let system = machine.run(Composition::One, &[])?;
    let New { organisation, key } = self::organisation(machine, &system, name).await?;
    let begun = Instant::now();
    let ids = sync(&system, &key, size as usize).await?;
    let seconds = begun.elapsed().as_secs_f64();
    eprintln!(
        "initial sync of {size} users, each looked for and created: {seconds:.0} s, {:.0} a second, \
         at most {:.0} MiB",
        f64::from(size) / seconds,
        system.peak().unwrap_or_default(),
    );
    let mut groups = BTreeMap::new();
    let mut connection = Connection::open(&system.address, &key).await?;
    for members in [10, 10_000, 100_000].into_iter().filter(|members| *members <= size) {
        let group = group(&format!("Group of {members}"), ids.iter().take(members as usize));
        groups.insert(members, connection.create("Groups", &group).await?);
    }
    system.stop()?;
    let mut sql = PgConnection::connect(&machine.url("postgres")).await?;
    sqlx::query("VACUUM ANALYZE").execute(&mut sql).await?;
    Ok(Kept { organisation, key, groups })
}
