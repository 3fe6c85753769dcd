//! What the core tells the outside, as it happens.
//!
//! [`Observer`] has one method per observable fact, each a no-op unless implemented. The core calls a
//! method *after* the fact and outside every lock, so an implementation may take its time, but it runs on the
//! executor that forwards frames: it must not block. The unit type implements the trait for tests and for
//! programs that want no figures; `crate::metrics` implements it with counters.

use std::time::Duration;

use super::close::CloseCause;

/// Which way a frame travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From a phone to the binary that holds its server-id.
    PhoneToBinary,
    /// From a binary to one of its phones.
    BinaryToPhone,
}

impl Direction {
    /// Every direction, for pre-registering one series each.
    pub const ALL: [Self; 2] = [Self::PhoneToBinary, Self::BinaryToPhone];

    /// The label value (PROTOCOL § 6).
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PhoneToBinary => "phone_to_binary",
            Self::BinaryToPhone => "binary_to_phone",
        }
    }
}

/// Which kind of connection: the path it asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// `/v1/server`, `/v2/server`: a binary.
    Server,
    /// `/v1/client`, `/v2/client`: a phone.
    Client,
}

impl Endpoint {
    /// Every endpoint, for pre-registering one series each.
    pub const ALL: [Self; 2] = [Self::Server, Self::Client];

    /// The label value (PROTOCOL § 6).
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Client => "client",
        }
    }
}

/// Why a frame that was read was not delivered. Every such frame has exactly one reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DropReason {
    /// Not a valid envelope (from a binary), or not one JSON value (from a phone).
    Malformed,
    /// The envelope named a `conn_id` that no phone of this binary has.
    UnknownConnId,
    /// The receiver's outbox overflowed.
    Backlog,
    /// The frame was being written when the receiver's socket failed.
    WriteFailed,
    /// A phone sent it to a binary that is gone.
    NoBinary,
    /// Its receiver closed, or was closed, while the frame was queued.
    ReceiverClosed,
}

impl DropReason {
    /// Every reason, for pre-registering one series each.
    pub const ALL: [Self; 6] = [
        Self::Malformed,
        Self::UnknownConnId,
        Self::Backlog,
        Self::WriteFailed,
        Self::NoBinary,
        Self::ReceiverClosed,
    ];

    /// The label value (PROTOCOL § 6).
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::UnknownConnId => "unknown_conn_id",
            Self::Backlog => "backlog",
            Self::WriteFailed => "write_failed",
            Self::NoBinary => "no_binary",
            Self::ReceiverClosed => "receiver_closed",
        }
    }
}

/// The final outcome of one request to upgrade, exactly one per request (PROTOCOL § 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UpgradeOutcome {
    /// Upgraded and registered.
    Accept,
    /// A required header was missing, empty or out of bounds.
    RejectHeaders,
    /// Another binary holds the server-id.
    Reject409,
    /// No binary holds the server-id.
    Reject404,
    /// The server-id has all the phones it may have.
    Reject429,
    /// The client address asked too often.
    RejectRateLimit,
    /// Over a connection cap.
    RejectCapacity,
    /// The relay is shutting down.
    RejectDraining,
    /// The server-id is not on the access list.
    RejectForbidden,
    /// Not a proper WebSocket upgrade, or the client left before the upgrade was complete.
    RejectBadRequest,
}

impl UpgradeOutcome {
    /// Every outcome, for pre-registering one series each.
    pub const ALL: [Self; 10] = [
        Self::Accept,
        Self::RejectHeaders,
        Self::Reject409,
        Self::Reject404,
        Self::Reject429,
        Self::RejectRateLimit,
        Self::RejectCapacity,
        Self::RejectDraining,
        Self::RejectForbidden,
        Self::RejectBadRequest,
    ];

    /// The label value (PROTOCOL § 6).
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accept => "accept",
            Self::RejectHeaders => "reject_headers",
            Self::Reject409 => "reject_409",
            Self::Reject404 => "reject_404",
            Self::Reject429 => "reject_429",
            Self::RejectRateLimit => "reject_rate_limit",
            Self::RejectCapacity => "reject_capacity",
            Self::RejectDraining => "reject_draining",
            Self::RejectForbidden => "reject_forbidden",
            Self::RejectBadRequest => "reject_bad_request",
        }
    }
}

/// How far a connection had come when it ended before its upgrade.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HandshakeStage {
    /// In the PROXY protocol's header.
    Proxy,
    /// In the TLS handshake.
    Tls,
    /// In HTTP: what came could not be read as a request.
    Http,
    /// Anywhere, when its time ran out.
    Timeout,
}

impl HandshakeStage {
    /// Every stage, for pre-registering one series each.
    pub const ALL: [Self; 4] = [Self::Proxy, Self::Tls, Self::Http, Self::Timeout];

    /// The label value (PROTOCOL § 6).
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Proxy => "proxy",
            Self::Tls => "tls",
            Self::Http => "http",
            Self::Timeout => "timeout",
        }
    }
}

/// A table of client addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AddressTable {
    /// Those that asked for an upgrade a short while ago.
    Upgrades,
    /// Those that have a connection.
    Connections,
}

impl AddressTable {
    /// Every table, for pre-registering one series each.
    pub const ALL: [Self; 2] = [Self::Upgrades, Self::Connections];

    /// The label value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Upgrades => "upgrades",
            Self::Connections => "connections",
        }
    }
}

/// The facts that the core reports. Every method does nothing unless implemented.
pub trait Observer: Send + Sync + 'static {
    /// A message was read to its last byte: a frame on its way, until it is forwarded or dropped.
    fn frame_read(&self, direction: Direction) {
        let _ = direction;
    }

    /// A frame was handed to the receiver's kernel socket, to its last byte. `bytes` is the inner frame's
    /// length; `latency` runs from the read of its last byte to the write of its last byte.
    fn frame_forwarded(&self, direction: Direction, bytes: usize, latency: Duration) {
        let _ = (direction, bytes, latency);
    }

    /// The same of any number of frames at once, each with its `bytes` and `latency`. All of them are to be taken.
    fn frames_forwarded(&self, direction: Direction, frames: &mut dyn Iterator<Item = (usize, Duration)>) {
        frames.for_each(|(bytes, latency)| self.frame_forwarded(direction, bytes, latency));
    }

    /// A frame that was read will never be delivered.
    fn frame_dropped(&self, direction: Direction, reason: DropReason) {
        let _ = (direction, reason);
    }

    /// A binary did not come back in time: its slot is gone and its phones were closed.
    fn grace_expired(&self) {}

    /// A binary came back within its grace period.
    fn reclaimed(&self) {}

    /// A binary took its server-id from a connection that did not answer.
    fn taken_over(&self) {}

    /// `phones` phones were closed by a reclaim or a takeover.
    fn phones_evicted(&self, phones: usize) {
        let _ = phones;
    }

    /// A binary asked for a phone to be woken. Until push exists, every one of these goes nowhere.
    fn push_wake_off(&self) {}

    /// A connection was accepted; it has not been upgraded yet.
    fn handshake_began(&self) {}

    /// A connection was upgraded, or ended before that; `failed` says where, if it never got an answer.
    fn handshake_ended(&self, failed: Option<HandshakeStage>) {
        let _ = failed;
    }

    /// A client made its TLS handshake; `resumed` with a ticket that it had kept.
    fn tls_handshake(&self, resumed: bool) {
        let _ = resumed;
    }

    /// A connection was given a place among those that the relay may have.
    fn place_taken(&self, endpoint: Endpoint) {
        let _ = endpoint;
    }

    /// A place is free again.
    fn place_given_back(&self, endpoint: Endpoint) {
        let _ = endpoint;
    }

    /// A client address came into a table.
    fn address_tracked(&self, table: AddressTable) {
        let _ = table;
    }

    /// `addresses` client addresses went out of a table.
    fn addresses_forgotten(&self, table: AddressTable, addresses: usize) {
        let _ = (table, addresses);
    }

    /// An upgrade request reached its final outcome.
    fn upgrade(&self, endpoint: Endpoint, outcome: UpgradeOutcome) {
        let _ = (endpoint, outcome);
    }

    /// A WebSocket connection ended.
    fn connection_closed(&self, endpoint: Endpoint, cause: CloseCause) {
        let _ = (endpoint, cause);
    }

    /// The outboxes towards `endpoint` grew by `bytes`.
    fn queued(&self, endpoint: Endpoint, bytes: usize) {
        let _ = (endpoint, bytes);
    }

    /// The outboxes towards `endpoint` shrank by `bytes`.
    fn unqueued(&self, endpoint: Endpoint, bytes: usize) {
        let _ = (endpoint, bytes);
    }
}

impl Observer for () {}

/// How many connections there are at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Binaries that hold a server-id and are connected.
    pub connected_binaries: usize,
    /// Phones that are registered, those of a gracing binary included.
    pub connected_phones: usize,
    /// Binaries whose connection ended and whose slot still waits for them.
    pub gracing_binaries: usize,
}

/// Something that can be counted at any moment, from any thread.
pub trait Census: Send + Sync + 'static {
    /// The counts as they are now.
    fn count(&self) -> Counts;
}
