//! The program: parses its arguments, calls a command, turns its error into an exit code.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use pyrycode_relay::cli::{Cli, Command};
use pyrycode_relay::command::{Exit, check, probe, run};

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Nobody is left to tell when this cannot be written.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage.into() } else { ExitCode::SUCCESS };
        }
    };
    let result = match &cli.command {
        Some(Command::Check(args)) => check::check(args),
        Some(Command::Probe(args)) => probe::probe(args),
        None => run::run(&cli.config),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "{error}");
            error.exit.into()
        }
    }
}
