//! A relay with a certificate of an authority of its own, without a tunnel.

use std::net::TcpStream;
use std::sync::Arc;

use rustls::{ClientConfig, ClientConnection, StreamOwned};

use super::client::{Client, binary_headers, phone_headers, upgrade_over};
use super::eventually;
use super::relay::{Metrics, Options, Relay};
use super::tls::{Ca, Files, NAME, Pem, Secure};

/// What a client speaks through.
pub type Tls = StreamOwned<ClientConnection, TcpStream>;

/// The relay, its authority, and its files, which can be exchanged.
pub struct Secured {
    pub relay: Relay,
    pub ca: Ca,
    pub files: Files,
    directory: tempfile::TempDir,
}

impl Secured {
    /// For any host.
    pub fn start() -> Self {
        Self::with_options(Options::default(), "")
    }

    /// For [`NAME`] and b.example.com alone, with these sections.
    pub fn with(config: &str) -> Self {
        let domains = format!("domains = [\"{NAME}\", \"b.example.com\"]\n");
        Self::with_options(Options { config: config.to_owned(), ..Options::default() }, &domains)
    }

    /// As told, with these further keys in `[tls]`.
    pub fn with_options(options: Options, keys: &str) -> Self {
        let (ca, directory) = (Ca::new(), tempfile::tempdir().unwrap());
        std::fs::write(directory.path().join("root.pem"), ca.root()).unwrap();
        let files = ca.issue(&[NAME, "b.example.com"]).write(directory.path());
        let config = format!("{}{keys}{}", files.section(), options.config);
        let relay = Relay::with_options(Options { config, ..options });
        Self { relay, ca, files, directory }
    }

    /// A client that trusts its authority.
    pub fn client(&self) -> Arc<ClientConfig> {
        Arc::new(self.ca.client())
    }

    /// The file with the certificate of its authority.
    pub fn root(&self) -> String {
        self.directory.path().join("root.pem").display().to_string()
    }

    /// Gives it other files.
    pub fn write(&self, pem: &Pem) {
        let _ = pem.write(self.directory.path());
    }

    pub fn metrics(&self) -> Metrics {
        self.relay.try_metrics().unwrap()
    }

    /// Waits until a series has a value, without a connection of the test's own to the public address.
    pub fn wait_for(&self, series: &str, value: f64) {
        eventually(&format!("{series} = {value}"), || {
            let seen = self.metrics().get(series);
            if (seen - value).abs() < f64::EPSILON { Ok(()) } else { Err(seen.to_string()) }
        });
    }

    /// Handshakes that failed in a stage.
    pub fn failures(&self, stage: &str) -> f64 {
        self.metrics().get(&format!("handshake_failures_total{{stage=\"{stage}\"}}"))
    }

    pub fn wait_for_failures(&self, stage: &str, number: f64) {
        self.wait_for(&format!("handshake_failures_total{{stage=\"{stage}\"}}"), number);
    }

    /// It serves whoever knows how to ask.
    pub fn serves(&self) {
        let secure = Secure::connect(self.relay.address, NAME, &self.client()).unwrap();
        assert_eq!(secure.health(NAME), "200");
    }

    /// Upgrades a connection.
    pub fn upgrade(&self, path: &str, headers: &[(&str, &str)], client: &Arc<ClientConfig>) -> Client<Tls> {
        let secure = Secure::connect(self.relay.address, NAME, client).unwrap();
        upgrade_over(secure.into_stream(), &format!("wss://{NAME}{path}"), headers).unwrap()
    }

    pub fn binary(&self, server_id: &str) -> Client<Tls> {
        self.upgrade("/v2/server", &binary_headers(server_id), &self.client())
    }

    pub fn phone(&self, server_id: &str) -> Client<Tls> {
        self.upgrade("/v2/client", &phone_headers(server_id), &self.client())
    }

    /// The end of the certificate that a newcomer is shown.
    pub fn shown(&self) -> i64 {
        Secure::connect(self.relay.address, NAME, &self.client()).unwrap().certificate_ends()
    }

    /// Asks for a reload, and waits until as many have ended in this way.
    pub fn reload(&self, outcome: &str, number: f64) {
        self.relay.signal("HUP");
        self.wait_for(&format!("reloads_total{{outcome=\"{outcome}\"}}"), number);
    }
}
