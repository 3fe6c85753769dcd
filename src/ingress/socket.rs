//! A TCP socket whose close reaches the peer, whose dead peer is noticed, and which holds little that was not sent.
//!
//! `async-io` leaves `poll_close` of its sockets empty. Here it shuts the writing side down, so that the peer sees
//! the end of the stream while what it still sends can be read.

use std::io::{self, IoSlice};
use std::net::{Shutdown, TcpStream};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use async_io::Async;
use smol::io::{AsyncRead, AsyncWrite};
use socket2::SockRef;

/// Bytes that the kernel may hold without having sent them. What it holds, a ping cannot overtake: with the megabytes that
/// it takes by itself, a peer on a slow line would be asked whether it is there, and given up, long before it could hear of
/// it.
const UNSENT: u32 = 128 * 1024;

/// An accepted connection.
#[derive(Debug)]
pub struct Socket(Async<TcpStream>);

impl Socket {
    /// Wraps a connection. The kernel is asked to send small frames at once, because someone waits for each; to give the
    /// connection up when what was sent is not acknowledged for `dead_after` (`TCP_USER_TIMEOUT`, tcp(7)); and to take no
    /// more than 128 KiB beyond what is on its way (`TCP_NOTSENT_LOWAT`, ibid.).
    #[must_use]
    pub fn new(stream: Async<TcpStream>, dead_after: Duration) -> Self {
        // A socket that refuses an option works without it.
        let _ = stream.get_ref().set_nodelay(true);
        let _ = SockRef::from(stream.get_ref()).set_tcp_user_timeout(Some(dead_after));
        let _ = SockRef::from(stream.get_ref()).set_tcp_notsent_lowat(UNSENT);
        Self(stream)
    }
}

impl Socket {
    /// Waits for bytes and copies them without taking them. 0 when the peer has ended its side.
    ///
    /// # Errors
    /// What the operating system says.
    pub async fn peek(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.peek(buf).await
    }
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, bufs)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.0.get_ref().shutdown(Shutdown::Write))
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn the_kernel_is_told_how_much_to_take_and_when_a_peer_counts_as_dead() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let socket = Socket::new(Async::new(stream).unwrap(), Duration::from_millis(61_500));
        let stream = socket.0.get_ref();
        let options = SockRef::from(stream);
        assert_eq!(options.tcp_user_timeout().unwrap(), Some(Duration::from_millis(61_500)));
        assert_eq!(options.tcp_notsent_lowat().unwrap(), UNSENT);
        assert!(stream.nodelay().unwrap());
    }
}
