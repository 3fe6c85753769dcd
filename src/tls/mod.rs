//! TLS: who the relay is to those who connect, and how that changes while it runs.
//!
//! A certificate comes from [`files`] or from an authority ([`acme`]), and is checked as a client would check it
//! ([`certificate`]). [`Tls`] holds what is shown to new connections, the [`Identity`]. It is exchanged as a whole: a
//! connection keeps the one it began with, so an exchange touches nobody. The bytes of a connection are the business of
//! `ingress::tls`.
//!
//! TLS 1.2 and 1.3, with the suites of rustls' provider `ring`. Session tickets are sealed with keys that only this process
//! knows and that change every six hours; no session is stored. Early data is not taken: a replayed claim would be a claim.

pub mod acme;
pub mod certificate;
pub mod expiry;
pub mod files;
pub mod material;
mod read;
pub mod roots;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use event_listener::Event;
use rustls::crypto::{CryptoProvider, ring};
use rustls::server::{ClientHello, NoServerSessionStorage, ProducesTickets, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{Error, ServerConfig};

use crate::event;
use certificate::Certificate;

/// What is spoken inside (RFC 7301).
const HTTP: &[u8] = b"http/1.1";

/// What an authority speaks when it looks whether a name leads here (RFC 8737).
pub const ACME_TLS: &[u8] = b"acme-tls/1";

/// The names that the relay answers to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Domains(Arc<[String]>);

impl Domains {
    /// Host names, in lower case.
    #[must_use]
    pub fn new(names: &[String]) -> Self {
        Self(names.into())
    }

    /// Whether this is one of them, whatever its case, and with or without the dot that stands for the root.
    #[must_use]
    pub fn have(&self, name: &str) -> bool {
        let name = name.strip_suffix('.').unwrap_or(name);
        self.0.iter().any(|domain| domain.eq_ignore_ascii_case(name))
    }
}

/// Who the relay is to a connection.
pub struct Identity {
    /// How its handshake is answered.
    pub config: Arc<ServerConfig>,
    /// How long the certificate holds, if there is one.
    pub validity: Option<Validity>,
    /// The names that it may ask for; nothing if any will do.
    pub domains: Option<Domains>,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("domains", &self.domains).finish_non_exhaustive()
    }
}

/// Lifetime and end of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// From its begin to its end.
    pub lifetime: Duration,
    /// Its end.
    pub not_after: SystemTime,
}

/// Hears what becomes of certificates.
pub trait Listener: Send + Sync {
    /// This one is shown from now on.
    fn shown(&self, validity: Validity);
    /// There is none to show, and why.
    fn wanting(&self, why: &str);
    /// It cannot be renewed, and why; or it could.
    fn renewal_fails(&self, why: Option<&str>);
    /// It ends soon or has ended; or not.
    fn expires(&self, what: Option<&str>);
    /// The authority was asked, and issued one or not.
    fn ordered(&self, issued: bool);
}

/// Who the relay is to those who connect from now on.
pub struct Tls {
    identity: RwLock<Arc<Identity>>,
    changed: Event,
    provider: Arc<CryptoProvider>,
    tickets: Arc<dyn ProducesTickets>,
    challenges: Option<Arc<Challenges>>,
    listener: Arc<dyn Listener>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("identity", &self.identity()).finish_non_exhaustive()
    }
}

impl Tls {
    /// With this certificate, for these names or any.
    ///
    /// # Errors
    /// There is no randomness for the keys of tickets, or the library does not take the certificate.
    pub fn with_certificate(
        certificate: &Certificate,
        domains: Option<Domains>,
        listener: Arc<dyn Listener>,
    ) -> Result<Arc<Self>, Error> {
        let tls = Self::new(domains.clone(), None, listener)?;
        tls.present(certificate, domains)?;
        Ok(tls)
    }

    /// Without a certificate, until an authority has issued one: every handshake fails, but those of the authority.
    ///
    /// # Errors
    /// There is no randomness for the keys of tickets.
    pub fn with_challenges(
        domains: Domains,
        challenges: Arc<Challenges>,
        listener: Arc<dyn Listener>,
    ) -> Result<Arc<Self>, Error> {
        Self::new(Some(domains), Some(challenges), listener)
    }

    fn new(
        domains: Option<Domains>,
        challenges: Option<Arc<Challenges>>,
        listener: Arc<dyn Listener>,
    ) -> Result<Arc<Self>, Error> {
        let provider = Arc::new(ring::default_provider());
        let tickets = ring::Ticketer::new()?;
        let identity = identity(&provider, &tickets, None, domains, challenges.clone())?;
        let identity = RwLock::new(identity);
        Ok(Arc::new(Self { identity, changed: Event::new(), provider, tickets, challenges, listener }))
    }

    /// Shows this certificate from now on, to those who ask for these names or any.
    ///
    /// # Errors
    /// The library does not take it; everything stays as it was.
    pub fn present(&self, certificate: &Certificate, domains: Option<Domains>) -> Result<(), Error> {
        let challenges = self.challenges.clone();
        let new = identity(&self.provider, &self.tickets, Some(certificate), domains, challenges)?;
        *self.identity.write().unwrap_or_else(PoisonError::into_inner) = new;
        self.changed.notify(usize::MAX);
        event::certificate_loaded(certificate.names(), certificate.not_after());
        self.listener.shown(certificate.validity());
        Ok(())
    }

    /// Who the relay is at this moment.
    #[must_use]
    pub fn identity(&self) -> Arc<Identity> {
        Arc::clone(&self.identity.read().unwrap_or_else(PoisonError::into_inner))
    }
}

fn identity(
    provider: &Arc<CryptoProvider>,
    tickets: &Arc<dyn ProducesTickets>,
    certificate: Option<&Certificate>,
    domains: Option<Domains>,
    challenges: Option<Arc<Challenges>>,
) -> Result<Arc<Identity>, Error> {
    let mut alpn = vec![HTTP.to_vec()];
    alpn.extend(challenges.is_some().then(|| ACME_TLS.to_vec()));
    let chooser = Chooser {
        certificate: certificate.map(|certificate| Arc::clone(certificate.key())),
        domains: domains.clone(),
        challenges,
    };
    let mut config = ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(&[&TLS13, &TLS12])?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(chooser));
    config.alpn_protocols = alpn;
    config.ticketer = Arc::clone(tickets);
    config.session_storage = Arc::new(NoServerSessionStorage {});
    let validity = certificate.map(Certificate::validity);
    Ok(Arc::new(Identity { config: Arc::new(config), validity, domains }))
}

/// Chooses what a client is shown.
#[derive(Debug)]
struct Chooser {
    certificate: Option<Arc<CertifiedKey>>,
    domains: Option<Domains>,
    challenges: Option<Arc<Challenges>>,
}

impl ResolvesServerCert for Chooser {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name();
        if speaks_only_acme(&hello) {
            return self.challenges.as_ref()?.answer(name?);
        }
        // A client that names nobody may well mean us: clients that connect to an address do not name it.
        let is_ours = |name| self.domains.as_ref().is_none_or(|domains| domains.have(name));
        name.is_none_or(is_ours).then(|| self.certificate.clone())?
    }
}

fn speaks_only_acme(hello: &ClientHello<'_>) -> bool {
    hello.alpn().is_some_and(|mut offered| offered.next() == Some(ACME_TLS) && offered.next().is_none())
}

/// What an authority is answered when it looks whether a name leads here.
#[derive(Debug, Default)]
pub struct Challenges(Mutex<HashMap<String, Arc<CertifiedKey>>>);

impl Challenges {
    /// From now on, until what is returned is dropped, whoever asks for `domain` is shown this.
    #[must_use]
    pub fn set(self: &Arc<Self>, domain: String, answer: Arc<CertifiedKey>) -> Challenge {
        self.lock().insert(domain.clone(), answer);
        Challenge { challenges: Arc::clone(self), domain }
    }

    fn answer(&self, domain: &str) -> Option<Arc<CertifiedKey>> {
        self.lock().get(domain).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<CertifiedKey>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One answer; without it, there is none.
#[derive(Debug)]
pub struct Challenge {
    challenges: Arc<Challenges>,
    domain: String,
}

impl Drop for Challenge {
    fn drop(&mut self) {
        self.challenges.lock().remove(&self.domain);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_same_whatever_their_case() {
        let domains = Domains::new(&["relay.example.com".to_owned(), "127.0.0.1".to_owned()]);
        for name in ["relay.example.com", "RELAY.Example.com", "relay.example.com.", "127.0.0.1"] {
            assert!(domains.have(name), "{name}");
        }
        for name in ["", ".", "relay.example.com..", "example.com", "xrelay.example.com", "relay.example.co"]
        {
            assert!(!domains.have(name), "{name}");
        }
    }
}
