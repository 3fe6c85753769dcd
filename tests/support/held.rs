//! A client whose reads, pongs and writes are held: it does nothing but what it is told to.
//!
//! Its connection has small segments and a small receive buffer, so that the kernels on both ends take some
//! hundred kilobytes for it and not megabytes. What it does not read therefore waits in the relay.

use std::net::{SocketAddr, TcpStream};

use socket2::{Domain, Protocol, Socket, Type};

use super::client::{self, Client, binary_headers, phone_headers, upgrade};
use super::relay::Relay;
use super::{eventually, random};

/// What the connection of such a client is made of, in bytes.
const RECEIVE_BUFFER: usize = 4 * 1024;
const SEGMENT: u32 = 536;

/// The first bytes of the frames that tests look for.
pub const TEXT: u8 = 0x81;
pub const PING: u8 = 0x89;
pub const PONG: u8 = 0x8a;

/// One such client.
pub struct Held {
    stream: TcpStream,
}

impl Held {
    /// A binary that claims `server_id`.
    pub fn binary(relay: &Relay, server_id: &str) -> Self {
        Self { stream: upgrade(narrow(relay.address), "/v2/server", &binary_headers(server_id), b"") }
    }

    /// A phone that dials `server_id`.
    pub fn phone(relay: &Relay, server_id: &str) -> Self {
        Self { stream: upgrade(narrow(relay.address), "/v2/client", &phone_headers(server_id), b"") }
    }

    /// A phone of a binary that reads, and its name.
    pub fn phone_of(relay: &Relay, binary: &mut Client, server_id: &str) -> (Self, String) {
        let mut phone = Self::phone(relay, server_id);
        phone.send("\"who am I\"");
        let conn_id = binary.json()["conn_id"].as_str().expect("a conn_id").to_owned();
        (phone, conn_id)
    }

    /// Sends a text message.
    pub fn send(&mut self, text: &str) {
        self.write(&client::frame(TEXT, text.as_bytes()));
    }

    /// Sends bytes.
    pub fn write(&mut self, bytes: &[u8]) {
        std::io::Write::write_all(&mut self.stream, bytes).expect("sends");
    }

    /// The next frame, whatever it is: its first byte and payload.
    pub fn next(&mut self) -> (u8, Vec<u8>) {
        client::read_frame(&mut self.stream).expect("a frame")
    }

    /// The next text message. Pings before it are passed over and not answered.
    pub fn text(&mut self) -> String {
        loop {
            match self.next() {
                (PING | PONG, _) => {}
                (first, payload) => {
                    assert_eq!(first, TEXT, "{payload:?}");
                    return String::from_utf8(payload).expect("text in UTF-8");
                }
            }
        }
    }

    /// Every frame that still comes, without pings and pongs.
    pub fn rest(&mut self) -> Vec<(u8, Vec<u8>)> {
        let mut frames = client::read_to_end(&mut self.stream);
        frames.retain(|(first, _)| !matches!(*first, PING | PONG));
        frames
    }

    /// The texts that still come, and the close behind them: its code and reason.
    pub fn texts_and_close(&mut self) -> (Vec<String>, (u8, Vec<u8>)) {
        let mut frames = self.rest();
        let close = frames.pop().expect("a close");
        let texts = frames.into_iter().map(|(first, payload)| {
            assert_eq!(first, TEXT, "a message or the close");
            String::from_utf8(payload).expect("text in UTF-8")
        });
        (texts.collect(), close)
    }

    /// Waits until the relay has read everything that was sent.
    pub fn was_read(&self, relay: &Relay) {
        let client = self.stream.local_addr().expect("an address");
        eventually("the relay to read", || match in_the_kernel(relay.address, client) {
            0 => Ok(()),
            bytes => Err(format!("{bytes} bytes are not read")),
        });
    }

    /// The bare socket.
    pub fn socket(&mut self) -> &mut TcpStream {
        &mut self.stream
    }
}

/// A connection for which the kernels take little.
fn narrow(address: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).expect("a socket");
    socket.set_recv_buffer_size(RECEIVE_BUFFER).expect("a small buffer");
    socket.set_tcp_mss(SEGMENT).expect("small segments");
    // The kernel begins with what it learnt of an address before: from a new one, nobody has read fast.
    let [first, second, third, ..] = random().to_le_bytes();
    let address_of_its_own = SocketAddr::from(([127, first.max(1), second, third.clamp(1, 254)], 0));
    socket.bind(&address_of_its_own.into()).expect("an address");
    socket.connect(&address.into()).expect("connects");
    socket.into()
}

/// Bytes on their way from `client` to `server` that the kernel has: sent and not read.
pub fn in_the_kernel(server: SocketAddr, client: SocketAddr) -> u64 {
    let table = std::fs::read_to_string("/proc/net/tcp").expect("the table of connections");
    let written = |address: SocketAddr| {
        let SocketAddr::V4(address) = address else { panic!("{address} is not an IPv4 address") };
        format!("{:08X}:{:04X}", u32::from_ne_bytes(address.ip().octets()), address.port())
    };
    let (server, client) = (written(server), written(client));
    let queues = |local: &str, remote: &str| {
        let line = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).find(|fields| {
            fields.get(1).is_some_and(|field| *field == local)
                && fields.get(2).is_some_and(|field| *field == remote)
        });
        let queues =
            line.and_then(|fields| fields.get(4)?.split_once(':').map(|(tx, rx)| (hex(tx), hex(rx))));
        queues.expect("the connection")
    };
    queues(&client, &server).0 + queues(&server, &client).1
}

fn hex(digits: &str) -> u64 {
    u64::from_str_radix(digits, 16).expect("a number")
}
