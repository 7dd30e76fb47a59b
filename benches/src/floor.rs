//! What any server of HTTP costs on this machine: one that does nothing but the bare statements.
//!
//! No authentication, no row-level security, no second service, no trace: a request is one run of
//! pgbench's script, and is answered with the rows as JSON.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::extract::State;
use axum::{Json, Router};
use clap::Args;
use http::StatusCode;
use rand::RngExt as _;
use serde_json::{Value, json};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions, PgRow};
use sqlx::{AssertSqlSafe, PgConnection, PgPool, Row as _};
use tokio::net::TcpListener;

use crate::operation::{Form, Operation};
use crate::seed::Seed;
use crate::system::Machine;
use crate::table::{Row, Table};
use crate::{bare, load};

#[derive(Debug, Args)]
pub(crate) struct FloorArgs {
    /// How many users the organisation has
    #[arg(long, default_value_t = 100_000, value_name = "NUMBER")]
    users: u32,
    /// How many connections send at once
    #[arg(long, default_value_t = 16, value_name = "NUMBER")]
    connections: usize,
    /// How long each operation is sent
    #[arg(long, default_value_t = 5, value_name = "SECONDS")]
    seconds: u64,
}

/// The operations whose script stands for one request.
const OPERATIONS: [Operation; 6] = [
    Operation::GetUser,
    Operation::FilterUserName,
    Operation::List100,
    Operation::PatchActive,
    Operation::PutUser,
    Operation::PostUser,
];

/// Loads the server with each operation.
pub(crate) async fn run(machine: &Machine, args: FloorArgs) -> anyhow::Result<()> {
    let FloorArgs { users, connections, seconds } = args;
    let seeds = [Seed::grow(machine, users, 0).await?];
    let seconds = Duration::from_secs(seconds);
    bare::prepare(machine, seeds.iter()).await?;
    let mut table = Table::default();
    for operation in OPERATIONS {
        let bare = bare::rates(machine, operation, &seeds[0], connections, seconds).await?;
        std::fs::write(machine.script(), operation.script(&seeds[0], Form::Plain))?;
        let system = machine.floor(users)?;
        let cpu = system.cpu();
        let outcome = load::run(&system, operation, &seeds, connections, seconds).await?;
        let cpu = system.cpu().saturating_sub(cpu);
        let row = Row::new("floor", &seeds, operation, connections, &outcome, cpu, bare);
        eprintln!("{row}");
        table.push(row);
        system.stop()?;
    }
    print!("{table}");
    Ok(())
}

/// Serve pgbench's script over HTTP: what `floor` loads
#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// The script
    #[arg(long, value_name = "FILE")]
    script: PathBuf,
    /// The database
    #[arg(long, value_name = "URL")]
    database_url: String,
    /// How many users its table has
    #[arg(long, value_name = "NUMBER")]
    users: u32,
}

/// What a request runs.
struct Served {
    pool: PgPool,
    statements: Vec<Statement>,
    users: u32,
}

struct Statement {
    sql: String,
    /// Whether it takes the number of a user, and one that is new each time.
    takes: (bool, bool),
}

/// Serves until it is killed.
pub(crate) async fn serve(args: ServeArgs) -> anyhow::Result<()> {
    let options = PgConnectOptions::from_str(&args.database_url)?;
    let pool = PgPoolOptions::new()
        .max_connections(16)
        .min_connections(16)
        .test_before_acquire(false)
        .connect_with(options)
        .await?;
    let served = Served { pool, statements: statements(&args.script)?, users: args.users };
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
    println!("SCIM base URL  http://{}/", listener.local_addr()?);
    let router = Router::new().fallback(answer).with_state(Arc::new(served));
    axum::serve(listener, router).await.context("cannot serve")
}

/// The statements of a script, with parameters in place of pgbench's variables.
fn statements(script: &Path) -> anyhow::Result<Vec<Statement>> {
    let script = std::fs::read_to_string(script)?;
    let lines = script.lines().filter(|line| !line.starts_with('\\'));
    Ok(lines
        .map(|line| Statement {
            takes: (line.contains(":n"), line.contains(":m")),
            sql: line
                .trim_end_matches(';')
                .replace(":n::int", "$1::int")
                .replace(":m::int", if line.contains(":n") { "$2::int" } else { "$1::int" }),
        })
        .collect())
}

async fn answer(State(served): State<Arc<Served>>) -> Result<Json<Value>, StatusCode> {
    let rows = async {
        let mut connection = served.pool.acquire().await?;
        script(&mut connection, &served).await
    };
    let rows = rows.await.map_err(|error| {
        eprintln!("{error}");
        StatusCode::INTERNAL_SERVER_ERROR
    })?;
    Ok(Json(Value::Array(rows)))
}

async fn script(connection: &mut PgConnection, served: &Served) -> Result<Vec<Value>, sqlx::Error> {
    let (number, new) =
        (rand::random_range(1..=served.users), rand::rng().random_range(0..1_000_000_000));
    let mut rows = Vec::new();
    for statement in &served.statements {
        let mut query = sqlx::query(AssertSqlSafe(statement.sql.as_str()));
        if statement.takes.0 {
            query = query.bind(i32::try_from(number).unwrap_or(i32::MAX));
        }
        if statement.takes.1 {
            query = query.bind(new);
        }
        rows.extend(query.fetch_all(&mut *connection).await?.iter().map(resource));
    }
    Ok(rows)
}

/// A row of users, as JSON.
fn resource(row: &PgRow) -> Value {
    let document: Value = row.get("document");
    let (id, revision): (uuid::Uuid, i64) = (row.get("user_id"), row.get("revision"));
    json!({"id": id.to_string(), "version": revision, "active": row.get::<bool, _>("active"),
           "document": document})
}
