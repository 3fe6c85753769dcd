//! How an answer begins, for an error that does not say: the library refuses HTTP/1.0 without its status.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use smol::io::{AsyncRead, AsyncWrite};
use smol::net::TcpStream;

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

    fn add(&self, bytes: &[u8]) {
        let mut kept = self.0.borrow_mut();
        let room = KEPT.saturating_sub(kept.len());
        kept.extend(bytes.iter().take(room));
    }
}

/// A connection that keeps its [`Beginning`].
#[derive(Debug)]
pub(super) struct Witnessed {
    stream: TcpStream,
    beginning: Beginning,
}

impl Witnessed {
    pub(super) fn new(stream: TcpStream) -> (Self, Beginning) {
        let beginning = Beginning::default();
        (Self { stream, beginning: beginning.clone() }, beginning)
    }
}

impl AsyncRead for Witnessed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let count = ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        self.beginning.add(buffer.get(..count).unwrap_or_default());
        Poll::Ready(Ok(count))
    }
}

impl AsyncWrite for Witnessed {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(cx)
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
}
