//! What is known of one socket's readiness, and who waits for it.
//!
//! A socket is taken for ready from an edge on until a read or write finds that it is not. A read that got less than it asked for
//! has emptied the socket, so the read that would only learn that can be spared (epoll(7), "Questions and answers", 9); not so
//! once the peer has ended its side, because that edge has passed, and not at an urgent byte.
//!
//! Between a read and the note that the socket is empty, another edge may come. So the note goes with the count of edges
//! that were known before the read, and is void if there were more since.

use std::io;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use rustix::event::epoll::EventFlags;

use super::reactor::Reactor;

/// Edges after which a read that got little says nothing: there is an end or an error behind it, or an urgent byte, at which a read stops.
const ENDED: EventFlags =
    EventFlags::RDHUP.union(EventFlags::HUP).union(EventFlags::ERR).union(EventFlags::PRI);

/// How many edges were known when readiness was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Edges(u32);

/// One direction of a socket.
#[derive(Debug)]
struct Side {
    ready: bool,
    edges: u32,
    waiting: Option<Waker>,
}

#[derive(Debug)]
struct Sides {
    read: Side,
    write: Side,
    /// A read may get less than there is.
    ended: bool,
    /// The kernel was asked to tell when the socket can be written to.
    tells_writable: bool,
}

/// What is known of a socket.
#[derive(Debug)]
pub(super) struct Source(Mutex<Sides>);

impl Default for Source {
    fn default() -> Self {
        let side = |ready| Side { ready, edges: 0, waiting: None };
        // If there is something to read already, the kernel says so at once. Whether a socket can be written to, it is not asked yet.
        Self(Mutex::new(Sides { read: side(false), write: side(true), ended: false, tells_writable: false }))
    }
}

impl Side {
    fn becomes_ready(&mut self, wakers: &mut Vec<Waker>) {
        self.ready = true;
        self.edges = self.edges.wrapping_add(1);
        wakers.extend(self.waiting.take());
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Edges> {
        if self.ready {
            return Poll::Ready(Edges(self.edges));
        }
        match &mut self.waiting {
            Some(waker) => waker.clone_from(cx.waker()),
            None => self.waiting = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    fn is_used_up(&mut self, seen: Edges) {
        if self.edges == seen.0 {
            self.ready = false;
        }
    }
}

impl Source {
    /// Notes an event, and collects the wakers of those who wait for it.
    pub(super) fn happened(&self, flags: EventFlags, wakers: &mut Vec<Waker>) {
        let mut sides = self.lock();
        sides.ended |= flags.intersects(ENDED);
        if flags.intersects(EventFlags::IN | ENDED) {
            sides.read.becomes_ready(wakers);
        }
        if flags.intersects(EventFlags::OUT | EventFlags::HUP | EventFlags::ERR) {
            sides.write.becomes_ready(wakers);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Sides> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A socket's place with a reactor. Dropping it gives the place back; the socket itself leaves when it is closed.
#[derive(Debug)]
pub struct Registration {
    reactor: Arc<Reactor>,
    source: Arc<Source>,
    key: usize,
}

impl Registration {
    pub(super) fn new(reactor: Arc<Reactor>, source: Arc<Source>, key: usize) -> Self {
        Self { reactor, source, key }
    }

    /// Ends the registration of a socket that stays open, here or with another process.
    pub fn forget(self, socket: impl AsFd) {
        self.reactor.forget(socket);
    }

    /// The next write is tried.
    pub fn assume_writable(&self) {
        self.source.lock().write.ready = true;
    }

    /// Tries `read` when there may be something, which is asked for up to `wanted` bytes. It answers with `WouldBlock` if there is
    /// nothing; if it answers with less than `wanted`, there is nothing more.
    ///
    /// # Errors
    /// What `read` says, except for `WouldBlock`.
    pub fn poll_read(
        &self,
        cx: &mut Context<'_>,
        wanted: usize,
        read: impl FnMut() -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        let mut read = read;
        loop {
            let seen = ready!(self.source.lock().read.poll_ready(cx));
            match read() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.source.lock().read.is_used_up(seen);
                }
                Ok(count) if count < wanted => {
                    let mut sides = self.source.lock();
                    if !sides.ended && count > 0 {
                        sides.read.is_used_up(seen);
                    }
                    return Poll::Ready(Ok(count));
                }
                result => return Poll::Ready(result),
            }
        }
    }

    /// Tries `accept` or something else that gets one thing at a time, and answers with `WouldBlock` if there is none.
    ///
    /// # Errors
    /// What `accept` says, except for `WouldBlock`.
    pub fn poll_accept<T>(
        &self,
        cx: &mut Context<'_>,
        mut accept: impl FnMut() -> io::Result<T>,
    ) -> Poll<io::Result<T>> {
        loop {
            let seen = ready!(self.source.lock().read.poll_ready(cx));
            match accept() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.source.lock().read.is_used_up(seen);
                }
                result => return Poll::Ready(result),
            }
        }
    }

    /// Tries `write` while the kernel may have room. It answers with `WouldBlock` if there is none.
    ///
    /// # Errors
    /// What `write` says, except for `WouldBlock`, or that the kernel cannot be asked to tell when there is room.
    pub fn poll_write(
        &self,
        cx: &mut Context<'_>,
        socket: impl AsFd,
        mut write: impl FnMut() -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            let seen = ready!(self.source.lock().write.poll_ready(cx));
            match write() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let mut sides = self.source.lock();
                    sides.write.is_used_up(seen);
                    if !std::mem::replace(&mut sides.tells_writable, true) {
                        drop(sides);
                        self.reactor.tell_writable(&socket, self.key)?;
                    }
                }
                result => return Poll::Ready(result),
            }
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.reactor.release(self.key);
    }
}
