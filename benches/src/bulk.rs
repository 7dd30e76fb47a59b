//! What is done to many people at once: how long it takes, and how much memory.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use http::Method;
use muster_proto::identity::v1::import_service_client::ImportServiceClient;
use muster_proto::identity::v1::{
    CreateImportRequest, GetImportRequest, ImportState, StartImportRequest,
};
use tonic::transport::Endpoint;

use crate::load::{Connection, each};
use crate::seed::{self, Seed, group};
use crate::system::{Composition, Machine, System};

/// How many users are updated.
const UPDATED: usize = 10_000;
/// How many groups are made, of how many members each.
const GROUPS: (usize, usize) = (1_000, 100);
/// How many people a CSV file has.
const FILE: usize = 50_000;

/// One row of the table: what was done, how often, and how long it took altogether.
struct Done {
    what: String,
    count: usize,
    seconds: f64,
    peak: f64,
}

/// Updates people of an organisation, fills and replaces groups, and imports a file; prints a
/// table. Its initial sync is told of where it is made.
pub(crate) async fn run(machine: &Machine, seed: &Seed) -> anyhow::Result<()> {
    let system = machine.run(Composition::One, &[])?;
    let (key, ids, size) = (&seed.key, &seed.users, seed.users.len());
    let mut rows = Vec::new();
    // Names are taken once.
    let run = rand::random::<u32>();

    let begun = begin(&system)?;
    let updated = size.min(UPDATED);
    each(&system, key, updated, async |connection, at| {
        let path = format!("/scim/v2/Users/{}", ids[at]);
        connection.expect(Method::GET, &path, None, 200).await?;
        let mut user = seed::user(at);
        user["title"] = format!("Engineer {run}").into();
        connection.expect(Method::PUT, &path, Some(&user), 200).await.map(drop)
    })
    .await?;
    rows.push(done(&system, "a GET and a PUT of each", updated, begun)?);

    let begun = begin(&system)?;
    each(&system, key, GROUPS.0, async |connection, at| {
        let of = (0..GROUPS.1).map(|n| &ids[(at * GROUPS.1 + n) % ids.len()]);
        let group = group(&format!("Group {at} of {run}"), of);
        connection.create("Groups", &group).await.map(drop)
    })
    .await?;
    let what = format!("a POST of a group of {}", GROUPS.1);
    rows.push(done(&system, &what, GROUPS.0, begun)?);

    let mut connection = Connection::open(&system.address, key).await?;
    let begun = begin(&system)?;
    let name = format!("Everybody of {run}");
    let everybody = group(&name, ids.iter());
    let path = format!("/scim/v2/Groups/{}", connection.create("Groups", &everybody).await?);
    rows.push(done(&system, &format!("a POST of a group of {size}"), 1, begun)?);

    for (what, members) in [
        ("a PUT that leaves it as it is", &ids[..]),
        ("a PUT that takes half of them out", &ids[..size / 2]),
        ("a PUT that puts the others in their place", &ids[size / 2..]),
    ] {
        let begun = begin(&system)?;
        let group = group(&name, members.iter());
        connection.expect(Method::PUT, &path, Some(&group), 200).await?;
        rows.push(done(&system, what, 1, begun)?);
    }

    let other = seed::organisation(machine, &system, "bulk-file").await?;
    let begun = begin(&system)?;
    import(&system, &other.organisation, FILE).await?;
    rows.push(done(&system, "CSV import, people", FILE, begun)?);

    println!("| what | how many | seconds | a second | peak MiB |\n|---|---|---|---|---|");
    for Done { what, count, seconds, peak } in rows {
        let count_as_f64 = f64::from(u32::try_from(count)?);
        println!("| {what} | {count} | {seconds:.1} | {:.0} | {peak:.0} |", count_as_f64 / seconds);
    }
    system.check()?;
    system.stop()
}

/// Loads an organisation with a bit of everything for so many minutes, and prints what memory each
/// process has.
pub(crate) async fn soak(
    machine: &Machine,
    seed: &Seed,
    composition: Composition,
    minutes: u32,
    variables: &[(&str, &str)],
) -> anyhow::Result<()> {
    use crate::operation::Operation::{
        FilterUserName, GetUser, List100, Member, PatchActive, PutUser,
    };
    let system = machine.run(composition, variables)?;
    let mixed = [GetUser, FilterUserName, List100, PatchActive, PutUser, Member(10)];
    let part = Duration::from_mins(1) / u32::try_from(mixed.len())?;
    println!("| minute | requests | errors | MiB |\n|---|---|---|---|");
    println!("| 0 | 0 | 0 | {} |", told(&system));
    for minute in 1..=minutes {
        let (mut requests, mut errors) = (0.0, 0);
        for operation in mixed {
            let outcome =
                crate::load::run(&system, operation, std::slice::from_ref(seed), 16, part).await?;
            requests += outcome.count();
            errors += outcome.errors;
        }
        println!("| {minute} | {requests:.0} | {errors} | {} |", told(&system));
    }
    system.check()?;
    system.stop()
}

fn told(system: &System) -> String {
    let mut told = String::new();
    for (process, memory) in system.memory() {
        // A string takes everything.
        let _ = write!(told, "{process} {memory:.0} ");
    }
    told.trim_end().to_owned()
}

fn begin(system: &System) -> anyhow::Result<Instant> {
    system.forget_peak()?;
    Ok(Instant::now())
}

fn done(system: &System, what: &str, count: usize, begun: Instant) -> anyhow::Result<Done> {
    let seconds = begun.elapsed().as_secs_f64();
    let peak = system.peak().context("there is no process")?;
    eprintln!("{what}: {count} in {seconds:.1} s, {peak:.0} MiB");
    Ok(Done { what: what.to_owned(), count, seconds, peak })
}

/// Imports a file of people, as the console does.
async fn import(system: &System, organisation: &str, people: usize) -> anyhow::Result<()> {
    let mut file = "email,first name,last name,country,approvers".to_owned();
    for n in 0..people {
        let boss = n / 10 * 10;
        write!(file, "\np{n}@file.example,Ann,Bell{n},GB,p{boss}@file.example")?;
    }
    let channel = Endpoint::from_shared(system.identity().to_owned())?.connect().await?;
    let mut imports = ImportServiceClient::new(channel);
    let create =
        CreateImportRequest { organisation_id: organisation.to_owned(), file: file.into() };
    let import = imports.create_import(create).await?.into_inner();
    let (organisation_id, id) = (organisation.to_owned(), import.id);
    let start = StartImportRequest {
        organisation_id: organisation_id.clone(),
        id: id.clone(),
        ..StartImportRequest::default()
    };
    imports.start_import(start).await?;
    loop {
        let get = GetImportRequest { organisation_id: organisation_id.clone(), id: id.clone() };
        let import = imports.get_import(get).await?.into_inner();
        match import.state() {
            ImportState::Done => {
                ensure!(usize::try_from(import.created_count) == Ok(people), "{import:?}");
                return Ok(());
            }
            ImportState::Failed => anyhow::bail!("the import failed: {}", import.failure),
            _ => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}
