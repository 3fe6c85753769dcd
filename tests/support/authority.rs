//! A certificate authority that speaks ACME (RFC 8555) with the challenge TLS-ALPN-01 (RFC 8737), inside the test.
//!
//! One thread accepts, one serves each connection (one request each, as `Connection: close` says), and one validates
//! each challenge that was triggered. What the authority knows is behind one lock, in `records`; a request is read by
//! `http`, its signature is checked by `jws`, and `protocol` does what it asks for. `validation` connects to the
//! address that the test names and judges what is presented there; `signing_request` judges what is to be certified,
//! and `issuing` certifies it. Nothing is taken on trust, since a client that is wrong must fail here and not only
//! before an authority that the world relies on.
//!
//! Keys are P-256 throughout: the account's, the challenge certificate's, the one to be certified.

#![allow(dead_code, unreachable_pub, reason = "each test program uses its own part of the authority")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "an authority that cannot work is a failed test, with its line"
)]

#[path = "authority/http.rs"]
mod http;
#[path = "authority/issuing.rs"]
mod issuing;
#[path = "authority/jws.rs"]
mod jws;
#[path = "authority/p256.rs"]
mod p256;
#[path = "authority/problem.rs"]
mod problem;
#[path = "authority/protocol.rs"]
mod protocol;
#[path = "authority/records.rs"]
mod records;
#[path = "authority/serving.rs"]
mod serving;
#[path = "authority/signing_request.rs"]
mod signing_request;
#[path = "authority/validation.rs"]
mod validation;

use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustls::ServerConfig;

use issuing::Issuer;
use records::Records;
use serving::{Crew, Port};

/// What the authority does from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// What it should.
    Normal,
    /// It refuses every new order with this problem. `kind` is what follows `urn:ietf:params:acme:error:`.
    RefuseOrders {
        /// The status of the answer.
        status: u16,
        /// The problem's type, without its prefix.
        kind: &'static str,
        /// The problem's detail.
        detail: &'static str,
    },
    /// It refuses every new account, known or not, with this problem.
    RefuseAccounts {
        /// The status of the answer.
        status: u16,
        /// The problem's type, without its prefix.
        kind: &'static str,
        /// The problem's detail.
        detail: &'static str,
    },
    /// A challenge that is triggered fails at once, and nobody connects to see what would be presented.
    FailValidation,
    /// It reads every request, and never answers; the connection stays open until the client or `stop` ends it.
    Stall,
    /// It closes every connection as soon as it has accepted it.
    HangUp,
    /// Certificates are for a key that nobody asked for.
    WrongKey,
    /// Certificates are for a name that nobody asked for, and for no other.
    WrongName,
    /// An order that is finalized is processed for so many polls before it is valid.
    Processing(u32),
    /// So many signed requests, good ones otherwise, are refused for their nonce; then all is normal.
    BadNonces(u32),
    /// Every GET and POST is answered with status 200 and a body that is neither JSON nor PEM, and nothing is done.
    Garbage,
}

/// A request that was read.
#[derive(Clone, Debug)]
pub struct Seen {
    /// When it had been read.
    pub at: Instant,
    /// Its method.
    pub method: String,
    /// Its path.
    pub path: String,
    /// The status it was answered with. `None`: it was not answered ([`Behaviour::Stall`]).
    pub status: Option<u16>,
}

/// The authority. All of it ends when this is dropped.
pub struct Authority {
    shared: Arc<Shared>,
    port: Port,
}

/// What its threads have in common.
struct Shared {
    address: SocketAddr,
    tls: Arc<ServerConfig>,
    web_root_pem: String,
    issuer: Issuer,
    records: Mutex<Records>,
    /// Told when the address to validate at is known, and when the authority ends.
    changed: Condvar,
    serving: Crew,
    validating: Crew,
}

impl Shared {
    fn records(&self) -> MutexGuard<'_, Records> {
        // A thread that panicked is reported when it is joined; until then its panic is not to hide behind others.
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn url(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.address.port())
    }
}

impl Authority {
    /// Starts one on a port of its own.
    pub fn start() -> Self {
        let port = Port::take();
        let (web_root_pem, tls) = issuing::web_server();
        let shared = Arc::new(Shared {
            address: port.address(),
            tls,
            web_root_pem,
            issuer: Issuer::new(),
            records: Mutex::new(Records::new()),
            changed: Condvar::new(),
            serving: Crew::default(),
            validating: Crew::default(),
        });
        serving::start(&shared, port.listen());
        Self { shared, port }
    }

    /// Where it listens, unless it is stopped.
    pub fn address(&self) -> SocketAddr {
        self.shared.address
    }

    /// Where a client begins.
    pub fn directory(&self) -> String {
        self.shared.url("/directory")
    }

    /// The root of its own HTTPS server: what a client of the authority must trust.
    pub fn web_root_pem(&self) -> String {
        self.shared.web_root_pem.clone()
    }

    /// The root of the certificates that it issues: what their users must trust. The HTTPS server has another.
    pub fn issuing_root_pem(&self) -> String {
        self.shared.issuer.root_pem.clone()
    }

    /// Where every name is looked for. A validation that was triggered before this is known waits for it.
    pub fn validate_at(&self, address: SocketAddr) {
        self.shared.records().validate_at = Some(address);
        self.shared.changed.notify_all();
    }

    /// From now on a certificate is valid for so long, counted from its `notBefore`. In the beginning: 90 days.
    pub fn issue_for(&self, lifetime: Duration) {
        self.shared.records().lifetime = lifetime;
    }

    /// From now on a certificate's `notBefore` is so long ago. In the beginning: not at all.
    pub fn backdate(&self, age: Duration) {
        self.shared.records().backdate = age;
    }

    /// From now on it behaves like this. A connection, an authorization or an order goes by what was said when it was
    /// accepted, triggered or finalized.
    pub fn behave(&self, behaviour: Behaviour) {
        self.shared.records().behaviour = behaviour;
    }

    /// Ends every connection and refuses new ones. The port stays the authority's; validations go on.
    ///
    /// # Panics
    /// When a thread that served a connection has.
    pub fn stop(&self) {
        self.shared.serving.close();
        // Wakes the thread that accepts; it sees that it must end.
        drop(TcpStream::connect(self.shared.address));
        self.shared.serving.join();
    }

    /// Serves again after `stop`, on the same port, and knows what it knew.
    ///
    /// # Panics
    /// When it was not stopped.
    pub fn start_again(&self) {
        self.shared.serving.open();
        serving::start(&self.shared, self.port.listen());
    }

    /// Every request that was read, in the order of the answers.
    pub fn requests(&self) -> Vec<Seen> {
        self.shared.records().requests.clone()
    }

    /// How many connections were accepted, those on which no request came included.
    pub fn connections(&self) -> usize {
        self.shared.records().connections
    }

    /// How many orders were taken.
    pub fn orders(&self) -> usize {
        self.shared.records().orders.len()
    }

    /// How many certificates were issued.
    pub fn issued(&self) -> usize {
        self.shared.records().certificates.len()
    }

    /// How many accounts there are.
    pub fn accounts(&self) -> usize {
        self.shared.records().accounts.len()
    }

    /// The contacts of all accounts, as they were sent (`mailto:...`).
    pub fn contacts(&self) -> Vec<String> {
        self.shared.records().accounts.iter().flat_map(|account| account.contact.clone()).collect()
    }

    /// How many validations were triggered, finished or not.
    pub fn validations(&self) -> usize {
        self.shared.records().validations
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        self.shared.records().ended = true;
        self.shared.changed.notify_all();
        self.stop();
        self.shared.validating.close();
        self.shared.validating.join();
    }
}
