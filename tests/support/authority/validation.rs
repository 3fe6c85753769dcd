//! Whether a name is the client's: what is presented for it at the address that the test named (RFC 8737 § 3).
//!
//! The certificate is critical about an extension that no verifier of chains knows, so it is read here, and the
//! handshake's signature is checked here with its key.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme};
use x509_parser::certificate::X509Certificate;
use x509_parser::der_parser::Oid;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

use super::problem::Problem;
use super::records::{Progress, Records};
use super::{Behaviour, Shared, p256};

/// The protocol in which a certificate proves something, and serves nobody.
const ACME_TLS: &[u8] = b"acme-tls/1";

/// id-pe-acmeIdentifier.
const ACME_IDENTIFIER: [u64; 9] = [1, 3, 6, 1, 5, 5, 7, 1, 31];

/// How long an address is waited for.
const ADDRESS_PATIENCE: Duration = Duration::from_secs(20);

/// How long each step at the address may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Validates an authorization, in a thread of its own.
pub(super) fn begin(shared: &Arc<Shared>, records: &Records, number: usize) {
    let fails = records.behaviour == Behaviour::FailValidation;
    let authorization = &records.authorizations[number];
    let name = authorization.name.clone();
    let expected = records.accounts[authorization.account].key.hashed_authorization(&authorization.token);
    shared.validating.begin({
        let shared = Arc::clone(shared);
        move || {
            let told = || Err(Problem::unauthorized("told to fail"));
            let outcome = if fails { told() } else { validate(&shared, &name, &expected) };
            shared.records().authorizations[number].progress = match outcome {
                Ok(()) => Progress::Valid,
                Err(problem) => Progress::Invalid(problem),
            };
        }
    });
}

fn validate(shared: &Shared, name: &str, expected: &[u8]) -> Result<(), Problem> {
    let waiting = |records: &mut Records| records.validate_at.is_none() && !records.ended;
    let (records, _) = shared
        .changed
        .wait_timeout_while(shared.records(), ADDRESS_PATIENCE, waiting)
        .unwrap_or_else(PoisonError::into_inner);
    let address = records.validate_at;
    drop(records);
    let address = address.ok_or_else(|| Problem::new(400, "dns", format!("nobody said where {name} is")))?;
    let presented = presented(shared, address, name)?;
    judge(&presented, name, expected).map_err(Problem::unauthorized)
}

/// The certificate that is presented for a name, in the protocol in which it proves something.
fn presented(shared: &Shared, address: SocketAddr, name: &str) -> Result<CertificateDer<'static>, Problem> {
    let failed = |error: io::Error| {
        // What TLS itself finds wrong, an alert from the other side included, is invalid data to the socket's eye.
        let kind = if error.kind() == ErrorKind::InvalidData { "tls" } else { "connection" };
        Problem::new(400, kind, format!("{name} at {address}: {error}"))
    };
    let socket = Arc::new(TcpStream::connect_timeout(&address, PATIENCE).map_err(failed)?);
    shared.validating.watch(&socket);
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.set_write_timeout(Some(PATIENCE)).unwrap();
    let capture = Arc::new(Capture::default());
    let mut config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions of TLS")
        .dangerous()
        .with_custom_certificate_verifier(capture.clone())
        .with_no_client_auth();
    config.alpn_protocols = vec![ACME_TLS.to_vec()];
    let server = ServerName::try_from(name.to_owned()).expect("an ordered name");
    let mut tls = ClientConnection::new(Arc::new(config), server).expect("a connection");
    while tls.is_handshaking() {
        tls.complete_io(&mut &*socket).map_err(failed)?;
    }
    let chosen = tls.alpn_protocol().map(<[u8]>::to_vec);
    tls.send_close_notify();
    // It has been seen; whether the other side still listens is its own affair.
    let _ = tls.complete_io(&mut &*socket);
    if chosen.as_deref() != Some(ACME_TLS) {
        let chosen = chosen.map(|one| String::from_utf8_lossy(&one).into_owned());
        return Err(Problem::unauthorized(format!("{name} does not choose acme-tls/1, but {chosen:?}")));
    }
    let certificate = capture.0.lock().unwrap().take();
    Ok(certificate.expect("a handshake that ended well has presented a certificate"))
}

/// Whether this certificate proves that the name is the account's.
fn judge(der: &[u8], name: &str, expected: &[u8]) -> Result<(), String> {
    let (rest, certificate) =
        X509Certificate::from_der(der).map_err(|error| format!("the certificate cannot be read: {error}"))?;
    if !rest.is_empty() {
        return Err("something follows the certificate".to_owned());
    }
    let key = certificate.public_key();
    let message = certificate.tbs_certificate.as_ref();
    let signature = &certificate.signature_value.data;
    if certificate.issuer() != certificate.subject()
        || !p256::signed(key, &certificate.signature_algorithm, message, signature)
    {
        return Err("the certificate is not signed by itself".to_owned());
    }
    let alternatives = match certificate.subject_alternative_name() {
        Ok(Some(alternatives)) => &alternatives.value.general_names,
        other => return Err(format!("the certificate's names: {other:?}")),
    };
    match alternatives[..] {
        [GeneralName::DNSName(only)] if only.eq_ignore_ascii_case(name) => {}
        _ => return Err(format!("the certificate is for {alternatives:?}, not for {name} alone")),
    }
    let identifier = Oid::from(&ACME_IDENTIFIER).expect("an object identifier");
    let extension = match certificate.get_extension_unique(&identifier) {
        Ok(Some(extension)) => extension,
        other => return Err(format!("the certificate's acmeIdentifier: {other:?}")),
    };
    if !extension.critical {
        return Err("the certificate's acmeIdentifier is not critical".to_owned());
    }
    // An OCTET STRING of 32 bytes, in the only way in which DER writes it.
    if extension.value != [&[0x04, 0x20], expected].concat() {
        return Err("the certificate's acmeIdentifier is not this challenge's".to_owned());
    }
    Ok(())
}

/// Keeps the certificate that was presented.
#[derive(Debug, Default)]
struct Capture(Mutex<Option<CertificateDer<'static>>>);

impl ServerCertVerifier for Capture {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        *self.0.lock().unwrap() = Some(certificate.clone().into_owned());
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let (_, certificate) =
            X509Certificate::from_der(certificate).map_err(|_| CertificateError::BadEncoding)?;
        let point = p256::point(certificate.public_key());
        if point.is_some_and(|point| p256::signed_in_asn1(point, message, signed.signature())) {
            return Ok(HandshakeSignatureValid::assertion());
        }
        Err(CertificateError::BadSignature.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verify_tls12_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}
