//! A PostgreSQL of our own keeps its data, whatever becomes of the process that started it.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::str::FromStr as _;

use muster_local_postgres::LocalPostgres;
use rustix::process::{Pid, Signal, kill_process};
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _, PgConnection};

async fn connect(postgres: &LocalPostgres) -> PgConnection {
    let url = postgres.url("postgres", "postgres");
    PgConnectOptions::from_str(&url).unwrap().connect().await.unwrap()
}

async fn write(postgres: &LocalPostgres) {
    let mut connection = connect(postgres).await;
    sqlx::raw_sql("CREATE TABLE kept (n int); INSERT INTO kept VALUES (42)")
        .execute(&mut connection)
        .await
        .unwrap();
    connection.close().await.unwrap();
}

async fn read(postgres: &LocalPostgres) -> i32 {
    let mut connection = connect(postgres).await;
    let n = sqlx::query_scalar("SELECT n FROM kept").fetch_one(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    n
}

/// The server that the cluster's files name.
fn recorded(folder: &Path) -> Pid {
    let text = std::fs::read_to_string(folder.join("postgres/postmaster.pid")).unwrap();
    Pid::from_raw(text.lines().next().unwrap().parse().unwrap()).unwrap()
}

fn kill(id: Pid) {
    kill_process(id, Signal::KILL).unwrap();
}

#[tokio::test]
async fn what_was_written_is_there_after_a_stop() {
    let folder = tempfile::tempdir().unwrap();
    let postgres = LocalPostgres::start(folder.path()).await.unwrap();
    write(&postgres).await;
    postgres.stop().await.unwrap();
    assert!(!folder.path().join("postgres/postmaster.pid").exists());

    let postgres = LocalPostgres::start(folder.path()).await.unwrap();
    assert_eq!(read(&postgres).await, 42);
    postgres.stop().await.unwrap();
}

#[tokio::test]
async fn a_killed_server_is_recovered_though_its_sessions_are_busy() {
    let folder = tempfile::tempdir().unwrap();
    let postgres = LocalPostgres::start(folder.path()).await.unwrap();
    write(&postgres).await;
    let mut busy = connect(&postgres).await;
    let id: i32 = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut busy).await.unwrap();
    // Never looks whether its server is alive, so it would hold the shared memory for minutes.
    let work = tokio::spawn(async move {
        let long =
            "SELECT count(*) FROM generate_series(1, 100000) a, generate_series(1, 100000) b";
        sqlx::query(long).execute(&mut busy).await
    });
    let mut watch = connect(&postgres).await;
    let state = "SELECT state FROM pg_stat_activity WHERE pid = $1";
    while sqlx::query_scalar::<_, String>(state).bind(id).fetch_one(&mut watch).await.unwrap()
        != "active"
    {}
    kill(recorded(folder.path()));
    drop(postgres);

    let postgres = LocalPostgres::start(folder.path()).await.unwrap();
    assert!(work.await.unwrap().is_err());
    assert_eq!(read(&postgres).await, 42);
    postgres.stop().await.unwrap();
}

#[tokio::test]
async fn a_server_whose_muster_was_killed_is_stopped_and_started_anew() {
    let folder = tempfile::tempdir().unwrap();
    let mut muster = Command::new(env!("CARGO_BIN_EXE_muster"))
        .args(["--empty", "--listen", "127.0.0.1:0", "--grpc-listen", "127.0.0.1:0", "--data-dir"])
        .arg(folder.path())
        .env_remove("DATABASE_URL")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(muster.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().ends_with("is running")));
    let refused = LocalPostgres::start(folder.path()).await.unwrap_err().to_string();
    assert!(refused.contains("another muster is running"), "{refused}");
    muster.kill().unwrap();
    muster.wait().unwrap();
    let orphan = recorded(folder.path());

    let postgres = LocalPostgres::start(folder.path()).await.unwrap();
    assert_ne!(recorded(folder.path()), orphan);
    write(&postgres).await;
    assert_eq!(read(&postgres).await, 42);
    postgres.stop().await.unwrap();
}

#[tokio::test]
async fn a_number_that_is_another_program_by_now_is_no_server() {
    let folder = tempfile::tempdir().unwrap();
    let postgres = LocalPostgres::start(folder.path()).await.unwrap();
    let file = folder.path().join("postgres/postmaster.pid");
    let text = std::fs::read_to_string(&file).unwrap();
    postgres.stop().await.unwrap();
    // Number 1 is alive, and is not our parent, whose number PostgreSQL would forgive.
    let (_, rest) = text.split_once('\n').unwrap();
    std::fs::write(&file, format!("1\n{rest}")).unwrap();
    let postgres = LocalPostgres::start(folder.path()).await.unwrap();
    postgres.stop().await.unwrap();
}

#[tokio::test]
async fn a_folder_in_use_is_refused_in_one_line_that_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let postgres = LocalPostgres::start(folder.path()).await.unwrap();
    let refused = LocalPostgres::start(folder.path()).await.unwrap_err();
    let line = format!("{refused:#}");
    let name = folder.path().canonicalize().unwrap();
    assert!(line.contains(name.to_str().unwrap()) && !line.contains('\n'), "{line}");
    postgres.stop().await.unwrap();
}

#[tokio::test]
async fn an_initdb_that_was_killed_leaves_nothing_in_the_way() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("postgres.new")).unwrap();
    std::fs::write(folder.path().join("postgres.new/PG_VERSION"), "15").unwrap();
    let postgres = LocalPostgres::start(folder.path()).await.unwrap();
    postgres.stop().await.unwrap();
    assert!(!folder.path().join("postgres.new").exists());
}

#[tokio::test]
async fn a_path_too_long_for_a_socket_will_do() {
    let folder = tempfile::tempdir().unwrap();
    let deep: PathBuf = folder.path().join("a-long-name/".repeat(12));
    let postgres = LocalPostgres::start(&deep).await.unwrap();
    write(&postgres).await;
    assert_eq!(read(&postgres).await, 42);
    postgres.stop().await.unwrap();
}

#[tokio::test]
async fn a_server_that_does_not_start_says_why() {
    let folder = tempfile::tempdir().unwrap();
    LocalPostgres::start(folder.path()).await.unwrap().stop().await.unwrap();
    let settings = folder.path().join("postgres/postgresql.conf");
    std::fs::write(&settings, "shared_buffers = lots\n").unwrap();
    let error = LocalPostgres::start(folder.path()).await.unwrap_err().to_string();
    assert!(error.contains("postgres.log") && error.contains("shared_buffers"), "{error}");
}
