//! What waits in an outbox: a frame, or a notice.

use std::time::Instant;

use super::text::Text;

/// What an item costs beyond its text, in bytes: its place in the queue and the frame header around it.
pub const ITEM_OVERHEAD: usize = 64;

/// A frame on its way to a receiver.
#[derive(Debug)]
pub struct Frame {
    /// What is written: towards a binary the whole envelope, towards a phone the inner frame.
    pub text: Text,
    /// The inner frame's length in bytes.
    pub payload: usize,
    /// When its last byte was read.
    pub read_at: Instant,
}

/// One thing to write.
#[derive(Debug)]
pub enum Item {
    /// A counted frame.
    Frame(Frame),
    /// A close notice: written like a frame, never counted as one.
    Notice(Text),
}

impl Item {
    /// What the item is charged, in bytes.
    #[must_use]
    pub fn cost(&self) -> usize {
        match self {
            Self::Frame(Frame { text, .. }) | Self::Notice(text) => text.len() + ITEM_OVERHEAD,
        }
    }
}
