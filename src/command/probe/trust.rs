//! Whom the probe believes when a relay shows a certificate: the authorities in the system's store, or the certificates
//! in the file of `--ca`, and then no others.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::{PemObject, SectionKind};

use super::explain;

/// How much of a file is read. The store of a whole system has less than a tenth of it.
const MAX_FILE: u64 = 16 * 1024 * 1024;

/// How much is shown of what the system says of its store, in characters.
const SHOWN_ERROR: usize = 200;

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

/// Why a file cannot say whom to trust.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CaError {
    /// It is not there or may not be read; the system's words.
    Unreadable(String),
    /// It is larger than any collection of certificates.
    TooLarge,
    /// It holds a certificate, but not in PEM.
    Der,
    /// It holds a private key and no certificate.
    OnlyKey,
    /// It holds no certificate.
    NoCertificate,
    /// The certificate with this number, counted from 1, is damaged.
    Damaged(usize),
}

impl fmt::Display for CaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(why) => write!(f, "cannot be read ({why})")?,
            Self::TooLarge => write!(f, "has more than {MAX_FILE} bytes")?,
            Self::Der => f.write_str(
                "is not in PEM but in binary (DER); convert it with 'openssl x509 -inform der -outform pem'",
            )?,
            Self::OnlyKey => f.write_str(
                "holds a private key and no certificate; a key must stay where it is, its certificate is what is \
                 wanted",
            )?,
            Self::NoCertificate => f.write_str("holds no certificate")?,
            Self::Damaged(number) => write!(f, "is damaged: its certificate {number} cannot be read")?,
        }
        f.write_str(
            "; it must be a PEM file with one or several certificates, each between -----BEGIN CERTIFICATE----- and \
             -----END CERTIFICATE-----, of the authority that issued the relay's",
        )
    }
}

impl Trust {
    /// Trust in the certificates in a file, and no others.
    pub(super) fn in_file(file: &Path) -> Result<Self, CaError> {
        let unreadable = |error: std::io::Error| CaError::Unreadable(error.to_string());
        let mut bytes = Vec::new();
        let mut limited = File::open(file).map_err(unreadable)?.take(MAX_FILE + 1);
        let length = limited.read_to_end(&mut bytes).map_err(unreadable)?;
        if u64::try_from(length).unwrap_or(u64::MAX) > MAX_FILE {
            return Err(CaError::TooLarge);
        }
        Ok(Self::File { name: shown(file), certificates: certificates(&bytes)? })
    }

    /// What a certificate must be vouched for by, or why there is nothing.
    pub(super) fn roots(&self) -> Result<RootCertStore, String> {
        let (certificates, errors) = match self {
            Self::System => {
                let loaded = rustls_native_certs::load_native_certs();
                (loaded.certs, loaded.errors)
            }
            Self::File { certificates, .. } => (certificates.clone(), Vec::new()),
        };
        let mut roots = RootCertStore::empty();
        // A system's store may hold what the library does not take; the rest of it is of use.
        roots.add_parsable_certificates(certificates);
        if !roots.is_empty() {
            return Ok(roots);
        }
        let why = errors.first().map_or_else(String::new, |error| {
            format!(" ({})", explain::clean(&error.to_string(), SHOWN_ERROR))
        });
        Err(format!(
            "this system has no store of certificates to verify the relay's with, or an empty one{why}; install the \
             package ca-certificates, or name a file of certificates with --ca"
        ))
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

fn certificates(bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>, CaError> {
    let mut found = Vec::new();
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(bytes) {
        let damaged = CaError::Damaged(found.len().saturating_add(1));
        match section {
            Ok((SectionKind::Certificate, der)) => {
                let certificate = CertificateDer::from(der);
                RootCertStore::empty().add(certificate.clone()).map_err(|_| damaged)?;
                found.push(certificate);
            }
            Ok(_) => {}
            Err(_) => return Err(damaged),
        }
    }
    if !found.is_empty() {
        return Ok(found);
    }
    let text = String::from_utf8_lossy(bytes);
    Err(if text.contains("PRIVATE KEY-----") {
        CaError::OnlyKey
    } else if RootCertStore::empty().add(CertificateDer::from(bytes)).is_ok() {
        CaError::Der
    } else {
        CaError::NoCertificate
    })
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
        let found = certificates(text.as_bytes()).unwrap();
        assert_eq!(found, [one.der().clone(), two.der().clone()]);
        let trust = Trust::File { name: "\"f\"".to_owned(), certificates: found };
        assert_eq!(trust.roots().unwrap().len(), 2);
        assert!(trust.holds(one.der()) && !trust.holds(made().0.der()) && !Trust::System.holds(one.der()));
        assert_eq!(trust.to_string(), "\"f\" (--ca)");
    }

    #[test]
    fn what_is_wrong_with_a_file_is_told_apart() {
        let (one, key) = made();
        let cut = one.pem().replace("-----END CERTIFICATE-----", "");
        let garbage = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";
        for (bytes, expected) in [
            (&b""[..], CaError::NoCertificate),
            (b"[relay]\nlisten = 1\n", CaError::NoCertificate),
            (key.serialize_pem().as_bytes(), CaError::OnlyKey),
            (
                b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIB\n-----END ENCRYPTED PRIVATE KEY-----\n",
                CaError::OnlyKey,
            ),
            (one.der(), CaError::Der),
            (cut.as_bytes(), CaError::Damaged(1)),
            (format!("{}{garbage}", one.pem()).as_bytes(), CaError::Damaged(2)),
        ] {
            let refused = certificates(bytes).unwrap_err();
            assert_eq!(refused, expected);
            assert!(refused.to_string().contains("must be a PEM file with one or several certificates"));
        }
    }

    #[test]
    fn an_endless_file_is_not_read_to_its_end() {
        assert_eq!(Trust::in_file(Path::new("/dev/zero")).unwrap_err(), CaError::TooLarge);
        let missing = Trust::in_file(Path::new("/no/such/file")).unwrap_err().to_string();
        assert!(missing.starts_with("cannot be read (No such file"), "{missing}");
    }
}
