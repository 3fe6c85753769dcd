//! Bytes as a story: what each byte of a fuzzer's input makes happen to a relay.
//!
//! The first byte chooses the relay's settings. Then come steps: one byte for the kind of step (low half) and whom it
//! concerns (high half), then what the step needs. Every input means something, and most small changes to an input
//! change one thing in the story.

/// Steps beyond which an input is not read: a longer one says nothing new.
const MOST_STEPS: usize = 64;

/// How a frame is put on the wire.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Style(pub(crate) u8);

impl Style {
    /// The mask, or none, which clients must not do.
    pub(crate) fn mask(self) -> Option<[u8; 4]> {
        [Some([0; 4]), Some([0x13, 0x37, 0xc0, 0xde]), Some([0xff; 4]), None][usize::from(self.0 & 3)]
    }

    /// How many bytes the length takes at least: 1, 3 or 9; and what is announced beyond what comes.
    pub(crate) fn length(self) -> (usize, u64) {
        [(1, 0), (3, 0), (9, 0), (9, 1 << 20)][usize::from(self.0 >> 2 & 3)]
    }

    /// Bytes that are sent at a time; 0 for all of them.
    pub(crate) fn piece(self) -> usize {
        [0, 1, 2, 3, 5, 7, 64, 0][usize::from(self.0 >> 4 & 7)]
    }

    /// The last byte is not sent.
    pub(crate) fn stops_short(self) -> bool {
        self.0 >> 4 & 7 == 7
    }

    /// What comes next is there before the relay has had a turn.
    pub(crate) fn at_once(self) -> bool {
        self.0 & 0x80 != 0
    }
}

/// One thing that happens. `who` is a connection, by its number modulo how many there were so far.
#[derive(Debug)]
pub(crate) enum Step<'a> {
    /// Bytes as they are, `piece` at a time; 0 for all of them.
    Raw { who: u8, piece: usize, bytes: &'a [u8] },
    /// One frame.
    Frame { who: u8, first: u8, style: Style, payload: &'a [u8] },
    /// An envelope for the phone that is connection number `to`.
    Envelope { who: u8, to: u8, close: u8, style: Style, frame: &'a [u8] },
    /// A message of that many bytes: of a phone for its binary, or of a binary for connection number `to`.
    Long { who: u8, to: u8, style: Style, length: usize },
    /// That many pings of 125 bytes.
    Pings { who: u8, count: usize },
    /// The peer takes that many bytes and no more; `None`: everything.
    Accept { who: u8, room: Option<usize> },
    /// From now on writes to the peer fail.
    FailWrites { who: u8 },
    /// The peer hangs up.
    HangUp { who: u8 },
    /// Time passes.
    Wait { millis: u64 },
    /// Another connection. With bit 0 of `flags` a phone introduces itself, with bit 1 it is for the other server-id.
    Connect { binary: bool, flags: u8 },
    /// What an operator does: close a server-id in turn, begin to drain, cut everybody.
    Operator { what: u8 },
}

/// Reads an input: the byte that chooses the settings, and the steps.
pub(crate) fn read(input: &[u8]) -> (u8, Vec<Step<'_>>) {
    let (settings, rest) = input.split_first().map_or((0, input), |(first, rest)| (*first, rest));
    let mut reader = Reader(rest);
    let steps = std::iter::from_fn(|| reader.step()).take(MOST_STEPS).collect();
    (settings, steps)
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn byte(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().map_or((0, self.0), |(first, rest)| (*first, rest));
        self.0 = rest;
        first
    }

    /// As many bytes as the next byte says, or as there are.
    fn bytes(&mut self) -> &'a [u8] {
        let count = usize::from(self.byte()).min(self.0.len());
        let (bytes, rest) = self.0.split_at(count);
        self.0 = rest;
        bytes
    }

    fn style(&mut self) -> Style {
        Style(self.byte())
    }

    fn step(&mut self) -> Option<Step<'a>> {
        if self.0.is_empty() {
            return None;
        }
        let kind = self.byte();
        let who = kind >> 4;
        Some(match kind & 0x0f {
            0 => Step::Raw { who, piece: 0, bytes: self.bytes() },
            1 => Step::Raw { who, piece: usize::from(self.byte()), bytes: self.bytes() },
            2 => Step::Frame { who, first: self.byte(), style: self.style(), payload: self.bytes() },
            3 => Step::Frame { who, first: 0x81, style: self.style(), payload: self.bytes() },
            4 => Step::Envelope {
                who,
                to: self.byte(),
                close: self.byte(),
                style: self.style(),
                frame: self.bytes(),
            },
            5 => {
                let room = usize::from(self.byte());
                Step::Accept { who, room: Some(if room < 200 { room } else { (room - 199) * 100 }) }
            }
            6 => Step::Accept { who, room: None },
            7 => Step::FailWrites { who },
            8 => Step::HangUp { who },
            9 => {
                const TIMES: [u64; 8] = [1, 500, 2000, 9999, 10_000, 29_999, 30_000, 61_000];
                let time = usize::from(self.byte());
                Step::Wait { millis: TIMES.get(time).copied().unwrap_or(time as u64 * 250) }
            }
            10 => Step::Connect { binary: false, flags: self.byte() },
            11 => Step::Connect { binary: true, flags: self.byte() },
            12 => {
                let (to, style, scale, length) = (self.byte(), self.style(), self.byte(), self.byte());
                // Few are larger than one read of the relay.
                let unit = if scale < 240 { 8 } else { 300 };
                Step::Long { who, to, style, length: usize::from(scale) * unit + usize::from(length) }
            }
            13 => Step::Frame { who, first: 0x88, style: self.style(), payload: self.bytes() },
            14 => Step::Operator { what: self.byte() },
            _ => {
                let count = usize::from(self.byte());
                Step::Pings { who, count: if count < 240 { count / 4 } else { (count - 239) * 40 } }
            }
        })
    }
}
