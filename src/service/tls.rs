//! TLS of the running service: where its certificate comes from, and who hears of it.

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::ClientConfig;

use super::ServiceError;
use super::notes::Notes;
use crate::config::{Loaded, TlsMode};
use crate::metrics::families::Families;
use crate::tls::acme::{Acme, OpenError};
use crate::tls::certificate::Certificate;
use crate::tls::{Domains, Listener, Tls, Validity, files, roots};

/// What can be had before anything runs.
pub(super) enum Material {
    Off,
    Files(Certificate),
    Acme(Arc<ClientConfig>),
}

impl Material {
    /// Reads the files that the configuration names.
    pub(super) fn load(loaded: &Loaded) -> Result<Self, ServiceError> {
        match loaded.config.tls.mode {
            TlsMode::Off => Ok(Self::Off),
            TlsMode::Files => {
                files::load(loaded, SystemTime::now()).map(Self::Files).map_err(ServiceError::Refused)
            }
            TlsMode::Acme => {
                let refused = |text| ServiceError::Refused(loaded.problems(vec![("tls.directory_ca", text)]));
                let extra = loaded.config.tls.directory_ca.as_ref();
                let extra = extra.map(|path| roots::of_file(Path::new(path))).transpose().map_err(refused)?;
                let trusted = match (roots::of_the_system(), extra) {
                    (Ok(mut system), extra) => {
                        system.roots.extend(extra.into_iter().flat_map(|extra| extra.roots));
                        system
                    }
                    (Err(_), Some(extra)) => extra,
                    (Err(why), None) => {
                        return Err(refused(format!("{why}, or name the authority's own here")));
                    }
                };
                roots::client(trusted).map(Self::Acme).map_err(ServiceError::Tls)
            }
        }
    }

    /// Makes of it what connections are served with.
    pub(super) fn open(self, loaded: &Loaded, listener: Arc<dyn Listener>) -> Result<Opened, ServiceError> {
        let tls = &loaded.config.tls;
        match self {
            Self::Off => Ok(Opened { tls: None, acme: None }),
            Self::Files(certificate) => {
                let domains = tls.domains.as_deref().map(Domains::new);
                let tls =
                    Tls::with_certificate(&certificate, domains, listener).map_err(ServiceError::Tls)?;
                Ok(Opened { tls: Some(tls), acme: None })
            }
            Self::Acme(client) => {
                let (tls, acme) = Acme::open(tls, client, listener).map_err(|error| match error {
                    OpenError::State(text) => {
                        ServiceError::Refused(loaded.problems(vec![("tls.state", text)]))
                    }
                    OpenError::Tls(error) => ServiceError::Tls(error),
                })?;
                Ok(Opened { tls: Some(tls), acme: Some(acme) })
            }
        }
    }
}

/// Nothing in it: the relay speaks no TLS itself.
pub(super) struct Opened {
    pub(super) tls: Option<Arc<Tls>>,
    /// To be kept running.
    pub(super) acme: Option<Acme>,
}

/// Passes on what becomes of certificates.
pub(super) struct Hearing {
    pub(super) families: Arc<Families>,
    pub(super) notes: Arc<Notes>,
}

impl Listener for Hearing {
    fn shown(&self, validity: Validity) {
        self.families.certificate_ends(validity.not_after);
        self.notes.certificate(None);
    }

    fn wanting(&self, why: &str) {
        self.notes.certificate(Some(why));
    }

    fn ordered(&self, issued: bool) {
        self.families.certificate_ordered(issued);
    }
}
