//! A connection as HTTP and sessions see it: with or without TLS.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use smol::io::{AsyncRead, AsyncWrite};

use super::socket::Socket;
use super::tls::TlsSocket;
use crate::relay::transport::Transport;
use crate::runtime::worker::Worker;

/// Bytes both ways.
#[derive(Debug)]
pub enum Stream {
    /// As they are.
    Plain(Socket),
    /// Encrypted on the way. In a box, so that a connection without does not pay for it.
    Tls(Box<TlsSocket>),
}

impl Stream {
    /// From now on its readiness is told to `worker`'s tasks.
    pub fn move_to(&mut self, worker: &Worker) {
        match self {
            Self::Plain(socket) => socket.move_to(worker),
            Self::Tls(socket) => socket.move_to(worker),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_read(cx, buf),
            Self::Tls(socket) => Pin::new(socket).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_write(cx, buf),
            Self::Tls(socket) => Pin::new(socket).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_write_vectored(cx, bufs),
            Self::Tls(socket) => Pin::new(socket).poll_write_vectored(cx, bufs),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_flush(cx),
            Self::Tls(socket) => Pin::new(socket).poll_flush(cx),
        }
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_close(cx),
            Self::Tls(socket) => Pin::new(socket).poll_close(cx),
        }
    }
}

impl Transport for Stream {
    fn begun(&self) -> usize {
        match self {
            Self::Plain(_) => 0,
            Self::Tls(socket) => socket.begun(),
        }
    }

    fn ask_again(&mut self) {
        match self {
            Self::Plain(socket) => socket.ask_again(),
            Self::Tls(socket) => socket.ask_again(),
        }
    }

    fn has_heard(&mut self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Tls(socket) => socket.has_heard(),
        }
    }

    fn holds_a_part(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Tls(socket) => socket.holds_a_part(),
        }
    }

    fn has_moved(&mut self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Tls(socket) => socket.has_moved(),
        }
    }
}
