//! The WebSocket protocol of one connection, apart from its socket: bytes in, messages out; messages in, bytes
//! out.
//!
//! The protocol is tungstenite's, driven on plain buffers instead of a stream, because a frame counts as forwarded when its last
//! byte is with the kernel, so the end of each one in the outgoing bytes must be known ([`Wire::written`]), and because a peer's
//! close is answered with its code and no reason (PROTOCOL § 5), where the library would echo the reason: after a close arrived, the
//! library is not asked to speak again.
//!
//! A message that comes in a single frame, as nearly all do, needs no more of the library than its `FrameHeader`: it is unmasked and
//! handed on where it stands ([`super::incoming`]). Everything else, control frames, fragments and whatever may not be, is the matter of
//! its [`WebSocketContext`], which joins fragments, checks what RFC 6455 asks a server to check, and answers pings. A connection has one
//! only while it is needed. What else the protocol promises beyond what the library does is with the `follower` of the bytes on the
//! way to it.
//!
//! Outgoing bytes are in two buffers: messages, and control frames (pings, pongs, the close). Control frames never wait
//! behind a message that has not begun ([`Wire::unwritten`]).

use std::io::{self, Read, Write};

use async_tungstenite::tungstenite::error::Error as WsError;
use async_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use async_tungstenite::tungstenite::protocol::frame::{CloseFrame, Frame};
use async_tungstenite::tungstenite::protocol::{Role, WebSocketConfig, WebSocketContext};
use async_tungstenite::tungstenite::{Bytes, Message as WsMessage};

use super::envelope::is_legal_close_code;
use super::follower::Follower;
use super::incoming::{Message, Part, Single, single};
use super::outgoing::Outgoing;
use super::text::Text;

/// The library's read buffer, in bytes: allocated when it is needed, and grown by a larger message.
const READ_BUFFER: usize = 512;

/// Capacity that an empty buffer of control frames may keep, in bytes.
const IDLE_CONTROL: usize = 256;

/// What arrived.
#[derive(Debug)]
pub enum Received<'i> {
    /// A message, text or binary. Whether it is UTF-8 was not looked at.
    Message(Message<'i>),
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
    max_message: usize,
    follower: Follower,
    /// A message of a single frame that is not complete, and its ordinal.
    part: Option<(Part, u64)>,
    /// The library's side. Between two messages it holds nothing, and can be made anew.
    library: Option<Box<WebSocketContext>>,
    messages: Outgoing,
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
            max_message,
            follower: Follower::new(max_message),
            part: None,
            library: None,
            messages: Outgoing::default(),
            control: Vec::new(),
            control_begun: false,
        }
    }

    /// Takes bytes from `input` until they complete something. `None`: all of `input` was taken and more is
    /// needed. What is taken is unmasked in place.
    ///
    /// # Errors
    /// The peer broke a rule; the connection must end.
    pub fn receive<'i>(&mut self, input: &mut &'i mut [u8]) -> Result<Option<Received<'i>>, Broken> {
        loop {
            if let Some((mut part, ordinal)) = self.part.take() {
                if part.take(input) {
                    return Ok(Some(Received::Message(part.into_message())));
                }
                self.part = Some((part, ordinal));
                return Ok(None);
            }
            if self.follower.is_between_messages() && !self.follower.is_closed() {
                match single(input, self.max_message) {
                    Single::Whole(message) => {
                        self.follower.goes_by();
                        return Ok(Some(Received::Message(message)));
                    }
                    Single::Part(part) => {
                        self.part = Some((part, self.follower.goes_by()));
                        continue;
                    }
                    Single::Nothing => return Ok(None),
                    Single::Other => {}
                }
            }
            if let Some(received) = self.ask_library(input)? {
                return Ok(Some(received));
            }
            if input.is_empty() {
                return Ok(None);
            }
        }
    }

    /// Shows the library the bytes up to the end of the frame that they are in. `None`: that completed nothing that concerns anybody.
    fn ask_library<'i>(&mut self, input: &mut &'i mut [u8]) -> Result<Option<Received<'i>>, Broken> {
        let max_message = self.max_message;
        let library = self.library.get_or_insert_with(|| Box::new(library(max_message)));
        let mut pipe = Pipe { input, follower: &mut self.follower, output: &mut self.control };
        match library.read(&mut pipe) {
            Ok(WsMessage::Text(text)) => Ok(Some(Received::Message(Bytes::from(text).into()))),
            Ok(WsMessage::Binary(bytes)) => Ok(Some(Received::Message(bytes.into()))),
            // The answer stands ready. It only fails once a close came, and this was none.
            Ok(WsMessage::Ping(_)) => {
                let _ = library.flush(&mut pipe);
                Ok(None)
            }
            Ok(WsMessage::Pong(_) | WsMessage::Frame(_)) => Ok(None),
            Ok(WsMessage::Close(_)) => match self.follower.close_code() {
                Some(code) if !is_legal_close_code(code) => Err(Broken::Protocol),
                code => Ok(Some(Received::Close(code))),
            },
            Err(WsError::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(WsError::Capacity(_)) => Err(Broken::TooBig),
            Err(_) if self.follower.is_too_big() => Err(Broken::TooBig),
            // This includes a close frame whose reason is not UTF-8.
            Err(_) => Err(Broken::Protocol),
        }
    }

    /// The message that the bytes received so far end in the middle of: its ordinal among all messages and control
    /// frames. If bytes are on their way that this has not seen, they count as the beginning of the next.
    #[must_use]
    pub fn message_under_way(&self, more: bool) -> Option<u64> {
        let part = self.part.as_ref().map(|(_, ordinal)| *ordinal);
        part.or_else(|| self.follower.under_way()).or_else(|| more.then(|| self.follower.next_up()))
    }

    /// Appends a text message. Returns how many bytes it takes on the wire.
    pub fn send(&mut self, text: Text) -> usize {
        let frame = text.into_frame();
        let length = frame.len();
        self.messages.push(frame);
        length
    }

    /// Appends a ping to the control frames.
    pub fn send_ping(&mut self) {
        self.send_control(Frame::ping(Bytes::new()));
    }

    /// Appends a close frame to the control frames.
    pub fn send_close(&mut self, code: u16, reason: &str) {
        let close = CloseFrame { code: CloseCode::from(code), reason: reason.into() };
        self.send_control(Frame::close(Some(close)));
    }

    fn send_control(&mut self, frame: Frame) {
        // Writing to a vector cannot fail.
        let _ = frame.format(&mut self.control);
    }

    /// Unwritten bytes of messages.
    #[must_use]
    pub fn unwritten_messages(&self) -> usize {
        self.messages.len()
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
        let messages = self.messages.next();
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
        self.messages.written(count);
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

    /// Nothing is going on, and all that was read was taken: gives back the memory that is not needed now.
    pub fn rest(&mut self) {
        if self.library.is_some() && self.follower.is_between_messages() {
            self.library = None;
        }
        self.messages.rest();
        if self.control.is_empty() && self.control.capacity() > IDLE_CONTROL {
            self.control = Vec::new();
        }
    }

    /// Forgets all but the first `keep` bytes of the messages.
    pub fn forget_messages_after(&mut self, keep: usize) {
        self.messages.truncate(keep);
    }
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

/// What the library takes for its stream. It is given no more than one frame at a time, so that when it has taken that, it holds
/// nothing of the next.
struct Pipe<'a, 'i> {
    input: &'a mut &'i mut [u8],
    follower: &'a mut Follower,
    output: &'a mut Vec<u8>,
}

impl Read for Pipe<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.follower.is_too_big() {
            return Err(io::ErrorKind::InvalidData.into());
        }
        if self.input.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let count = self.input.len().min(buffer.len());
        let (shown, here) =
            (buffer.get_mut(..count).unwrap_or_default(), self.input.get(..count).unwrap_or_default());
        shown.copy_from_slice(here);
        let count = self.follower.follow(shown);
        *self.input = std::mem::take(self.input).get_mut(count..).unwrap_or_default();
        Ok(count)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mask = [1, 2, 3, 4];
        let masked = payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask);
        let length = u8::try_from(payload.len()).unwrap();
        [first, 0x80 | length].into_iter().chain(mask).chain(masked).collect()
    }

    #[test]
    fn fragments_control_frames_and_whole_messages_come_apart_in_any_pieces() {
        let story = [
            frame(0x81, b"whole"),
            frame(0x01, b"one "),
            frame(0x89, b"ping"),
            frame(0x00, b"and "),
            frame(0x8a, b"pong"),
            frame(0x80, b"two"),
            frame(0x82, b"binary"),
            frame(0x89, b""),
            frame(0x81, b"last"),
            frame(0x88, &[0x03, 0xe8]),
        ]
        .concat();
        for size in [1, 2, 3, 5, 8, 13, 21, 34, 1000] {
            let mut wire = Wire::new(100);
            let (mut texts, mut close) = (Vec::new(), None);
            for piece in story.chunks(size) {
                let mut piece = piece.to_vec();
                let mut input = piece.as_mut_slice();
                while close.is_none() {
                    match wire.receive(&mut input).unwrap() {
                        Some(Received::Message(message)) => {
                            texts.push(String::from_utf8(message.to_vec()).unwrap());
                        }
                        Some(Received::Close(code)) => close = Some(code),
                        None => break,
                    }
                }
                wire.rest();
            }
            assert_eq!(texts, ["whole", "one and two", "binary", "last"], "pieces of {size}");
            assert_eq!(close, Some(Some(1000)));
            assert_eq!(wire.unwritten(0), [&[0x8a, 4][..], b"ping", &[0x8a, 0]].concat(), "pieces of {size}");
        }
    }
}
