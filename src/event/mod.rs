//! The catalogue of log events: one function per event, and the only place in the program that logs.
//!
//! [`init`] chooses once where events go: the systemd journal with structured fields, or lines of text or JSON
//! on stderr. Each function below then writes one event of PROTOCOL § 7, its name first, with its own keys
//! and no others. Their arguments are typed, so that a payload or a token cannot slip in, and what a stranger
//! chose is escaped (see `value`). An event below the level costs one atomic load: nothing is formatted.
//!
//! Lines on stderr are written by a thread of their own, so that nobody waits for whoever reads them; a stderr that is
//! closed or not read loses lines and nothing else. The journal is written to by the calling thread.
//!
//! Functions that take `suppressed` are for occurrences that a peer can repeat at will: the caller asks a
//! [`Throttle`] first. Beyond that, every other event that strangers can cause has a bound on its
//! lines per second (see `bound`).

mod bound;
mod names;
mod output;
mod stderr;
mod throttle;
mod value;

use std::fmt::Display;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

pub use certificates::{
    certificate_awaited, certificate_expired, certificate_expiring, certificate_issued, certificate_loaded,
    certificate_not_kept, certificate_order_failed, certificate_order_postponed, certificate_unusable,
};
pub use names::{Format, Level, UnknownName};
pub use output::{Handle, InitError, Layout, Sink, init, to_sink};
pub use throttle::{SharedThrottle, Throttle};

use crate::relay::close::CloseCause;
use bound::Bound;
use value::{Count, Outside, Pair, Plain, Seconds, Value};

/// Marks the events of this module: no output takes any other, so that a library that logs through `tracing`
/// cannot add lines.
const TARGET: &str = "pyrycode_relay";

/// Writes one event: `emit!(LEVEL, "name", key = value, …)` with values of the module `value`.
///
/// Each event carries its name twice on purpose: as the field `event`, so that the journal can be searched for
/// it (`journalctl EVENT=ready`), and at the start of the message, so that a reader sees it.
macro_rules! emit {
    ($level:ident, $name:literal $(, $key:ident = $value:expr)* $(,)?) => {{
        $( let $key = $value; )*
        tracing::event!(
            name: $name,
            target: TARGET,
            tracing::Level::$level,
            { event = $name, $( $key = $key.field() ),* },
            concat!($name, $( "{", stringify!($key), "}" ),*),
            $( $key = Pair(stringify!($key), &$key) ),*
        )
    }};
}

/// Asks the bound of the event in whose function it stands, and returns from there if the line may not be written. Yields
/// how many lines the next one stands for, `carried` included: those that the caller held back.
macro_rules! bounded {
    ($level:ident, $carried:expr) => {{
        static BOUND: Bound = Bound::new();
        // What is filtered is not written, so nothing is held back.
        if !tracing::enabled!(target: TARGET, tracing::Level::$level) {
            return;
        }
        match BOUND.admit($carried) {
            Some(suppressed) => suppressed,
            None => return,
        }
    }};
}

mod certificates;

/// A number of lines that is told only if there were any.
fn any(suppressed: u64) -> Option<Count> {
    (suppressed > 0).then_some(Count(suppressed))
}

/// How a client's address is shown: an IPv4 client that came through an IPv6 socket shows as IPv4.
fn address(remote: IpAddr) -> Plain<IpAddr> {
    Plain(remote.to_canonical())
}

/// The process begins: which program, and where its configuration came from (a path, or "built-in defaults").
pub fn starting(version: &str, config: &str) {
    emit!(INFO, "starting", version = Plain(version), config = Outside::Text(&config));
}

/// A socket for binaries and phones is bound.
pub fn listening(listen: SocketAddr) {
    emit!(INFO, "listening", listen = Plain(listen));
}

/// The socket for scrapes is bound.
pub fn listening_metrics(metrics: SocketAddr) {
    emit!(INFO, "listening", metrics = Plain(metrics));
}

/// Every listener is bound and the metrics thread answers.
pub fn ready() {
    emit!(INFO, "ready");
}

/// What can be read again at run time was read again; `level` is the log level from now on. `needs_restart` names
/// the keys that were changed, too, and stay as they were.
pub fn reloaded(level: Level, needs_restart: Option<&str>) {
    emit!(
        INFO,
        "reloaded",
        log_level = Plain(level.as_str()),
        needs_restart = needs_restart.as_ref().map(|keys| Outside::Text(keys)),
    );
}

/// A reload was refused; everything stays as it was.
pub fn reload_failed(cause: &dyn Display) {
    emit!(WARN, "reload_failed", cause = Outside::Text(cause));
}

/// A connection ended in its TLS handshake. For whoever looks for the reason why a client does not come in: strangers fail
/// all the time.
pub fn tls_handshake_failed(remote: IpAddr, cause: &str) {
    let suppressed = bounded!(DEBUG, 0);
    emit!(
        DEBUG,
        "tls_handshake_failed",
        remote = address(remote),
        cause = Outside::Text(&cause),
        suppressed = any(suppressed),
    );
}

/// The service manager could not be told something; the relay works on.
pub fn notify_failed(error: &io::Error) {
    emit!(WARN, "notify_failed", cause = Outside::Text(error));
}

/// The relay takes no more connections and closes the `connections` it has.
pub fn draining(connections: usize) {
    emit!(INFO, "draining", connections = Count::from(connections));
}

/// Every connection was closed in time.
pub fn drained(duration: Duration) {
    emit!(INFO, "drained", duration = Seconds(duration));
}

/// Time ran out with `connections` left; they are cut.
pub fn drain_incomplete(connections: usize, duration: Duration) {
    emit!(WARN, "drain_incomplete", connections = Count::from(connections), duration = Seconds(duration));
}

/// A binary claimed a free server-id. `binary_version` is the header as it came.
pub fn server_claimed(server_id: &str, binary_version: &[u8], remote: IpAddr) {
    let suppressed = bounded!(INFO, 0);
    emit!(
        INFO,
        "server_claimed",
        server_id = Outside::Text(&server_id),
        binary_version = Outside::Bytes(binary_version),
        remote = address(remote),
        suppressed = any(suppressed),
    );
}

/// A binary was refused because another one holds the server-id. The refused one's version is
/// not logged (PROTOCOL § 7). Throttled.
pub fn server_id_conflict(server_id: &str, remote: IpAddr, suppressed: u64) {
    emit!(
        INFO,
        "server_id_conflict",
        server_id = Outside::Text(&server_id),
        remote = address(remote),
        suppressed = Count(suppressed),
    );
}

/// A binary took its server-id from a connection that did not answer; `phones` phones were closed so that they start
/// over.
pub fn server_id_takeover(server_id: &str, remote: IpAddr, phones: usize) {
    let suppressed = bounded!(INFO, 0);
    emit!(
        INFO,
        "server_id_takeover",
        server_id = Outside::Text(&server_id),
        remote = address(remote),
        phones = Count::from(phones),
        suppressed = any(suppressed),
    );
}

/// A binary came back within its grace period; `phones` phones were closed so that they start over.
pub fn server_reclaimed(server_id: &str, remote: IpAddr, phones: usize) {
    let suppressed = bounded!(INFO, 0);
    emit!(
        INFO,
        "server_reclaimed",
        server_id = Outside::Text(&server_id),
        remote = address(remote),
        phones = Count::from(phones),
        suppressed = any(suppressed),
    );
}

/// A binary's connection ended; its grace period begins.
pub fn server_released(server_id: &str) {
    let suppressed = bounded!(INFO, 0);
    emit!(INFO, "server_released", server_id = Outside::Text(&server_id), suppressed = any(suppressed));
}

/// A binary did not come back; its slot is gone and its `phones` phones were closed.
pub fn server_expired(server_id: &str, phones: usize) {
    let suppressed = bounded!(INFO, 0);
    emit!(
        INFO,
        "server_expired",
        server_id = Outside::Text(&server_id),
        phones = Count::from(phones),
        suppressed = any(suppressed)
    );
}

/// A phone was registered. `device_name` is the header as it came, if it came.
pub fn phone_registered(server_id: &str, conn_id: impl Display, device_name: Option<&[u8]>, remote: IpAddr) {
    let suppressed = bounded!(INFO, 0);
    emit!(
        INFO,
        "phone_registered",
        server_id = Outside::Text(&server_id),
        conn_id = Outside::Text(&conn_id),
        device_name = device_name.map(Outside::Bytes),
        remote = address(remote),
        suppressed = any(suppressed),
    );
}

/// A registered phone is gone, and why.
pub fn phone_unregistered(
    server_id: &str,
    conn_id: impl Display,
    device_name: Option<&[u8]>,
    remote: IpAddr,
    cause: CloseCause,
) {
    let suppressed = bounded!(INFO, 0);
    emit!(
        INFO,
        "phone_unregistered",
        server_id = Outside::Text(&server_id),
        conn_id = Outside::Text(&conn_id),
        device_name = device_name.map(Outside::Bytes),
        remote = address(remote),
        cause = Plain(cause.as_str()),
        suppressed = any(suppressed),
    );
}

/// A phone was upgraded and then refused by the registry. Throttled.
pub fn phone_refused(server_id: &str, remote: IpAddr, cause: CloseCause, suppressed: u64) {
    emit!(
        INFO,
        "phone_refused",
        server_id = Outside::Text(&server_id),
        remote = address(remote),
        cause = Plain(cause.as_str()),
        suppressed = Count(suppressed),
    );
}

/// A binary sent an envelope that cannot be read. `cause` is one of the program's own words, never text from
/// the envelope. Throttled per connection.
pub fn envelope_rejected(server_id: &str, cause: &'static str, suppressed: u64) {
    let suppressed = bounded!(WARN, suppressed);
    emit!(
        WARN,
        "envelope_rejected",
        server_id = Outside::Text(&server_id),
        cause = Outside::Text(&cause),
        suppressed = Count(suppressed),
    );
}

/// A binary addressed a phone that it does not have. Throttled per connection.
pub fn unknown_conn_id(server_id: &str, conn_id: Option<&dyn Display>, suppressed: u64) {
    let suppressed = bounded!(WARN, suppressed);
    emit!(
        WARN,
        "unknown_conn_id",
        server_id = Outside::Text(&server_id),
        conn_id = conn_id.map(Outside::Text),
        suppressed = Count(suppressed),
    );
}

/// A binary's or phone's connection ended in another way than by its peer's close frame or a shutdown; without
/// `conn_id` it was the binary's.
pub fn connection_lost(server_id: &str, conn_id: Option<&dyn Display>, cause: CloseCause) {
    let suppressed = bounded!(INFO, 0);
    emit!(
        INFO,
        "connection_lost",
        server_id = Outside::Text(&server_id),
        conn_id = conn_id.map(Outside::Text),
        cause = Plain(cause.as_str()),
        suppressed = any(suppressed),
    );
}

/// A request to upgrade was refused because its client address asked too often. Throttled.
pub fn rate_limited(remote: IpAddr, suppressed: u64) {
    emit!(WARN, "rate_limited", remote = address(remote), suppressed = Count(suppressed));
}

/// A limit on connections was reached: a request was refused, or, for `limits.handshakes`, the oldest connection that had
/// not come to its upgrade was hung up. `limit` is the setting. Throttled.
pub fn capacity_reached(limit: &'static str, remote: IpAddr, suppressed: u64) {
    emit!(
        WARN,
        "capacity_reached",
        limit = Plain(limit),
        remote = address(remote),
        suppressed = Count(suppressed),
    );
}

/// The peer `remote` passed something on as a proxy, or had to, and did not say whose it is, or may not. Throttled.
pub fn client_address_unusable(remote: IpAddr, cause: &'static str, suppressed: u64) {
    emit!(
        WARN,
        "client_address_unusable",
        remote = address(remote),
        cause = Outside::Text(&cause),
        suppressed = Count(suppressed),
    );
}

/// A binary claimed a server-id that is not on the access list. Throttled.
pub fn server_id_forbidden(server_id: &str, remote: IpAddr, suppressed: u64) {
    emit!(
        WARN,
        "server_id_forbidden",
        server_id = Outside::Text(&server_id),
        remote = address(remote),
        suppressed = Count(suppressed),
    );
}

/// The descriptors that the process may open do not suffice for the built-in limits, so these are in effect instead.
pub fn limits_reduced(connections: usize, handshakes: usize, descriptors: u64) {
    emit!(
        WARN,
        "limits_reduced",
        connections = Count::from(connections),
        handshakes = Count::from(handshakes),
        descriptors = Count(descriptors),
    );
}

/// The listener at `listen` could not take a connection, for example because descriptors ran out; it tries again.
/// Throttled per listener.
pub fn accept_failed(listen: SocketAddr, error: &io::Error, suppressed: u64) {
    emit!(
        WARN,
        "accept_failed",
        listen = Plain(listen),
        cause = Outside::Text(error),
        suppressed = Count(suppressed),
    );
}

/// A scrape could not be answered, for example because collecting the figures panicked. Throttled by the caller.
pub fn scrape_failed(cause: &dyn Display, suppressed: u64) {
    emit!(ERROR, "scrape_failed", cause = Outside::Text(cause), suppressed = Count(suppressed));
}

/// The metrics thread ended although nobody asked it to: there are no scrapes from now on.
pub fn metrics_thread_failed(cause: &dyn Display) {
    emit!(ERROR, "metrics_thread_failed", cause = Outside::Text(cause));
}

/// This many lines were lost because stderr was not read. Written when it is read again.
pub fn log_lines_lost(suppressed: u64) {
    emit!(WARN, "log_lines_lost", suppressed = Count(suppressed));
}
