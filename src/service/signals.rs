//! SIGTERM, SIGINT and SIGHUP as values to await.
//!
//! A signal handler may do next to nothing, so `signal-hook`'s handler writes one byte into a socket pair, one
//! pair per signal, and [`Signals::next`] reads the other ends on the executor. No thread is started.

use std::future::poll_fn;
use std::io;
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::task::{Context, Poll};

use async_io::Async;
use futures_lite::AsyncRead;
use signal_hook::SigId;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::low_level::{pipe, unregister};

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Signal {
    /// SIGTERM or SIGINT: shut down; the second one: at once.
    Terminate,
    /// SIGHUP: read again what can be read again.
    Hangup,
}

/// Receives the signals of this process from the moment it is made. While it exists they no longer end the
/// process; after it is dropped they are ignored, because the handler stays installed.
#[derive(Debug)]
pub struct Signals {
    terminate: Source,
    interrupt: Source,
    hangup: Source,
}

impl Signals {
    /// Installs the handlers.
    ///
    /// # Errors
    ///
    /// The socket pairs could not be made, or a handler not installed.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: Source::new(SIGTERM)?,
            interrupt: Source::new(SIGINT)?,
            hangup: Source::new(SIGHUP)?,
        })
    }

    /// The next signal; one to terminate comes before one to reload. Nothing is lost if this future is dropped.
    ///
    /// Each SIGTERM and SIGINT that the kernel delivered is returned once, so that a second one is seen even if
    /// it came before the first was read. Several SIGHUPs that wait together are returned as one.
    ///
    /// # Errors
    ///
    /// A socket pair failed; no further signal of its kind can be received.
    pub async fn next(&mut self) -> io::Result<Signal> {
        poll_fn(|cx| {
            for source in [&mut self.terminate, &mut self.interrupt] {
                if let Poll::Ready(read) = source.poll_read(cx, &mut [0; 1]) {
                    return Poll::Ready(read.map(|()| Signal::Terminate));
                }
            }
            self.hangup.poll_read(cx, &mut [0; 256]).map_ok(|()| Signal::Hangup)
        })
        .await
    }
}

/// One signal's socket pair.
#[derive(Debug)]
struct Source {
    handler: SigId,
    stream: Async<UnixStream>,
}

impl Source {
    fn new(signal: i32) -> io::Result<Self> {
        let (reader, writer) = UnixStream::pair()?;
        let stream = Async::new(reader)?;
        let handler = pipe::register(signal, writer)?;
        Ok(Self { handler, stream })
    }

    /// Takes up to one byte per signal out of the pair, as many as `buffer` holds.
    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer).map(|read| match read? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        })
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        unregister(self.handler);
    }
}
