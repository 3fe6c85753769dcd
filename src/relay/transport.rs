//! What a session needs of its socket beyond reading and writing.
//!
//! A frame counts as forwarded when its last byte was handed to the kernel. A socket that only passes bytes on answers a write
//! when the kernel has them. One that encrypts first can be in between: bytes are sealed, and what they were sealed into is not
//! all with the kernel. It answers `Pending` then, and says so here, because what was sealed has to go next.

use smol::io::{AsyncRead, AsyncWrite};

/// A socket that answers a write when the kernel has all of it.
pub trait Transport: AsyncRead + AsyncWrite {
    /// How many bytes, from the front of what the last write offered, are bound to go next although that write is pending.
    /// The next write must begin with them.
    fn begun(&self) -> usize {
        0
    }

    /// The next read and the next write ask the kernel, even if it has not told of anything to read, or of room, since there was none.
    fn ask_again(&mut self) {}

    /// Whether bytes came since this was last asked that no read has told of: they are of something that is not whole yet.
    fn has_heard(&mut self) -> bool {
        false
    }

    /// Whether such bytes are there.
    fn holds_a_part(&self) -> bool {
        false
    }

    /// Whether the kernel has taken anything since this was last asked that no write has told of.
    fn has_moved(&mut self) -> bool {
        false
    }
}
