//! A TCP socket whose close reaches the peer, whose dead peer is noticed, and which holds little that was not sent.
//!
//! It belongs to a worker, whose reactor tells when it is ready, and can be moved to another. Closing it shuts the writing side
//! down, so that the peer sees the end of the stream while what it still sends can be read.

use std::io::{self, IoSlice, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsFd;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use smol::io::{AsyncRead, AsyncWrite};
use socket2::SockRef;

use crate::runtime::source::Registration;
use crate::runtime::worker::Worker;

/// Bytes that the kernel may hold without having sent them. What it holds, a ping cannot overtake: with the megabytes that
/// it takes by itself, a peer on a slow line would be asked whether it is there, and given up, long before it could hear of
/// it.
const UNSENT: u32 = 128 * 1024;

/// An accepted connection.
#[derive(Debug)]
pub struct Socket {
    /// Closed before its registration ends.
    stream: TcpStream,
    registration: Registration,
}

/// Asks the kernel for what every connection is to have: small frames are sent at once, because someone waits for each (`TCP_NODELAY`,
/// tcp(7)); the connection is given up when what was sent is not acknowledged for `dead_after` (`TCP_USER_TIMEOUT`); and no more than
/// 128 KiB are taken beyond what is on its way (`TCP_NOTSENT_LOWAT`). What a listener has when a connection is made, that inherits.
pub fn prepare(socket: &impl AsFd, dead_after: Duration) {
    let socket = SockRef::from(socket);
    // A socket that refuses an option works without it.
    let _ = socket.set_tcp_nodelay(true);
    let _ = socket.set_tcp_user_timeout(Some(dead_after));
    let _ = socket.set_tcp_notsent_lowat(UNSENT);
}

impl Socket {
    /// Wraps a connection, which must be non-blocking, and registers it with `worker`.
    ///
    /// # Errors
    /// It cannot be registered.
    pub fn new(stream: TcpStream, worker: &Worker) -> io::Result<Self> {
        let registration = worker.register(&stream)?;
        Ok(Self { stream, registration })
    }

    /// From now on its readiness is told to `worker`'s tasks at first hand. If that cannot be, it goes on as before.
    pub fn move_to(&mut self, worker: &Worker) {
        if let Ok(registration) = worker.register(&self.stream) {
            std::mem::replace(&mut self.registration, registration).forget(&self.stream);
        }
    }

    /// The next read and write are tried, whatever the kernel has told of. It tells of room when half of what it may hold is free, and takes
    /// something before that; and what came together with a reset may be there before it is told of.
    pub(super) fn ask_again(&self) {
        self.registration.assume_ready();
    }

    /// Waits for bytes and copies them without taking them. 0 when the peer has ended its side.
    ///
    /// # Errors
    /// What the operating system says.
    pub async fn peek(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.registration.get(|| self.stream.peek(buf)).await
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        self.registration.poll_read(cx, buf.len(), || (&self.stream).read(buf))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.registration.poll_write(cx, &self.stream, || (&self.stream).write(buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.registration.poll_write(cx, &self.stream, || (&self.stream).write_vectored(bufs))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.stream.shutdown(Shutdown::Write))
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn the_kernel_is_told_how_much_to_take_and_when_a_peer_counts_as_dead() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        prepare(&listener, Duration::from_millis(61_500));
        let _peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (stream, _) = listener.accept().unwrap();
        let options = SockRef::from(&stream);
        assert_eq!(options.tcp_user_timeout().unwrap(), Some(Duration::from_millis(61_500)));
        assert_eq!(options.tcp_notsent_lowat().unwrap(), UNSENT);
        assert!(stream.nodelay().unwrap());
    }
}
