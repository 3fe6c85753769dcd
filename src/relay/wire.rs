//! The WebSocket protocol of one connection, apart from its socket: bytes in, messages out; messages in, bytes
//! out.
//!
//! The protocol is tungstenite's: [`WebSocketContext`] reads frames, joins fragments, checks what RFC 6455 asks a
//! server to check, and answers pings; its `Frame` writes them. It is driven on two plain buffers instead of a
//! stream, because a frame counts as forwarded when its last byte is with the kernel, so the end of each one in the
//! outgoing bytes must be known ([`Wire::written`]), and because a peer's close is answered with its code and no
//! reason (PROTOCOL § 5), where the library would echo the reason: after a close arrived, the library is not asked to
//! speak again. What else the protocol promises beyond what the library does is with the `follower` of the incoming
//! bytes.
//!
//! Outgoing bytes are in two buffers: messages, and control frames (pings, pongs, the close). Control frames never wait
//! behind a message that has not begun ([`Wire::unwritten`]).

use std::io::{self, Read, Write};

use async_tungstenite::tungstenite::error::Error as WsError;
use async_tungstenite::tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use async_tungstenite::tungstenite::protocol::frame::{CloseFrame, Frame};
use async_tungstenite::tungstenite::protocol::{Role, WebSocketConfig, WebSocketContext};
use async_tungstenite::tungstenite::{Bytes, Message};

use super::envelope::is_legal_close_code;
use super::follower::Follower;

/// The library's read buffer, in bytes: allocated with the connection, so it is small. A larger message grows it.
const READ_BUFFER: usize = 512;

/// Capacity that an empty outgoing buffer may keep, in bytes.
const IDLE_OUTPUT: usize = 1024;
const IDLE_CONTROL: usize = 256;

/// Written bytes at the front of the outgoing buffer beyond which the rest is moved down, so that a receiver that
/// is always a little behind does not make the buffer grow.
const COMPACT_AT: usize = 64 * 1024;

/// What arrived.
#[derive(Debug)]
pub enum Received {
    /// A message, text or binary. Whether it is UTF-8 was not looked at.
    Message(Bytes),
    /// The peer's close frame, with its code if it had one. Nothing after it is read.
    Close(Option<u16>),
}

/// Why nothing more can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// A frame's header announced more than is allowed, or fragments added up to more.
    TooBig,
    /// The peer broke RFC 6455.
    Protocol,
}

/// The protocol state and outgoing bytes of one connection.
#[derive(Debug)]
pub struct Wire {
    ws: WebSocketContext,
    incoming: Follower,
    max_message: usize,
    /// The library's read buffer grew for a message, and keeps what it grew to.
    grown: bool,
    /// Messages to write.
    output: Vec<u8>,
    /// Where the unwritten part of `output` begins.
    start: usize,
    /// Control frames to write.
    control: Vec<u8>,
    /// The first control frame is half written.
    control_begun: bool,
}

impl Wire {
    /// A server's side of a connection that was just upgraded, for messages of up to `max_message` bytes.
    #[must_use]
    pub fn new(max_message: usize) -> Self {
        Self {
            ws: library(max_message),
            incoming: Follower::new(max_message),
            max_message,
            grown: false,
            output: Vec::new(),
            start: 0,
            control: Vec::new(),
            control_begun: false,
        }
    }

    /// Takes bytes from `input` until they complete something. `None`: all of `input` was taken and more is
    /// needed.
    ///
    /// # Errors
    /// The peer broke a rule; the connection must end.
    pub fn receive(&mut self, input: &mut &[u8]) -> Result<Option<Received>, Broken> {
        loop {
            let mut pipe = Pipe { input, incoming: &mut self.incoming, output: &mut self.control };
            return match self.ws.read(&mut pipe) {
                Ok(Message::Text(text)) => Ok(Some(self.message(text.into()))),
                Ok(Message::Binary(bytes)) => Ok(Some(self.message(bytes))),
                Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => continue,
                Ok(Message::Close(_)) => match self.incoming.close_code() {
                    Some(code) if !is_legal_close_code(code) => Err(Broken::Protocol),
                    code => Ok(Some(Received::Close(code))),
                },
                Err(WsError::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
                Err(WsError::Capacity(_)) => Err(Broken::TooBig),
                Err(_) if self.incoming.is_too_big() => Err(Broken::TooBig),
                // This includes a close frame whose reason is not UTF-8.
                Err(_) => Err(Broken::Protocol),
            };
        }
    }

    fn message(&mut self, bytes: Bytes) -> Received {
        self.grown |= bytes.len() > READ_BUFFER;
        Received::Message(bytes)
    }

    /// The message that the bytes received so far end in the middle of: its ordinal among all messages and control
    /// frames. If bytes are on their way that this has not seen, they count as the beginning of the next.
    #[must_use]
    pub fn message_under_way(&self, more: bool) -> Option<u64> {
        self.incoming.under_way().or_else(|| more.then(|| self.incoming.next_up()))
    }

    /// Appends a text message. Returns how many bytes it takes on the wire.
    pub fn send_text(&mut self, text: String) -> usize {
        append(&mut self.output, Frame::message(Bytes::from(text), OpCode::Data(Data::Text), true))
    }

    /// Appends a ping to the control frames.
    pub fn send_ping(&mut self) {
        append(&mut self.control, Frame::ping(Bytes::new()));
    }

    /// Appends a close frame to the control frames.
    pub fn send_close(&mut self, code: u16, reason: &str) {
        let close = CloseFrame { code: CloseCode::from(code), reason: reason.into() };
        append(&mut self.control, Frame::close(Some(close)));
    }

    /// Unwritten bytes of messages.
    #[must_use]
    pub fn unwritten_messages(&self) -> usize {
        self.output.len() - self.start
    }

    /// Unwritten bytes of control frames.
    #[must_use]
    pub fn unwritten_control(&self) -> usize {
        self.control.len()
    }

    /// Whether everything was written.
    #[must_use]
    pub fn is_written(&self) -> bool {
        self.control.is_empty() && self.unwritten_messages() == 0
    }

    /// Bytes to write next, of one kind. Control frames come first, but not into the middle of a message: its last
    /// `begun` bytes go before them, if that many of the unwritten ones end a message that is half written.
    #[must_use]
    pub fn unwritten(&self, begun: usize) -> &[u8] {
        if self.control_is_next(begun) {
            return &self.control;
        }
        let messages = self.output.get(self.start..).unwrap_or_default();
        if self.control.is_empty() { messages } else { messages.get(..begun).unwrap_or(messages) }
    }

    /// The first `count` bytes of [`Wire::unwritten`] with the same `begun` were written. Returns how many of them
    /// were of messages: all or none.
    pub fn written(&mut self, count: usize, begun: usize) -> usize {
        if self.control_is_next(begun) {
            self.control.drain(..count.min(self.control.len()));
            self.control_begun = !self.control.is_empty();
            return 0;
        }
        self.start += count;
        if self.start >= self.output.len() {
            self.start = 0;
            self.output.clear();
        } else if self.start >= COMPACT_AT {
            self.output.drain(..self.start);
            self.start = 0;
        }
        count
    }

    /// The socket is bound to write the first of [`Wire::unwritten`] with the same `begun`. Returns whether they are of
    /// messages.
    pub fn bind(&mut self, begun: usize) -> bool {
        let control = self.control_is_next(begun);
        self.control_begun |= control;
        !control
    }

    /// A control frame that is half written is finished before anything else.
    fn control_is_next(&self, begun: usize) -> bool {
        !self.control.is_empty() && (begun == 0 || self.control_begun)
    }

    /// Nothing is going on, and all that was read was taken: gives back the memory that a burst needed.
    pub fn rest(&mut self) {
        if self.grown && self.incoming.is_between_messages() {
            self.ws = library(self.max_message);
            self.grown = false;
        }
        if self.output.is_empty() && self.output.capacity() > IDLE_OUTPUT {
            self.output = Vec::new();
        }
        if self.control.is_empty() && self.control.capacity() > IDLE_CONTROL {
            self.control = Vec::new();
        }
    }

    /// Forgets all but the first `keep` bytes of the messages.
    pub fn forget_messages_after(&mut self, keep: usize) {
        self.output.truncate(self.start + keep);
    }
}

/// Returns the frame's length.
fn append(buffer: &mut Vec<u8>, frame: Frame) -> usize {
    let length = frame.len();
    // Writing to a vector cannot fail.
    let _ = frame.format(buffer);
    length
}

/// The library's side of a connection, at its beginning.
fn library(max_message: usize) -> WebSocketContext {
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(0)
        .max_message_size(Some(max_message))
        .max_frame_size(Some(max_message));
    WebSocketContext::new(Role::Server, Some(config))
}

/// What the library takes for its stream.
struct Pipe<'a, 'b> {
    input: &'a mut &'b [u8],
    incoming: &'a mut Follower,
    output: &'a mut Vec<u8>,
}

impl Read for Pipe<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.incoming.is_too_big() {
            return Err(io::ErrorKind::InvalidData.into());
        }
        if self.input.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let count = self.input.read(buffer)?;
        Ok(self.incoming.follow(buffer.get_mut(..count).unwrap_or_default()))
    }
}

impl Write for Pipe<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.output.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
