//! Connections to the program under test, from addresses of their own.
//!
//! The relay counts upgrades and connections by client address, and runs with its default limits; so every sixteen connections
//! come from another address of the loopback network.

use std::error::Error;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use async_tungstenite::tungstenite::handshake::derive_accept_key;
use rustls::ClientConfig;
use socket2::{Domain, Socket, Type};

use super::stream::{Stream, trusting};
use crate::Result;
use crate::case::Order;

/// Connections from one address: below `limits.upgrade_burst` and `limits.connections_per_address`.
const PER_ADDRESS: u32 = 16;

/// Addresses that one dialler has for itself.
const OF_THE_FIRST: u32 = 254 * 256;

/// How long the other side may take for an upgrade.
const PATIENCE: Duration = Duration::from_secs(10);

/// A key that any client may send.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

#[derive(Clone, Copy)]
pub(crate) enum Who {
    Binary,
    Phone,
}

/// Connects, each time from where few have come from yet.
pub(crate) struct Dialler {
    target: SocketAddr,
    tls: Option<Arc<ClientConfig>>,
    dialled: u32,
    accept: String,
}

impl Dialler {
    pub(crate) fn new(order: &Order) -> Result<Self> {
        let accept = derive_accept_key(KEY.as_bytes()).to_ascii_lowercase();
        let tls = order.certificate.as_deref().map(trusting).transpose()?;
        Ok(Self { target: order.address, tls, dialled: 0, accept })
    }

    /// One beside another, from addresses that the other does not come to.
    pub(crate) fn beside(order: &Order) -> Result<Self> {
        Ok(Self { dialled: OF_THE_FIRST * PER_ADDRESS, ..Self::new(order)? })
    }

    /// The next address: 127.1.0.1 and up.
    fn source(&mut self) -> SocketAddr {
        let number = self.dialled / PER_ADDRESS;
        self.dialled += 1;
        let [_, second, third, fourth] = (number / 254 * 256 + number % 254 + 1 + (1 << 16)).to_be_bytes();
        SocketAddr::from((Ipv4Addr::new(127, second, third, fourth), 0))
    }

    /// Connects and sends the request to upgrade.
    pub(crate) fn ask(&mut self, who: Who, server: usize) -> Result<Stream> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.bind(&self.source().into())?;
        socket.connect(&self.target.into())?;
        let socket = TcpStream::from(socket);
        socket.set_nodelay(true)?;
        let mut stream = Stream::over(socket, self.tls.as_ref())?;
        let (path, version) = match who {
            Who::Binary => ("/v2/server", "x-pyrycode-version: 1.0.0\r\n"),
            Who::Phone => ("/v2/client", ""),
        };
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\nUser-Agent: bench\r\n\
             x-pyrycode-server: bench-{server}\r\n{version}\r\n",
            self.target
        );
        stream.write_all(request.as_bytes())?;
        Ok(stream)
    }

    /// The length of the answer's head if all of it is there and says yes. A refusal is waited for to its end, because its body
    /// says why.
    pub(crate) fn answered(&self, answer: &[u8]) -> Result<Option<usize>> {
        let Some(end) = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n") else { return Ok(None) };
        let head = String::from_utf8_lossy(&answer[..end]);
        // The lower-cased key stands in for the key: enough to see that it was looked at.
        if head.starts_with("HTTP/1.1 101 ") && head.to_ascii_lowercase().contains(&self.accept) {
            Ok(Some(end + 4))
        } else {
            let body = &answer[end + 4..];
            if body.len() < body_len(&head) { Ok(None) } else { Err(refusal(answer)) }
        }
    }

    /// A whole upgrade: the connection, not blocking, and what came behind the answer.
    pub(crate) fn connect(&mut self, who: Who, server: usize) -> Result<(Stream, Vec<u8>)> {
        let mut stream = self.ask(who, server)?;
        stream.socket().set_read_timeout(Some(PATIENCE))?;
        let mut answer = Vec::with_capacity(512);
        loop {
            let mut bytes = [0; 512];
            let count = stream.read(&mut bytes)?;
            if count == 0 {
                return Err(ended_early(&answer));
            }
            answer.extend_from_slice(&bytes[..count]);
            if let Some(head) = self.answered(&answer)? {
                answer.drain(..head);
                stream.socket().set_nonblocking(true)?;
                return Ok((stream, answer));
            }
        }
    }
}

/// Why a connection that ended before it was upgraded is an error.
pub(crate) fn ended_early(answer: &[u8]) -> Box<dyn Error> {
    if answer.is_empty() { "the connection ended in the upgrade".into() } else { refusal(answer) }
}

fn refusal(answer: &[u8]) -> Box<dyn Error> {
    format!("the upgrade was answered with {:?}", String::from_utf8_lossy(answer)).into()
}

/// What the head says of the body's length.
fn body_len(head: &str) -> usize {
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
    });
    length.unwrap_or(0)
}
