//! The program with its fail points compiled in, each off unless `FAILPOINTS` names it.

use std::process::ExitCode;

#[path = "../src/main.rs"]
mod program;

fn main() -> ExitCode {
    let _on = fail::FailScenario::setup();
    program::main()
}
