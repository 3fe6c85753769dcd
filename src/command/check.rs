//! `check`: reads a configuration exactly as the relay would, and says whether it is good.
//!
//! Nothing else happens: no address is bound and no other file is opened.

use std::io::{self, Write};

use super::{CommandError, Exit};
use crate::cli::{CheckArgs, DEFAULT_CONFIG};
use crate::config::{Config, Loaded, Source};

/// Checks the configuration and reports it on standard output.
///
/// With `--print` the effective configuration is all that goes to standard output, so that it can become a
/// file, and the report goes to standard error.
///
/// # Errors
///
/// [`Exit::Config`] with every problem of the configuration; [`Exit::Internal`] if standard output cannot be
/// written. A reader that went away is no error.
pub fn check(args: &CheckArgs) -> Result<(), CommandError> {
    let Loaded { config, source, .. } = Config::load(args.config.config.as_deref())?;
    let ok = match source {
        Source::File(path) => format!("configuration ok: {}", path.display()),
        Source::Defaults => format!("configuration ok: built-in defaults (no {DEFAULT_CONFIG})"),
    };
    let written = if args.print {
        // Standard output is what was asked for; losing this line is no failure.
        let _ = writeln!(io::stderr(), "{ok}");
        print(&config.to_toml())
    } else {
        print(&format!("{ok}\n"))
    };
    written.map_err(|error| {
        CommandError::new(Exit::Internal, format!("cannot write to standard output: {error}"))
    })
}

fn print(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}
