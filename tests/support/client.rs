//! A binary or a phone, over a real socket, blocking, with a deadline on every read.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};

use async_tungstenite::tungstenite::client::IntoClientRequest;
use async_tungstenite::tungstenite::http::{Request, Response};
use async_tungstenite::tungstenite::protocol::frame::CloseFrame;
use async_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use async_tungstenite::tungstenite::{Bytes, Error, HandshakeError, Message, WebSocket, client};
use serde_json::Value;

use super::relay::Relay;
use super::{DEADLINE, connect_from, eventually};

/// What [`Client::stall`] needs of the configuration.
pub const STALLING: &str = "[limits]\nphone_queue = \"64MiB\"\n";

/// A WebSocket client.
pub struct Client<S = TcpStream> {
    ws: WebSocket<S>,
}

/// Why a client was not upgraded: the status, and the body's line.
#[derive(Debug, PartialEq)]
pub struct Refused {
    /// The HTTP status.
    pub status: u16,
    /// The answer's headers, names in lower case.
    pub headers: Vec<(String, String)>,
}

/// Connects to `path` with these headers.
pub fn connect(address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Result<Client, Refused> {
    connect_over(connect_from(Ipv4Addr::LOCALHOST, address), path, headers)
}

/// The same over a connection that is there already.
pub fn connect_over(stream: TcpStream, path: &str, headers: &[(&str, &str)]) -> Result<Client, Refused> {
    let address = stream.peer_addr().expect("a peer");
    upgrade_over(stream, &format!("ws://{address}{path}"), headers)
}

/// The same over a stream that is not a bare socket, for a whole URL.
pub fn upgrade_over<S: Read + Write>(
    stream: S,
    url: &str,
    headers: &[(&str, &str)],
) -> Result<Client<S>, Refused> {
    match client(request(url, headers), stream) {
        Ok((ws, _)) => Ok(Client { ws }),
        Err(HandshakeError::Failure(Error::Http(response))) => Err(refused(&response)),
        Err(error) => panic!("the handshake failed: {error}"),
    }
}

fn request(url: &str, headers: &[(&str, &str)]) -> Request<()> {
    let mut request = url.into_client_request().expect("a request");
    for (name, value) in headers {
        request.headers_mut().append(
            async_tungstenite::tungstenite::http::HeaderName::from_bytes(name.as_bytes()).expect("a name"),
            value.parse().expect("a value"),
        );
    }
    request
}

fn refused(response: &Response<Option<Vec<u8>>>) -> Refused {
    let headers = response.headers().iter();
    Refused {
        status: response.status().as_u16(),
        headers: headers.map(|(n, v)| (n.as_str().to_owned(), v.to_str().unwrap_or("").to_owned())).collect(),
    }
}

/// A phone's headers for a server-id.
pub fn phone_headers(server_id: &str) -> [(&str, &str); 2] {
    [("x-pyrycode-server", server_id), ("user-agent", "test-phone")]
}

/// A binary's headers for a server-id.
pub fn binary_headers(server_id: &str) -> [(&str, &str); 3] {
    [("x-pyrycode-server", server_id), ("x-pyrycode-version", "1.2.3"), ("user-agent", "test-binary")]
}

impl Client {
    /// A binary that claims `server_id`.
    pub fn binary(relay: &Relay, server_id: &str) -> Self {
        connect(relay.address, "/v2/server", &binary_headers(server_id)).expect("upgraded")
    }

    /// A phone that dials `server_id`.
    pub fn phone(relay: &Relay, server_id: &str) -> Self {
        connect(relay.address, "/v2/client", &phone_headers(server_id)).expect("upgraded")
    }
}

impl<S: Read + Write> Client<S> {
    /// What it speaks through.
    pub fn stream(&mut self) -> &mut S {
        self.ws.get_mut()
    }

    /// Sends a text message.
    pub fn send(&mut self, text: impl AsRef<str>) {
        self.ws.send(Message::text(text.as_ref().to_owned())).expect("sends");
    }

    /// Sends any message.
    pub fn send_message(&mut self, message: Message) {
        self.ws.send(message).expect("sends");
    }

    /// The next message that is not a ping or pong.
    pub fn next(&mut self) -> Message {
        loop {
            match self.ws.read() {
                Ok(Message::Ping(_) | Message::Pong(_)) => {}
                Ok(message) => return message,
                Err(error) => panic!("no message: {error}"),
            }
        }
    }

    /// The next message of any kind, or the error.
    pub fn next_raw(&mut self) -> Result<Message, Error> {
        self.ws.read()
    }

    /// The next text message.
    pub fn text(&mut self) -> String {
        match self.next() {
            Message::Text(text) => text.to_string(),
            other => panic!("expected text, got {other:?}"),
        }
    }

    /// The next text message, as JSON.
    pub fn json(&mut self) -> Value {
        serde_json::from_str(&self.text()).expect("JSON")
    }

    /// The same behind any number of close notices.
    pub fn closed_after_notices(&mut self) -> (u16, String) {
        let last = loop {
            match self.next() {
                Message::Text(text) if text.contains(",\"close_code\":") => {}
                other => break other,
            }
        };
        self.closed_by(last)
    }

    /// The next message must be a close; its code and reason. Afterwards the relay must hang up.
    pub fn closed(&mut self) -> (u16, String) {
        let next = self.next();
        self.closed_by(next)
    }

    fn closed_by(&mut self, message: Message) -> (u16, String) {
        let (code, reason) = match message {
            Message::Close(Some(CloseFrame { code, reason })) => (u16::from(code), reason.to_string()),
            other => panic!("expected a close, got {other:?}"),
        };
        match self.ws.read() {
            Err(Error::ConnectionClosed | Error::AlreadyClosed | Error::Io(_) | Error::Protocol(_)) => {}
            other => panic!("something came after the close: {other:?}"),
        }
        (code, reason)
    }

    /// Sends a close and waits for the answer; its code and reason.
    pub fn close(&mut self, code: Option<u16>) -> Option<(u16, String)> {
        let frame = code.map(|code| CloseFrame { code: CloseCode::from(code), reason: "bye".into() });
        self.ws.close(frame).expect("sends a close");
        loop {
            match self.ws.read() {
                Ok(Message::Close(frame)) => {
                    return frame.map(|frame| (u16::from(frame.code), frame.reason.to_string()));
                }
                Ok(_) => {}
                Err(error) => panic!("no answer to the close: {error}"),
            }
        }
    }

    /// Whether the relay serves this client: it answers a ping; or else the code and reason of its close.
    /// Close notices that come before are passed over.
    pub fn admitted(&mut self) -> Result<(), (u16, String)> {
        // A relay that hung up may refuse the ping; its close was read before or can be read still.
        let _ = self.ws.send(Message::Ping(Bytes::from_static(b"served?")));
        loop {
            match self.ws.read() {
                Ok(Message::Pong(payload)) if payload == "served?" => return Ok(()),
                Ok(Message::Close(Some(CloseFrame { code, reason }))) => {
                    return Err((u16::from(code), reason.to_string()));
                }
                Ok(Message::Ping(_) | Message::Pong(_)) => {}
                Ok(Message::Text(text)) if text.contains(",\"close_code\":") => {}
                other => panic!("neither an answer to the ping nor a close: {other:?}"),
            }
        }
    }

    /// As a binary: answers what the relay asks because of another claim, until that one was told something.
    pub fn answer_probe_of(&mut self, other: &TcpStream) {
        other.set_nonblocking(true).unwrap();
        eventually("an answer to the other claim", || {
            assert_eq!(self.admitted(), Ok(()));
            other.peek(&mut [0]).map_err(|error| error.to_string())
        });
        other.set_nonblocking(false).unwrap();
    }

    /// Asks whether the relay serves this client, and returns the texts that came before its answer.
    ///
    /// # Panics
    /// When it is closed instead.
    pub fn served(&mut self) -> Vec<String> {
        self.ws.send(Message::Ping(Bytes::from_static(b"served?"))).expect("sends");
        let mut texts = Vec::new();
        loop {
            match self.ws.read() {
                Ok(Message::Pong(payload)) if payload == "served?" => return texts,
                Ok(Message::Ping(_) | Message::Pong(_)) => {}
                Ok(Message::Text(text)) => texts.push(text.to_string()),
                other => panic!("neither a text nor the answer to the ping: {other:?}"),
            }
        }
    }

    /// This client, once it is known to be served.
    pub fn admitted_client(mut self) -> Self {
        assert_eq!(self.admitted(), Ok(()));
        self
    }

    /// As a binary: sends frames to the phone `conn_id`, which does not read, until the kernel takes no more and at
    /// least a mebibyte waits in the relay. Returns how many frames that were.
    ///
    /// The phone's queue must have room for it: see [`STALLING`].
    pub fn stall(&mut self, relay: &Relay, conn_id: &str) -> usize {
        let frame = "x".repeat(200 * 1024);
        for sent in 1..=300 {
            self.send(format!("{{\"conn_id\":\"{conn_id}\",\"frame\":\"{frame}\"}}"));
            assert_eq!(self.admitted(), Ok(()), "a binary whose phone does not read is served");
            if relay.metrics().get("queued_bytes{endpoint=\"client\"}") > 1_048_576.0 {
                return sent;
            }
        }
        panic!("the kernel took 60 MB for a phone that does not read");
    }

    /// The phone's name, learnt by sending a frame to its binary.
    pub fn conn_id(&mut self, binary: &mut Self) -> String {
        self.send("\"who am I\"");
        binary.json()["conn_id"].as_str().expect("a conn_id").to_owned()
    }
}

impl Client {
    /// The bare socket.
    pub fn socket(&mut self) -> &mut TcpStream {
        self.ws.get_mut()
    }

    /// Ends the connection without a close frame.
    pub fn drop_connection(self) {
        let _ = self.ws.get_ref().shutdown(Shutdown::Both);
    }
}

/// A phone's or binary's bare socket after the upgrade, for bytes that no client library would send.
pub fn raw(address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> TcpStream {
    raw_with(address, path, headers, b"")
}

/// The same, with bytes sent right behind the request, in the same write.
pub fn raw_with(address: SocketAddr, path: &str, headers: &[(&str, &str)], behind: &[u8]) -> TcpStream {
    upgrade(TcpStream::connect(address).expect("connects"), path, headers, behind)
}

/// Upgrades a connection, with bytes sent right behind the request.
pub fn upgrade(mut stream: TcpStream, path: &str, headers: &[(&str, &str)], behind: &[u8]) -> TcpStream {
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.set_write_timeout(Some(DEADLINE)).unwrap();
    let mut request = format!(
        "GET {path} HTTP/1.1\r\nHost: relay\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    )
    .into_bytes();
    for (name, value) in headers {
        request.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    request.extend_from_slice(b"\r\n");
    request.extend_from_slice(behind);
    stream.write_all(&request).expect("sends");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("an answer");
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).expect("a head");
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    assert!(head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{head}");
    stream
}

/// One frame as a client sends it: masked with zeros, so that the payload stands as it is.
pub fn frame(first_byte: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first_byte];
    match payload.len() {
        length @ 0..=125 => frame.push(0x80 | u8::try_from(length).unwrap()),
        length @ 126..=65_535 => {
            frame.push(0xfe);
            frame.extend_from_slice(&u16::try_from(length).unwrap().to_be_bytes());
        }
        length => {
            frame.push(0xff);
            frame.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(payload);
    frame
}

/// The header alone of a frame from a client that announces `length` bytes, with a mask of zeros.
pub fn header(first_byte: u8, length: u64) -> Vec<u8> {
    [&[first_byte, 0xff], &length.to_be_bytes()[..], &[0; 4]].concat()
}

/// Reads one unmasked frame: its first byte and payload. `None` at the end of the stream.
pub fn read_frame(stream: &mut impl Read) -> Option<(u8, Vec<u8>)> {
    let mut head = [0; 2];
    stream.read_exact(&mut head).ok()?;
    let length = match head[1] {
        short @ 0..=125 => usize::from(short),
        126 => {
            let mut length = [0; 2];
            stream.read_exact(&mut length).ok()?;
            usize::from(u16::from_be_bytes(length))
        }
        _ => {
            let mut length = [0; 8];
            stream.read_exact(&mut length).ok()?;
            usize::try_from(u64::from_be_bytes(length)).unwrap()
        }
    };
    let mut payload = vec![0; length];
    stream.read_exact(&mut payload).ok()?;
    Some((head[0], payload))
}

/// Every frame that still comes, to the end of the stream.
///
/// # Panics
/// When the stream does not end.
pub fn read_to_end(stream: &mut TcpStream) -> Vec<(u8, Vec<u8>)> {
    let frames = std::iter::from_fn(|| read_frame(stream)).collect();
    match stream.read(&mut [0]) {
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
            panic!("the relay does not hang up")
        }
        _ => frames,
    }
}

/// A close frame's payload.
pub fn close_payload(code: u16, reason: &str) -> Vec<u8> {
    [&code.to_be_bytes(), reason.as_bytes()].concat()
}

/// A close frame as the relay must send it: its first byte and payload.
pub fn close_frame(code: u16, reason: &str) -> (u8, Vec<u8>) {
    (0x88, close_payload(code, reason))
}

/// Ends a connection with a reset: a socket that is closed with unread bytes in it is reset by the kernel.
///
/// # Panics
/// When nothing unread comes by the deadline.
pub fn reset(stream: TcpStream) {
    stream.peek(&mut [0]).expect("something to leave unread");
    drop(stream);
}
