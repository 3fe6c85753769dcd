//! Whom the probe believes when a relay shows a certificate: the authorities in the system's store, or the certificates
//! in the file of `--ca`, and then no others.

use std::fmt;
use std::path::Path;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;

use super::explain;
use crate::tls::roots::{self, CaError};

/// How much is shown of what the system says of its store, in characters.
const SHOWN_ERROR: usize = 300;

/// Where the certificates come from that are trusted.
#[derive(Clone, Debug)]
pub(super) enum Trust {
    /// The store of the system.
    System,
    /// This file.
    File {
        /// Its name, for a terminal.
        name: String,
        certificates: Vec<CertificateDer<'static>>,
    },
}

impl Trust {
    /// Trust in the certificates in a file, and no others.
    pub(super) fn in_file(file: &Path) -> Result<Self, CaError> {
        let certificates = roots::certificates_of(file)?;
        Ok(Self::File { name: shown(file), certificates })
    }

    /// What a certificate must be vouched for by, or why there is nothing.
    pub(super) fn roots(&self) -> Result<RootCertStore, String> {
        match self {
            Self::System => roots::of_the_system().map_err(|why| {
                let why = explain::clean(&why, SHOWN_ERROR);
                format!("{why}, or name a file of certificates with --ca")
            }),
            Self::File { certificates, .. } => {
                let mut roots = RootCertStore::empty();
                roots.add_parsable_certificates(certificates.iter().cloned());
                Ok(roots)
            }
        }
    }

    /// Whether this very certificate is trusted.
    pub(super) fn holds(&self, certificate: &CertificateDer<'_>) -> bool {
        match self {
            Self::System => false,
            Self::File { certificates, .. } => certificates.iter().any(|one| one == certificate),
        }
    }
}

impl fmt::Display for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::System => f.write_str("the system's store"),
            Self::File { name, .. } => write!(f, "{name} (--ca)"),
        }
    }
}

/// A file's name for a terminal.
pub(super) fn shown(file: &Path) -> String {
    format!("\"{}\"", file.to_string_lossy().escape_debug())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made() -> (rcgen::Certificate, rcgen::KeyPair) {
        let key = rcgen::KeyPair::generate().unwrap();
        let parameters = rcgen::CertificateParams::new(vec!["relay.example".to_owned()]).unwrap();
        (parameters.self_signed(&key).unwrap(), key)
    }

    #[test]
    fn a_file_holds_certificates_among_other_things() {
        let ((one, key), (two, _)) = (made(), made());
        let text = format!("# ours\n{}{}\n{}", one.pem(), key.serialize_pem(), two.pem());
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let found = roots::certificates_of(file.path()).unwrap();
        assert_eq!(found, [one.der().clone(), two.der().clone()]);
        let trust = Trust::File { name: "\"f\"".to_owned(), certificates: found };
        assert_eq!(trust.roots().unwrap().len(), 2);
        assert!(trust.holds(one.der()) && !trust.holds(made().0.der()) && !Trust::System.holds(one.der()));
        assert_eq!(trust.to_string(), "\"f\" (--ca)");
    }
}
