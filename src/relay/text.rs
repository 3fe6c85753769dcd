//! A text message in the form in which it is written: one final frame that is not masked (RFC 6455 § 5.2).
//!
//! It is put together once, when a frame is wrapped or taken out of its envelope, and is written from where it stands or copied once
//! more into bytes that go out together.

use async_tungstenite::tungstenite::protocol::frame::FrameHeader;
use async_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};

/// A text message with its frame header.
#[derive(Clone, PartialEq, Eq)]
pub struct Text {
    bytes: Vec<u8>,
    /// Where the text begins.
    begins_at: usize,
}

/// Says nothing of the text, which may not reach a log (PROTOCOL § 7).
impl std::fmt::Debug for Text {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Text").field("bytes", &self.len()).finish_non_exhaustive()
    }
}

impl Text {
    /// A text of `length` bytes, which `write` appends. Has no more capacity than it needs.
    pub(super) fn new(length: usize, write: impl FnOnce(&mut Vec<u8>)) -> Self {
        let header = FrameHeader {
            is_final: true,
            rsv1: false,
            rsv2: false,
            rsv3: false,
            opcode: OpCode::Data(Data::Text),
            mask: None,
        };
        let begins_at = header.len(length as u64);
        let mut bytes = Vec::with_capacity(begins_at + length);
        // Writing to a vector cannot fail.
        let _ = header.format(length as u64, &mut bytes);
        write(&mut bytes);
        debug_assert_eq!(bytes.len() - begins_at, length);
        Self { bytes, begins_at }
    }

    /// The length of the text in bytes, without the header.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "none is empty: it is JSON")]
    pub fn len(&self) -> usize {
        self.bytes.len() - self.begins_at
    }

    /// The text.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(self.begins_at..).unwrap_or_default()
    }

    /// Header and text.
    pub(super) fn into_frame(self) -> Vec<u8> {
        self.bytes
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self::new(text.len(), |out| out.extend_from_slice(text.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_has_the_shortest_form_of_the_length() {
        for (length, header) in [
            (0, &[0x81, 0][..]),
            (125, &[0x81, 125]),
            (126, &[0x81, 126, 0, 126]),
            (65_535, &[0x81, 126, 255, 255]),
            (65_536, &[0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        ] {
            let text = Text::from("x".repeat(length).as_str());
            assert_eq!(text.len(), length);
            assert!(text.as_bytes().iter().all(|byte| *byte == b'x'));
            let frame = text.into_frame();
            assert_eq!((&frame[..header.len()], frame.len()), (header, header.len() + length));
            assert_eq!(frame.capacity(), frame.len());
        }
    }
}
