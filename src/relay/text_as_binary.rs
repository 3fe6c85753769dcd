//! Makes every message look like a binary one to the WebSocket library.
//!
//! A text message that is not UTF-8 must cost its sender that message alone (PROTOCOL § 3). The library checks text
//! while it joins fragments, and has no way back from a fragment that fails. So it is shown binary messages, which it
//! does not look into, and the leg checks the whole message: it does so in any case, for binary ones.
//!
//! Only headers are looked at (RFC 6455 § 5.2), byte by byte, because they may arrive in any pieces; payloads are
//! skipped over. Whether a header is allowed is the library's to judge.

const TEXT: u8 = 0x1;
/// What makes 1 (text) of 2 (binary), and the other way round.
const TEXT_TO_BINARY: u8 = 0x3;

/// Follows the frames in a stream of bytes, and turns the opcode of a text frame into that of a binary one.
#[derive(Debug, Default)]
pub(super) struct TextAsBinary {
    next: Next,
    /// Bytes before the next header: the rest of a mask and payload.
    skip: u64,
}

/// Which byte of a header comes next.
#[derive(Clone, Copy, Debug, Default)]
enum Next {
    #[default]
    Opcode,
    Length,
    /// Of the longer form of the length, with so many bytes to come and this much of its value seen.
    More {
        bytes: u8,
        value: u64,
        mask: u64,
    },
}

impl TextAsBinary {
    /// `bytes` come next; turns the opcodes among them.
    pub(super) fn rewrite(&mut self, mut bytes: &mut [u8]) {
        loop {
            let skip = usize::try_from(self.skip).unwrap_or(usize::MAX).min(bytes.len());
            self.skip -= skip as u64;
            let Some((byte, rest)) = bytes.get_mut(skip..).and_then(<[u8]>::split_first_mut) else {
                return;
            };
            self.header(byte);
            bytes = rest;
        }
    }

    fn header(&mut self, byte: &mut u8) {
        self.next = match self.next {
            Next::Opcode => {
                if *byte & 0x0f == TEXT {
                    *byte ^= TEXT_TO_BINARY;
                }
                Next::Length
            }
            Next::Length => {
                let mask = if *byte & 0x80 == 0 { 0 } else { 4 };
                match *byte & 0x7f {
                    126 => Next::More { bytes: 2, value: 0, mask },
                    127 => Next::More { bytes: 8, value: 0, mask },
                    length => self.payload(u64::from(length), mask),
                }
            }
            Next::More { bytes, value, mask } => {
                let value = value << 8 | u64::from(*byte);
                if bytes > 1 {
                    Next::More { bytes: bytes - 1, value, mask }
                } else {
                    self.payload(value, mask)
                }
            }
        };
    }

    fn payload(&mut self, length: u64, mask: u64) -> Next {
        self.skip = length.saturating_add(mask);
        Next::Opcode
    }
}
