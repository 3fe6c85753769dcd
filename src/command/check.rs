//! `check`: reads a configuration exactly as the relay would, and says whether it is good.
//!
//! The files that `[tls]` names are looked at as well. Nothing else happens: no address is bound, and no certificate
//! authority is asked.

use std::io::{self, Write};
use std::time::SystemTime;

use super::{CommandError, Exit};
use crate::cli::{CheckArgs, DEFAULT_CONFIG};
use crate::config::{Config, Listen, LoadError, Loaded, Problems, Source, TlsMode};
use crate::tls::certificate::date;
use crate::tls::files::{self, Seen};
use crate::tls::material::Material;

const HIDDEN: &str = "which only the service can see: not looked at";

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
    ok.push_str(&sockets(&loaded.config.listen));
    ok.push_str(&tls(&loaded).map_err(LoadError::Invalid)?);
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

/// Says which addresses only the service can see: lines, each after the end of another.
fn sockets(listen: &Listen) -> String {
    let named =
        [("listen.public", listen.public.socket_name()), ("listen.metrics", listen.metrics.socket_name())];
    let mut lines = String::new();
    for (key, _) in named.into_iter().filter(|(_, name)| name.is_some()) {
        lines.extend(["\n", key, " is a socket of systemd's, ", HIDDEN]);
    }
    lines
}

/// Looks at what `[tls]` names, and says what was found: lines, each after the end of another.
fn tls(loaded: &Loaded) -> Result<String, Problems> {
    if loaded.config.tls.mode != TlsMode::Files {
        return Material::load(loaded).map(|_| String::new());
    }
    let certificate =
        |names: &[String], end| format!("\ncertificate ok: for {}, until {}", names.join(", "), date(end));
    Ok(match files::see(loaded, SystemTime::now())? {
        Seen::Both(found) => certificate(found.names(), found.not_after()),
        Seen::Chain(found) => {
            format!("{}\nthe key is a credential, {HIDDEN}", certificate(found.names(), found.not_after()))
        }
        Seen::Key => format!("\nkey ok\nthe certificate is a credential, {HIDDEN}"),
        Seen::Nothing => format!("\ncertificate and key are credentials, {HIDDEN}"),
    })
}

fn print(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}
