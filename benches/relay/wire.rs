//! As much of RFC 6455 as both sides of the bench need: frame headers and the mask.

/// The opcodes that somebody sends here.
pub(crate) const TEXT: u8 = 1;
pub(crate) const BINARY: u8 = 2;
pub(crate) const CLOSE: u8 = 8;
pub(crate) const PING: u8 = 9;
pub(crate) const PONG: u8 = 10;

/// The bit of the first byte that says that the message ends with this frame.
pub(crate) const FIN: u8 = 0x80;

/// What stands in front of a frame in the binary's envelope is this long: `{"conn_id":"c-<16 hex>","frame":`.
pub(crate) const ENVELOPE_START: usize = 40;

/// What is before the hex digits of a `conn_id` in an envelope, and what is behind them.
pub(crate) const BEFORE_DIGITS: &[u8; 14] = b"{\"conn_id\":\"c-";
pub(crate) const AFTER_DIGITS: &[u8; 10] = b"\",\"frame\":";

/// Where the digits are.
pub(crate) const DIGITS: std::ops::Range<usize> = 14..30;

/// A frame's header.
pub(crate) struct Header {
    pub(crate) fin: bool,
    pub(crate) opcode: u8,
    pub(crate) mask: Option<[u8; 4]>,
    /// The length of the header.
    pub(crate) start: usize,
    /// Where the frame ends.
    pub(crate) end: usize,
}

impl Header {
    /// Reads the header that these bytes begin with, if it is complete.
    #[inline]
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let [first, second, rest @ ..] = bytes else { return None };
        let (len, mut start) = match second & 0x7f {
            126 => (u64::from(u16::from_be_bytes(*rest.first_chunk()?)), 4),
            127 => (u64::from_be_bytes(*rest.first_chunk()?), 10),
            short => (u64::from(short), 2),
        };
        let mask = if second & 0x80 == 0 {
            None
        } else {
            let mask = *bytes.get(start..)?.first_chunk()?;
            start += 4;
            Some(mask)
        };
        let end = start.checked_add(usize::try_from(len).ok()?)?;
        Some(Self { fin: first & FIN != 0, opcode: first & 0x0f, mask, start, end })
    }
}

/// Appends the header of a whole message of this length.
#[inline]
pub(crate) fn put_header(out: &mut Vec<u8>, opcode: u8, len: usize, mask: Option<[u8; 4]>) {
    let masked = if mask.is_some() { 0x80 } else { 0 };
    if let Ok(short @ 0..126) = u8::try_from(len) {
        out.extend_from_slice(&[FIN | opcode, masked | short]);
    } else if let Ok(medium) = u16::try_from(len) {
        let [high, low] = medium.to_be_bytes();
        out.extend_from_slice(&[FIN | opcode, masked | 0x7e, high, low]);
    } else {
        out.extend_from_slice(&[FIN | opcode, masked | 0x7f]);
        out.extend_from_slice(&(len as u64).to_be_bytes());
    }
    if let Some(mask) = mask {
        out.extend_from_slice(&mask);
    }
}

/// Masks or unmasks.
#[inline]
pub(crate) fn apply_mask(bytes: &mut [u8], mask: [u8; 4]) {
    let [a, b, c, d] = mask;
    let word = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let mut words = bytes.chunks_exact_mut(8);
    for chunk in &mut words {
        if let Ok(chunk) = <&mut [u8; 8]>::try_from(chunk) {
            *chunk = (u64::from_ne_bytes(*chunk) ^ word).to_ne_bytes();
        }
    }
    for (byte, key) in words.into_remainder().iter_mut().zip([a, b, c, d, a, b, c, d]) {
        *byte ^= key;
    }
}
