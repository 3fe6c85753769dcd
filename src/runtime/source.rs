//! What is known of one socket's readiness, and who waits for it.
//!
//! A socket is taken for ready from an edge on until a read or write finds that it is not. A read that got less than it asked for
//! has emptied the socket, so the read that would only learn that can be spared (epoll(7), "Questions and answers", 9); not so
//! once the peer has ended its side, because that edge has passed, and not at an urgent byte.
//!
//! Between a read and the note that the socket is empty, another edge may come. So the note goes with the count of edges
//! that were known before the read, and is void if there were more since.

use std::future::poll_fn;
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

    /// The next read and the next write are tried.
    pub fn assume_ready(&self) {
        let mut sides = self.source.lock();
        (sides.read.ready, sides.write.ready) = (true, true);
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
        let (count, seen) = ready!(self.poll_try(cx, |sides| &mut sides.read, read))?;
        if (1..wanted).contains(&count) {
            let mut sides = self.source.lock();
            if !sides.ended {
                sides.read.is_used_up(seen);
            }
        }
        Poll::Ready(Ok(count))
    }

    /// Waits until there is something, and gets it with `get`, one thing at a time, which answers with `WouldBlock` if there is none.
    ///
    /// # Errors
    /// What `get` says, except for `WouldBlock`.
    pub async fn get<T>(&self, mut get: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        let (got, _) = poll_fn(|cx| self.poll_try(cx, |sides| &mut sides.read, &mut get)).await?;
        Ok(got)
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
        let write = || {
            let written = write();
            if would_block(&written) && !std::mem::replace(&mut self.source.lock().tells_writable, true) {
                self.reactor.tell_writable(&socket, self.key)?;
            }
            written
        };
        self.poll_try(cx, |sides| &mut sides.write, write).map_ok(|(count, _)| count)
    }

    /// Tries for as long as that side may be ready. Comes with the edges that were known before.
    fn poll_try<T>(
        &self,
        cx: &mut Context<'_>,
        side: fn(&mut Sides) -> &mut Side,
        mut attempt: impl FnMut() -> io::Result<T>,
    ) -> Poll<io::Result<(T, Edges)>> {
        loop {
            let seen = ready!(side(&mut self.source.lock()).poll_ready(cx));
            let result = attempt();
            if would_block(&result) {
                side(&mut self.source.lock()).is_used_up(seen);
            } else {
                return Poll::Ready(result.map(|got| (got, seen)));
            }
        }
    }
}

fn would_block<T>(result: &io::Result<T>) -> bool {
    result.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.reactor.release(self.key);
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::time::Duration;

    use async_io::Timer;
    use futures_lite::future;
    use socket2::SockRef;

    use super::*;
    use crate::runtime::worker::Worker;

    #[test]
    fn what_is_behind_an_urgent_byte_is_read_too() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut sender = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (receiver, _) = listener.accept().unwrap();
        receiver.set_nonblocking(true).unwrap();
        sender.write_all(b"before").unwrap();
        SockRef::from(&sender).send_out_of_band(b"!").unwrap();
        sender.write_all(b"behind").unwrap();
        let worker = Worker::new().unwrap();
        let registration = worker.register(&receiver).unwrap();
        let reads = async {
            let mut bytes = Vec::new();
            while bytes.len() < 12 {
                let mut buffer = [0; 64];
                let read =
                    |cx: &mut Context<'_>| registration.poll_read(cx, 64, || (&receiver).read(&mut buffer));
                let count = poll_fn(read).await.unwrap();
                bytes.extend_from_slice(&buffer[..count]);
            }
            bytes
        };
        let late = async {
            Timer::after(Duration::from_secs(10)).await;
            Vec::new()
        };
        assert_eq!(worker.block_on(future::or(reads, late)), b"beforebehind");
    }

    #[test]
    fn what_the_kernel_has_not_told_of_is_read_when_it_is_assumed() {
        let (mut sender, receiver) = std::os::unix::net::UnixStream::pair().unwrap();
        receiver.set_nonblocking(true).unwrap();
        // Nobody drives it, so nothing is told.
        let worker = Worker::new().unwrap();
        let registration = worker.register(&receiver).unwrap();
        let mut buffer = [0; 64];
        let mut read = || {
            let mut cx = Context::from_waker(Waker::noop());
            registration.poll_read(&mut cx, 64, || (&receiver).read(&mut buffer))
        };
        sender.write_all(b"said").unwrap();
        assert!(read().is_pending());
        registration.assume_ready();
        assert!(matches!(read(), Poll::Ready(Ok(4))));
        registration.assume_ready();
        assert!(read().is_pending(), "there is nothing more");
    }
}
