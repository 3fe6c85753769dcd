//! The close codes that the relay sends, and why a connection ended.
//!
//! [`Close`] is the whole table of PROTOCOL § 5: one variant per row and reason, so that no other code or text
//! can leave the relay. [`CloseCause`] is the same set without the values that vary, for counting.

use std::borrow::Cow;

use super::envelope::CloseCode;

/// Why a WebSocket connection ended: one value per reason of PROTOCOL § 5, plus the two ways in which it is the
/// peer who ends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CloseCause {
    /// The peer sent a close frame.
    PeerClosed,
    /// The peer's socket ended or failed without a close frame, or it broke the WebSocket protocol.
    PeerLost,
    /// The relay is shutting down.
    ShuttingDown,
    /// A phone's message was not exactly one JSON value.
    InvalidJson,
    /// A message was larger than allowed.
    MessageTooBig,
    /// Nothing was heard from the peer for too long.
    HeartbeatTimeout,
    /// A message was begun and not finished in time.
    MessageTimedOut,
    /// A phone's outbox overflowed.
    PhoneBacklogFull,
    /// A write to a phone failed or made no progress.
    PhoneWriteFailed,
    /// The grace period ended without a reclaim.
    BinaryDidNotReconnect,
    /// A write to a binary failed or made no progress.
    BinaryWriteFailed,
    /// No binary holds the server-id that the phone asked for.
    NoServer,
    /// The binary came back; its phones must start over.
    BinaryReclaimed,
    /// A phone sent a frame to a binary that is gone.
    BinaryDisconnected,
    /// Another binary holds the server-id.
    AlreadyClaimed,
    /// The server-id has all the phones it may have.
    TooManyPhones,
    /// The binary asked for it, with a code of its own.
    BinaryRequest,
}

impl CloseCause {
    /// Every cause, for pre-registering one series each.
    pub const ALL: [Self; 17] = [
        Self::PeerClosed,
        Self::PeerLost,
        Self::ShuttingDown,
        Self::InvalidJson,
        Self::MessageTooBig,
        Self::HeartbeatTimeout,
        Self::MessageTimedOut,
        Self::PhoneBacklogFull,
        Self::PhoneWriteFailed,
        Self::BinaryDidNotReconnect,
        Self::BinaryWriteFailed,
        Self::NoServer,
        Self::BinaryReclaimed,
        Self::BinaryDisconnected,
        Self::AlreadyClaimed,
        Self::TooManyPhones,
        Self::BinaryRequest,
    ];

    /// The label and log value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PeerClosed => "peer_closed",
            Self::PeerLost => "peer_lost",
            Self::ShuttingDown => "shutting_down",
            Self::InvalidJson => "invalid_json",
            Self::MessageTooBig => "message_too_big",
            Self::HeartbeatTimeout => "heartbeat_timeout",
            Self::MessageTimedOut => "message_timed_out",
            Self::PhoneBacklogFull => "phone_backlog_full",
            Self::PhoneWriteFailed => "phone_write_failed",
            Self::BinaryDidNotReconnect => "binary_did_not_reconnect",
            Self::BinaryWriteFailed => "binary_write_failed",
            Self::NoServer => "no_server",
            Self::BinaryReclaimed => "binary_reclaimed",
            Self::BinaryDisconnected => "binary_disconnected",
            Self::AlreadyClaimed => "already_claimed",
            Self::TooManyPhones => "too_many_phones",
            Self::BinaryRequest => "binary_request",
        }
    }
}

/// A close that the relay originates: the table of PROTOCOL § 5, so that no other code or reason can leave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Close {
    /// 1001: the relay is shutting down; a client should wait this many seconds before it redials.
    ShuttingDown {
        /// Seconds after which a redial is welcome.
        retry_after: u64,
    },
    /// 1007: a phone's message was not exactly one JSON value.
    InvalidJson,
    /// 1009: a message was larger than allowed.
    MessageTooBig,
    /// 1011: nothing was heard from the peer for too long.
    HeartbeatTimeout,
    /// 1011: a message was begun and not finished in time.
    MessageTimedOut,
    /// 1011: a phone's outbox overflowed.
    PhoneBacklogFull,
    /// 1011: a write to a phone failed.
    PhoneWriteFailed,
    /// 1011: the grace period ended without a reclaim.
    BinaryDidNotReconnect,
    /// 1011: a write to a binary failed.
    BinaryWriteFailed,
    /// 4404: no binary holds the server-id.
    NoServer,
    /// 4404: the binary came back; its phones must start over.
    BinaryReclaimed,
    /// 4404: a frame came for a binary that is gone.
    BinaryDisconnected,
    /// 4409: another binary holds the server-id.
    AlreadyClaimed,
    /// 4429: the server-id has all the phones it may have.
    TooManyPhones,
    /// The binary's own `close_code`.
    BinaryRequest(CloseCode),
}

impl Close {
    /// The close code on the wire.
    #[must_use]
    pub const fn code(self) -> u16 {
        match self {
            Self::ShuttingDown { .. } => 1001,
            Self::InvalidJson => 1007,
            Self::MessageTooBig => 1009,
            Self::HeartbeatTimeout
            | Self::MessageTimedOut
            | Self::PhoneBacklogFull
            | Self::PhoneWriteFailed
            | Self::BinaryDidNotReconnect
            | Self::BinaryWriteFailed => 1011,
            Self::NoServer | Self::BinaryReclaimed | Self::BinaryDisconnected => 4404,
            Self::AlreadyClaimed => 4409,
            Self::TooManyPhones => 4429,
            Self::BinaryRequest(code) => code.get(),
        }
    }

    /// The reason on the wire: one of the fixed strings of PROTOCOL § 5.
    #[must_use]
    pub fn reason(self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Self::ShuttingDown { retry_after } => {
                return Cow::Owned(format!("shutting down; retry-after={retry_after}"));
            }
            Self::InvalidJson => "frame is not valid JSON",
            Self::MessageTooBig => "message too big",
            Self::HeartbeatTimeout => "heartbeat timeout",
            Self::MessageTimedOut => "message timed out",
            Self::PhoneBacklogFull => "phone backlog full",
            Self::PhoneWriteFailed => "phone write failed",
            Self::BinaryDidNotReconnect => "binary did not reconnect",
            Self::BinaryWriteFailed => "binary write failed",
            Self::NoServer => "no server with that id",
            Self::BinaryReclaimed => "binary reclaimed server-id",
            Self::BinaryDisconnected => "binary disconnected",
            Self::AlreadyClaimed => "server-id already claimed",
            Self::TooManyPhones => "too many phones for server-id",
            Self::BinaryRequest(_) => "",
        })
    }

    /// The same close, for counting.
    #[must_use]
    pub const fn cause(self) -> CloseCause {
        match self {
            Self::ShuttingDown { .. } => CloseCause::ShuttingDown,
            Self::InvalidJson => CloseCause::InvalidJson,
            Self::MessageTooBig => CloseCause::MessageTooBig,
            Self::HeartbeatTimeout => CloseCause::HeartbeatTimeout,
            Self::MessageTimedOut => CloseCause::MessageTimedOut,
            Self::PhoneBacklogFull => CloseCause::PhoneBacklogFull,
            Self::PhoneWriteFailed => CloseCause::PhoneWriteFailed,
            Self::BinaryDidNotReconnect => CloseCause::BinaryDidNotReconnect,
            Self::BinaryWriteFailed => CloseCause::BinaryWriteFailed,
            Self::NoServer => CloseCause::NoServer,
            Self::BinaryReclaimed => CloseCause::BinaryReclaimed,
            Self::BinaryDisconnected => CloseCause::BinaryDisconnected,
            Self::AlreadyClaimed => CloseCause::AlreadyClaimed,
            Self::TooManyPhones => CloseCause::TooManyPhones,
            Self::BinaryRequest(_) => CloseCause::BinaryRequest,
        }
    }
}
