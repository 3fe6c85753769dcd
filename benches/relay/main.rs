//! The whole program beside a bare event loop that does the same work: what a frame, a connection and a connect cost.
//!
//! `cargo bench --bench relay` plays each case against the built relay and against the yardstick, in turn and several
//! times, and prints a table. Three processes take part: this one drives; the program under test is the relay, with its default
//! configuration, or the yardstick (`yardstick.rs`); the generator is all binaries and phones (`generator/`).
//!
//! A ratio is made of a relay's run and the yardstick's run next to it, so that a machine that is slower for a while does
//! not matter much; the table has the median of these ratios, and the smallest and largest.
//!
//! It needs two processors that nobody else uses. Where a process could have run and had to wait, the table says so.
//!
//! What is done per second is a figure of the whole arrangement. Where `generator_busy`, which the JSON has, comes near 1, the
//! generator is the limit, and only the CPU per frame says something about the program under test.

use std::error::Error;
use std::ffi::OsStr;
use std::io::{self, Write};
use std::process::ExitCode;

mod arguments;
mod case;
mod driver;
mod generator;
mod process;
mod table;
mod wire;
mod yardstick;

/// Whatever goes wrong ends the run with a message.
type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let subcommand = arguments.next();
    let done = match subcommand.as_deref().and_then(OsStr::to_str) {
        Some(process::YARDSTICK) => process::end_with_parent()
            .and_then(|()| yardstick::run(arguments.any(|argument| argument == process::BATCHING))),
        Some(process::GENERATOR) => process::end_with_parent()
            .and_then(|()| generator::run(&arguments.next().unwrap_or_default().to_string_lossy())),
        Some(process::GUARD) => process::guard(arguments),
        _ => driver::run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Whoever reads the table may have seen enough of it.
            if !driver::is_closed_pipe(error.as_ref()) {
                // There may be nobody to say it to.
                let _ = writeln!(io::stderr(), "bench: {error}");
            }
            ExitCode::FAILURE
        }
    }
}
