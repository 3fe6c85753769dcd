//! A connection in memory between the relay and one simulated client, with a note of when which side waited.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use pyrycode_relay::relay::transport::Transport;
use smol::io::{AsyncRead, AsyncWrite};

use crate::clock::VirtualClock;

/// Bytes sealed together: several small frames, and less than a large one.
const SEALED_AT_ONCE: usize = 700;

/// What both sides see.
#[derive(Debug)]
#[allow(clippy::struct_excessive_bools, reason = "any of them may be true together with any other")]
pub(crate) struct Line {
    clock: VirtualClock,
    /// Bytes on their way to the relay.
    inbound: Vec<u8>,
    /// How many of them the relay has read.
    begin: usize,
    /// Bytes that the client sent, and that the relay has read, since the beginning.
    pub(crate) sent: u64,
    pub(crate) consumed: u64,
    eof: bool,
    /// The most that one read and one write take.
    pub(crate) read_chunk: usize,
    pub(crate) write_chunk: usize,
    /// There is something between this and the client that keeps what was written until it is flushed.
    pub(crate) flushes: bool,
    /// There is something between this and the client that seals what is written, as TLS does: what is sealed together is
    /// with the client when all of it is, and has to go next.
    pub(crate) seals: bool,
    /// What is sealed, and how many bytes of it the client has taken.
    sealed: Vec<u8>,
    gone: usize,
    /// The client took bytes that no write told of.
    has_moved: bool,
    /// Bytes that the client has from the relay and did not look at yet.
    pub(crate) accepted: Vec<u8>,
    /// How many the client took in all.
    pub(crate) taken: u64,
    /// How many it takes from now on.
    room: usize,
    fails: bool,
    /// The relay said that it sends no more.
    closed: bool,
    /// The relay let go of the socket.
    pub(crate) dropped: bool,
    /// Since when the relay waits for its bytes to be taken.
    pub(crate) blocked_since: Option<Duration>,
    /// When it last got rid of some.
    pub(crate) moved: Duration,
    /// When the relay last read something, or began to wait for something.
    pub(crate) heard: Duration,
    /// The relay does not read, because a frame that came from here waits for room.
    pub(crate) deaf: bool,
    /// It did not read, and whether it does again will be seen when it tries.
    pub(crate) unclear: bool,
    /// When the relay last began to read again.
    pub(crate) resumed: Duration,
    /// Bytes that the relay had read when it said that it sends no more: what it reads then it does not look at.
    pub(crate) heard_out: Option<u64>,
    /// Times that the relay read something.
    pub(crate) reads: u64,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// The relay's side.
#[derive(Debug)]
pub(crate) struct SimSocket(pub(crate) Rc<RefCell<Line>>);

impl Line {
    pub(crate) fn new(clock: VirtualClock) -> Self {
        let now = clock.elapsed();
        Self {
            clock,
            inbound: Vec::new(),
            begin: 0,
            sent: 0,
            consumed: 0,
            eof: false,
            read_chunk: usize::MAX,
            write_chunk: usize::MAX,
            flushes: false,
            seals: false,
            sealed: Vec::new(),
            gone: 0,
            has_moved: false,
            accepted: Vec::new(),
            taken: 0,
            room: usize::MAX,
            fails: false,
            closed: false,
            dropped: false,
            blocked_since: None,
            moved: now,
            heard: now,
            deaf: false,
            unclear: false,
            resumed: now,
            heard_out: None,
            reads: 0,
            reader: None,
            writer: None,
        }
    }

    fn wake(&mut self) {
        [self.reader.take(), self.writer.take()].into_iter().flatten().for_each(Waker::wake);
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.inbound.extend_from_slice(bytes);
        self.sent += bytes.len() as u64;
        self.wake();
    }

    /// What came together with the request to be connected.
    pub(crate) fn take_early(&mut self) -> Vec<u8> {
        self.consumed = self.sent;
        std::mem::take(&mut self.inbound)
    }

    pub(crate) fn hang_up(&mut self) {
        self.eof = true;
        self.wake();
    }

    pub(crate) fn fail_writes(&mut self) {
        self.fails = true;
        self.wake();
    }

    pub(crate) fn accept(&mut self, room: usize) {
        self.room = room;
        if room == usize::MAX && self.closed {
            self.eof = true;
        }
        self.wake();
    }

    pub(crate) fn accepts_all(&self) -> bool {
        self.room == usize::MAX
    }

    /// Bytes that the client has, or that are sealed and will come next.
    pub(crate) fn bound_up_to(&self) -> u64 {
        self.taken + self.sealed.len() as u64
    }

    /// Whether the relay has everything that was sent.
    pub(crate) fn is_read(&self) -> bool {
        self.inbound.len() == self.begin
    }

    pub(crate) fn is_over(&self) -> bool {
        self.eof && self.is_read()
    }

    /// The relay begins to serve this connection: whatever it read before counts as read now.
    pub(crate) fn begin(&mut self) {
        self.heard = self.clock.elapsed();
    }

    /// Bytes that the relay read while it listened.
    pub(crate) fn listened(&self) -> u64 {
        self.heard_out.unwrap_or(self.consumed)
    }

    /// Whether everything that was sent was read while the relay listened.
    pub(crate) fn all_was_heard(&self) -> bool {
        self.listened() == self.sent
    }

    fn read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let now = self.clock.elapsed();
        if std::mem::take(&mut self.deaf) | std::mem::take(&mut self.unclear) {
            (self.heard, self.resumed) = (now, now);
        }
        let unread = self.inbound.get(self.begin..).unwrap_or_default();
        let count = unread.len().min(buffer.len()).min(self.read_chunk);
        if count == 0 {
            if self.eof {
                return Poll::Ready(Ok(0));
            }
            self.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        buffer[..count].copy_from_slice(&unread[..count]);
        self.begin += count;
        if self.is_read() {
            self.inbound.clear();
            self.begin = 0;
        }
        self.consumed += count as u64;
        self.reads += 1;
        self.heard = now;
        Poll::Ready(Ok(count))
    }

    fn block(&mut self, cx: &mut Context<'_>) {
        self.blocked_since.get_or_insert(self.clock.elapsed());
        self.writer = Some(cx.waker().clone());
    }

    fn write(&mut self, cx: &mut Context<'_>, parts: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        if self.fails {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if self.seals {
            let bytes = parts.iter().find(|part| !part.is_empty()).map(|part| part.as_ref());
            return self.seal(cx, bytes.unwrap_or_default());
        }
        let room = self.room.min(self.write_chunk);
        if room == 0 {
            self.block(cx);
            return Poll::Pending;
        }
        let mut count = 0;
        for part in parts {
            let part = part.get(..part.len().min(room - count)).unwrap_or_default();
            self.accepted.extend_from_slice(part);
            count += part.len();
        }
        self.takes(count);
        self.taken += count as u64;
        Poll::Ready(Ok(count))
    }

    /// There is less room, and the relay has got rid of something.
    fn takes(&mut self, count: usize) {
        if self.room != usize::MAX {
            self.room -= count;
        }
        self.moved = self.clock.elapsed();
        self.blocked_since = None;
    }

    fn seal(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.sealed.is_empty() {
            self.sealed = bytes.get(..SEALED_AT_ONCE).unwrap_or(bytes).to_vec();
        }
        assert!(bytes.starts_with(&self.sealed), "something else is written than what is sealed");
        let count = self.room.min(self.write_chunk).min(self.sealed.len() - self.gone);
        if count > 0 {
            self.takes(count);
            self.has_moved = true;
            self.gone += count;
        }
        if self.gone < self.sealed.len() {
            self.block(cx);
            // One that takes little at a time takes more at once.
            if self.room > 0 {
                cx.waker().wake_by_ref();
            }
            return Poll::Pending;
        }
        let count = std::mem::take(&mut self.gone);
        self.accepted.append(&mut self.sealed);
        self.taken += count as u64;
        self.has_moved = false;
        Poll::Ready(Ok(count))
    }
}

impl Transport for SimSocket {
    fn begun(&self) -> usize {
        self.0.borrow().sealed.len()
    }

    fn has_moved(&mut self) -> bool {
        std::mem::take(&mut self.0.borrow_mut().has_moved)
    }
}

impl AsyncRead for SimSocket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().read(cx, buffer)
    }
}

impl AsyncWrite for SimSocket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().write(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().write(cx, parts)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut line = self.0.borrow_mut();
        if line.flushes && line.room == 0 && !line.fails {
            line.block(cx);
            return Poll::Pending;
        }
        line.blocked_since = None;
        Poll::Ready(Ok(()))
    }

    /// A client that takes what comes hangs up in its turn.
    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut line = self.0.borrow_mut();
        line.closed = true;
        let consumed = line.consumed;
        line.heard_out.get_or_insert(consumed);
        line.eof |= line.accepts_all();
        Poll::Ready(Ok(()))
    }
}

impl Drop for SimSocket {
    fn drop(&mut self) {
        self.0.borrow_mut().dropped = true;
    }
}
