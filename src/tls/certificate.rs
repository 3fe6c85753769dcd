//! A certificate chain with its key, and whether it is one to serve with.
//!
//! Everything a client would reject is found here first, in words that say what to do: text that is no PEM, a key of an
//! unsupported kind or of another certificate, a certificate that has expired, and one that lacks a name.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::client::verify_server_name;
use rustls::crypto::ring;
use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use rustls::{Error as TlsError, InconsistentKeys};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;
use x509_parser::time::ASN1Time;

use super::Validity;

/// What is wrong with a certificate or a key, without the name of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Flaw {
    /// There is no certificate in the text. What else is in it, if anything.
    NoCertificate(Vec<String>),
    /// There is no key in the text. What else is in it, if anything.
    NoKey(Vec<String>),
    /// The key needs a passphrase.
    EncryptedKey,
    /// Something between the PEM markers is not what they say.
    Damaged,
    /// The certificate cannot be parsed.
    BadCertificate,
    /// The key cannot be parsed, or is of a kind that is not supported.
    BadKey,
    /// Certificate and key do not belong together.
    Mismatch,
    /// It ended, at this time.
    Expired(SystemTime),
    /// It begins at this time.
    NotYetValid(SystemTime),
    /// These names are not in it; those are.
    Names {
        /// What it should have.
        missing: Vec<String>,
        /// What it has.
        present: Vec<String>,
    },
}

impl Flaw {
    /// Whether another time, or a clock that is right, would mend it.
    #[must_use]
    pub fn is_of_time(&self) -> bool {
        matches!(self, Self::Expired(_) | Self::NotYetValid(_))
    }

    /// Whether the key is to blame, not the certificate.
    #[must_use]
    pub fn is_of_key(&self) -> bool {
        matches!(self, Self::NoKey(_) | Self::EncryptedKey | Self::BadKey | Self::Mismatch)
    }
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoCertificate(found) => {
                write!(f, "holds no certificate (-----BEGIN CERTIFICATE-----){}", Found(found))
            }
            Self::NoKey(found) => write!(
                f,
                "holds no private key (-----BEGIN PRIVATE KEY-----, EC PRIVATE KEY or RSA PRIVATE KEY){}",
                Found(found)
            ),
            Self::EncryptedKey => f.write_str(
                "is a key with a passphrase, which nobody could enter; write it without one: openssl pkey -in OLD -out NEW",
            ),
            Self::Damaged => f.write_str("is damaged: what stands between its BEGIN and END lines cannot be read"),
            Self::BadCertificate => f.write_str("holds something that is not a certificate"),
            Self::BadKey => f.write_str(
                "holds a key that cannot be used; allowed: ECDSA with P-256 or P-384, Ed25519, RSA with 2048 to 8192 bits",
            ),
            Self::Mismatch => f.write_str(
                "does not belong to the first certificate of tls.certificate; the relay's own certificate comes first there, \
                 its issuers behind it",
            ),
            Self::Expired(at) => write!(f, "expired on {}; renew it", date(*at)),
            Self::NotYetValid(at) => {
                write!(f, "is not valid before {}; is the clock of this host right?", date(*at))
            }
            Self::Names { missing, present } => {
                write!(f, "is not for {}, which tls.domains names", missing.join(", "))?;
                if present.is_empty() {
                    return f.write_str("; it is for no name at all (a subjectAltName is needed)");
                }
                write!(f, "; it is for {}", present.join(", "))
            }
        }
    }
}

impl std::error::Error for Flaw {}

/// What a text holds instead of what it should.
struct Found<'a>(&'a [String]);

impl fmt::Display for Found<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, "; it holds {}", self.0.join(", ")) }
    }
}

/// A time as a line of a log or a message has it.
pub(crate) fn date(at: SystemTime) -> humantime::Rfc3339Timestamp {
    humantime::format_rfc3339_seconds(at)
}

/// A chain and its key, which belong together.
#[derive(Clone, Debug)]
pub struct Certificate {
    key: Arc<CertifiedKey>,
    not_before: SystemTime,
    not_after: SystemTime,
    names: Vec<String>,
}

impl Certificate {
    /// Reads a chain, the own certificate first, and its key, both in PEM.
    ///
    /// # Errors
    /// Either cannot be read, or they do not belong together.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, Flaw> {
        let key = read_key(key)?;
        Self::new(read_chain(chain)?, &key)
    }

    /// A chain, the own certificate first, and its key.
    ///
    /// # Errors
    /// Either cannot be used, or they do not belong together.
    fn new(chain: Vec<CertificateDer<'static>>, key: &PrivateKeyDer<'static>) -> Result<Self, Flaw> {
        let signing = ring::sign::any_supported_type(key).map_err(|_| Flaw::BadKey)?;
        let own = chain.first().ok_or_else(|| Flaw::NoCertificate(Vec::new()))?;
        let (names, [not_before, not_after]) = describe(own)?;
        let key = CertifiedKey::new(chain, signing);
        match key.keys_match() {
            Ok(()) => {}
            Err(TlsError::InconsistentKeys(InconsistentKeys::KeyMismatch)) => return Err(Flaw::Mismatch),
            Err(_) => return Err(Flaw::BadCertificate),
        }
        Ok(Self { key: Arc::new(key), not_before, not_after, names })
    }

    /// Whether a client would take it at this time, for each of these names.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(&self, now: SystemTime, domains: &[String]) -> Result<(), Flaw> {
        if now > self.not_after {
            return Err(Flaw::Expired(self.not_after));
        }
        if now < self.not_before {
            return Err(Flaw::NotYetValid(self.not_before));
        }
        let own = self.key.cert.first().ok_or(Flaw::BadCertificate)?;
        let own = ParsedCertificate::try_from(own).map_err(|_| Flaw::BadCertificate)?;
        let is_missing = |domain: &&String| {
            ServerName::try_from(domain.as_str())
                .map_or(true, |name| verify_server_name(&own, &name).is_err())
        };
        let missing: Vec<String> = domains.iter().filter(is_missing).cloned().collect();
        if missing.is_empty() { Ok(()) } else { Err(Flaw::Names { missing, present: self.names.clone() }) }
    }

    /// What it is presented with.
    #[must_use]
    pub fn key(&self) -> &Arc<CertifiedKey> {
        &self.key
    }

    /// How long it holds.
    #[must_use]
    pub fn validity(&self) -> Validity {
        let lifetime = self.not_after.duration_since(self.not_before).unwrap_or_default();
        Validity { lifetime, not_after: self.not_after }
    }

    /// When it ends.
    #[must_use]
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// Host names and addresses that it is for.
    #[must_use]
    pub fn names(&self) -> &[String] {
        &self.names
    }
}

/// Every certificate of a text in PEM; at least one.
///
/// # Errors
/// There is none, or one is damaged.
pub(crate) fn read_chain(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Flaw> {
    let chain: Vec<_> =
        CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(|_| Flaw::Damaged)?;
    if chain.is_empty() { Err(Flaw::NoCertificate(labels(pem))) } else { Ok(chain) }
}

fn read_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, Flaw> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|error| {
        let found = labels(pem);
        if found.iter().any(|label| label == "ENCRYPTED PRIVATE KEY") {
            return Flaw::EncryptedKey;
        }
        // The old form keeps the label of a plain key.
        if find(pem, b"Proc-Type: 4,ENCRYPTED") {
            return Flaw::EncryptedKey;
        }
        match error {
            PemError::NoItemsFound => Flaw::NoKey(found),
            _ => Flaw::Damaged,
        }
    })
}

/// Names, and begin and end.
fn describe(own: &CertificateDer<'_>) -> Result<(Vec<String>, [SystemTime; 2]), Flaw> {
    let (_, parsed) = X509Certificate::from_der(own).map_err(|_| Flaw::BadCertificate)?;
    let names = names_of(&parsed).ok_or(Flaw::BadCertificate)?;
    let validity = parsed.validity();
    Ok((names, [time(validity.not_before), time(validity.not_after)]))
}

/// Host names and addresses that a certificate is for, as they stand in it; nothing if they cannot be read.
pub(crate) fn names_of(certificate: &X509Certificate<'_>) -> Option<Vec<String>> {
    let named = certificate.subject_alternative_name().ok()?;
    let name = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => address(bytes).map(|address| address.to_string()),
        _ => None,
    };
    Some(named.iter().flat_map(|names| &names.value.general_names).filter_map(name).collect())
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let short = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    short.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

fn time(at: ASN1Time) -> SystemTime {
    // Nobody's certificate ended before 1970.
    UNIX_EPOCH + Duration::from_secs(u64::try_from(at.timestamp()).unwrap_or(0))
}

/// The most labels that are told.
const LABELS: usize = 4;

/// What the BEGIN lines of a text announce, as far as they do so in the characters of labels.
fn labels(pem: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(pem);
    let label = |line: &str| {
        let label = line.trim().strip_prefix("-----BEGIN ")?.strip_suffix("-----")?;
        let plain =
            label.len() <= 40 && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b' ');
        plain.then(|| label.to_owned())
    };
    let mut found: Vec<_> = text.lines().filter_map(label).take(LABELS).collect();
    found.dedup();
    found
}

fn find(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair};

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
        let at = |days: u64| certificate.not_before + Duration::from_secs(days * 86_400);
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
