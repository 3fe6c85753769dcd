//! Messages that come in a single frame (RFC 6455 § 5.2), which are most: taken where they stand.
//!
//! The bytes that were read belong to the thread. A message that is whole in them is unmasked there and borrowed from there. One that
//! is not is collected in a buffer that is lent to the connection until it is complete (`super::spare`). So a message is copied
//! only if it came in pieces.

use std::io::Cursor;
use std::ops::{Deref, Range};

use async_tungstenite::tungstenite::Bytes;
use async_tungstenite::tungstenite::protocol::frame::FrameHeader;
use async_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};

use super::spare;

/// The length from which collecting a message begins with a buffer of the thread: a smaller one is not worth a large buffer.
const LARGE: usize = 16 * 1024;

/// A message, unmasked.
#[derive(Debug)]
pub struct Message<'i>(Content<'i>);

#[derive(Debug)]
enum Content<'i> {
    /// It was whole in what was read.
    Whole(&'i [u8]),
    /// It came in pieces; this range of the buffer.
    Collected(Vec<u8>, Range<usize>),
    /// It was the library's to put together.
    Library(Bytes),
}

impl Deref for Message<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Content::Whole(bytes) => bytes,
            Content::Collected(buffer, range) => buffer.get(range.clone()).unwrap_or_default(),
            Content::Library(bytes) => bytes,
        }
    }
}

impl From<Bytes> for Message<'_> {
    fn from(bytes: Bytes) -> Self {
        Self(Content::Library(bytes))
    }
}

impl Drop for Message<'_> {
    fn drop(&mut self) {
        if let Content::Collected(buffer, _) = &mut self.0 {
            spare::give(std::mem::take(buffer));
        }
    }
}

/// What some bytes begin with.
pub(super) enum Single<'i> {
    /// A message in a single frame, and whole.
    Whole(Message<'i>),
    /// The beginning of such a message. No byte is taken yet.
    Part(Part),
    /// There are no bytes.
    Nothing,
    /// Another frame, a header that is not whole, or something that may not be. No byte is taken.
    Other,
}

/// Takes a message of at most `most` bytes from the beginning of `input`, where a frame begins.
pub(super) fn single<'i>(input: &mut &'i mut [u8], most: usize) -> Single<'i> {
    if input.is_empty() {
        return Single::Nothing;
    }
    let mut cursor = Cursor::new(&**input);
    let Ok(Some((header, length))) = FrameHeader::parse(&mut cursor) else { return Single::Other };
    let FrameHeader { is_final: true, rsv1: false, rsv2: false, rsv3: false, opcode, mask: Some(mask) } =
        header
    else {
        return Single::Other;
    };
    if !matches!(opcode, OpCode::Data(Data::Text | Data::Binary)) {
        return Single::Other;
    }
    // Both are lengths of something in memory, or allowed to be.
    let (Ok(begins_at), Ok(length)) = (usize::try_from(cursor.position()), usize::try_from(length)) else {
        return Single::Other;
    };
    if length > most {
        return Single::Other;
    }
    let payload = begins_at..begins_at + length;
    if payload.end > input.len() {
        return Single::Part(Part { bytes: Vec::new(), payload, mask });
    }
    let (frame, rest) = std::mem::take(input).split_at_mut(payload.end);
    *input = rest;
    let payload = frame.get_mut(payload).unwrap_or_default();
    unmask(payload, mask);
    Single::Whole(Message(Content::Whole(payload)))
}

/// A message that is not complete.
#[derive(Debug)]
pub(super) struct Part {
    /// What came of its frame, with the header and as it came.
    bytes: Vec<u8>,
    /// Where its payload will be.
    payload: Range<usize>,
    mask: [u8; 4],
}

impl Part {
    /// Takes what belongs to it from the beginning of `input`. Whether it is complete now.
    pub(super) fn take(&mut self, input: &mut &mut [u8]) -> bool {
        let missing = self.payload.end - self.bytes.len();
        let count = missing.min(input.len());
        let (piece, rest) = std::mem::take(input).split_at_mut(count);
        // Room for the whole, once a good part of it came: who only announces much gets nothing for it.
        if piece.len() >= missing / 4 {
            if self.bytes.capacity() == 0 && self.payload.end >= LARGE {
                self.bytes = spare::take();
            }
            self.bytes.reserve_exact(missing);
        }
        self.bytes.extend_from_slice(piece);
        *input = rest;
        self.bytes.len() == self.payload.end
    }

    /// The message, when it is complete.
    pub(super) fn into_message<'i>(self) -> Message<'i> {
        let Self { mut bytes, payload, mask } = self;
        unmask(bytes.get_mut(payload.clone()).unwrap_or_default(), mask);
        Message(Content::Collected(bytes, payload))
    }
}

/// RFC 6455 § 5.3, eight bytes at a time.
fn unmask(payload: &mut [u8], mask: [u8; 4]) {
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let mut words = payload.chunks_exact_mut(8);
    for word in &mut words {
        if let Ok(bytes) = <[u8; 8]>::try_from(&*word) {
            word.copy_from_slice(&(u64::from_ne_bytes(bytes) ^ wide).to_ne_bytes());
        }
    }
    for (byte, mask) in words.into_remainder().iter_mut().zip(mask.into_iter().cycle()) {
        *byte ^= mask;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masked(plain: &[u8], mask: [u8; 4]) -> Vec<u8> {
        plain.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect()
    }

    /// A message of `length` bytes in a frame, and what it says.
    fn frame(length: u16) -> (Vec<u8>, Vec<u8>) {
        let plain: Vec<u8> = (0..length).map(|at| at.to_be_bytes()[1]).collect();
        let mask = [9, 8, 7, 6];
        let head = [&[0x82, 0xfe][..], &length.to_be_bytes(), &mask].concat();
        ([head, masked(&plain, mask)].concat(), plain)
    }

    #[test]
    fn a_message_is_taken_where_it_stands_and_the_next_is_left() {
        let (bytes, plain) = frame(300);
        let mut twice = [bytes.clone(), bytes.clone()].concat();
        let mut input = twice.as_mut_slice();
        let Single::Whole(message) = single(&mut input, 300) else { panic!("it is whole") };
        assert!(matches!(message.0, Content::Whole(_)) && *message == plain[..]);
        assert_eq!(input, bytes);
        assert!(matches!(single(&mut input, 299), Single::Other), "it is too large");
        assert_eq!(input, bytes);
    }

    #[test]
    fn a_message_that_comes_in_pieces_is_collected() {
        for length in [1, 300, 40_000] {
            for size in [1, 7, 10_000, 39_000] {
                let (bytes, plain) = frame(length);
                let bytes = [bytes, vec![0x99; 3]].concat();
                // The header has to be there at once; it is the library's otherwise.
                let (mut begin, mut rest) = (bytes[..8].to_vec(), bytes[8..].to_vec());
                let mut input = begin.as_mut_slice();
                let Single::Part(mut part) = single(&mut input, 65_535) else { panic!("it is not whole") };
                assert_eq!(input.len(), 8, "nothing is taken yet");
                assert!(!part.take(&mut input) && input.is_empty());
                let mut pieces = rest.chunks_mut(size);
                let left = loop {
                    let mut piece = pieces.next().unwrap();
                    if part.take(&mut piece) {
                        break piece.len() + pieces.map(|piece| piece.len()).sum::<usize>();
                    }
                    assert!(piece.is_empty());
                };
                assert!(*part.into_message() == plain[..], "{length} in pieces of {size}");
                assert_eq!(left, 3);
            }
        }
    }

    #[test]
    fn who_announces_much_and_sends_little_gets_no_large_buffer() {
        spare::give(Vec::with_capacity(100_000));
        let (bytes, _) = frame(40_000);
        let mut begin = bytes[..14].to_vec();
        let mut input = begin.as_mut_slice();
        let Single::Part(mut part) = single(&mut input, 65_535) else { panic!("it is not whole") };
        assert!(!part.take(&mut input));
        assert!(part.bytes.capacity() < 100, "{}", part.bytes.capacity());
        let mut rest = bytes[14..30_000].to_vec();
        assert!(!part.take(&mut rest.as_mut_slice()) && part.bytes.capacity() >= bytes.len());
    }

    #[test]
    fn what_is_no_message_in_one_frame_is_left_to_the_library() {
        for bytes in [
            &[0x82][..],
            &[0x82, 0xfe, 1],
            &[0x02, 0x81, 0, 0, 0, 0, 7],
            &[0x80, 0x81, 0, 0, 0, 0, 7],
            &[0x89, 0x80, 0, 0, 0, 0],
            &[0x88, 0x80, 0, 0, 0, 0],
            &[0x82, 0x01, 7],
            &[0xc2, 0x81, 0, 0, 0, 0, 7],
            &[0x83, 0x81, 0, 0, 0, 0, 7],
            &[0x82, 0xff, 255, 255, 255, 255, 255, 255, 255, 255, 0, 0, 0, 0],
        ] {
            let mut copy = bytes.to_vec();
            let mut input = copy.as_mut_slice();
            assert!(matches!(single(&mut input, 1000), Single::Other), "{bytes:?}");
            assert_eq!(input, bytes);
        }
        assert!(matches!(single(&mut &mut [][..], 1000), Single::Nothing));
    }

    #[test]
    fn unmasking_is_the_same_for_every_length() {
        for length in 0..40 {
            let plain: Vec<u8> = (0..length).collect();
            let mask = [0x12, 0x34, 0x56, 0x78];
            let mut masked: Vec<u8> =
                plain.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
            unmask(&mut masked, mask);
            assert_eq!(masked, plain);
        }
    }
}
