//! A bare PostgreSQL: tables like Muster's, and pgbench.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};

use crate::operation::{Form, Operation};
use crate::seed::Seed;
use crate::system::Machine;

/// Statements a second, with and without row-level security.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rates {
    pub(crate) plain: f64,
    pub(crate) isolated: f64,
}

/// Makes the tables afresh.
pub(crate) async fn prepare(
    machine: &Machine,
    seeds: impl Iterator<Item = &Seed>,
) -> anyhow::Result<()> {
    let mut sql = PgConnection::connect(&machine.url("postgres")).await?;
    sql.execute(
        "DROP SCHEMA IF EXISTS bare CASCADE; CREATE SCHEMA bare;
         CREATE TABLE bare.change (organisation_id uuid, sequence bigserial, subject_id uuid,
             after jsonb, written_at timestamptz DEFAULT now(),
             PRIMARY KEY (organisation_id, sequence));
         CREATE TABLE bare.member (organisation_id uuid, group_id int, user_id uuid,
             PRIMARY KEY (organisation_id, group_id, user_id));
         CREATE TABLE bare.created (organisation_id uuid, user_id uuid, revision bigint,
             created_at timestamptz, updated_at timestamptz, active boolean,
             user_name_key text COLLATE \"C\", document jsonb,
             PRIMARY KEY (organisation_id, user_id));
         CREATE UNIQUE INDEX ON bare.created (organisation_id, user_name_key)",
    )
    .await?;
    for seed in seeds {
        let table = seed.bare_table();
        let copy = format!(
            "CREATE TABLE {table} AS
             SELECT organisation_id,
                    ('00000000-0000-4000-8000-' || lpad(to_hex(n), 12, '0'))::uuid AS user_id,
                    revision, created_at, updated_at, active, user_name_key, document
               FROM (SELECT *, substring(user_name_key from 'user-([0-9]+)')::int AS n
                       FROM identity.users
                      WHERE organisation_id = '{}' AND user_name_key LIKE 'user-%') AS users;
             ALTER TABLE {table} ADD PRIMARY KEY (organisation_id, user_id);
             CREATE UNIQUE INDEX ON {table} (organisation_id, user_name_key);
             ANALYZE {table}",
            seed.organisation
        );
        sql.execute(AssertSqlSafe(copy)).await?;
    }
    let isolate = format!(
        "DO $$ DECLARE name text; BEGIN
             FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = 'bare' LOOP
                 EXECUTE format('ALTER TABLE bare.%I ENABLE ROW LEVEL SECURITY', name);
                 EXECUTE format('CREATE POLICY own ON bare.%I USING (organisation_id =
                                 current_setting(''muster.organisation_id'')::uuid)', name);
             END LOOP;
         END $$;
         GRANT USAGE ON SCHEMA bare TO {role};
         GRANT ALL ON ALL TABLES IN SCHEMA bare TO {role};
         GRANT ALL ON ALL SEQUENCES IN SCHEMA bare TO {role}",
        role = Form::Isolated.role(),
    );
    sql.execute(AssertSqlSafe(isolate)).await?;
    Ok(())
}

/// What both forms of the statements reach that stand for an operation.
pub(crate) async fn rates(
    machine: &Machine,
    operation: Operation,
    seed: &Seed,
    clients: usize,
    length: Duration,
) -> anyhow::Result<Rates> {
    let isolated = run(machine, operation, seed, Form::Isolated, clients, length).await?;
    let plain = run(machine, operation, seed, Form::Plain, clients, length).await?;
    Ok(Rates { plain, isolated })
}

/// Statements a second that stand for an operation, with as many clients.
async fn run(
    machine: &Machine,
    operation: Operation,
    seed: &Seed,
    form: Form,
    clients: usize,
    length: Duration,
) -> anyhow::Result<f64> {
    let script = machine.script();
    fs::write(&script, operation.script(seed, form))?;
    let mut pgbench = Command::new(pgbench()?);
    pgbench
        .args(["--no-vacuum", "--protocol=prepared"])
        .arg(format!("--username={}", form.role()))
        .arg(format!("--host={}", machine.socket().display()))
        .arg(format!("--client={clients}"))
        .arg(format!("--jobs={}", clients.min(2)))
        .arg(format!("--time={}", length.as_secs()))
        .arg("--file")
        .arg(&script)
        .arg("muster");
    // The collector goes on meanwhile.
    let output = tokio::task::spawn_blocking(move || pgbench.output()).await??;
    let told = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "pgbench: {}", String::from_utf8_lossy(&output.stderr));
    let rate = told.lines().find_map(|line| line.strip_prefix("tps = "));
    let rate = rate.and_then(|rate| rate.split(' ').next()).context("pgbench tells no rate")?;
    Ok(rate.parse::<f64>()? * operation.requests_of_script())
}

/// The newest that is installed.
fn pgbench() -> anyhow::Result<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = versions.map(|v| v.path().join("bin/pgbench")).collect();
    found.sort();
    found.retain(|path| path.exists());
    found.pop().context("pgbench is missing: install postgresql-contrib")
}
