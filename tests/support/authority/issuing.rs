//! Two roots: one for the authority's own HTTPS server, one, by way of an intermediate, for what it issues.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, PublicKeyData, SanType, SerialNumber,
};
use rustls::ServerConfig;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::PrivatePkcs8KeyDer;
use time::OffsetDateTime;

use super::Behaviour;
use super::records::Records;
use super::signing_request::Requested;

/// The name that [`Behaviour::WrongName`] certifies.
const ANOTHER_NAME: &str = "another.invalid";

/// A certificate that signs others.
struct Signer {
    certificate: rcgen::Certificate,
    key: KeyPair,
}

impl Signer {
    fn root(name: &str) -> Self {
        let key = KeyPair::generate().expect("a key");
        let certificate = authority(name, BasicConstraints::Unconstrained).self_signed(&key).expect("a root");
        Self { certificate, key }
    }

    fn intermediate(&self, name: &str) -> Self {
        let key = KeyPair::generate().expect("a key");
        let certificate = self.sign(authority(name, BasicConstraints::Constrained(0)), &key);
        Self { certificate, key }
    }

    fn sign(&self, mut params: CertificateParams, key: &impl PublicKeyData) -> rcgen::Certificate {
        // Otherwise it would be the key's hash, the same for every certificate of the key.
        let mut serial = [0; 16];
        getrandom::fill(&mut serial).expect("random numbers");
        serial[0] = serial[0] & 0x3f | 0x40;
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        params.use_authority_key_identifier_extension = true;
        params.signed_by(key, &self.certificate, &self.key).expect("signs")
    }
}

fn authority(name: &str, constraints: BasicConstraints) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(constraints);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn server(names: Vec<SanType>) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = names;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params
}

fn dns(name: &str) -> SanType {
    SanType::DnsName(name.try_into().expect("ASCII"))
}

/// The authority's own HTTPS server, and the root which its clients must trust.
pub(super) fn web_server() -> (String, Arc<ServerConfig>) {
    let root = Signer::root("Test web root");
    let key = KeyPair::generate().expect("a key");
    let names = vec![dns("localhost"), SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST))];
    let certificate = root.sign(server(names), &key);
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions of TLS")
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
        )
        .expect("a certificate and its key");
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    (root.certificate.pem(), Arc::new(config))
}

/// What certifies.
pub(super) struct Issuer {
    pub(super) root_pem: String,
    intermediate: Signer,
}

impl Issuer {
    pub(super) fn new() -> Self {
        let root = Signer::root("Test issuing root");
        Self {
            root_pem: root.certificate.pem(),
            intermediate: root.intermediate("Test issuing intermediate"),
        }
    }

    /// Certifies what was requested, or something else if the authority is told to. The certificate comes first, then
    /// the intermediate.
    pub(super) fn issue(&self, records: &Records, requested: &Requested) -> String {
        let names = match records.behaviour {
            Behaviour::WrongName => vec![dns(ANOTHER_NAME)],
            _ => requested.names.iter().map(|name| dns(name)).collect(),
        };
        let mut params = server(names);
        params.not_before = OffsetDateTime::now_utc() - records.backdate;
        params.not_after = params.not_before + records.lifetime;
        let certificate = match records.behaviour {
            Behaviour::WrongKey => self.intermediate.sign(params, &KeyPair::generate().expect("a key")),
            _ => self.intermediate.sign(params, requested),
        };
        certificate.pem() + &self.intermediate.certificate.pem()
    }
}
