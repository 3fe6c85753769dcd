//! How a session ends: what is counted, and what the peer is told.

use std::borrow::Cow;

use super::close::{Close, CloseCause};
use super::observer::DropReason;

/// How a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The relay closes it. The frames on their way to the peer die for the reason given.
    Ours(Close, DropReason),
    /// The peer sent a close frame, with its code if it had one.
    PeerClosed(Option<u16>),
    /// The peer's socket ended or failed, or it broke the WebSocket protocol.
    PeerLost,
    /// A write failed; this is what it is called at this end.
    WriteFailed(Close),
}

impl End {
    /// Of a connection that was upgraded and is not served: nothing was on its way to it.
    pub(super) fn refusal(close: Close) -> Self {
        Self::Ours(close, DropReason::ReceiverClosed)
    }

    /// The cause to count.
    #[must_use]
    pub fn cause(self) -> CloseCause {
        match self {
            Self::Ours(close, _) | Self::WriteFailed(close) => close.cause(),
            Self::PeerClosed(_) => CloseCause::PeerClosed,
            Self::PeerLost => CloseCause::PeerLost,
        }
    }

    /// What becomes of the frames that were in the outgoing buffer, and of those that were queued.
    pub(super) fn drop_reasons(self) -> (DropReason, DropReason) {
        match self {
            Self::Ours(_, DropReason::WriteFailed) | Self::WriteFailed(_) => {
                (DropReason::WriteFailed, DropReason::ReceiverClosed)
            }
            Self::Ours(_, reason) => (reason, reason),
            Self::PeerClosed(_) | Self::PeerLost => (DropReason::ReceiverClosed, DropReason::ReceiverClosed),
        }
    }

    /// The code and reason of the close frame that the peer gets, if it can get one.
    pub(super) fn last_words(self) -> Option<(u16, Cow<'static, str>)> {
        match self {
            Self::Ours(close, _) => Some((close.code(), close.reason())),
            Self::PeerClosed(code) => Some((code.unwrap_or(1000), "".into())),
            Self::PeerLost | Self::WriteFailed(_) => None,
        }
    }
}
