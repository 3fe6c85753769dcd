//! The keys: the one place that knows what can be configured, and says it.
//!
//! A key is added by adding its line, together with what acts on it: a setting that is silently ignored is worse than
//! one that is missing. The comments below are the reference that operators read (`config/table.rs` says where). They
//! name a key by its dotted name and quote a value as the file does.

use std::time::Duration;

use ipnet::IpNet;

use crate::event::{Format, Level};

use super::kind::{Count, Kind, List, Optional, Size, Time, checked, text};
use super::listen::{MetricsListen, PublicListen};
use super::loopback::LoopbackAddr;
use super::table::{Key, Table, tables};
use super::types::{
    CLIENT_ADDRESS_SOURCE, ClientAddressSource, LOG_FORMAT, LOG_LEVEL, PLAINTEXT, Plaintext, TLS_MODE,
    TlsMode, absolute_path, contact, domain, https_url, network, path_or_credential, server_id,
};

/// Every key, in the order of the reference file.
#[must_use]
pub fn keys() -> &'static [Key] {
    KEYS
}

/// Every table, in the order of the reference file.
#[must_use]
pub fn tables() -> &'static [Table] {
    TABLES
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

const PEM_FILE: &str = "an absolute path, or \"credential:NAME\"";

tables! {
    /// Where the relay listens.
    ///
    /// `listen.plaintext = "loopback"` and a `listen.public` that other hosts can reach contradict each other, and
    /// are refused. There are three ways out: TLS in the relay itself (`tls.mode`); a loopback address, with a TLS
    /// proxy in front of it on the same host; or `listen.plaintext = "anywhere"`, if the TLS proxy runs on another
    /// host. In the last case make sure that nobody but the proxy can reach the address: frames are encrypted end to
    /// end, but server-ids and device names are not.
    ///
    /// `listen.public` and `listen.metrics` must not claim the same address and port. An address that stands for all
    /// of a host counts for each of them: `0.0.0.0` for every IPv4 address, `[::]` for every address at all.
    ///
    /// An IPv4 loopback address that is written as IPv6 (`[::ffff:127.0.0.1]`) does not count as loopback, neither
    /// for `listen.public` nor for `listen.metrics`.
    ///
    /// A socket that systemd passes is held to the same rules as an address that stands here.
    listen: Listen {
        /// Where binaries and phones connect over WebSocket, and where `/healthz` answers. `"systemd:NAME"` is the
        /// socket of that name (`FileDescriptorName=`) that systemd passes. Without TLS it must be a loopback address,
        /// unless `listen.plaintext` says otherwise. With port 0 the kernel chooses a port, and the log says which.
        public: PublicListen = PublicListen::Address(loopback(8080)),
            text::<PublicListen>("an IP literal with a port, or \"systemd:NAME\"");
        /// Where `/metrics` answers. Nobody is asked who they are there, so only this host may reach it: a loopback
        /// address, or `"systemd:NAME"` for the socket of that name (`FileDescriptorName=`) that systemd passes, or
        /// `"off"` for nowhere.
        metrics: MetricsListen = metrics_address(),
            text::<MetricsListen>(
                "\"off\", an address in 127.0.0.0/8 or [::1] with a port from 1 to 65535, or \"systemd:NAME\""
            );
        /// Who may be served without TLS. `"loopback"` allows only a loopback address in `listen.public`;
        /// `"anywhere"` allows any, for a TLS proxy that runs on another host.
        plaintext: Plaintext = Plaintext::Loopback, PLAINTEXT;
    }
    /// Whether the relay speaks TLS itself, and with which certificate.
    ///
    /// A key that goes with another mode than the one that is set is refused.
    ///
    /// With mode `"files"`, the relay does not start, and `check` does not pass, unless a client would accept what
    /// the files hold: both can be read and parsed, they belong together, every certificate of the chain has begun,
    /// has not ended and is issued by the one behind it, the relay's own is no authority's and is for servers and for
    /// some name, it names each of `tls.domains`, and the key cannot be read by everybody on the host. A missing
    /// intermediate certificate cannot be seen from here; the probe finds it. What is told as the end of the
    /// certificate is the first end in its chain. The key may be ECDSA with P-256 or P-384, Ed25519, or RSA with 2048
    /// to 8192 bits.
    ///
    /// With `tls.domains`, a request whose `Host` header is none of them gets 421 before anything else is looked at,
    /// `/healthz` included; the port in it does not matter. A client that asks for another name in its TLS handshake
    /// (SNI) is shown no certificate; one that asks for none is shown the relay's.
    tls: Tls {
        /// Where the certificate comes from. `"off"`: nowhere; the relay speaks no TLS, and a TLS proxy in front of
        /// it does. `"files"`: from files. `"acme"`: from a certificate authority, without anybody's doing; the relay
        /// renews it, too.
        mode: TlsMode = TlsMode::Off, TLS_MODE;
        /// For mode `"files"`: the certificate chain in PEM, the relay's own certificate first, then its issuers,
        /// without the root. `"credential:NAME"` names a systemd credential.
        certificate: Option<String> = None, Optional(checked(PEM_FILE, path_or_credential)),
            example "\"credential:tls_fullchain.pem\"";
        /// For mode `"files"`: the private key in PEM (PKCS#8, SEC1 or PKCS#1). Nobody else may be able to read it
        /// (0600, or 0640 with a group of the relay's own). `"credential:NAME"` names a systemd credential.
        key: Option<String> = None, Optional(checked(PEM_FILE, path_or_credential)),
            example "\"credential:tls_privkey.pem\"";
        /// The host names that are served; a request for another one gets 421. Mode `"acme"` needs them, and gets a
        /// certificate for all of them; in mode `"files"` any host is served without them. Each stands once, in
        /// punycode if it is not ASCII, without wildcard, port or trailing dot. IPv6 addresses cannot stand here.
        domains: Option<Vec<String>> = None,
            Optional(List(checked(
                "a host name such as \"relay.example.com\", or in mode \"files\" an IPv4 address", domain
            ))),
            example "[\"relay.example.com\"]";
        /// For mode `"acme"`: whom the certificate authority may write to.
        contact: Option<String> = None,
            Optional(checked("a contact such as \"mailto:ops@example.com\", in visible ASCII", contact)),
            example "\"mailto:ops@example.com\"";
        /// For mode `"acme"`: the directory of the certificate authority. If not set, Let's Encrypt's:
        /// `https://acme-v02.api.letsencrypt.org/directory`.
        directory: Option<String> = None,
            Optional(checked("an https URL of at most 200 bytes, without a user or password in it", https_url)),
            example "\"https://acme-v02.api.letsencrypt.org/directory\"";
        /// For mode `"acme"`: a file with certificates in PEM that vouch for the directory's server, beside those
        /// that the system trusts: for an authority of your own.
        directory_ca: Option<String> = None, Optional(checked("an absolute path", absolute_path)),
            example "\"/etc/pyrycode-relay/authority.pem\"";
        /// For mode `"acme"`: where account and certificate are kept. If not set, `/var/lib/pyrycode-relay/acme`. It
        /// is made if it is not there; others must not be able to look into it (0700).
        state: Option<String> = None, Optional(checked("an absolute path", absolute_path)),
            example "\"/var/lib/pyrycode-relay/acme\"";
    }
    /// What holds for one WebSocket connection.
    ///
    /// While a phone is not read because its binary's queue is full, neither `session.pong_timeout` nor
    /// `session.message_timeout` runs for it. The kernel, too, gives a connection up: when what was sent is not
    /// acknowledged for `session.ping_interval` and `session.pong_timeout` together, or for `session.write_timeout`
    /// if that is longer.
    ///
    /// A larger `session.max_frame` may need larger queues: see `limits.phone_queue` and `limits.binary_queue`.
    session: Session {
        /// How long the slot of a disconnected binary waits for it to come back. Its phones stay connected meanwhile.
        grace: Duration = secs(30), YEAR;
        /// How long a connection may be silent before it is pinged. Whatever a peer sends counts.
        ping_interval: Duration = secs(30), DAY;
        /// How long a ping may stay unanswered before the connection is closed with 1011. Whatever a peer sends is an
        /// answer.
        pong_timeout: Duration = secs(30), DAY;
        /// How long the holder of a server-id may take to answer a ping when another binary claims it. If it is
        /// silent, the other one takes over.
        conflict_probe: Duration = secs(10), DAY;
        /// How long a message may take from its first byte to its last. Between messages a connection may wait for
        /// ever.
        message_timeout: Duration = secs(30), DAY;
        /// How long the relay may have something to write while the connection takes nothing, before it is closed
        /// with 1011.
        write_timeout: Duration = secs(10), DAY;
        /// The largest inner frame, in both directions: what a phone may send, and what a binary may send within an
        /// envelope. A larger one closes the connection with 1009.
        max_frame: usize = 256 * KIB, Size { min: KIB, max: 16 * MIB };
    }
    /// How much of everything there may be.
    ///
    /// Every connection takes a descriptor, so `limits.connections` and `limits.handshakes` and 64 for everything
    /// else must fit into what the process may open. At its start the relay raises its soft limit to the hard one
    /// (`LimitNOFILE=` in systemd.exec(5)). A limit that stands in the file and does not fit is refused, with both
    /// numbers (exit code 78): it would be a promise that cannot be kept. A built-in default shrinks to what fits,
    /// and the event `limits_reduced` says to what; of `limits.handshakes`, no less than a quarter of the room is
    /// left.
    ///
    /// `limits.phone_queue` and `limits.binary_queue` must each hold one frame of `session.max_frame` with its
    /// envelope (1 KiB) and what a queued frame is charged beyond its length (64 bytes), and be no larger than
    /// `limits.all_queues`. With `session.max_frame = "8MiB"`, both must be raised to at least `"8194KiB"`.
    ///
    /// `limits.all_queues` bounds what is queued. Beside it, each connection may have one message under way, which takes
    /// up to twice `session.max_frame` if it comes in fragments; and a phone that waits for its binary holds one more
    /// and what was read behind it: together up to twice `session.max_frame` and 64 KiB, for as long as it waits.
    limits: Limits {
        /// Phones of one server-id at the same time. The next one is closed with 4429.
        phones_per_server: usize = 16, Count { min: 1, max: 65535 };
        /// WebSocket connections at the same time, of all clients. The next one gets 503. A tenth of them, rounded
        /// up, is kept for binaries, so that phones cannot lock a binary out. They must fit, with `limits.handshakes`
        /// and 64 more, into `LimitNOFILE=` (systemd.exec(5)).
        connections: usize = 10_000, Count { min: 2, max: 1_000_000 };
        /// WebSocket connections of one client address at the same time. The next one gets 503. An IPv6 client counts
        /// by its /64.
        connections_per_address: usize = 64, MANY;
        /// Connections at the same time that have not come to their upgrade. When one more comes, the oldest of the
        /// address that has the most is hung up.
        handshakes: usize = 512, MANY;
        /// How long a connection may go without a complete request before it is upgraded: one deadline for the PROXY
        /// protocol header, the TLS handshake and the request together. It counts from the TCP connection on, and
        /// anew from each request that was answered (a health check's).
        handshake_timeout: Duration = secs(10), DAY;
        /// Upgrades that one client address may ask for per minute, both endpoints together. One more gets 429.
        upgrades_per_minute: usize = 60, MANY;
        /// Upgrades that one client address may ask for at once, after it has not asked for a while.
        upgrade_burst: usize = 20, MANY;
        /// Bytes that may wait for one phone. A phone for which more comes is closed with 1011. It must hold at least
        /// one largest frame and its envelope.
        phone_queue: usize = 4 * MIB, QUEUE;
        /// Bytes that may wait for one binary. When it is full, its phones are no longer read, and nothing is lost.
        /// It must hold at least one largest frame and its envelope.
        binary_queue: usize = 4 * MIB, QUEUE;
        /// Bytes that may wait in all queues together. Beyond it every queue is full: a phone for which more comes is
        /// closed with 1011, and phones that have something for their binary are not read. A queue that holds more
        /// than eight times what is left over counts as full already, so that a few large queues leave room for many
        /// small ones.
        all_queues: usize = 256 * MIB, Size { min: 2 * KIB, max: GIB.saturating_mul(1024) };
    }
    /// How the address of a client is found.
    ///
    /// The address is what limits count by, and what the log calls `remote`. An IPv6 client counts by its /64, which
    /// is what one customer has at least; an IPv4 address that is written as IPv6 counts as IPv4.
    ///
    /// With `"x-forwarded-for"`, of a request that comes from a trusted peer, the right-most entry of the header that
    /// is not itself trusted counts, all lines of the header taken together in their order. An entry is an IP
    /// address, with or without a port. What stands left of it came from the client and is not looked at. If all
    /// entries are trusted, the left-most counts. If a trusted peer sends no such header, or the entry that counts is
    /// no address, the request has no usable address and is refused (429), and the event `client_address_unusable`
    /// says why. From a peer that is not trusted the header is ignored: the peer is the client.
    ///
    /// With `"proxy-protocol"`, every connection must come from a trusted peer and begin with a header of the PROXY
    /// protocol, version 1 or 2, of at most 4096 bytes. `LOCAL` (version 2), `UNKNOWN` (version 1) and the
    /// unspecified family stand for the peer itself. Anything else is closed, and not a byte is written.
    client_address: ClientAddress {
        /// What tells the address of a client. `"peer"`: the other end of its connection; behind a proxy, that would
        /// be the proxy for everybody, and one limit for all of them. `"x-forwarded-for"` or `"proxy-protocol"`
        /// (versions 1 and 2): that header, from a trusted proxy.
        source: ClientAddressSource = ClientAddressSource::Peer, CLIENT_ADDRESS_SOURCE;
        /// The networks of the proxies whose header is believed, such as `["127.0.0.1/32", "::1/128"]`. Any source
        /// but `"peer"` needs at least one, and `"peer"` none. List the proxies' own addresses and nothing wider: who
        /// comes from a trusted network can claim to be anybody. A network that is everybody (`0.0.0.0/0`, `::/0`) is
        /// refused.
        trusted: Vec<IpNet> = Vec::new(), List(checked("a network such as \"127.0.0.1/32\"", network));
    }
    /// Who may claim a server-id.
    ///
    /// A binary that claims another one gets 403, and the event `server_id_forbidden` names it. A phone that dials
    /// another one gets what it gets for any server-id that no binary holds, so that phones cannot read the list out.
    access: Access {
        /// The server-ids that may be claimed; when the list is empty, any.
        servers: Vec<String> = Vec::new(),
            List(checked("a server-id of 1 to 128 bytes of visible ASCII", server_id));
    }
    /// How the relay stops.
    ///
    /// Whatever starts and stops the relay must give it more than `drain.timeout` before it kills it
    /// (`TimeoutStopSec=` under systemd).
    drain: Drain {
        /// Over how long server-ids are closed when the relay stops, each at a random moment, so that not all come
        /// back at once. In whole seconds (and at least 1) it is also the `retry-after` that clients are given.
        spread: Duration = secs(5), DAY;
        /// When the relay stops, what is still connected after this long is cut. At least `drain.spread`.
        timeout: Duration = secs(20), DAY;
    }
    /// What is logged, and how.
    log: Log {
        /// The least important events that are still logged. `"debug"` adds what strangers do wrong all the time: why
        /// TLS handshakes fail. Read again on SIGHUP.
        level: Level = Level::Info, LOG_LEVEL;
        /// How events are written. `"auto"` is `"journald"` under systemd, and `"text"` elsewhere or where there is
        /// no journal. With `"journald"` the relay does not start on a host that has none (exit code 78); `check`
        /// cannot tell.
        format: Format = Format::Auto, LOG_FORMAT;
    }
    /// How the process works.
    runtime: Runtime {
        /// Threads that serve connections. 0 picks the number that was measured as best.
        workers: usize = 0, Count { min: 0, max: 64 };
    }
}
