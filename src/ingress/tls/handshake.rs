//! The handshake of a connection, and how it ends if there is none.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_io::Timer;
use futures_lite::future;
use rustls::{Error, HandshakeKind, ServerConfig};
use smol::io::{AsyncReadExt, AsyncWriteExt};

use super::{Broken, TlsSocket};
use crate::ingress::socket::Socket;
use crate::tls::ACME_TLS;

/// How long a connection that ends here may take to read why.
const FAREWELL: Duration = Duration::from_secs(1);

/// For who speaks HTTP without TLS.
const PLAIN_HTTP: &[u8] =
    b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain; charset=utf-8\r\nconnection: close\r\n\
    content-length: 61\r\n\r\nthis port speaks TLS; the URL begins with https:// or wss://\n";

/// A handshake that was made.
#[derive(Debug)]
pub enum Handshaken {
    /// By a client.
    Client {
        /// What it speaks through.
        socket: Box<TlsSocket>,
        /// It had been here before and brought a ticket.
        resumed: bool,
    },
    /// By a certificate authority, which has seen what it wanted to see.
    Authority,
}

/// Why there is no handshake.
#[derive(Debug)]
pub enum NoTls {
    /// The client has left without a byte.
    HungUp,
    /// It failed, for this reason; the client was told as far as it can be.
    Failed(String),
}

/// Makes the handshake with a client.
///
/// # Errors
/// There is none.
pub async fn accept(mut socket: Socket, config: Arc<ServerConfig>) -> Result<Handshaken, NoTls> {
    let mut first = [0];
    let gone = |error: io::Error| NoTls::Failed(error.to_string());
    match socket.peek(&mut first).await {
        Ok(0) => return Err(NoTls::HungUp),
        Ok(_) => {}
        Err(error) => return Err(gone(error)),
    }
    if first.iter().all(u8::is_ascii_uppercase) {
        let _ = socket.write_all(PLAIN_HTTP).await;
        part(&mut socket).await;
        return Err(NoTls::Failed("it speaks HTTP without TLS".to_owned()));
    }
    let socket = TlsSocket::new(socket, config).map_err(|error| NoTls::Failed(error.to_string()))?;
    // It is large, and moves with every step that it is handed on.
    let mut socket = Box::new(socket);
    if let Err(broken) = poll_fn(|cx| socket.poll_handshake(cx)).await {
        let cause = match broken {
            Broken::Io(error) => return Err(gone(error)),
            // That is how rustls says that there was nothing to show.
            Broken::Tls(Error::General(text)) if text.contains("no server certificate") => {
                "there is no certificate for the name that it asks for".to_owned()
            }
            Broken::Tls(error) => error.to_string(),
            Broken::Odd(what) => what.to_owned(),
        };
        part(&mut socket.socket).await;
        return Err(NoTls::Failed(cause));
    }
    if socket.tls.alpn_protocol() == Some(ACME_TLS) {
        socket.say_goodbye();
        let _ = poll_fn(|cx| socket.poll_send(cx)).await;
        part(&mut socket.socket).await;
        return Ok(Handshaken::Authority);
    }
    let resumed = socket.tls.handshake_kind() == Some(HandshakeKind::Resumed);
    Ok(Handshaken::Client { socket, resumed })
}

/// Ends a connection so that its peer can read to the end what it was told: closing a socket with unread bytes would make the
/// kernel reset it.
async fn part(socket: &mut Socket) {
    let reading = async {
        let mut rest = [0; 1024];
        if socket.close().await.is_ok() {
            while let Ok(1..) = socket.read(&mut rest).await {
                // A peer that always has more would keep everybody else waiting.
                future::yield_now().await;
            }
        }
    };
    future::or(reading, async {
        Timer::after(FAREWELL).await;
    })
    .await;
}

impl TlsSocket {
    /// Until the handshake is made and all that belongs to it is with the kernel.
    fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        loop {
            ready!(self.poll_send(cx))?;
            if !self.tls.is_handshaking() {
                return Poll::Ready(Ok(()));
            }
            if self.at_end {
                return Poll::Ready(Err(Broken::Odd("closed in the middle of it")));
            }
            if let Err(broken) = ready!(self.poll_open(cx, &mut [])) {
                // The alert; if the kernel does not take it now, so be it.
                let _ = self.poll_send(cx)?;
                return Poll::Ready(Err(broken));
            }
        }
    }
}
