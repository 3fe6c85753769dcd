//! A certificate chain with its key, and whether it is one to serve with.
//!
//! Everything a client would reject is found here first, in words that say what to do: text that is no PEM, a key of an
//! unsupported kind or of another certificate, a chain that is none, a certificate that has expired, and one that lacks a name.

mod chain;
mod flaw;
mod pem;

use std::sync::Arc;
use std::time::SystemTime;

use rustls::crypto::ring;
use rustls::sign::{CertifiedKey, SigningKey};
use rustls::{Error as TlsError, InconsistentKeys};

pub use chain::Chain;
pub(crate) use chain::names_of;
pub(crate) use flaw::date;
pub use flaw::{Flaw, Form};

use super::Validity;

/// A chain and its key, which belong together.
#[derive(Clone, Debug)]
pub struct Certificate {
    key: Arc<CertifiedKey>,
    chain: Chain,
}

impl Certificate {
    /// Reads a chain, the own certificate first, and its key, both in PEM.
    ///
    /// # Errors
    /// Either cannot be read or used, or they do not belong together.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, Flaw> {
        let signing = read_key(key)?;
        let chain = Chain::from_pem(chain)?;
        let key = CertifiedKey::new(chain.certificates().to_vec(), signing);
        match key.keys_match() {
            Ok(()) => {}
            Err(TlsError::InconsistentKeys(InconsistentKeys::KeyMismatch)) => return Err(Flaw::Mismatch),
            Err(_) => return Err(Flaw::BadCertificate),
        }
        Ok(Self { key: Arc::new(key), chain })
    }

    /// Whether a client would take it at this time, for each of these names.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(&self, now: SystemTime, domains: &[String]) -> Result<(), Flaw> {
        self.chain.check(now, domains)
    }

    /// What it is presented with.
    #[must_use]
    pub fn key(&self) -> &Arc<CertifiedKey> {
        &self.key
    }

    /// How long it holds, with its issuers.
    #[must_use]
    pub fn validity(&self) -> Validity {
        self.chain.validity()
    }

    /// When it ends, or the first of its issuers does.
    #[must_use]
    pub fn not_after(&self) -> SystemTime {
        self.chain.not_after()
    }

    /// Host names and addresses that it is for.
    #[must_use]
    pub fn names(&self) -> &[String] {
        self.chain.names()
    }
}

/// A key in PEM, ready to sign with.
///
/// # Errors
/// It cannot be read or used.
pub(super) fn read_key(pem: &[u8]) -> Result<Arc<dyn SigningKey>, Flaw> {
    let key = pem::read_key(pem)?;
    ring::sign::any_supported_type(&key).map_err(|_| Flaw::BadKey)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    fn made(names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        change(&mut params);
        (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
    }

    fn flaw(chain: &str, key: &str) -> Flaw {
        Certificate::from_pem(chain.as_bytes(), key.as_bytes()).unwrap_err()
    }

    #[test]
    fn a_certificate_is_checked_as_a_client_would() {
        let (chain, key) = made(&["relay.example.com", "*.wild.example", "192.0.2.7"], |params| {
            params.not_before = rcgen::date_time_ymd(2024, 1, 1);
            params.not_after = rcgen::date_time_ymd(2025, 1, 1);
        });
        let certificate = Certificate::from_pem(chain.as_bytes(), key.as_bytes()).unwrap();
        assert_eq!(certificate.names(), ["relay.example.com", "*.wild.example", "192.0.2.7"]);
        assert_eq!(certificate.validity().lifetime, Duration::from_secs(366 * 86_400));
        let begin = SystemTime::from(rcgen::date_time_ymd(2024, 1, 1));
        let at = |days: u64| begin + Duration::from_secs(days * 86_400);
        let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();

        assert_eq!(certificate.check(at(0), &[]), Ok(()));
        assert_eq!(certificate.check(at(366), &names(&["relay.example.com", "a.wild.example"])), Ok(()));
        assert_eq!(certificate.check(at(5), &names(&["192.0.2.7"])), Ok(()));
        let late = certificate.check(at(367), &[]).unwrap_err();
        assert_eq!(late.to_string(), "expired on 2025-01-01T00:00:00Z; renew it");
        let early = certificate.check(at(0) - Duration::from_secs(1), &[]).unwrap_err();
        assert!(
            early.to_string().starts_with("is not valid before 2024-01-01T00:00:00Z; is the clock"),
            "{early}"
        );
        let other =
            certificate.check(at(5), &names(&["relay.example.com", "example.com", "a.b.wild.example"]));
        assert_eq!(
            other.unwrap_err().to_string(),
            "is not for example.com, a.b.wild.example, which tls.domains names; it is for relay.example.com, \
             *.wild.example, 192.0.2.7"
        );
    }

    #[test]
    fn what_is_in_a_file_instead_is_said() {
        let (chain, key) = made(&["a.example"], |_| ());
        let (_, other) = made(&["a.example"], |_| ());
        assert_eq!(flaw(&chain, &other), Flaw::Mismatch);
        assert!(flaw(&chain, &other).is_of_key());
        assert_eq!(
            flaw(&key, &key).to_string(),
            "holds no certificate (-----BEGIN CERTIFICATE-----); it holds PRIVATE KEY"
        );
        let swapped = flaw(&chain, &chain);
        assert_eq!(swapped, Flaw::NoKey(vec!["CERTIFICATE".to_owned()]));
        assert!(swapped.is_of_key());
        assert_eq!(flaw("", &key), Flaw::NoCertificate(Vec::new()));
        assert_eq!(flaw(&chain, "\u{1b}[2J"), Flaw::NoKey(Vec::new()));
        let encrypted = key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
        assert_eq!(flaw(&chain, &encrypted), Flaw::EncryptedKey);
        let old = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nAAAA\n-----END RSA PRIVATE KEY-----\n";
        assert_eq!(flaw(&chain, old), Flaw::EncryptedKey);
        let cut = chain.replace("-----END CERTIFICATE-----", "");
        assert_eq!(flaw(&cut, &key), Flaw::Damaged);
        let empty = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert_eq!(flaw(empty, &key), Flaw::BadCertificate);
        let empty = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
        assert_eq!(flaw(&chain, empty), Flaw::BadKey);
    }
}
