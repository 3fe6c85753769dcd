//! A socket with TLS on it.
//!
//! The protocol is rustls', through its unbuffered interface: bytes are decrypted in a buffer that belongs to the thread, and
//! encrypted in another one, so that an idle connection has no buffers of its own. It has some only while it holds a part of a
//! record, plaintext that its reader had no room for, or ciphertext that the kernel has not taken.
//!
//! [`TlsSocket`] answers a write when the kernel has the ciphertext, never before, so that whoever counts writes counts
//! deliveries ([`Transport`]). What is sealed must go out in order: if the kernel takes a part of it, the next write has to
//! begin with the same bytes.
//!
//! [`accept`] makes the handshake. Who speaks HTTP without TLS is told so in HTTP, because that is a person with a wrong URL.

mod handshake;
mod records;

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use rustls::server::UnbufferedServerConnection;
use rustls::{Error, ProtocolVersion, ServerConfig};
use smol::io::{AsyncRead, AsyncWrite};

use super::socket::Socket;
use crate::relay::transport::Transport;
use crate::runtime::worker::Worker;

pub use handshake::{Handshaken, NoTls, accept};
use records::{Opened, Sink, open, say_what_is_due, writer};

/// Bytes decrypted at a time. More than one record, so that large frames take few reads.
const CIPHERTEXT: usize = 64 * 1024;

/// Plaintext bytes sealed at a time: what a connection whose peer does not read holds in ciphertext.
const SEALED_AT_ONCE: usize = 16 * 1024;

/// More than what sealing adds to [`SEALED_AT_ONCE`] bytes.
const OVERHEAD: usize = 1024;

/// The longest record (RFC 8446 § 5.2, RFC 5246 § 6.2.3), with its header.
const RECORD: usize = 16 * 1024 + 2048 + 5;

/// More than a sealed `close_notify` has.
const GOODBYE: usize = 128;

/// Records that are sealed with one key of TLS 1.2: a little less than AES-GCM allows (2^24), so that there is room for a
/// farewell.
const WORN_OUT: u32 = (1 << 24) - 4096;

/// Reads without plaintext, one after the other, before others have their turn.
const FRUITLESS: usize = 4;

thread_local! {
    static OPENING: RefCell<Vec<u8>> = RefCell::new(vec![0; CIPHERTEXT]);
    static SEALING: RefCell<Vec<u8>> = RefCell::new(vec![0; SEALED_AT_ONCE + OVERHEAD]);
}

/// An accepted connection with TLS on it.
#[expect(clippy::struct_excessive_bools, reason = "any of them may be true together with any other")]
pub struct TlsSocket {
    socket: Socket,
    tls: UnbufferedServerConnection,
    /// Ciphertext that is not a whole record, or not a whole handshake message.
    incoming: Vec<u8>,
    /// Plaintext that was not taken, and where it begins.
    plain: Vec<u8>,
    taken: usize,
    /// Ciphertext that the kernel has not taken, and where it begins.
    outgoing: Vec<u8>,
    sent: usize,
    /// Plaintext bytes of the last write that are sealed in `outgoing`.
    begun: usize,
    has_moved: bool,
    has_heard: bool,
    /// `incoming` may begin with whole records, which had not their turn yet.
    unopened: bool,
    /// Records sealed with TLS 1.2, whose key cannot be exchanged.
    worn: u32,
    /// Nothing more is read.
    at_end: bool,
    /// Nothing more is sealed: goodbye was said, or an alert.
    silent: bool,
}

impl fmt::Debug for TlsSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsSocket").field("socket", &self.socket).finish_non_exhaustive()
    }
}

impl TlsSocket {
    fn new(socket: Socket, config: Arc<ServerConfig>) -> Result<Self, Error> {
        Ok(Self {
            socket,
            tls: UnbufferedServerConnection::new(config)?,
            incoming: Vec::new(),
            plain: Vec::new(),
            taken: 0,
            outgoing: Vec::new(),
            sent: 0,
            begun: 0,
            has_moved: false,
            has_heard: false,
            unopened: false,
            worn: 0,
            at_end: false,
            silent: false,
        })
    }

    /// From now on its readiness is told to `worker`'s tasks.
    pub(super) fn move_to(&mut self, worker: &Worker) {
        self.socket.move_to(worker);
    }

    /// Reads from the socket once and takes what came apart. `Ready(0)`: nothing was said, or there will be nothing more
    /// (`at_end`).
    fn poll_open(&mut self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<Result<usize, Broken>> {
        OPENING.with_borrow_mut(|opening| {
            let have = self.incoming.len();
            let (old, free) = opening.split_at_mut(have.min(CIPHERTEXT));
            old.copy_from_slice(&self.incoming);
            let mut count = 0;
            if !mem::take(&mut self.unopened) {
                count = ready!(Pin::new(&mut self.socket).poll_read(cx, free))?;
                if count == 0 {
                    self.at_end = true;
                    return Poll::Ready(Ok(0));
                }
                self.has_heard = true;
            }
            let input = opening.get_mut(..have + count).unwrap_or_default();
            let mut sink = Sink { buf, filled: 0, aside: &mut self.plain };
            let opened = open(&mut self.tls, input, &mut sink, &mut self.outgoing);
            let filled = sink.filled;
            let Opened { consumed, closed, more } = match opened {
                Ok(opened) => opened,
                Err(error) => {
                    (self.at_end, self.silent) = (true, true);
                    // What came whole before it came.
                    return Poll::Ready(if filled > 0 { Ok(filled) } else { Err(error.into()) });
                }
            };
            self.at_end |= closed;
            self.unopened = more;
            let rest = input.get(consumed..).unwrap_or_default();
            // What rustls has looked at and not discarded stays as it left it.
            self.incoming.clear();
            if rest.is_empty() {
                self.incoming = Vec::new();
            } else {
                self.incoming.extend_from_slice(rest);
            }
            if self.incoming.len() > CIPHERTEXT - RECORD && filled == 0 && !more {
                return Poll::Ready(Err(Broken::Odd("a message of it is too long")));
            }
            Poll::Ready(Ok(filled))
        })
    }

    fn take_plain(&mut self, buf: &mut [u8]) -> usize {
        let waiting = self.plain.get(self.taken..).unwrap_or_default();
        let count = waiting.len().min(buf.len());
        buf.iter_mut().zip(waiting).for_each(|(to, from)| *to = *from);
        self.taken += count;
        if self.taken >= self.plain.len() {
            self.plain = Vec::new();
            self.taken = 0;
        }
        count
    }

    /// Hands ciphertext to the kernel until there is none.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(unsent) = self.outgoing.get(self.sent..).filter(|unsent| !unsent.is_empty()) {
            match ready!(Pin::new(&mut self.socket).poll_write(cx, unsent))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.sent += count,
            }
            self.has_moved = true;
        }
        if !self.outgoing.is_empty() {
            self.outgoing = Vec::new();
            self.sent = 0;
        }
        Poll::Ready(Ok(()))
    }

    /// Seals the beginning of `bytes` and offers it to the kernel; what that does not take is `outgoing`. Returns how many
    /// bytes were sealed. There is nothing outgoing before.
    fn seal(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> io::Result<usize> {
        if self.silent {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        if self.tls.protocol_version() == Some(ProtocolVersion::TLSv1_2) {
            self.worn = self.worn.saturating_add(1);
            if self.worn == WORN_OUT {
                // Once: what is sealed from here on is the farewell.
                return Err(io::Error::other("the key has sealed as much as it may"));
            }
        }
        let bytes = bytes.get(..SEALED_AT_ONCE).unwrap_or(bytes);
        let incomplete = incomplete(&mut self.incoming, self.unopened);
        say_what_is_due(&mut self.tls, incomplete, &mut self.outgoing)?;
        SEALING.with_borrow_mut(|sealing| {
            let mut writer = writer(&mut self.tls, incomplete)?;
            let length =
                writer.encrypt(bytes, sealing).map_err(|error| io::Error::other(error.to_string()))?;
            let sealed = sealing.get(..length).unwrap_or_default();
            let mut sent = 0;
            if self.outgoing.is_empty() {
                if let Poll::Ready(taken) = Pin::new(&mut self.socket).poll_write(cx, sealed) {
                    sent = taken?;
                }
            }
            self.has_moved |= sent > 0;
            self.outgoing.extend_from_slice(sealed.get(sent..).unwrap_or_default());
            Ok(bytes.len())
        })
    }

    /// Says that nothing more will come (RFC 8446 § 6.1).
    fn say_goodbye(&mut self) {
        if mem::replace(&mut self.silent, true) || self.tls.is_handshaking() {
            return;
        }
        let mut goodbye = [0; GOODBYE];
        let incomplete = incomplete(&mut self.incoming, self.unopened);
        if say_what_is_due(&mut self.tls, incomplete, &mut self.outgoing).is_err() {
            return;
        }
        let Ok(mut writer) = writer(&mut self.tls, incomplete) else { return };
        if let Ok(length) = writer.queue_close_notify(&mut goodbye) {
            self.outgoing.extend_from_slice(goodbye.get(..length).unwrap_or_default());
        }
    }
}

/// However a connection ends, its peer can tell the end from a line that was cut. Nobody waits for that: if the kernel does not
/// take it at once, so be it.
impl Drop for TlsSocket {
    fn drop(&mut self) {
        self.say_goodbye();
        let _ = self.poll_send(&mut Context::from_waker(Waker::noop()));
    }
}

impl AsyncRead for TlsSocket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        for _ in 0..FRUITLESS {
            if !this.plain.is_empty() {
                return Poll::Ready(Ok(this.take_plain(buf)));
            }
            if this.at_end || buf.is_empty() {
                return Poll::Ready(Ok(0));
            }
            if this.silent {
                // Whoever has said goodbye only wants to see the end. rustls is not to be asked any more.
                return Pin::new(&mut this.socket).poll_read(cx, buf);
            }
            let opened = this.poll_open(cx, buf);
            // What is to be answered to what was read. If the kernel takes none of it now, the next write carries it; if it never will,
            // that write says so, and what the peer said before is heard first.
            let _ = this.poll_send(cx);
            let count = ready!(opened).map_err(Broken::into_io)?;
            if count > 0 {
                this.has_heard = false;
                return Poll::Ready(Ok(count));
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl AsyncWrite for TlsSocket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_send(cx))?;
        if this.begun == 0 {
            this.begun = this.seal(cx, buf)?;
            ready!(this.poll_send(cx))?;
        }
        // What a write has told of, nobody needs to ask for.
        this.has_moved = false;
        Poll::Ready(Ok(mem::take(&mut this.begun)))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_send(cx))?;
        Pin::new(&mut this.socket).poll_flush(cx)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.say_goodbye();
        ready!(this.poll_send(cx))?;
        Pin::new(&mut this.socket).poll_close(cx)
    }
}

impl Transport for TlsSocket {
    fn begun(&self) -> usize {
        self.begun
    }

    fn ask_again(&mut self) {
        self.socket.ask_again();
    }

    fn has_heard(&mut self) -> bool {
        mem::take(&mut self.has_heard)
    }

    fn holds_a_part(&self) -> bool {
        !self.incoming.is_empty()
    }

    fn has_moved(&mut self) -> bool {
        mem::take(&mut self.has_moved)
    }
}

/// What rustls has looked at and not discarded, which it is shown at every call. Records that had not their turn yet it has not
/// looked at, and it would open them; before them there is nothing incomplete.
fn incomplete(incoming: &mut [u8], unopened: bool) -> &mut [u8] {
    if unopened { &mut [] } else { incoming }
}

/// Why nothing more can be read.
#[derive(Debug)]
enum Broken {
    Io(io::Error),
    Tls(Error),
    /// What rustls does not mind, or does not see.
    Odd(&'static str),
}

impl Broken {
    fn into_io(self) -> io::Error {
        match self {
            Self::Io(error) => error,
            Self::Tls(error) => io::Error::new(io::ErrorKind::InvalidData, error),
            Self::Odd(what) => io::Error::new(io::ErrorKind::InvalidData, what),
        }
    }
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<Error> for Broken {
    fn from(error: Error) -> Self {
        Self::Tls(error)
    }
}
