//! One simulated client: what it sends, in whole or in pieces, and how it reads what the relay sends.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use crate::clock::VirtualClock;
use crate::ensure;
use crate::line::Line;
use crate::memory_socket;

/// What an envelope asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Asks {
    Deliver {
        frame: String,
        close: Option<u16>,
    },
    Close(u16),
    Push,
    /// Nothing that the relay could do.
    Nonsense,
}

/// One message of a binary.
#[derive(Clone, Debug)]
pub(crate) struct Envelope {
    /// The phone that it names, by its number in the simulation.
    pub(crate) to: Option<usize>,
    pub(crate) asks: Asks,
}

/// What it means that a message is complete.
#[derive(Clone, Debug)]
pub(crate) enum Meaning {
    /// A phone's frame.
    Frame(String),
    /// A phone's message that is no JSON.
    Malformed,
    Envelope(Envelope),
    Ping(Vec<u8>),
}

/// What a client did that ends its connection.
#[derive(Debug, Default)]
#[allow(clippy::struct_excessive_bools, reason = "any of them may be true together with any other")]
pub(crate) struct Ends {
    /// It sent a close frame.
    pub(crate) closed: bool,
    /// The code in it, if it had one.
    pub(crate) code: Option<u16>,
    pub(crate) hung_up: bool,
    pub(crate) reset: bool,
    pub(crate) broke_rules: bool,
    pub(crate) too_big: bool,
    pub(crate) malformed: bool,
}

/// A ping that the relay has not answered yet.
#[derive(Debug)]
pub(crate) struct Ping {
    pub(crate) payload: Vec<u8>,
    /// Where it ends in what the client sent.
    pub(crate) ends_at: u64,
    /// Bytes that the relay had written when it knew of the ping: no message that begins behind them may come before
    /// the answer.
    pub(crate) due_from: Option<u64>,
}

/// A frame of the relay's.
#[derive(Debug)]
pub(crate) struct Arrived {
    /// Where it begins in what the relay sent.
    pub(crate) begins_at: u64,
    pub(crate) first: u8,
    pub(crate) payload: Vec<u8>,
}

/// A client's side of its connection.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) line: Rc<RefCell<Line>>,
    /// What is left of the message that it sends, frame by frame.
    pieces: VecDeque<Vec<u8>>,
    /// The first of them was begun.
    mid_frame: bool,
    meaning: Option<Meaning>,
    /// Where messages begin and end in what it sends; an end is known when it was sent.
    spans: Vec<(u64, Option<u64>)>,
    /// Where the messages end that it has sent.
    complete: Vec<u64>,
    pub(crate) ends: Ends,
    /// It does not answer pings.
    pub(crate) silent: bool,
    owed_pongs: VecDeque<Vec<u8>>,
    pub(crate) pings: VecDeque<Ping>,
    /// The close frame that the relay sent.
    pub(crate) farewell: Option<(u16, String)>,
}

impl Client {
    pub(crate) fn new(clock: VirtualClock) -> Self {
        Self {
            line: Rc::new(RefCell::new(Line::new(clock))),
            pieces: VecDeque::new(),
            mid_frame: false,
            meaning: None,
            spans: Vec::new(),
            complete: Vec::new(),
            ends: Ends::default(),
            silent: false,
            owed_pongs: VecDeque::new(),
            pings: VecDeque::new(),
            farewell: None,
        }
    }

    /// Whether it may still send something.
    pub(crate) fn can_send(&self) -> bool {
        let Ends { closed, hung_up, broke_rules, too_big, .. } = &self.ends;
        !closed && !hung_up && !broke_rules && !too_big
    }

    /// Whether it is between two messages.
    pub(crate) fn can_begin(&self) -> bool {
        self.can_send() && self.pieces.is_empty()
    }

    /// Begins a message that is sent in these frames, without sending any of it.
    pub(crate) fn begin(&mut self, pieces: impl Into<VecDeque<Vec<u8>>>, meaning: Meaning) {
        self.pieces = pieces.into();
        self.meaning = Some(meaning);
        self.spans.push((self.line.borrow().sent, None));
    }

    /// Bytes that are left of the message under way, and of its current frame.
    pub(crate) fn left(&self) -> (usize, usize) {
        (self.pieces.iter().map(Vec::len).sum(), self.pieces.front().map_or(0, Vec::len))
    }

    /// Sends up to `count` bytes of the message under way. Returns what it means that it is complete, if it is now.
    pub(crate) fn send_some(&mut self, mut count: usize) -> Option<Meaning> {
        let mut bytes = Vec::new();
        while count > 0 {
            let Some(piece) = self.pieces.front_mut() else { break };
            let rest = piece.split_off(count.min(piece.len()));
            count -= piece.len();
            bytes.append(piece);
            *piece = rest;
            self.mid_frame = !piece.is_empty();
            if !self.mid_frame {
                self.pieces.pop_front();
            }
        }
        self.line.borrow_mut().send(&bytes);
        let complete = self.pieces.is_empty().then(|| self.meaning.take()).flatten();
        if complete.is_some() {
            let sent = self.line.borrow().sent;
            if let Some(span) = self.spans.last_mut() {
                span.1 = Some(sent);
            }
            if let Some(Meaning::Ping(payload)) = &complete {
                self.pings.push_back(Ping { payload: payload.clone(), ends_at: sent, due_from: None });
            } else {
                self.complete.push(sent);
            }
        }
        self.pay_pongs();
        complete
    }

    /// Sends bytes that are no message, or the last.
    pub(crate) fn send_raw(&mut self, bytes: &[u8]) {
        let mut line = self.line.borrow_mut();
        self.spans.push((line.sent, None));
        line.send(bytes);
    }

    /// The message that `consumed` bytes end in the middle of.
    pub(crate) fn under_way(&self, consumed: u64) -> Option<usize> {
        let last = self.spans.partition_point(|(begin, _)| *begin < consumed).checked_sub(1)?;
        let (_, end) = self.spans[last];
        end.is_none_or(|end| end > consumed).then_some(last)
    }

    /// How many messages are complete in the first `consumed` bytes.
    pub(crate) fn complete_in(&self, consumed: u64) -> usize {
        self.complete.partition_point(|end| *end <= consumed)
    }

    /// Whether the relay waits for an answer of this client's.
    pub(crate) fn owes_pong(&self) -> bool {
        !self.owed_pongs.is_empty()
    }

    /// Answers the pings that it owes an answer, if it may now.
    pub(crate) fn pay_pongs(&mut self) {
        if self.mid_frame || self.silent || !self.can_send() {
            return;
        }
        while let Some(payload) = self.owed_pongs.pop_front() {
            let mut line = self.line.borrow_mut();
            let between = self.pieces.is_empty();
            if between {
                let end = line.sent + 6 + payload.len() as u64;
                self.spans.push((line.sent, Some(end)));
            }
            line.send(&frame(0x8a, &payload));
        }
    }

    /// Takes the frames that have arrived whole. What arrives must be frames of a server, and nothing behind a close.
    pub(crate) fn receive(&mut self) -> Result<Vec<Arrived>, String> {
        let mut arrived = Vec::new();
        loop {
            let mut line = self.line.borrow_mut();
            let begins_at = line.taken - line.accepted.len() as u64;
            let Some((first, payload, length)) = first_frame(&line.accepted)? else { break };
            ensure!(self.farewell.is_none(), "a frame came behind the close frame: {first:#x}");
            line.accepted.drain(..length);
            drop(line);
            match first {
                0x88 => self.farewell = Some(close_of(&payload)?),
                0x89 => self.owed_pongs.push_back(payload.clone()),
                0x8a => {
                    let ping = self.pings.pop_front();
                    let expected = ping.as_ref().map(|ping| &ping.payload);
                    ensure!(expected == Some(&payload), "a pong {payload:?}, not {expected:?}");
                }
                _ => {
                    let due = self.pings.front().and_then(|ping| ping.due_from);
                    ensure!(
                        due.is_none_or(|due| begins_at < due),
                        "a message began at {begins_at}, before the pong that was due from {due:?}"
                    );
                }
            }
            arrived.push(Arrived { begins_at, first, payload });
        }
        let line = self.line.borrow();
        ensure!(line.accepted.is_empty() || self.farewell.is_none(), "bytes came behind the close frame");
        drop(line);
        self.pay_pongs();
        Ok(arrived)
    }
}

/// The first frame, if it is whole: its first byte, its payload, its length on the wire. Says what no server may send.
fn first_frame(bytes: &[u8]) -> Result<Option<(u8, Vec<u8>, usize)>, String> {
    let Some(first) = bytes.first().copied() else { return Ok(None) };
    ensure!(matches!(first, 0x81 | 0x88..=0x8a), "no frame begins with {first:#x}");
    let Some(short) = bytes.get(1).copied() else { return Ok(None) };
    ensure!(short < 128, "a server does not mask");
    ensure!(short < 126 || first == 0x81, "a control frame of more than 125 bytes");
    let (header, length) = match short {
        126 => match bytes.get(2..4) {
            Some(length) => (4, length.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte))),
            None => return Ok(None),
        },
        127 => match bytes.get(2..10) {
            Some(length) => (10, length.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte))),
            None => return Ok(None),
        },
        short => (2, usize::from(short)),
    };
    ensure!(header == 2 || length > if header == 4 { 125 } else { 0xffff }, "a length in a longer form");
    ensure!(length < 1 << 24, "a frame of {length} bytes");
    Ok(bytes.get(header..header + length).map(|payload| (first, payload.to_vec(), header + length)))
}

/// A client's frame. The mask of a large one changes nothing: masking takes the time of a whole simulation.
pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap_or_default().to_be_bytes();
    match payload.len() {
        0..200 => memory_socket::frame(first, payload),
        200..0x1_0000 => [&[first, 0xfe], &length[..], &[0; 4], payload].concat(),
        more => [&[first, 0xff], &(more as u64).to_be_bytes()[..], &[0; 4], payload].concat(),
    }
}

fn close_of(payload: &[u8]) -> Result<(u16, String), String> {
    let (code, reason) = payload.split_first_chunk().ok_or("a close frame without a code")?;
    let reason = std::str::from_utf8(reason).map_err(|error| error.to_string())?;
    Ok((u16::from_be_bytes(*code), reason.to_owned()))
}
