//! How an answer begins, for an error that does not say: the library refuses HTTP/1.0 without its status, and neither
//! it nor the TLS library says what a peer speaks instead of what is expected.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use smol::io::{AsyncRead, AsyncWrite};

/// What a status line in HTTP/1.0 begins with.
const OLD: &str = "HTTP/1.0 ";

/// How many bytes are kept: the version and a status.
const KEPT: usize = OLD.len() + 3;

/// The first bytes that came on a connection.
#[derive(Clone, Debug, Default)]
pub(super) struct Beginning(Rc<RefCell<Vec<u8>>>);

impl Beginning {
    /// The status, if this is the beginning of an answer in HTTP/1.0.
    pub(super) fn old_http(&self) -> Option<u16> {
        let bytes = self.0.borrow();
        let digits = std::str::from_utf8(&bytes).ok()?.strip_prefix(OLD)?;
        digits.parse().ok().filter(|status| (100..1000).contains(status))
    }

    /// Whether this is the beginning of an answer in HTTP, of whatever version.
    pub(super) fn is_http(&self) -> bool {
        self.0.borrow().starts_with(b"HTTP/")
    }

    /// Whether this is a TLS alert: what a peer that expects TLS says to anything else. The first byte may be all that
    /// has come when the library gives up.
    pub(super) fn is_tls_alert(&self) -> bool {
        matches!(self.0.borrow().as_slice(), [21] | [21, 3, ..])
    }

    /// Whether something came that is no TLS: a record begins with its kind, 20 to 23, and the version 3.
    pub(super) fn is_not_tls(&self) -> bool {
        match self.0.borrow().as_slice() {
            [] | [20..=23] | [20..=23, 3, ..] => false,
            [_, ..] => true,
        }
    }

    fn add(&self, bytes: &[u8]) {
        let mut kept = self.0.borrow_mut();
        let room = KEPT.saturating_sub(kept.len());
        kept.extend(bytes.iter().take(room));
    }
}

/// A connection that keeps its [`Beginning`]. Clones are the same connection: what one has read, another does not.
#[derive(Debug)]
pub(super) struct Witnessed<S> {
    stream: Rc<RefCell<S>>,
    beginning: Beginning,
}

impl<S> Witnessed<S> {
    pub(super) fn new(stream: S) -> (Self, Beginning) {
        let beginning = Beginning::default();
        (Self { stream: Rc::new(RefCell::new(stream)), beginning: beginning.clone() }, beginning)
    }
}

impl<S> Clone for Witnessed<S> {
    fn clone(&self) -> Self {
        Self { stream: Rc::clone(&self.stream), beginning: self.beginning.clone() }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Witnessed<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let count = ready!(Pin::new(&mut *self.stream.borrow_mut()).poll_read(cx, buffer))?;
        self.beginning.add(buffer.get(..count).unwrap_or_default());
        Poll::Ready(Ok(count))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Witnessed<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.stream.borrow_mut()).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream.borrow_mut()).poll_flush(cx)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream.borrow_mut()).poll_close(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_answer_is_known_by_its_first_bytes() {
        for (parts, status) in [
            (&["HTTP/1.0 404 Not Found\r\n"][..], Some(404)),
            (&["HTTP", "/1.0 50", "1"], Some(501)),
            (&["HTTP/1.1 404 Not Found"], None),
            (&["HTTP/1.0 40"], None),
            (&["HTTP/1.0 099"], None),
            (&["HTTP/1.0 abc"], None),
            (&["\u{15}\u{3}"], None),
            (&[], None),
        ] {
            let beginning = Beginning::default();
            for part in parts {
                beginning.add(part.as_bytes());
            }
            assert_eq!(beginning.old_http(), status, "{parts:?}");
            assert!(beginning.0.borrow().len() <= KEPT);
        }
    }
    #[test]
    fn what_a_peer_speaks_is_known_by_its_first_bytes() {
        for (bytes, http, alert, not_tls) in [
            (&b""[..], false, false, false),
            (b"HTTP/1.1 400 Bad Request", true, false, true),
            (b"SSH-2.0-x", false, false, true),
            (&[21, 3, 3, 0, 2, 2, 40], false, true, false),
            (&[22, 3, 3, 0, 90], false, false, false),
            (&[22], false, false, false),
            (&[22, 1], false, false, true),
            (&[21], false, true, false),
            (&[21, 1], false, false, true),
        ] {
            let beginning = Beginning::default();
            beginning.add(bytes);
            assert_eq!((beginning.is_http(), beginning.is_tls_alert()), (http, alert), "{bytes:?}");
            assert_eq!(beginning.is_not_tls(), not_tls, "{bytes:?}");
        }
    }
}
