//! A process of the program, for the tests that end it, stop it and let it go on.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};

/// The program.
pub(crate) const MUSTER: &str = env!("CARGO_BIN_EXE_muster");

/// A process of the system. It ends with the test process, however that ends: a shell waits for
/// its standard input to close, and then stops what it started.
pub(crate) struct Process {
    pub(crate) part: &'static str,
    /// What it printed after each of the names waited for.
    pub(crate) told: Vec<String>,
    log: Arc<Mutex<String>>,
    shell: Child,
    /// Held open while the process shall run.
    stdin: ChildStdin,
    pub(crate) pid: String,
}

impl Process {
    /// Starts the program and waits until it has told each of `names`.
    pub(crate) fn start(part: &'static str, args: &[&str], names: &[&str]) -> Self {
        Self::start_as(MUSTER, part, args, names, &[])
    }

    /// The same for another build of the program, with other variables.
    pub(crate) fn start_as(
        program: &str,
        part: &'static str,
        args: &[&str],
        names: &[&str],
        variables: &[(&str, &str)],
    ) -> Self {
        // One that was stopped takes its end only when it goes on. The output is the program's alone:
        // it ends with the program, also where that ends before it is up.
        let script = "\"$0\" \"$@\" & pid=$!; echo \"pid  $pid\"; exec > /dev/null; cat; \
                      kill -TERM $pid; kill -CONT $pid; wait $pid";
        let mut shell = Command::new("sh")
            .arg("-c")
            .arg(script)
            .arg(program)
            .args(args)
            .env("MUSTER_LOG", "info")
            .env("MUSTER_DRAIN_DELAY", "0")
            // What a test changes about an organisation or a key holds at once.
            .env("MUSTER_KEY_CACHE_MILLISECONDS", "0")
            .env_remove("DATABASE_URL")
            .envs(variables.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stdin = shell.stdin.take().unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let (stderr, kept) = (shell.stderr.take().unwrap(), log.clone());
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let mut log = kept.lock().unwrap();
                log.push_str(&line);
                log.push('\n');
            }
        });
        let mut lines = BufReader::new(shell.stdout.take().unwrap()).lines();
        let mut told = vec![String::new(); names.len()];
        let mut pid = String::new();
        while pid.is_empty() || told.iter().any(String::is_empty) {
            let Some(Ok(line)) = lines.next() else {
                panic!("{part} ended before it was up: {}", log.lock().unwrap());
            };
            if let Some((name, value)) = line.trim().split_once("  ") {
                if name == "pid" {
                    value.trim().clone_into(&mut pid);
                }
                if let Some(at) = names.iter().position(|wanted| *wanted == name.trim()) {
                    value.trim().clone_into(&mut told[at]);
                }
            }
        }
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        Self { part, told, log, shell, stdin, pid }
    }

    /// What it has written to its log so far.
    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Ends it at once, as a crash would.
    pub(crate) fn kill(mut self) {
        self.signal("-KILL");
        drop(self.stdin);
        self.shell.wait().unwrap();
    }

    /// Whether it has not ended by itself.
    pub(crate) fn is_running(&self) -> bool {
        let state = Command::new("ps").args(["-o", "stat=", "-p", &self.pid]).output().unwrap();
        let state = String::from_utf8_lossy(&state.stdout);
        !state.trim().is_empty() && !state.starts_with('Z')
    }

    /// Sends a signal, such as `-STOP`; one that has ended by itself takes none.
    pub(crate) fn signal(&self, signal: &str) {
        let mut kill = Command::new("kill");
        kill.args([signal, &self.pid]).stderr(Stdio::null());
        kill.status().unwrap();
    }
}
