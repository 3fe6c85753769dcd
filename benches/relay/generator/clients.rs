//! WebSocket clients on one epoll: what came is cut into messages, what is to go is collected and written together.

use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use rustix::event::Timespec;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::fd::OwnedFd;

use super::dial::{Dialler, Who};
use super::stream::Stream;
use crate::Result;
use crate::wire::{CLOSE, Header, PING, PONG, TEXT, apply_mask, put_header};

/// What masks every frame. It need not be secret here.
pub(crate) const MASK: [u8; 4] = [0x5a, 0xc3, 0x96, 0x1f];

/// How long nothing may come from anybody before the run has failed.
const PATIENCE: Duration = Duration::from_secs(10);

/// What one read takes at most, with what is left over from the one before.
const BUFFER: usize = 512 * 1024;

/// Who handles what comes.
pub(crate) trait Play {
    /// A whole message. It was read at `now`.
    fn message(&mut self, clients: &mut Clients, index: usize, message: &[u8], now: Instant) -> Result<()>;

    /// A close frame, or the end of the connection without one.
    fn closed(&mut self, index: usize, code: Option<u16>) -> Result<()> {
        Err(format!("client {index} was closed with {code:?}").into())
    }
}

struct Client {
    /// `None` when it has ended.
    stream: Option<Stream>,
    /// What came of a frame that is not complete.
    begun: Vec<u8>,
    outgoing: Vec<u8>,
    written: usize,
    is_blocked: bool,
    is_touched: bool,
    is_closing: bool,
}

/// All clients of a case. Each is known by its index.
pub(crate) struct Clients {
    epoll: OwnedFd,
    list: Vec<Client>,
    touched: Vec<usize>,
    buffer: Vec<u8>,
}

impl Clients {
    pub(crate) fn new() -> Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        Ok(Self { epoll, list: Vec::new(), touched: Vec::new(), buffer: vec![0; BUFFER] })
    }

    /// Adds one that has been upgraded.
    pub(crate) fn connect(&mut self, dialler: &mut Dialler, who: Who, server: usize) -> Result<usize> {
        let (stream, begun) = dialler.connect(who, server)?;
        if !begun.is_empty() {
            return Err("something came before anybody sent anything".into());
        }
        let index = self.list.len();
        epoll::add(&self.epoll, &stream, EventData::new_u64(index as u64), EventFlags::IN)?;
        self.list.push(Client {
            stream: Some(stream),
            begun,
            outgoing: Vec::new(),
            written: 0,
            is_blocked: false,
            is_touched: false,
            is_closing: false,
        });
        Ok(index)
    }

    /// Where the frames for the relay go that are to be written with the next `flush`.
    #[inline]
    pub(crate) fn outgoing(&mut self, index: usize) -> &mut Vec<u8> {
        let client = &mut self.list[index];
        if !client.is_touched {
            client.is_touched = true;
            self.touched.push(index);
        }
        if client.written > client.outgoing.len() / 2 {
            client.outgoing.drain(..client.written);
            client.written = 0;
        }
        &mut client.outgoing
    }

    /// Bytes that wait because the relay does not take them.
    pub(crate) fn waiting(&self, index: usize) -> usize {
        self.list[index].outgoing.len() - self.list[index].written
    }

    /// Sends a message.
    #[inline]
    pub(crate) fn send(&mut self, index: usize, message: &[u8]) {
        put_masked(self.outgoing(index), TEXT, message);
    }

    /// Sends a close frame. The end of the connection is then expected.
    pub(crate) fn close(&mut self, index: usize) {
        put_masked(self.outgoing(index), CLOSE, &1000_u16.to_be_bytes());
        self.list[index].is_closing = true;
    }

    /// How many there were.
    pub(crate) fn len(&self) -> usize {
        self.list.len()
    }

    /// How many have not ended.
    pub(crate) fn open(&self) -> usize {
        self.list.iter().filter(|client| client.stream.is_some()).count()
    }

    /// One write to each that has something to say.
    pub(crate) fn flush(&mut self) -> Result<()> {
        while let Some(index) = self.touched.pop() {
            self.list[index].is_touched = false;
            if !self.list[index].is_blocked {
                self.write(index)?;
            }
        }
        Ok(())
    }

    /// Waits once, and handles what came. A wait without an end of its own has the end of patience.
    pub(crate) fn turn(&mut self, play: &mut impl Play, wait: Option<Duration>) -> Result<()> {
        let mut events = [const { std::mem::MaybeUninit::uninit() }; 64];
        let timeout = Timespec::try_from(wait.unwrap_or(PATIENCE))?;
        let events = match epoll::wait(&self.epoll, &mut events, Some(&timeout)) {
            Err(rustix::io::Errno::INTR) => return Ok(()),
            waited => waited?.0,
        };
        if events.is_empty() && wait.is_none() {
            return Err(format!("nothing came for {PATIENCE:?}").into());
        }
        for event in events.iter() {
            let (flags, index) = (event.flags, usize::try_from(event.data.u64())?);
            if flags.contains(EventFlags::OUT) {
                self.write(index)?;
            }
            if flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
                self.read(play, index)?;
                self.flush()?;
            }
        }
        Ok(())
    }

    fn read(&mut self, play: &mut impl Play, index: usize) -> Result<()> {
        let client = &mut self.list[index];
        let Some(stream) = &mut client.stream else { return Ok(()) };
        let mut buffer = std::mem::take(&mut self.buffer);
        let kept = client.begun.len();
        buffer[..kept].copy_from_slice(&client.begun);
        let count = match stream.read(&mut buffer[kept..]) {
            // With TLS, when a record is not complete.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.buffer = buffer;
                return Ok(());
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset && client.is_closing => 0,
            read => read?,
        };
        let now = Instant::now();
        client.begun.clear();
        if count == 0 {
            client.stream = None;
            if !client.is_closing {
                play.closed(index, None)?;
            }
        }
        let mut bytes = &buffer[..kept + count];
        while let Some(header) = Header::read(bytes).filter(|header| header.end <= bytes.len()) {
            let (frame, rest) = bytes.split_at(header.end);
            bytes = rest;
            self.frame(play, index, &header, &frame[header.start..], now)?;
        }
        if count != 0 {
            self.list[index].begun.extend_from_slice(bytes);
        }
        self.buffer = buffer;
        Ok(())
    }

    #[inline]
    fn frame(
        &mut self,
        play: &mut impl Play,
        index: usize,
        header: &Header,
        payload: &[u8],
        now: Instant,
    ) -> Result<()> {
        if !header.fin || header.mask.is_some() {
            return Err(format!("client {index} got a frame that is masked, or a part of a message").into());
        }
        match header.opcode {
            TEXT => play.message(self, index, payload, now),
            PING => {
                put_masked(self.outgoing(index), PONG, payload);
                Ok(())
            }
            CLOSE => {
                let code = payload.first_chunk().map(|&code| u16::from_be_bytes(code));
                if self.list[index].is_closing && code == Some(1000) {
                    Ok(())
                } else {
                    play.closed(index, code)
                }
            }
            other => Err(format!("client {index} got a frame with opcode {other}").into()),
        }
    }

    fn write(&mut self, index: usize) -> Result<()> {
        let client = &mut self.list[index];
        let Some(stream) = &mut client.stream else { return Ok(()) };
        loop {
            match stream.write(&client.outgoing[client.written..]) {
                Ok(count) => client.written += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(format!("client {index} cannot write: {error}").into()),
            }
            if client.written == client.outgoing.len() {
                break;
            }
        }
        let is_blocked = client.written < client.outgoing.len() || stream.holds_bytes();
        if client.written == client.outgoing.len() {
            client.outgoing.clear();
            client.written = 0;
        }
        if is_blocked != client.is_blocked {
            client.is_blocked = is_blocked;
            let flags = if is_blocked { EventFlags::IN | EventFlags::OUT } else { EventFlags::IN };
            epoll::modify(&self.epoll, stream, EventData::new_u64(index as u64), flags)?;
        }
        Ok(())
    }
}

/// Appends a masked frame.
#[inline]
pub(crate) fn put_masked(out: &mut Vec<u8>, opcode: u8, message: &[u8]) {
    put_header(out, opcode, message.len(), Some(MASK));
    let start = out.len();
    out.extend_from_slice(message);
    apply_mask(&mut out[start..], MASK);
}
