//! Certificates, made for the test that needs them.

use std::io::Write;

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tempfile::NamedTempFile;
use time::{Duration, OffsetDateTime};

/// Whoever issues certificates.
pub(crate) struct Authority {
    certificate: Certificate,
    key: KeyPair,
    /// What a server must send along for it, to the root and without it.
    chain: Vec<CertificateDer<'static>>,
}

/// What a server shows, and the key to it.
pub(crate) struct Identity {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
}

/// A certificate for this host's names, from yesterday to in ninety days.
pub(crate) fn leaf() -> CertificateParams {
    leaf_for(&["localhost", "127.0.0.1"])
}

pub(crate) fn leaf_for(names: &[&str]) -> CertificateParams {
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let mut parameters = CertificateParams::new(names).unwrap();
    parameters.distinguished_name.push(DnType::CommonName, "a relay");
    parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    valid(parameters, -1, 90)
}

/// The same, valid from so many days on and for so many, counted from now, and an hour more.
pub(crate) fn valid(mut parameters: CertificateParams, from: i64, until: i64) -> CertificateParams {
    let now = OffsetDateTime::now_utc() + Duration::hours(1);
    parameters.not_before = now + Duration::days(from);
    parameters.not_after = now + Duration::days(until);
    parameters
}

pub(crate) fn authority_named(name: &str) -> CertificateParams {
    let mut parameters = CertificateParams::new(Vec::new()).unwrap();
    parameters.distinguished_name.push(DnType::CommonName, name);
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    valid(parameters, -1, 365)
}

impl Authority {
    /// One that nobody stands above.
    pub(crate) fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let certificate = authority_named(name).self_signed(&key).unwrap();
        Self { certificate, key, chain: Vec::new() }
    }

    /// One below this one.
    pub(crate) fn intermediate(&self, parameters: CertificateParams) -> Self {
        let key = KeyPair::generate().unwrap();
        let certificate = parameters.signed_by(&key, &self.certificate, &self.key).unwrap();
        let mut chain = vec![certificate.der().clone()];
        chain.extend(self.chain.iter().cloned());
        Self { certificate, key, chain }
    }

    pub(crate) fn issue(&self, parameters: CertificateParams) -> Identity {
        let key = KeyPair::generate().unwrap();
        let certificate = parameters.signed_by(&key, &self.certificate, &self.key).unwrap();
        let mut chain = vec![certificate.der().clone()];
        chain.extend(self.chain.iter().cloned());
        Identity { chain, key: private(&key) }
    }

    /// Its certificate in a file.
    pub(crate) fn file(&self) -> NamedTempFile {
        file(self.certificate.pem().as_bytes())
    }

    /// What it shows if it is itself the server.
    pub(crate) fn identity(&self) -> Identity {
        Identity { chain: vec![self.certificate.der().clone()], key: private(&self.key) }
    }

    pub(crate) fn key(&self) -> &KeyPair {
        &self.key
    }

    pub(crate) fn der(&self) -> &CertificateDer<'static> {
        self.certificate.der()
    }
}

/// A certificate that its own key signed.
pub(crate) fn self_signed(parameters: CertificateParams) -> Identity {
    let key = KeyPair::generate().unwrap();
    let certificate = parameters.self_signed(&key).unwrap();
    Identity { chain: vec![certificate.der().clone()], key: private(&key) }
}

/// A file with this in it, which goes away with the value.
pub(crate) fn file(bytes: &[u8]) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    file
}

/// A certificate in a file.
pub(crate) fn pem_file(certificate: &CertificateDer<'_>) -> NamedTempFile {
    let text = data_encoding::BASE64.encode(certificate);
    file(format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n").as_bytes())
}

fn private(key: &KeyPair) -> PrivateKeyDer<'static> {
    PrivatePkcs8KeyDer::from(key.serialize_der()).into()
}
