//! The Postgres that Muster brings up itself.

use std::process::Command;

use muster_local_postgres::LocalPostgres;
use sqlx::{Connection as _, Executor as _, PgConnection};
use tempfile::TempDir;

fn folder() -> TempDir {
    tempfile::Builder::new().prefix("pg").tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

async fn connect(postgres: &LocalPostgres) -> PgConnection {
    PgConnection::connect(&postgres.url("postgres")).await.unwrap()
}

/// Kills a process and waits until it is gone.
fn kill(id: u32) {
    let id = id.to_string();
    assert!(Command::new("kill").args(["-KILL", &id]).status().unwrap().success());
}

#[tokio::test]
async fn what_was_written_is_there_after_a_stop_and_after_a_crash() {
    let folder = folder();
    let postgres = LocalPostgres::start(folder.path()).await.unwrap();
    let mut connection = connect(&postgres).await;
    connection.execute("CREATE TABLE kept (n int)").await.unwrap();
    connection.execute("INSERT INTO kept VALUES (1)").await.unwrap();
    drop(connection);
    postgres.stop().await.unwrap();

    let postgres = LocalPostgres::start(folder.path()).await.unwrap();
    let mut connection = connect(&postgres).await;
    connection.execute("INSERT INTO kept VALUES (2)").await.unwrap();
    kill(postgres.process_id().unwrap());
    drop(postgres);

    let postgres = LocalPostgres::start(folder.path()).await.unwrap();
    let mut connection = connect(&postgres).await;
    let count: i64 =
        sqlx::query_scalar("SELECT count(*) FROM kept").fetch_one(&mut connection).await.unwrap();
    assert_eq!(count, 2);
    drop(connection);
    postgres.stop().await.unwrap();
}

#[tokio::test]
async fn a_server_that_a_killed_muster_left_behind_is_stopped_first() {
    let folder = folder();
    let mut muster = Command::new(env!("CARGO_BIN_EXE_muster"))
        .args(["--empty", "--listen", "127.0.0.1:0", "--grpc-listen", "127.0.0.1:0", "--data-dir"])
        .arg(folder.path())
        .env_remove("DATABASE_URL")
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(muster.stdout.take().unwrap()));
    assert!(lines.any(|line| line.unwrap().contains("Muster is running")));

    let refused = LocalPostgres::start(folder.path()).await.unwrap_err().to_string();
    assert!(refused.contains("another muster is running"), "{refused}");

    muster.kill().unwrap();
    muster.wait().unwrap();
    let postgres = LocalPostgres::start(folder.path()).await.unwrap();
    connect(&postgres).await.execute("SELECT 1").await.unwrap();
    postgres.stop().await.unwrap();
}

#[tokio::test]
async fn a_folder_whose_path_is_too_long_for_a_socket_will_do() {
    let folder = folder();
    let deep = folder.path().join("d".repeat(120));
    let postgres = LocalPostgres::start(&deep).await.unwrap();
    connect(&postgres).await.execute("SELECT 1").await.unwrap();
    postgres.stop().await.unwrap();
}
