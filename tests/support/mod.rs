//! The harness: the built program with its own configuration, address and log, and clients that speak to it over
//! real sockets. Every wait is for a fact and has a deadline.

#![allow(dead_code, unreachable_pub, reason = "each test program uses its own part of the harness")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failed wait is a failed test, with its line"
)]

pub mod client;
pub mod held;
pub mod http;
pub mod kept;
pub mod program;
pub mod programs;
pub mod relay;
pub mod scrape;
pub mod secured;
pub mod tls;

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// How long a test waits for a fact before it fails.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// Waits until `fact` yields something.
///
/// # Panics
/// When it has not by the deadline; says what was waited for and what was seen last.
pub fn eventually<T>(what: &str, fact: impl FnMut() -> Result<T, String>) -> T {
    eventually_within(DEADLINE, what, fact)
}

/// The same for what may take longer.
pub fn eventually_within<T>(limit: Duration, what: &str, mut fact: impl FnMut() -> Result<T, String>) -> T {
    let until = Instant::now() + limit;
    loop {
        match fact() {
            Ok(value) => return value,
            Err(seen) => {
                assert!(Instant::now() < until, "{what}: not within {limit:?}; last seen: {seen}");
            }
        }
        std::thread::park_timeout(Duration::from_millis(2));
    }
}

/// A connection to `address` that comes from `source`, another address of this host. It has a deadline on every read and
/// write.
pub fn connect_from(source: Ipv4Addr, address: SocketAddr) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddr::from((source, 0)).into()).expect("binds");
    socket.connect(&address.into()).expect("connects");
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.set_write_timeout(Some(DEADLINE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// Something random, for names that must not meet.
pub fn random() -> u64 {
    getrandom::u64().expect("random numbers")
}
