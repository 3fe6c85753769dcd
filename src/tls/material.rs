//! What `[tls]` needs of this host before anything runs, for the start and for `check` alike.

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::{ClientConfig, RootCertStore};

use super::certificate::Certificate;
use super::{acme, files, roots};
use crate::config::{Loaded, Problems, TlsMode};

/// What was found.
#[derive(Debug)]
pub enum Material {
    /// Nothing is needed.
    Off,
    /// The certificate in the files.
    Files(Certificate),
    /// The authority's server can be trusted.
    Acme,
}

impl Material {
    /// Reads what the configuration names, and judges it.
    ///
    /// # Errors
    /// Everything that is wrong, by key.
    pub fn load(loaded: &Loaded) -> Result<Self, Problems> {
        match loaded.config.tls.mode {
            TlsMode::Off => Ok(Self::Off),
            TlsMode::Files => files::load(loaded, SystemTime::now()).map(Self::Files),
            TlsMode::Acme => {
                let tls = &loaded.config.tls;
                let found = [
                    ("tls.directory_ca", trusted(tls.directory_ca.as_deref()).err()),
                    ("tls.state", acme::check_state(tls).err()),
                ];
                let found: Vec<_> = found.into_iter().filter_map(|(key, text)| Some((key, text?))).collect();
                if found.is_empty() { Ok(Self::Acme) } else { Err(loaded.problems(found)) }
            }
        }
    }
}

/// A client that trusts what the system does, and what is in the file.
pub(super) fn trusted(file: Option<&str>) -> Result<Arc<ClientConfig>, String> {
    let read = |path| roots::certificates_of(Path::new(path)).map_err(|error| format!("{path} {error}"));
    let extra = file.map(read).transpose()?;
    let mut trusted = match (roots::of_the_system(), &extra) {
        (Ok(system), _) => system,
        (Err(_), Some(_)) => RootCertStore::empty(),
        (Err(why), None) => return Err(format!("{why}, or name the authority's own certificates here")),
    };
    trusted.add_parsable_certificates(extra.into_iter().flatten());
    roots::client(trusted).map_err(|error| error.to_string())
}
