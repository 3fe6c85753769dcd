//! What can be wrong with a certificate or a key, and what to do about it.

use std::fmt;
use std::time::SystemTime;

/// What is wrong with a certificate or a key, without the name of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Flaw {
    /// There is no certificate in the text. What else is in it, if anything.
    NoCertificate(Vec<String>),
    /// There is no key in the text. What else is in it, if anything.
    NoKey(Vec<String>),
    /// What should hold certificates is written in another way than PEM.
    CertificateForm(Form),
    /// What should hold a key is written in another way than PEM.
    KeyForm(Form),
    /// The key needs a passphrase.
    EncryptedKey,
    /// Something between the PEM markers of certificates is not what they say.
    Damaged,
    /// The same of a key.
    DamagedKey,
    /// The relay's own certificate cannot be parsed.
    BadCertificate,
    /// The certificate with this number, counted from 1, cannot be parsed.
    BadIssuer(usize),
    /// The key cannot be parsed, or is of a kind that is not supported.
    BadKey,
    /// Certificate and key do not belong together.
    Mismatch,
    /// A certificate of the chain was not issued by the one behind it. All by their subjects.
    Unlinked {
        /// The certificate.
        certificate: String,
        /// Who issued it.
        issuer: String,
        /// What stands behind it.
        next: String,
    },
    /// The relay's own certificate is that of an authority.
    Authority,
    /// It is for something else than servers.
    Purpose,
    /// It is for no name.
    Nameless,
    /// It ended, at this time.
    Expired(SystemTime),
    /// It begins at this time.
    NotYetValid(SystemTime),
    /// The issuer with this subject ended, at this time.
    IssuerExpired(String, SystemTime),
    /// The issuer with this subject begins at this time.
    IssuerNotYetValid(String, SystemTime),
    /// These names are not in it; those are.
    Names {
        /// What it should have.
        missing: Vec<String>,
        /// What it has.
        present: Vec<String>,
    },
}

/// How a text is written that is not quite PEM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Form {
    /// It begins with the mark that some editors put in front of UTF-8.
    ByteOrderMark,
    /// Two bytes for each character.
    Utf16,
    /// Lines begin with spaces or tabs.
    Indented,
    /// A certificate in DER.
    DerCertificate,
    /// A key in DER, most likely.
    DerKey,
    /// Something else that is no text.
    Binary,
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ByteOrderMark => {
                "begins with a byte order mark (UTF-8 with BOM), which PEM does not have; remove it: \
                 tail -c +4 OLD > NEW"
            }
            Self::Utf16 => "is in UTF-16, which PEM is not; convert it: iconv -f UTF-16 -t UTF-8 OLD > NEW",
            Self::Indented => {
                "has lines that are indented, which PEM does not allow; take the spaces away: \
                 sed 's/^[[:space:]]*//' OLD > NEW"
            }
            Self::DerCertificate => {
                "is a certificate in binary (DER), not in PEM; convert it: openssl x509 -inform der -in OLD -out NEW"
            }
            Self::DerKey => {
                "is in binary (DER), not in PEM; convert it: openssl pkey -inform der -in OLD -out NEW"
            }
            Self::Binary => {
                "is in binary and no certificate (PKCS#12, perhaps), but must be certificates in PEM; \
                 openssl pkcs12 -in OLD takes such a file apart"
            }
        })
    }
}

impl Flaw {
    /// Whether another time, or a clock that is right, would mend it.
    #[must_use]
    pub fn is_of_time(&self) -> bool {
        matches!(
            self,
            Self::Expired(_) | Self::NotYetValid(_) | Self::IssuerExpired(..) | Self::IssuerNotYetValid(..)
        )
    }

    /// Whether the key is to blame, not the certificate.
    #[must_use]
    pub fn is_of_key(&self) -> bool {
        matches!(
            self,
            Self::NoKey(_)
                | Self::KeyForm(_)
                | Self::EncryptedKey
                | Self::DamagedKey
                | Self::BadKey
                | Self::Mismatch
        )
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
            Self::CertificateForm(form) | Self::KeyForm(form) => form.fmt(f),
            Self::EncryptedKey => f.write_str(
                "is a key with a passphrase, which nobody could enter; write it without one: openssl pkey -in OLD -out NEW",
            ),
            Self::Damaged | Self::DamagedKey => {
                f.write_str("is damaged: what stands between its BEGIN and END lines cannot be read")
            }
            Self::BadCertificate => f.write_str("holds something that is not a certificate"),
            Self::BadIssuer(number) => {
                write!(f, "holds something that is not a certificate, in place {number}")
            }
            Self::BadKey => f.write_str(
                "holds a key that cannot be used; allowed: ECDSA with P-256 or P-384, Ed25519, RSA with 2048 to 8192 bits",
            ),
            Self::Mismatch => f.write_str(
                "does not belong to the first certificate of tls.certificate; the relay's own certificate comes first there, \
                 its issuers behind it",
            ),
            Self::Unlinked { certificate, issuer, next } => write!(
                f,
                "is no chain: {certificate} was issued by {issuer}, but {next} stands behind it; the relay's own certificate \
                 comes first, and behind each certificate the one of its issuer, or nothing"
            ),
            Self::Authority => f.write_str(
                "is the certificate of an authority (CA:TRUE), which clients refuse from a server; make a self-signed one \
                 with: openssl req -x509 -addext basicConstraints=critical,CA:FALSE ...",
            ),
            Self::Purpose => f.write_str(
                "is not for servers; its extendedKeyUsage must have serverAuth, or it must have no extendedKeyUsage",
            ),
            Self::Nameless => f.write_str(
                "is for no name at all; it must have a host name or an IP address in its subjectAltName, a common name does \
                 not count",
            ),
            Self::Expired(at) => write!(f, "expired on {}; renew it", date(*at)),
            Self::NotYetValid(at) => {
                write!(f, "is not valid before {}; is the clock of this host right?", date(*at))
            }
            Self::IssuerExpired(subject, at) => write!(
                f,
                "holds an issuer that expired: {subject}, on {}; get the chain that its authority has now",
                date(*at)
            ),
            Self::IssuerNotYetValid(subject, at) => write!(
                f,
                "holds an issuer that is not valid before {}: {subject}; is the clock of this host right?",
                date(*at)
            ),
            Self::Names { missing, present } => write!(
                f,
                "is not for {}, which tls.domains names; it is for {}",
                missing.join(", "),
                present.join(", ")
            ),
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
