//! The table of keys: the one place that knows what can be configured.
//!
//! The macro `tables!` turns each line of the table into a field of a public struct, its default, and a [`Key`] that reads
//! and writes it. A key is added by adding its line, together with what acts on it: a setting that is silently ignored is
//! worse than one that is missing.

use std::time::Duration;

use ipnet::IpNet;
use toml::de::DeValue;

use crate::event::{Format, Level};

use super::kind::{Count, Kind, List, Optional, Size, Time, checked, text};
use super::listen::{MetricsListen, PublicListen};
use super::loopback::LoopbackAddr;
use super::problem::Fault;
use super::types::{
    CLIENT_ADDRESS_SOURCE, ClientAddressSource, LOG_FORMAT, LOG_LEVEL, PLAINTEXT, Plaintext, TLS_MODE,
    TlsMode, absolute_path, contact, domain, https_url, network, path_or_credential, server_id,
};

/// One key of the configuration file.
#[derive(Debug)]
pub struct Key {
    /// The table it stands in, such as `session`.
    pub table: &'static str,
    /// Its name within the table, such as `grace`.
    pub name: &'static str,
    /// What it means.
    pub doc: &'static str,
    pub(super) read: fn(&mut Config, &DeValue<'_>) -> Result<(), Vec<Fault>>,
    pub(super) write: fn(&Config) -> Option<String>,
    allowed: fn() -> String,
}

impl Key {
    /// The dotted name, such as `session.grace`.
    #[must_use]
    pub fn path(&self) -> String {
        format!("{}.{}", self.table, self.name)
    }

    /// The default as TOML; nothing for a key that has no value unless it is written.
    #[must_use]
    pub fn default(&self) -> Option<String> {
        (self.write)(&Config::default())
    }

    /// What may be written, in words.
    #[must_use]
    pub fn allowed(&self) -> String {
        (self.allowed)()
    }
}

/// Every key, in the order of the reference file.
#[must_use]
pub fn keys() -> &'static [Key] {
    KEYS
}

macro_rules! tables {
    ($(
        #[doc = $table_doc:literal]
        $table:ident: $Table:ident {
            $( #[doc = $doc:literal] $name:ident: $ty:ty = $default:expr, $kind:expr; )*
        }
    )*) => {
        /// A validated configuration: one group for each table of the file.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct Config {
            $( #[doc = $table_doc] pub $table: $Table, )*
        }

        $(
            #[doc = $table_doc]
            #[derive(Clone, Debug, PartialEq, Eq)]
            pub struct $Table {
                $( #[doc = $doc] pub $name: $ty, )*
            }

            impl Default for $Table {
                fn default() -> Self {
                    Self { $( $name: $default, )* }
                }
            }
        )*

        static KEYS: &[Key] = &[ $( $( Key {
            table: stringify!($table),
            name: stringify!($name),
            doc: $doc.trim_ascii(),
            read: |config, value| {
                config.$table.$name = Kind::read(&$kind, value)?;
                Ok(())
            },
            write: |config| Kind::write(&$kind, &config.$table.$name),
            allowed: || Kind::allowed(&$kind),
        }, )* )* ];
    };
}

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
const GIB: usize = 1 << 30;

/// The range of most times.
const DAY: Time = Time { hours: 24 };
/// A year: beyond it, nobody waits; without an end, adding it to a clock could overflow.
const YEAR: Time = Time { hours: 8760 };
/// The range of the byte bounds of queues.
const QUEUE: Size = Size { min: 2 * KIB, max: GIB };
/// The range of limits on connections and their rates.
const MANY: Count = Count { min: 1, max: 1_000_000 };

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn loopback(port: u16) -> std::net::SocketAddr {
    (std::net::Ipv4Addr::LOCALHOST, port).into()
}

/// The address of the metrics. The port is not 0 and the address is loopback, so the rule always holds.
fn metrics_address() -> MetricsListen {
    LoopbackAddr::check(loopback(9090)).map_or(MetricsListen::Off, MetricsListen::Address)
}

tables! {
    /// `[listen]`: the addresses.
    listen: Listen {
        /// Where binaries and phones connect, and where `/healthz` answers.
        public: PublicListen = PublicListen::Address(loopback(8080)), text::<PublicListen>("an IP literal with a port, or \"systemd:NAME\"");
        /// Where `/metrics` answers: a loopback address or nowhere.
        metrics: MetricsListen = metrics_address(), text::<MetricsListen>("\"off\", or an address in 127.0.0.0/8 or [::1] with a port from 1 to 65535, or \"systemd:NAME\"");
        /// Who may be served without TLS.
        plaintext: Plaintext = Plaintext::Loopback, PLAINTEXT;
    }
    /// `[tls]`: whether the relay speaks TLS itself, and with which certificate.
    tls: Tls {
        /// Where the certificate comes from.
        mode: TlsMode = TlsMode::Off, TLS_MODE;
        /// The certificate chain in PEM, for mode `files`.
        certificate: Option<String> = None, Optional(checked("an absolute path, or \"credential:NAME\"", path_or_credential));
        /// The private key in PEM, for mode `files`.
        key: Option<String> = None, Optional(checked("an absolute path, or \"credential:NAME\"", path_or_credential));
        /// The names that the relay answers to, for modes `files` and `acme`.
        domains: Option<Vec<String>> = None, Optional(List(checked("a host name such as \"relay.example.com\", or in mode \"files\" an IPv4 address", domain)));
        /// Whom the certificate authority may write to, for mode `acme`.
        contact: Option<String> = None, Optional(checked("a contact such as \"mailto:ops@example.com\"", contact));
        /// The directory of the certificate authority, for mode `acme`; without it, Let's Encrypt's.
        directory: Option<String> = None, Optional(checked("an https URL", https_url));
        /// Certificates in PEM that vouch for the directory's server, beside those that the system trusts, for mode `acme`.
        directory_ca: Option<String> = None, Optional(checked("an absolute path", absolute_path));
        /// Where account and certificates are kept, for mode `acme`; without it, /var/lib/pyrycode-relay/acme.
        state: Option<String> = None, Optional(checked("an absolute path", absolute_path));
    }
    /// `[session]`: what holds for one WebSocket connection.
    session: Session {
        /// How long the slot of a disconnected binary waits for it.
        grace: Duration = secs(30), YEAR;
        /// How long a connection may be silent before it is pinged.
        ping_interval: Duration = secs(30), DAY;
        /// How long a ping may stay unanswered.
        pong_timeout: Duration = secs(30), DAY;
        /// How long the holder of a server-id may take to answer when another binary claims it.
        conflict_probe: Duration = secs(10), DAY;
        /// How long a message may take from its first byte to its last.
        message_timeout: Duration = secs(30), DAY;
        /// How long a write may make no progress.
        write_timeout: Duration = secs(10), DAY;
        /// Bytes of the largest inner frame, both directions.
        max_frame: usize = 256 * KIB, Size { min: KIB, max: 16 * MIB };
    }
    /// `[limits]`: how much of everything there may be.
    limits: Limits {
        /// Phones of one server-id at the same time.
        phones_per_server: usize = 16, Count { min: 1, max: 65535 };
        /// WebSocket connections at the same time; phones leave a tenth of them to binaries.
        connections: usize = 10_000, Count { min: 2, max: 1_000_000 };
        /// WebSocket connections of one client address at the same time; an IPv6 client counts by its /64.
        connections_per_address: usize = 64, MANY;
        /// Connections at the same time that have not finished their handshake.
        handshakes: usize = 512, MANY;
        /// How long a connection may go without a complete request before it is upgraded.
        handshake_timeout: Duration = secs(10), DAY;
        /// Upgrades per minute and client address.
        upgrades_per_minute: usize = 60, MANY;
        /// Upgrades that one client address may ask for at once.
        upgrade_burst: usize = 20, MANY;
        /// Bytes that may wait for one phone.
        phone_queue: usize = 4 * MIB, QUEUE;
        /// Bytes that may wait for one binary.
        binary_queue: usize = 4 * MIB, QUEUE;
        /// Bytes that may wait in all queues together.
        all_queues: usize = 256 * MIB, Size { min: 2 * KIB, max: GIB.saturating_mul(1024) };
    }
    /// `[client_address]`: how the address of a client is found behind a proxy.
    client_address: ClientAddress {
        /// What tells the address.
        source: ClientAddressSource = ClientAddressSource::Peer, CLIENT_ADDRESS_SOURCE;
        /// The proxies that are believed.
        trusted: Vec<IpNet> = Vec::new(), List(checked("a network such as \"127.0.0.1/32\"", network));
    }
    /// `[access]`: who may claim a server-id.
    access: Access {
        /// The server-ids that may be claimed; when the list is empty, any.
        servers: Vec<String> = Vec::new(), List(checked("a server-id of 1 to 128 bytes of visible ASCII", server_id));
    }
    /// `[drain]`: how the relay stops.
    drain: Drain {
        /// Over how long the connections are closed, so that not all come back at once.
        spread: Duration = secs(5), DAY;
        /// When what is left is cut.
        timeout: Duration = secs(20), DAY;
    }
    /// `[log]`: what is logged, and how.
    log: Log {
        /// The least important events that are still logged.
        level: Level = Level::Info, LOG_LEVEL;
        /// How events are written.
        format: Format = Format::Auto, LOG_FORMAT;
    }
    /// `[runtime]`: the process.
    runtime: Runtime {
        /// Threads that serve connections; 0 picks the number measured as best.
        workers: usize = 0, Count { min: 0, max: 64 };
    }
}
