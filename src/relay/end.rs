//! How a session ends: what is counted, and what the peer is told.

use std::borrow::Cow;

use super::close::{Close, CloseCause};
use super::observer::DropReason;

/// How a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The relay closes it. The queued frames die for the reason given.
    Ours(Close, DropReason),
    /// The peer sent a close frame, with its code if it had one.
    PeerClosed(Option<u16>),
    /// The peer's socket ended or failed, or it broke the WebSocket protocol.
    PeerLost,
    /// A write failed.
    WriteFailed,
}

impl End {
    /// The cause to count, for a connection whose failed write is `write_failed`.
    #[must_use]
    pub fn cause(self, write_failed: CloseCause) -> CloseCause {
        match self {
            Self::Ours(close, _) => close.cause(),
            Self::PeerClosed(_) => CloseCause::PeerClosed,
            Self::PeerLost => CloseCause::PeerLost,
            Self::WriteFailed => write_failed,
        }
    }

    /// The code and reason of the close frame that the peer gets, if it can get one.
    pub(super) fn last_words(self) -> Option<(u16, Cow<'static, str>)> {
        match self {
            Self::Ours(close, _) => Some((close.code(), close.reason())),
            Self::PeerClosed(code) => Some((code.unwrap_or(1000), "".into())),
            Self::PeerLost | Self::WriteFailed => None,
        }
    }
}
