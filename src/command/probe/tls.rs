//! TLS for `wss://`: every connection shakes hands anew under one configuration, and every certificate is verified.
//!
//! The verdict on a certificate is the library's. Its errors do not bring the certificates that they are about, so they
//! are kept as they are shown, for the explanation. Sessions are not resumed: a resumed one would show no certificate,
//! and one that the relay can no longer show is what a probe is to find.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use futures_rustls::TlsConnector;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{AlertDescription, ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme};
use smol::net::TcpStream;

use super::answer::Witnessed;
use super::certificate::{self, Certificate};
use super::clock::Clock;
use super::explain::Trouble;
use super::mistrust::Attempt;
use super::report::TlsSession;
use super::target::Target;
use super::transport::Transport;
use super::trust::Trust;

/// The protocol that is spoken inside.
const ALPN: &[u8] = b"http/1.1";

/// What all TLS connections of a probe have in common.
pub(super) struct TlsClient<'a> {
    connector: TlsConnector,
    name: ServerName<'static>,
    keeper: Arc<Keeper>,
    trust: &'a Trust,
}

impl<'a> TlsClient<'a> {
    /// Gets everything ready that does not need the relay.
    pub(super) fn new(name: ServerName<'static>, trust: &'a Trust) -> Result<Self, String> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let roots = Arc::new(trust.roots()?);
        let verifier = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider)).build();
        let verifier = verifier.map_err(|error| error.to_string())?;
        let keeper = Arc::new(Keeper { verifier, shown: Mutex::default() });
        let versions = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let mut config = versions
            .map_err(|error| error.to_string())?
            .dangerous()
            .with_custom_certificate_verifier(Arc::<Keeper>::clone(&keeper))
            .with_no_client_auth();
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.resumption = Resumption::disabled();
        Ok(Self { connector: TlsConnector::from(Arc::new(config)), name, keeper, trust })
    }
}

/// The connection as its URL wants it: with TLS on it, if there is a client for that.
pub(super) async fn secured(
    clock: &Clock,
    target: &Target,
    client: Option<&TlsClient<'_>>,
    stream: TcpStream,
) -> Result<Transport, Trouble> {
    let Some(client) = client else {
        return Ok(Transport::Plain(stream));
    };
    client.keeper.change(|shown| *shown = Shown::default());
    let (stream, beginning) = Witnessed::new(stream);
    let shaking = async {
        client.connector.connect(client.name.clone(), stream).await.map_err(|error| {
            let shown = client.keeper.change(|shown| shown.clone());
            let attempt = Attempt { target, name: &client.name, trust: client.trust, shown, beginning };
            Trouble::NoTls { authority: target.authority(), why: attempt.why(&error) }
        })
    };
    let stream = clock.within(clock.deadlines.step, "the TLS handshake", shaking).await?;
    Ok(Transport::Tls(Box::new(stream)))
}

/// What was agreed on; nothing if this is no TLS.
pub(super) fn session(transport: &Transport) -> Option<TlsSession> {
    let Transport::Tls(stream) = transport else {
        return None;
    };
    let (_, connection) = stream.get_ref();
    let leaf = connection.peer_certificates().and_then(<[_]>::first).and_then(Certificate::read);
    let (names, not_after) = leaf.map_or((Vec::new(), None), |leaf| (leaf.names, Some(leaf.not_after)));
    Some(TlsSession { version: version(connection), names, not_after, seen_at: certificate::now() })
}

fn version(connection: &ClientConnection) -> &'static str {
    match connection.protocol_version() {
        Some(rustls::ProtocolVersion::TLSv1_3) => "TLSv1.3",
        _ => "TLSv1.2",
    }
}

/// What the library says went wrong, if this error is its.
pub(super) fn library_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref().and_then(|inner| inner.downcast_ref())
}

/// Whether the peer ended the connection because it wants to see a certificate of its client.
pub(super) fn wants_our_certificate(error: &io::Error) -> bool {
    let wanted = rustls::Error::AlertReceived(AlertDescription::CertificateRequired);
    library_error(error).is_some_and(|error| *error == wanted)
}

/// What a relay showed in its last handshake.
#[derive(Clone, Debug, Default)]
pub(super) struct Shown {
    /// Its own certificate first.
    pub(super) chain: Vec<CertificateDer<'static>>,
    /// Whether the chain was found good.
    pub(super) trusted: bool,
}

/// Has the library verify, and keeps what it is shown.
#[derive(Debug)]
struct Keeper {
    verifier: Arc<WebPkiServerVerifier>,
    shown: Mutex<Shown>,
}

impl Keeper {
    fn change<T>(&self, change: impl FnOnce(&mut Shown) -> T) -> T {
        change(&mut self.shown.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl ServerCertVerifier for Keeper {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verdict = self.verifier.verify_server_cert(leaf, others, name, ocsp_response, now);
        let chain = std::iter::once(leaf).chain(others).map(|one| one.clone().into_owned()).collect();
        self.change(|shown| *shown = Shown { chain, trusted: verdict.is_ok() });
        verdict
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls12_signature(message, leaf, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls13_signature(message, leaf, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}
