//! Follows the frame headers in the bytes on their way to the WebSocket library (RFC 6455 § 5.2).
//!
//! Five promises of the protocol need to know more of them than the library tells:
//!
//! - A message that is not UTF-8 costs its sender that message alone (PROTOCOL § 3). The library checks text while it
//!   joins fragments, and has no way back from a fragment that fails. So a text frame is turned into a binary one
//!   here, which the library does not look into; the leg checks the whole message.
//! - A message is refused for its size from the header that makes it too large (PROTOCOL § 4), fragments added up. The
//!   library adds them up when it has them.
//! - A close is answered with the peer's code (PROTOCOL § 5). The library replaces some.
//! - An idle connection keeps no buffer. Between two messages the library holds nothing, so that it can be made anew: it is given
//!   one frame at a time.
//! - A message has to be complete in a bounded time (PROTOCOL § 4), so its beginning must be seen.
//!
//! Headers are looked at byte by byte, because they may arrive in any pieces; payloads are skipped over. Whether a
//! header is allowed is the library's to judge.

const TEXT: u8 = 0x1;
const CLOSE: u8 = 0x8;
const CONTROL: u8 = 0x8;
/// What makes 1 (text) of 2 (binary), and the other way round.
const TEXT_TO_BINARY: u8 = 0x3;

/// Which byte comes next.
#[derive(Clone, Copy, Debug, Default)]
enum Next {
    /// The first of a header.
    #[default]
    Opcode,
    /// The second.
    Length,
    /// One of the longer form of the length, with so many to come and this much of the value seen.
    More { bytes: u8, value: u64 },
    /// One of the mask, with so many to come.
    Mask { bytes: u8 },
    /// One of the code in a close frame: the first, or the second.
    Code { second: bool },
}

/// What is known of the frames that came by.
#[derive(Debug)]
pub(super) struct Follower {
    next: Next,
    /// Bytes of payload before the next header.
    skip: u64,
    opcode: u8,
    fin: bool,
    /// Bytes of mask behind the length: four or none.
    mask_length: u8,
    length: u64,
    mask: [u8; 4],
    /// Bytes of the message under way, its current frame included.
    message: u64,
    /// Messages, and control frames between messages, that have begun so far.
    begun: u64,
    /// The most that a message may have.
    limit: u64,
    too_big: bool,
    /// A close frame came; what comes behind it is nobody's.
    closed: bool,
    close_code: Option<u16>,
}

impl Follower {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            next: Next::default(),
            skip: 0,
            opcode: 0,
            fin: true,
            mask_length: 0,
            length: 0,
            mask: [0; 4],
            message: 0,
            begun: 0,
            limit: limit as u64,
            too_big: false,
            closed: false,
            close_code: None,
        }
    }

    /// `bytes` come next. Turns text opcodes into binary ones, and returns how many of the bytes may be passed on:
    /// those up to the end of a frame, or of the header that makes a message too large.
    pub(super) fn follow(&mut self, bytes: &mut [u8]) -> usize {
        let mut at = 0;
        while !self.too_big {
            let skip = usize::try_from(self.skip).unwrap_or(usize::MAX).min(bytes.len() - at);
            self.skip -= skip as u64;
            at += skip;
            if at > 0 && self.is_between_frames() {
                break;
            }
            let Some(byte) = bytes.get_mut(at) else { break };
            self.step(byte);
            at += 1;
        }
        at
    }

    /// A message is too large; nothing more can be read.
    pub(super) fn is_too_big(&self) -> bool {
        self.too_big
    }

    /// A message begins that goes by at once, in a single frame, and is not shown to the library. Returns its ordinal.
    pub(super) fn goes_by(&mut self) -> u64 {
        self.begun += 1;
        self.begun
    }

    fn is_between_frames(&self) -> bool {
        matches!(self.next, Next::Opcode) && self.skip == 0
    }

    /// No frame and no message is under way.
    pub(super) fn is_between_messages(&self) -> bool {
        self.is_between_frames() && self.message == 0 && self.fin
    }

    /// The message that is under way, by its ordinal. A control frame between messages counts as one.
    pub(super) fn under_way(&self) -> Option<u64> {
        if self.is_between_messages() { None } else { Some(self.begun) }
    }

    /// The message or control frame that would be next, by its ordinal.
    pub(super) fn next_up(&self) -> u64 {
        self.begun + 1
    }

    /// A close frame came.
    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    /// The code in the close frame that came, if it had one.
    pub(super) fn close_code(&self) -> Option<u16> {
        self.close_code
    }

    fn step(&mut self, byte: &mut u8) {
        self.next = match self.next {
            Next::Opcode => {
                self.begun += u64::from(self.is_between_messages());
                self.opcode = *byte & 0x0f;
                // A control frame may stand between two fragments and says nothing about the message's end.
                if self.opcode < CONTROL {
                    self.fin = *byte & 0x80 != 0;
                }
                if self.opcode == TEXT {
                    *byte ^= TEXT_TO_BINARY;
                }
                Next::Length
            }
            Next::Length => {
                self.mask_length = if *byte & 0x80 == 0 { 0 } else { 4 };
                match *byte & 0x7f {
                    126 => Next::More { bytes: 2, value: 0 },
                    127 => Next::More { bytes: 8, value: 0 },
                    length => self.length_is(u64::from(length)),
                }
            }
            Next::More { bytes, value } => {
                let value = value << 8 | u64::from(*byte);
                match bytes {
                    0 | 1 => self.length_is(value),
                    _ => Next::More { bytes: bytes - 1, value },
                }
            }
            Next::Mask { bytes } => {
                self.mask.rotate_left(1);
                self.mask[3] = *byte;
                match bytes {
                    0 | 1 => self.payload(),
                    _ => Next::Mask { bytes: bytes - 1 },
                }
            }
            Next::Code { second: false } => {
                self.close_code = Some(u16::from(*byte ^ self.mask[0]) << 8);
                Next::Code { second: true }
            }
            Next::Code { second: true } => {
                self.close_code = self.close_code.map(|code| code | u16::from(*byte ^ self.mask[1]));
                self.skip = self.length - 2;
                Next::Opcode
            }
        };
    }

    fn length_is(&mut self, length: u64) -> Next {
        self.length = length;
        if self.opcode < CONTROL {
            self.message = self.message.saturating_add(length);
            self.too_big = self.message > self.limit;
        }
        match self.mask_length {
            0 => self.payload(),
            bytes => Next::Mask { bytes },
        }
    }

    fn payload(&mut self) -> Next {
        if self.opcode < CONTROL && self.fin {
            self.message = 0;
        }
        if self.opcode == CLOSE && !std::mem::replace(&mut self.closed, true) && self.length >= 2 {
            return Next::Code { second: false };
        }
        self.skip = self.length;
        Next::Opcode
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Passes bytes through, in pieces of `size`.
    fn pass(follower: &mut Follower, bytes: &[u8], size: usize) -> Vec<u8> {
        let mut passed = Vec::new();
        for piece in bytes.chunks(size) {
            let mut piece = piece.to_vec();
            let mut rest = piece.as_mut_slice();
            while !rest.is_empty() && !follower.is_too_big() {
                let count = follower.follow(rest);
                passed.extend_from_slice(&rest[..count]);
                rest = &mut rest[count..];
            }
        }
        passed
    }

    #[test]
    fn text_becomes_binary_in_whatever_pieces_it_comes() {
        let mut bytes = vec![0x01, 0x83, 1, 2, 3, 4, 0x81, 0x81, 0x81];
        bytes.extend([0x89, 0x81, 0, 0, 0, 0, 0x81]);
        bytes.extend([0x80, 0xfe, 0, 130, 9, 9, 9, 9]);
        bytes.extend([0x81; 130]);
        bytes.extend([0x81, 0x80, 5, 6, 7, 8]);
        let mut expected = bytes.clone();
        expected[0] = 0x02;
        *expected.iter_mut().rev().nth(5).unwrap() = 0x82;
        for size in [1, 2, 3, 7, 64, 1000] {
            let mut follower = Follower::new(1000);
            assert_eq!(pass(&mut follower, &bytes, size), expected, "pieces of {size}");
            assert!(follower.is_between_messages() && !follower.is_too_big());
        }
    }

    #[test]
    fn fragments_are_added_up_and_refused_from_the_header() {
        let first = [&[0x02, 0x86, 0, 0, 0, 0][..], &[7; 6]].concat();
        let ping = [0x89, 0x85, 0, 0, 0, 0, 1, 1, 1, 1, 1];
        let mut follower = Follower::new(10);
        assert_eq!(pass(&mut follower, &[&first[..], &ping].concat(), 5).len(), first.len() + ping.len());
        assert!(!follower.is_between_messages() && !follower.is_too_big());
        let mut fits = [0x00, 0x84, 0, 0, 0, 0, 7, 7, 7, 7];
        assert_eq!(follower.follow(&mut fits), fits.len());
        let mut last = [0x80, 0x81, 0, 0, 0, 0, 7];
        assert_eq!(follower.follow(&mut last), 2, "not a byte behind the length");
        assert!(follower.is_too_big());
        let mut huge = [0x82, 0xff, 0x3f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0];
        let mut follower = Follower::new(10);
        assert_eq!((follower.follow(&mut huge), follower.is_too_big()), (10, true));
    }

    #[test]
    fn the_code_of_a_close_is_unmasked() {
        for (code, reason) in
            [(1000_u16, &b""[..]), (2999, b"bye"), (1014, b"x"), (1002, b"Protocol violation")]
        {
            let mask = [0x12, 0x34, 0x56, 0x78];
            let payload = [&code.to_be_bytes()[..], reason].concat();
            let mut bytes = vec![0x88, 0x80 | u8::try_from(payload.len()).unwrap()];
            bytes.extend(mask);
            bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
            for size in [1, 4, 100] {
                let mut follower = Follower::new(10);
                assert_eq!(pass(&mut follower, &bytes, size), bytes);
                assert_eq!(follower.close_code(), Some(code), "pieces of {size}");
            }
        }
        let mut follower = Follower::new(10);
        assert_eq!((follower.follow(&mut [0x88, 0x80, 1, 2, 3, 4]), follower.close_code()), (6, None));
        assert_eq!(follower.follow(&mut [0x88, 0x82, 0, 0, 0, 0, 0x0f, 0xa0]), 8);
        assert_eq!(follower.close_code(), None, "the first close is the one");
    }
}
