//! A socket in memory, whose other side decides what happens: when there is something to read, how much a write
//! takes, when it fails.

#![allow(dead_code, reason = "each test program uses its own part of it")]

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use pyrycode_relay::relay::transport::Transport;
use smol::io::{AsyncRead, AsyncWrite};

/// A frame as a server sends it: its first byte and its payload.
pub(crate) type ServerFrame = (u8, Vec<u8>);

#[derive(Debug, Default)]
struct State {
    inbound: VecDeque<u8>,
    /// What is read once `inbound` is empty, again and again.
    endless: Vec<u8>,
    ended: bool,
    consumed: usize,
    accepted: Vec<u8>,
    /// How many bytes writes may take from now on.
    room: usize,
    fails: bool,
    closed: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// The relay's side.
#[derive(Debug)]
pub(crate) struct MemorySocket(Arc<Mutex<State>>);

/// The peer's side.
#[derive(Clone, Debug)]
pub(crate) struct Peer(Arc<Mutex<State>>);

/// A socket that takes every write, and its peer.
pub(crate) fn pair() -> (MemorySocket, Peer) {
    let state = Arc::new(Mutex::new(State { room: usize::MAX, ..State::default() }));
    (MemorySocket(Arc::clone(&state)), Peer(state))
}

fn lock(state: &Arc<Mutex<State>>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Peer {
    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = lock(&self.0);
        change(&mut state);
        let wakers = [state.reader.take(), state.writer.take()];
        drop(state);
        wakers.into_iter().flatten().for_each(Waker::wake);
    }

    /// Sends bytes.
    pub(crate) fn send(&self, bytes: &[u8]) {
        self.change(|state| state.inbound.extend(bytes));
    }

    /// Sends these bytes for ever, or for as long as they are not empty.
    pub(crate) fn send_for_ever(&self, bytes: &[u8]) {
        self.change(|state| {
            // What was begun is finished.
            let done = state.consumed % state.endless.len().max(1);
            let rest = state.endless.split_off(if done == 0 { state.endless.len() } else { done });
            state.inbound.extend(rest);
            state.consumed = 0;
            state.endless = bytes.to_vec();
        });
    }

    /// Sends no more.
    pub(crate) fn hang_up(&self) {
        self.change(|state| state.ended = true);
    }

    /// From now on takes `room` bytes and no more.
    pub(crate) fn accept(&self, room: usize) {
        self.change(|state| state.room = room);
    }

    /// Takes everything.
    pub(crate) fn accept_all(&self) {
        self.accept(usize::MAX);
    }

    /// From now on every write fails.
    pub(crate) fn fail_writes(&self) {
        self.change(|state| state.fails = true);
    }

    /// What arrived, since the beginning.
    pub(crate) fn received(&self) -> Vec<u8> {
        lock(&self.0).accepted.clone()
    }

    /// Forgets what arrived, and keeps the room for as much.
    pub(crate) fn forget_received(&self) {
        lock(&self.0).accepted.clear();
    }

    /// How many bytes the relay has read since the last [`Peer::send_for_ever`].
    pub(crate) fn consumed(&self) -> usize {
        lock(&self.0).consumed
    }

    /// Whether the relay hung up.
    pub(crate) fn is_closed(&self) -> bool {
        lock(&self.0).closed
    }

    /// The frames that arrived, to the last byte.
    pub(crate) fn frames(&self) -> Result<Vec<ServerFrame>, String> {
        let received = self.received();
        let mut rest = received.as_slice();
        let mut frames = Vec::new();
        while !rest.is_empty() {
            let (frame, behind) = first_frame(rest).ok_or_else(|| {
                format!("{} whole frames, then {} bytes that are none", frames.len(), rest.len())
            })?;
            frames.push(frame);
            rest = behind;
        }
        Ok(frames)
    }

    /// The text messages among the frames that arrived.
    pub(crate) fn texts(&self) -> Result<Vec<String>, String> {
        let texts = self.frames()?.into_iter().filter(|(first, _)| *first == 0x81);
        texts.map(|(_, text)| String::from_utf8(text).map_err(|error| error.to_string())).collect()
    }
}

/// The first frame of a server's bytes, as its first byte and its payload, and what is behind it.
fn first_frame(bytes: &[u8]) -> Option<(ServerFrame, &[u8])> {
    let (&[first, length], rest) = bytes.split_first_chunk()?;
    let (length, rest) = match length {
        126 => {
            rest.split_first_chunk().map(|(length, rest)| (u64::from(u16::from_be_bytes(*length)), rest))?
        }
        127 => rest.split_first_chunk().map(|(length, rest)| (u64::from_be_bytes(*length), rest))?,
        length => (u64::from(length), rest),
    };
    let (payload, rest) = rest.split_at_checked(usize::try_from(length).ok()?)?;
    Some(((first, payload.to_vec()), rest))
}

/// A client's frame: `first` is the first byte on the wire.
pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x13, 0x37, 0xc0, 0xde];
    let mut bytes = vec![first];
    match payload.len() {
        length @ 0..126 => bytes.push(0x80 | u8::try_from(length).unwrap_or_default()),
        length @ 126..0x1_0000 => {
            bytes.push(0xfe);
            bytes.extend(u16::try_from(length).unwrap_or_default().to_be_bytes());
        }
        length => {
            bytes.push(0xff);
            bytes.extend((length as u64).to_be_bytes());
        }
    }
    bytes.extend(MASK);
    bytes.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

/// A client's text message.
pub(crate) fn text(message: &str) -> Vec<u8> {
    frame(0x81, message.as_bytes())
}

impl AsyncRead for MemorySocket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut state = lock(&self.0);
        while state.inbound.len() < buffer.len() && !state.endless.is_empty() {
            let more = state.endless.clone();
            state.inbound.extend(more);
        }
        let count = state.inbound.len().min(buffer.len());
        if count == 0 && !state.ended {
            state.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        for (byte, read) in buffer.iter_mut().zip(state.inbound.drain(..count)) {
            *byte = read;
        }
        state.consumed += count;
        Poll::Ready(Ok(count))
    }
}

impl Transport for MemorySocket {}

impl AsyncWrite for MemorySocket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut state = lock(&self.0);
        if state.fails {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let count = state.room.min(bytes.len());
        if count == 0 {
            state.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        if state.room != usize::MAX {
            state.room -= count;
        }
        state.accepted.extend(&bytes[..count]);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// The peer hangs up in its turn.
    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = lock(&self.0);
        state.closed = true;
        state.ended = true;
        Poll::Ready(Ok(()))
    }
}
