//! HTTP requests by hand, for what no client library would send.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};

use super::client::phone_headers;
use super::connect_from;

/// The headers that make a request a WebSocket upgrade.
pub const WEBSOCKET: [(&str, &str); 4] = [
    ("Connection", "Upgrade"),
    ("Upgrade", "websocket"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
];

/// A request as text: its first line and its headers, with a `Host`.
pub fn request(line: &str, headers: &[(&str, &str)]) -> String {
    let mut request = format!("{line}\r\nHost: relay\r\n");
    for (name, value) in headers {
        request.push_str(name);
        request.push_str(": ");
        request.push_str(value);
        request.push_str("\r\n");
    }
    request + "\r\n"
}

/// An upgrade request to `path` with these headers besides the WebSocket ones.
pub fn upgrade(path: &str, headers: &[(&str, &str)]) -> String {
    request(&format!("GET {path} HTTP/1.1"), &[&WEBSOCKET[..], headers].concat())
}

/// An upgrade of a phone with these `X-Forwarded-For` lines.
pub fn forwarded(lines: &[&str]) -> String {
    let lines = lines.iter().map(|line| ("X-Forwarded-For", *line));
    upgrade("/v2/client", &phone_headers("nobody").into_iter().chain(lines).collect::<Vec<_>>())
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The status line and the headers.
    pub head: String,
    /// The body.
    pub body: String,
}

impl Answer {
    /// The value of a header, whose name is given in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (found, value) = line.split_once(": ")?;
            (found.to_ascii_lowercase() == name).then_some(value)
        })
    }
}

/// A connection in HTTP.
pub struct Http {
    stream: TcpStream,
}

impl Http {
    /// Connects.
    pub fn connect(address: SocketAddr) -> Self {
        Self::connect_from(Ipv4Addr::LOCALHOST, address)
    }

    /// Connects from another address of this host.
    pub fn connect_from(source: Ipv4Addr, address: SocketAddr) -> Self {
        Self::from_stream(connect_from(source, address))
    }

    /// Over a connection that is there already.
    pub fn from_stream(stream: TcpStream) -> Self {
        Self { stream }
    }

    /// Sends bytes. A relay that refused what came before may have hung up: that is for the answer to show.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.stream.write_all(bytes.as_ref());
    }

    /// Sends a request and reads its answer. The connection stays open if the relay leaves it open.
    pub fn ask(&mut self, request: &str) -> Answer {
        self.send(request);
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            self.stream.read_exact(&mut byte).expect("an answer");
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).expect("a head in UTF-8");
        let status = head.get(9..12).and_then(|status| status.parse().ok()).expect("a status");
        let mut answer = Answer { status, head, body: String::new() };
        if !request.starts_with("HEAD ") && status >= 200 {
            let length =
                answer.header("content-length").map_or(0, |length| length.parse().expect("a length"));
            let mut body = vec![0; length];
            self.stream.read_exact(&mut body).expect("a body");
            answer.body = String::from_utf8(body).expect("a body in UTF-8");
        }
        answer
    }

    /// Whether the relay has neither hung up nor sent anything.
    pub fn is_open(&self) -> bool {
        self.stream.set_nonblocking(true).unwrap();
        let open = matches!(self.stream.peek(&mut [0]), Err(error) if error.kind() == ErrorKind::WouldBlock);
        self.stream.set_nonblocking(false).unwrap();
        open
    }

    /// Reads until the relay hangs up; what came until then.
    ///
    /// # Panics
    /// When it does not hang up.
    pub fn hung_up(&mut self) -> String {
        let mut rest = Vec::new();
        if let Err(error) = self.stream.read_to_end(&mut rest) {
            let shown = String::from_utf8_lossy(&rest);
            assert_eq!(
                error.kind(),
                ErrorKind::ConnectionReset,
                "the relay does not hang up behind {shown:?}"
            );
        }
        String::from_utf8_lossy(&rest).into_owned()
    }

    /// The bare socket, for a connection that was upgraded.
    pub fn into_stream(self) -> TcpStream {
        self.stream
    }
}

/// One request on a connection of its own.
pub fn ask(address: SocketAddr, request: &str) -> Answer {
    Http::connect(address).ask(request)
}
