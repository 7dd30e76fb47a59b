//! What a killed run left: a server that still runs, or processes of one that does not.
//!
//! Called with the data folder's lock held, so none of it belongs to a living Muster.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, ensure};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use tokio::process::Command;
use tokio::time::sleep;

use super::{LOOK, STOP};

/// Stops what still runs on the cluster, and waits until it is gone.
///
/// `postmaster.pid` stays for PostgreSQL to judge, which finds in it the shared memory that
/// processes of a killed server may still hold: to take it away would let a second server write to
/// the same files. Only where its number is another program's by now does PostgreSQL err.
pub(super) async fn stop(cluster: &Path) -> anyhow::Result<()> {
    let file = cluster.join("postmaster.pid");
    let recorded = recorded(&file)?;
    let deadline = Instant::now() + STOP;
    let mut told: Vec<Pid> = Vec::new();
    loop {
        let running = running(cluster, recorded).await;
        if running.is_empty() {
            break;
        }
        let server = recorded.filter(|id| running.contains(id));
        // A living server ends its own processes; without it each is told, as it would be then.
        let (whom, how) = match server {
            Some(id) => (vec![id], Signal::INT),
            None => (running.clone(), Signal::QUIT),
        };
        for id in whom {
            if !told.contains(&id) {
                told.push(id);
                // Fails where it has ended in the meantime; the loop finds out either way.
                let _ = kill_process(id, how);
            }
        }
        ensure!(
            Instant::now() < deadline,
            "a PostgreSQL of an earlier run on {} does not stop (process {}): end it and try again",
            cluster.display(),
            running[0].as_raw_nonzero()
        );
        sleep(LOOK).await;
    }
    if recorded.is_some_and(|id| test_kill_process(id) != Err(Errno::SRCH)) {
        remove_file(&file)?;
    }
    Ok(())
}

/// The server's number in `postmaster.pid`; none where it was stopped, or killed while it wrote.
fn recorded(file: &Path) -> anyhow::Result<Option<Pid>> {
    match fs::read_to_string(file) {
        Ok(text) => {
            let id = text.lines().next().and_then(|line| Pid::from_raw(line.trim().parse().ok()?));
            if id.is_none() {
                // PostgreSQL would refuse it for ever.
                remove_file(file)?;
            }
            Ok(id)
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("{} cannot be read", file.display())),
    }
}

/// The processes of PostgreSQL that work on the cluster, zombies not among them.
async fn running(cluster: &Path, recorded: Option<Pid>) -> Vec<Pid> {
    if cfg!(target_os = "linux") {
        return working_in(cluster);
    }
    // Elsewhere only the server is found, by its command line; for the rest see `Server`.
    let Some(id) = recorded else { return Vec::new() };
    let number = id.as_raw_nonzero().to_string();
    let output = Command::new("ps").args(["-ww", "-o", "stat=,command=", "-p", &number]).output();
    let is_ours = output.await.is_ok_and(|output| {
        let text = String::from_utf8_lossy(&output.stdout);
        let text = text.trim_start();
        !text.starts_with('Z')
            && text.contains("postgres")
            && text.contains(&*cluster.to_string_lossy())
    });
    if is_ours { vec![id] } else { Vec::new() }
}

/// Every process of PostgreSQL works in its cluster's folder.
fn working_in(cluster: &Path) -> Vec<Pid> {
    let is_ours = |process: &Path| {
        let name = fs::read_to_string(process.join("comm")).unwrap_or_default();
        matches!(name.trim(), "postgres" | "postmaster")
            && fs::read_link(process.join("cwd")).is_ok_and(|folder| folder == cluster)
    };
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    processes
        .filter_map(|process| {
            let process = process.ok()?;
            let id = process.file_name().to_str()?.parse().ok().and_then(Pid::from_raw)?;
            is_ours(&process.path()).then_some(id)
        })
        .collect()
}

fn remove_file(file: &Path) -> anyhow::Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("{} cannot be removed", file.display()))
        }
        _ => Ok(()),
    }
}
