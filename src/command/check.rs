//! `check`: reads a configuration exactly as the relay would, and says whether it is good.
//!
//! The files that `[tls]` names are looked at as well. Nothing else happens: no address is bound, and no certificate
//! authority is asked.

use std::io::{self, Write};

use super::{CommandError, Exit};
use crate::cli::{CheckArgs, DEFAULT_CONFIG};
use crate::config::{Config, LoadError, Source};
use crate::tls::certificate::date;
use crate::tls::files;
use crate::tls::material::Material;

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
    let loaded = Config::load(args.config.config.as_deref())?;
    let mut ok = match &loaded.source {
        Source::File(path) => format!("configuration ok: {}", path.display()),
        Source::Defaults => format!("configuration ok: built-in defaults (no {DEFAULT_CONFIG})"),
    };
    if files::are_credentials_of_the_service(&loaded) {
        ok.push_str("\ncertificate and key are credentials, which only the service can see: not looked at");
    } else if let Material::Files(certificate) = Material::load(&loaded).map_err(LoadError::Invalid)? {
        let (names, end) = (certificate.names().join(", "), date(certificate.not_after()));
        ok = format!("{ok}\ncertificate ok: for {names}, until {end}");
    }
    let written = if args.print {
        // Standard output is what was asked for; losing this line is no failure.
        let _ = writeln!(io::stderr(), "{ok}");
        print(&loaded.config.to_toml())
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
