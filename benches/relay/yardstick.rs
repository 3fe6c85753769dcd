//! The yardstick: a relay of this protocol that does nothing beyond forwarding, on one thread, with ordinary system calls.
//!
//! A level-triggered epoll loop. What is ready is read once, into one buffer that all connections share; every whole
//! frame in it is unmasked and copied, with its envelope, into the outgoing buffer of its receiver; then each receiver that
//! got something is written to once. So a lone frame costs three system calls and one copy, and less is not possible for it.
//! Where a wait brings several frames for one receiver from different connections, less is: with `--batching` what all
//! of them brought is written together, as the relay does. A `conn_id` is the number
//! of the phone's slot, so that nothing has to be looked up. Buffers come from a shelf and go back when they are empty: nothing is
//! allocated per frame, and an idle connection has none.
//!
//! Nothing is validated, limited, timed, counted or logged. That is what the relay's own cost is compared with.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};

use async_tungstenite::tungstenite::handshake::derive_accept_key;
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::fd::OwnedFd;
use rustix::net::{SocketFlags, accept_with, sockopt::set_tcp_nodelay};

use crate::Result;
use crate::wire::{
    AFTER_DIGITS, BEFORE_DIGITS, BINARY, CLOSE, DIGITS, ENVELOPE_START, FIN, Header, TEXT, apply_mask,
    put_header,
};

/// What one read takes at most.
const READ: usize = 64 * 1024;

/// Buffers on the shelf at most.
const SHELF: usize = 64;

/// What events of the listener and of the driver's end carry in place of a slot.
const LISTENER: u64 = u64::MAX;
const DRIVER: u64 = u64::MAX - 1;

#[derive(Clone, Copy)]
enum Role {
    Upgrading,
    Binary,
    Phone { binary: usize },
}

struct Connection {
    stream: TcpStream,
    role: Role,
    /// The slot as the digits of a `conn_id`.
    digits: [u8; 16],
    /// What has come of a frame, or a request, that is not complete.
    begun: Vec<u8>,
    /// What is to be written, from `written` on.
    outgoing: Vec<u8>,
    written: usize,
    /// Whether epoll is to say when there is room.
    is_blocked: bool,
}

struct Yardstick {
    epoll: OwnedFd,
    listener: TcpListener,
    connections: Vec<Option<Connection>>,
    free: Vec<usize>,
    binaries: HashMap<Vec<u8>, usize>,
    /// Slots that are to be written to behind the read, or the wait, that is being handled.
    touched: Vec<usize>,
    shelf: Vec<Vec<u8>>,
    is_batching: bool,
}

/// What became of a connection.
#[derive(PartialEq)]
enum Fate {
    Open,
    Gone,
}

/// Serves until the driver ends: prints the port, then nothing.
pub(crate) fn run(is_batching: bool) -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    println!("{}", listener.local_addr()?.port());
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    epoll::add(&epoll, &listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
    epoll::add(&epoll, io::stdin(), EventData::new_u64(DRIVER), EventFlags::IN)?;
    let mut yardstick = Yardstick {
        epoll,
        listener,
        connections: Vec::new(),
        free: Vec::new(),
        binaries: HashMap::new(),
        touched: Vec::new(),
        shelf: Vec::new(),
        is_batching,
    };
    let mut buffer = vec![0; READ];
    let mut events = Vec::with_capacity(256);
    loop {
        events.clear();
        match epoll::wait(&yardstick.epoll, spare_capacity(&mut events), None) {
            Err(rustix::io::Errno::INTR) => continue,
            waited => waited?,
        };
        for event in &events {
            let (data, flags) = (event.data.u64(), event.flags);
            match data {
                LISTENER => yardstick.accept()?,
                DRIVER => return Ok(()),
                slot => yardstick.turn(usize::try_from(slot)?, flags, &mut buffer)?,
            }
        }
        yardstick.write_touched()?;
    }
}

impl Yardstick {
    fn accept(&mut self) -> Result<()> {
        let accepted = match accept_with(&self.listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::CONNABORTED) => return Ok(()),
            accepted => accepted?,
        };
        set_tcp_nodelay(&accepted, true)?;
        let slot = self.free.pop().unwrap_or_else(|| {
            self.connections.push(None);
            self.connections.len() - 1
        });
        epoll::add(&self.epoll, &accepted, EventData::new_u64(slot as u64), EventFlags::IN)?;
        self.connections[slot] = Some(Connection {
            stream: accepted.into(),
            role: Role::Upgrading,
            digits: digits(slot),
            begun: Vec::new(),
            outgoing: Vec::new(),
            written: 0,
            is_blocked: false,
        });
        Ok(())
    }

    fn turn(&mut self, slot: usize, flags: EventFlags, buffer: &mut [u8]) -> Result<()> {
        let Some(connection) = &mut self.connections[slot] else { return Ok(()) };
        let mut fate = Fate::Open;
        if flags.contains(EventFlags::OUT) {
            fate = flush(&self.epoll, slot, connection, &mut self.shelf)?;
        }
        if fate == Fate::Open && flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
            fate = match connection.stream.read(buffer) {
                Ok(count @ 1..) => self.came(slot, &mut buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Fate::Open,
                Ok(0) | Err(_) => Fate::Gone,
            };
        }
        if !self.is_batching {
            self.write_touched()?;
        }
        if fate == Fate::Gone {
            self.forget(slot);
        }
        Ok(())
    }

    /// One write to each that got something.
    fn write_touched(&mut self) -> Result<()> {
        while let Some(slot) = self.touched.pop() {
            let Some(connection) = &mut self.connections[slot] else { continue };
            // Written when there was room again, or another connection has the slot now.
            if connection.outgoing.is_empty() {
                continue;
            }
            if flush(&self.epoll, slot, connection, &mut self.shelf)? == Fate::Gone {
                self.forget(slot);
            }
        }
        Ok(())
    }

    /// Dropping the socket takes it out of epoll as well.
    fn forget(&mut self, slot: usize) {
        let Some(gone) = self.connections[slot].take() else { return };
        if matches!(gone.role, Role::Binary) {
            self.binaries.retain(|_, &mut binary| binary != slot);
        }
        self.free.push(slot);
    }

    /// Takes what was read.
    fn came(&mut self, slot: usize, mut bytes: &mut [u8]) -> Fate {
        let Some(connection) = &mut self.connections[slot] else { return Fate::Gone };
        if matches!(connection.role, Role::Upgrading) {
            connection.begun.extend_from_slice(bytes);
            return self.upgrade(slot);
        }
        if !connection.begun.is_empty() {
            let Some(rest) = complete(&mut connection.begun, bytes) else { return Fate::Open };
            bytes = rest;
            let mut whole = std::mem::take(&mut connection.begun);
            let fate = self.frames(slot, &mut whole);
            put_back(&mut self.shelf, whole);
            if fate == Fate::Gone {
                return fate;
            }
        }
        self.frames(slot, bytes)
    }

    /// Forwards every whole frame and keeps what is left over.
    fn frames(&mut self, slot: usize, mut bytes: &mut [u8]) -> Fate {
        let Some(role) = self.connections[slot].as_ref().map(|connection| connection.role) else {
            return Fate::Gone;
        };
        while let Some(header) = Header::read(bytes).filter(|header| header.end <= bytes.len()) {
            let (frame, rest) = std::mem::take(&mut bytes).split_at_mut(header.end);
            bytes = rest;
            let payload = &mut frame[header.start..];
            if let Some(mask) = header.mask {
                apply_mask(payload, mask);
            }
            match (header.opcode, role) {
                (TEXT | BINARY, Role::Phone { binary }) => self.wrap(slot, binary, payload),
                (TEXT | BINARY, Role::Binary) => self.unwrap(payload),
                (CLOSE, _) => {
                    self.answer_close(slot, payload);
                    return Fate::Gone;
                }
                _ => {}
            }
        }
        if bytes.is_empty() {
            return Fate::Open;
        }
        if let Some(connection) = &mut self.connections[slot] {
            connection.begun = self.shelf.pop().unwrap_or_default();
            connection.begun.extend_from_slice(bytes);
        }
        Fate::Open
    }

    fn wrap(&mut self, phone: usize, binary: usize, frame: &[u8]) {
        let Some(digits) = self.connections[phone].as_ref().map(|connection| connection.digits) else {
            return;
        };
        let Some(out) = self.outgoing(binary, frame.len() + ENVELOPE_START + 16) else { return };
        put_header(out, TEXT, ENVELOPE_START + frame.len() + 1, None);
        out.extend_from_slice(BEFORE_DIGITS);
        out.extend_from_slice(&digits);
        out.extend_from_slice(AFTER_DIGITS);
        out.extend_from_slice(frame);
        out.push(b'}');
    }

    fn unwrap(&mut self, envelope: &[u8]) {
        let (Some(digits), Some(frame)) =
            (envelope.get(DIGITS), envelope.get(ENVELOPE_START..envelope.len().saturating_sub(1)))
        else {
            return;
        };
        let Some(out) = self.outgoing(slot_of(digits), frame.len() + 16) else { return };
        put_header(out, TEXT, frame.len(), None);
        out.extend_from_slice(frame);
    }

    /// The buffer of a receiver, which is written to when what was read has been handled.
    #[inline]
    fn outgoing(&mut self, slot: usize, room: usize) -> Option<&mut Vec<u8>> {
        let connection = self.connections.get_mut(slot)?.as_mut()?;
        if connection.outgoing.is_empty() {
            connection.outgoing = self.shelf.pop().unwrap_or_default();
            self.touched.push(slot);
        } else if connection.written > connection.outgoing.len() / 2 {
            connection.outgoing.drain(..connection.written);
            connection.written = 0;
        }
        connection.outgoing.reserve(room);
        Some(&mut connection.outgoing)
    }

    /// The peer's own code comes back to it.
    fn answer_close(&mut self, slot: usize, code: &[u8]) {
        if let Some(Connection { stream, .. }) = &mut self.connections[slot] {
            let mut answer = [FIN | CLOSE, 0, 0, 0];
            let code = code.get(..2).unwrap_or_default();
            answer[1] = if code.is_empty() { 0 } else { 2 };
            answer[2..2 + code.len()].copy_from_slice(code);
            // It goes as it is: whoever closes does not wait for frames here.
            let _ = stream.write(&answer[..2 + code.len()]);
        }
    }

    fn upgrade(&mut self, slot: usize) -> Fate {
        let Some(connection) = &mut self.connections[slot] else { return Fate::Gone };
        let Some(end) = connection.begun.windows(4).position(|bytes| bytes == b"\r\n\r\n") else {
            return Fate::Open;
        };
        let mut request = std::mem::take(&mut connection.begun);
        let (head, rest) = request.split_at_mut(end + 4);
        let (Some(server), Some(key)) =
            (header_value(head, b"x-pyrycode-server"), header_value(head, b"sec-websocket-key"))
        else {
            return Fate::Gone;
        };
        connection.role = if head.starts_with(b"GET /v2/server ") {
            self.binaries.insert(server.to_vec(), slot);
            Role::Binary
        } else if let Some(&binary) = self.binaries.get(server) {
            Role::Phone { binary }
        } else {
            return Fate::Gone;
        };
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-accept: {}\r\n\r\n",
            derive_accept_key(key)
        );
        if connection.stream.write_all(answer.as_bytes()).is_err() {
            return Fate::Gone;
        }
        self.frames(slot, rest)
    }
}

/// Adds to a frame that was begun what is missing. What is behind it, if it is complete now.
fn complete<'a>(begun: &mut Vec<u8>, mut bytes: &'a mut [u8]) -> Option<&'a mut [u8]> {
    let end = loop {
        if let Some(header) = Header::read(begun) {
            break header.end;
        }
        let (next, rest) = bytes.split_first_mut()?;
        begun.push(*next);
        bytes = rest;
    };
    let missing = end - begun.len();
    begun.reserve_exact(missing);
    let (taken, rest) = bytes.split_at_mut(missing.min(bytes.len()));
    begun.extend_from_slice(taken);
    (begun.len() == end).then_some(rest)
}

/// One write. What does not go waits for epoll to say that there is room.
fn flush(
    epoll: &OwnedFd,
    slot: usize,
    connection: &mut Connection,
    shelf: &mut Vec<Vec<u8>>,
) -> Result<Fate> {
    match connection.stream.write(&connection.outgoing[connection.written..]) {
        Ok(count) => connection.written += count,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
        Err(_) => return Ok(Fate::Gone),
    }
    let is_blocked = connection.written < connection.outgoing.len();
    if !is_blocked {
        put_back(shelf, std::mem::take(&mut connection.outgoing));
        connection.written = 0;
    }
    if is_blocked != connection.is_blocked {
        connection.is_blocked = is_blocked;
        let flags = if is_blocked { EventFlags::IN | EventFlags::OUT } else { EventFlags::IN };
        epoll::modify(epoll, &connection.stream, EventData::new_u64(slot as u64), flags)?;
    }
    Ok(Fate::Open)
}

fn put_back(shelf: &mut Vec<Vec<u8>>, mut buffer: Vec<u8>) {
    if shelf.len() < SHELF {
        buffer.clear();
        shelf.push(buffer);
    }
}

/// The value of a header of this name, in lower case, of a request.
fn header_value<'a>(head: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    head.split(|&byte| byte == b'\n').find_map(|line| {
        let (key, value) = line.split_at_checked(line.iter().position(|&byte| byte == b':')?)?;
        key.eq_ignore_ascii_case(name).then(|| value[1..].trim_ascii())
    })
}

fn digits(slot: usize) -> [u8; 16] {
    let mut digits = [0; 16];
    for (digit, shift) in digits.iter_mut().rev().zip((0..16).map(|place| place * 4)) {
        *digit = b"0123456789abcdef"[(slot >> shift) & 0xf];
    }
    digits
}

/// The number that `digits` made.
#[inline]
fn slot_of(digits: &[u8]) -> usize {
    digits.iter().fold(0, |slot, &digit| {
        slot << 4 | usize::from(if digit < b'a' { digit - b'0' } else { digit - b'a' + 10 })
    })
}
