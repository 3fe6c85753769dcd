//! TCP connections to the relay: by name the first time, to the same address from then on.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use smol::net::TcpStream;

use super::clock::Clock;
use super::explain::{self, Trouble};
use super::target::Target;

/// Finds the relay: the first address of `target` that takes a connection, and that connection.
///
/// The address is what the later connections go to: a name can stand for several relays, and the binary and its
/// phones must meet on one.
pub(super) async fn reach(clock: &Clock, target: &Target) -> Result<(SocketAddr, TcpStream), Trouble> {
    let limit = clock.deadlines.connect;
    let failed = |why| Trouble::Connect { authority: target.authority(), why };
    let due = format!("the addresses of {}", target.host());
    let resolved = async {
        let found = smol::net::resolve((target.host(), target.port())).await;
        found.map_err(|error| failed(format!("the name cannot be resolved ({error})")))
    };
    let addresses = clock.within(limit, &due, resolved).await?;
    // Each address has its share of the time, so that one that swallows everything does not hide the next.
    let share = limit / u32::try_from(addresses.len()).unwrap_or(u32::MAX).max(1);
    let mut tried = Vec::new();
    for address in addresses {
        match connect(clock, address, share).await {
            Ok(stream) => return Ok((address, stream)),
            Err(why) => tried.push((address, why)),
        }
    }
    Err(failed(match tried.as_slice() {
        [] => "the name has no address".to_owned(),
        [(_, why)] => why.clone(),
        several => {
            several.iter().map(|(address, why)| format!("{address} {why}")).collect::<Vec<_>>().join(", ")
        }
    }))
}

/// One more connection to the relay.
pub(super) async fn dial(clock: &Clock, address: SocketAddr) -> Result<TcpStream, Trouble> {
    let stream = connect(clock, address, clock.deadlines.connect).await;
    stream.map_err(|why| Trouble::Connect { authority: address.to_string(), why })
}

async fn connect(clock: &Clock, address: SocketAddr, limit: Duration) -> Result<TcpStream, String> {
    let connecting = async {
        // Without this, Nagle's algorithm and delayed acknowledgements are what is measured.
        let connected = match TcpStream::connect(address).await {
            Ok(stream) => stream.set_nodelay(true).map(|()| stream),
            Err(error) => Err(error),
        };
        Ok(connected.map_err(|error| io_text(&error)))
    };
    let none = |_| Err(format!("no answer within {}", explain::seconds(limit)));
    clock.within(limit, "a connection", connecting).await.unwrap_or_else(none)
}

/// What the operating system said, in the words that people search for.
pub(super) fn io_text(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        io::ErrorKind::ConnectionReset => "connection reset".to_owned(),
        io::ErrorKind::BrokenPipe => "connection closed".to_owned(),
        io::ErrorKind::HostUnreachable => "host unreachable".to_owned(),
        io::ErrorKind::NetworkUnreachable => "network unreachable".to_owned(),
        io::ErrorKind::TimedOut => "timed out".to_owned(),
        _ => error.to_string(),
    }
}
