//! Whom the relay trusts when it is the client: of the authority's server, and of the relay that is probed.

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore};

use super::certificate::read_chain;

/// What the system trusts (on Debian, the package `ca-certificates`).
///
/// # Errors
/// There is nothing; says why, and what to do.
pub fn of_the_system() -> Result<RootCertStore, String> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let why = found.errors.first().map(|error| format!(" ({error})")).unwrap_or_default();
        return Err(format!(
            "this host trusts no certificate authority{why}; install the package ca-certificates"
        ));
    }
    Ok(roots)
}

/// The certificates of a file in PEM.
///
/// # Errors
/// It cannot be read, or holds no certificate that can vouch for others.
pub fn of_file(path: &Path) -> Result<RootCertStore, String> {
    let shown = path.display();
    let pem = std::fs::read(path).map_err(|error| format!("{shown}: cannot be read: {error}"))?;
    let mut roots = RootCertStore::empty();
    for certificate in read_chain(&pem).map_err(|flaw| format!("{shown}: {flaw}"))? {
        roots.add(certificate).map_err(|_| format!("{shown}: holds something that is not a certificate"))?;
    }
    Ok(roots)
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
