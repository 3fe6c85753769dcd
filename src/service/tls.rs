//! TLS of the running service: where its certificate comes from, and who hears of it.

use std::sync::Arc;

use super::ServiceError;
use super::notes::Notes;
use crate::config::Loaded;
use crate::metrics::families::Families;
use crate::tls::acme::{Acme, OpenError};
use crate::tls::material::Material;
use crate::tls::{Domains, Listener, Tls, Validity};

/// Makes of what was found what connections are served with.
pub(super) fn open(
    material: Material,
    loaded: &Loaded,
    listener: Arc<dyn Listener>,
) -> Result<Opened, ServiceError> {
    let tls = &loaded.config.tls;
    match material {
        Material::Off => Ok(Opened { tls: None, acme: None }),
        Material::Files(certificate) => {
            let domains = tls.domains.as_deref().map(Domains::new);
            let tls = Tls::with_certificate(&certificate, domains, listener).map_err(ServiceError::Tls)?;
            Ok(Opened { tls: Some(tls), acme: None })
        }
        Material::Acme => {
            let (tls, acme) = Acme::open(tls, listener).map_err(|error| match error {
                OpenError::State(text) => ServiceError::Refused(loaded.problems(vec![("tls.state", text)])),
                OpenError::Tls(error) => ServiceError::Tls(error),
            })?;
            Ok(Opened { tls: Some(tls), acme: Some(acme) })
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

    fn renewal_fails(&self, why: Option<&str>) {
        self.notes.renewal(why);
    }

    fn expires(&self, what: Option<&str>) {
        self.notes.expiry(what);
    }

    fn ordered(&self, issued: bool) {
        self.families.certificate_ordered(issued);
    }
}
