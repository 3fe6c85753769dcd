//! Whom the relay trusts when it is the client: of the authority's server, and of the relay that is probed.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::{PemObject, SectionKind};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore};

use super::read::{self, Unread};

/// How much of a file is read. The store of a whole system has less than a tenth of it.
const MAX_FILE: u64 = 16 * 1024 * 1024;

/// What the system trusts (on Debian, the package `ca-certificates`).
///
/// # Errors
/// There is nothing; says why, and what to do.
pub fn of_the_system() -> Result<RootCertStore, String> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // A system's store may hold what the library does not take; the rest of it is of use.
    roots.add_parsable_certificates(found.certs);
    if !roots.is_empty() {
        return Ok(roots);
    }
    let why = found.errors.first().map(|error| format!(" ({error})")).unwrap_or_default();
    Err(format!(
        "this system has no store of certificates to verify others with, or an empty one{why}; install the package \
         ca-certificates"
    ))
}

/// Why a file cannot say whom to trust.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CaError {
    /// It is not there or may not be read; the system's words.
    Unreadable(String),
    /// It is a directory, a pipe, a device or the like.
    NotAFile,
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
            Self::NotAFile => f.write_str("is not a regular file")?,
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
             -----END CERTIFICATE-----, of the authority that is to be trusted",
        )
    }
}

impl std::error::Error for CaError {}

/// The certificates of a file.
///
/// # Errors
/// It cannot be read, or what it holds is not certificates in PEM.
pub fn certificates_of(file: &Path) -> Result<Vec<CertificateDer<'static>>, CaError> {
    let bytes =
        read::open(file).and_then(|opened| read::whole(opened, MAX_FILE)).map_err(|why| match why {
            Unread::Failed(error) => CaError::Unreadable(error.to_string()),
            Unread::NotAFile => CaError::NotAFile,
            Unread::TooLarge => CaError::TooLarge,
        })?;
    certificates(&bytes)
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

/// A client that trusts these.
///
/// # Errors
/// The library has no suite of its own: a fault of this program.
pub fn client(roots: RootCertStore) -> Result<Arc<ClientConfig>, rustls::Error> {
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&TLS13, &TLS12])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
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
    fn only_regular_files_are_read_and_not_endlessly() {
        let directory = tempfile::tempdir().unwrap();
        let fifo = directory.path().join("fifo");
        assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        for other in [directory.path(), &fifo, Path::new("/dev/zero")] {
            assert_eq!(certificates_of(other).unwrap_err(), CaError::NotAFile);
        }
        let large = directory.path().join("large");
        std::fs::File::create(&large).unwrap().set_len(MAX_FILE + 1).unwrap();
        assert_eq!(certificates_of(&large).unwrap_err(), CaError::TooLarge);
        let missing = certificates_of(Path::new("/no/such/file")).unwrap_err().to_string();
        assert!(missing.starts_with("cannot be read (No such file"), "{missing}");
    }
}
