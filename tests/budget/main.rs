//! What forwarding one frame takes, counted and held to a record: system calls, clock reads, allocations, instructions, and of these
//! those that are atomic.
//!
//! The program is run under strace, then under valgrind, with one binary and one phone between which frames go one at a time over
//! real sockets. Nothing is timed: before each frame the relay is waited for until all of its threads sleep, so
//! that how fast the machine is does not decide how many reads find something. System calls are told apart by
//! frame and by thread. Under valgrind everything is run twice, the second time with twice as many frames; the
//! difference is what those frames took, whatever the start and the end did.
//!
//! This program is not run by `cargo test`, because the record is that of an optimized build. `tests/budget/run` starts it.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "what fails in a helper fails the test"
)]

#[path = "../support/mod.rs"]
mod support;

mod figures;
mod record;
mod tools;
mod traffic;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use figures::Figures;
use record::Record;
use traffic::Way;

/// The exit code of a wrong command line.
const USAGE: u8 = 64;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (program, file, recording) = match *arguments.as_slice() {
        [program, file] => (PathBuf::from(program), Path::new(file), false),
        ["--record", program, file] => (PathBuf::from(program), Path::new(file), true),
        _ => {
            eprintln!("usage: budget [--record] PROGRAM RECORD; tests/budget/run starts it");
            return ExitCode::from(USAGE);
        }
    };
    // Before a tool is started with it, which says so less clearly.
    if let Err(problem) = is_program(&program) {
        eprintln!("budget: {}: {problem}", program.display());
        return ExitCode::FAILURE;
    }
    let now = Record {
        architecture: std::env::consts::ARCH.to_owned(),
        compiler: record::compiler(),
        phone_to_binary: Figures::of(&program, Way::ToBinary),
        binary_to_phone: Figures::of(&program, Way::ToPhone),
    };
    if recording {
        std::fs::write(file, now.text()).expect("writes the record");
        print!("{}", now.text());
        return ExitCode::SUCCESS;
    }
    if now.is_within(&Record::read(file)) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What is wrong with a file that cannot be run.
fn is_program(file: &Path) -> Result<(), String> {
    let metadata = file.metadata().map_err(|error| error.to_string())?;
    let executable = metadata.is_file() && metadata.permissions().mode() & 0o111 != 0;
    executable.then_some(()).ok_or_else(|| "is no program".to_owned())
}
