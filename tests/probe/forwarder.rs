//! TLS before a listener that has none: each connection's TLS ends here, and what is inside is passed on.

use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;

use futures_lite::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, future};
use futures_rustls::TlsAcceptor;
use rustls::pki_types::CertificateDer;
use rustls::server::{ResolvesServerCert, ResolvesServerCertUsingSni, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{RootCertStore, ServerConfig};
use smol::net::{TcpListener, TcpStream};

use crate::certificates::Identity;

/// How connections end whose inner side has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manners {
    /// With the notice that TLS has for it.
    Polite,
    /// With nothing but the end of TCP.
    Rude,
}

/// A forwarder. It takes no more connections when this is dropped.
pub(crate) struct Forwarder {
    pub(crate) address: SocketAddr,
    _accepting: smol::Task<()>,
}

impl Forwarder {
    /// Forwards to `inner`.
    pub(crate) fn new(inner: SocketAddr, config: ServerConfig) -> Self {
        Self::with(inner, config, Manners::Polite)
    }

    pub(crate) fn with(inner: SocketAddr, config: ServerConfig, manners: Manners) -> Self {
        let listener = smol::block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let accepting = smol::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                smol::spawn(forward(stream, acceptor.clone(), inner, manners)).detach();
            }
        });
        Self { address, _accepting: accepting }
    }

    /// Its URL by address.
    pub(crate) fn url(&self) -> String {
        format!("wss://{}", self.address)
    }

    /// Its URL by name.
    pub(crate) fn named(&self) -> String {
        format!("wss://localhost:{}", self.address.port())
    }
}

async fn forward(stream: TcpStream, acceptor: TlsAcceptor, inner: SocketAddr, manners: Manners) {
    let outer = match acceptor.accept(stream).into_fallible().await {
        Ok(outer) => outer,
        Err((_, mut stream)) => {
            // What is still under way must not turn the end of the connection, and the alert before it, into a reset.
            let _ = stream.shutdown(Shutdown::Write);
            let _ = stream.read_to_end(&mut Vec::new()).await;
            return;
        }
    };
    let inner = TcpStream::connect(inner).await.unwrap();
    inner.set_nodelay(true).unwrap();
    let (outer_read, mut outer_write) = smol::io::split(outer);
    let mut inner_write = inner.clone();
    let inwards = async {
        pump(outer_read, &mut inner_write).await;
        let _ = inner.shutdown(Shutdown::Write);
    };
    let outwards = async {
        pump(inner.clone(), &mut outer_write).await;
        match manners {
            Manners::Polite => drop(outer_write.close().await),
            // Whatever the probe still sends, the connection ends.
            Manners::Rude => return,
        }
        future::pending::<()>().await;
    };
    let inwards = async {
        inwards.await;
        if manners == Manners::Rude {
            future::pending::<()>().await;
        }
    };
    future::or(outwards, inwards).await;
}

/// Passes everything on, at once, until either side ends.
async fn pump(mut from: impl AsyncRead + Unpin, to: &mut (impl AsyncWrite + Unpin)) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let count = match from.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(count) => count,
        };
        if to.write_all(&buffer[..count]).await.is_err() || to.flush().await.is_err() {
            return;
        }
    }
}

/// Every version, HTTP/1.1, and this identity.
pub(crate) fn config(identity: Identity) -> ServerConfig {
    config_with(identity, rustls::ALL_VERSIONS, b"http/1.1")
}

pub(crate) fn config_with(
    identity: Identity,
    versions: &[&'static rustls::SupportedProtocolVersion],
    alpn: &[u8],
) -> ServerConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let key = provider.key_provider.load_private_key(identity.key).unwrap();
    let resolver = SingleCertAndKey::from(CertifiedKey::new(identity.chain, key));
    resolving(Arc::new(resolver), versions, alpn)
}

/// No certificate, whatever is asked for.
pub(crate) fn config_without_certificate() -> ServerConfig {
    resolving(Arc::new(ResolvesServerCertUsingSni::new()), rustls::ALL_VERSIONS, b"http/1.1")
}

/// A server that wants a certificate of its clients, by this authority.
pub(crate) fn config_for_known_clients(
    identity: Identity,
    authority: &CertificateDer<'_>,
    version: &'static rustls::SupportedProtocolVersion,
) -> ServerConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(authority.clone().into_owned()).unwrap();
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build().unwrap();
    ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(identity.chain, identity.key)
        .unwrap()
}

fn resolving(
    resolver: Arc<dyn ResolvesServerCert>,
    versions: &[&'static rustls::SupportedProtocolVersion],
    alpn: &[u8],
) -> ServerConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(resolver);
    config.alpn_protocols = vec![alpn.to_vec()];
    config
}
