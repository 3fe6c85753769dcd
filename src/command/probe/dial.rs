//! Connections to the relay: by name the first time, to the same address from then on.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use smol::net::TcpStream;

use super::clock::Clock;
use super::explain::{self, Trouble};
use super::target::Target;
use super::tls::{self, TlsClient};
use super::transport::Transport;

/// Why an address takes no connection.
struct Unconnected {
    why: String,
    refused: bool,
}

/// Finds the relay: the first address of `target` that takes a connection, and that connection.
///
/// The address is what the later connections go to: a name can stand for several relays, and the binary and its
/// phones must meet on one.
pub(super) async fn reach(clock: &Clock, target: &Target) -> Result<(SocketAddr, TcpStream), Trouble> {
    let limit = clock.deadlines.connect;
    let failed = |why, refused| Trouble::Connect { authority: target.authority(), why, refused };
    let due = format!("the addresses of {}", target.host());
    let resolved = async {
        let found = smol::net::resolve((target.host(), target.port())).await;
        found.map_err(|error| failed(format!("the name cannot be resolved ({error})"), false))
    };
    let addresses = clock.within(limit, &due, resolved).await?;
    // Each address has its share of the time, so that one that swallows everything does not hide the next.
    let share = limit / u32::try_from(addresses.len()).unwrap_or(u32::MAX).max(1);
    let mut tried = Vec::new();
    for address in addresses {
        match connect(clock, address, share).await {
            Ok(stream) => return Ok((address, stream)),
            Err(unconnected) => tried.push((address, unconnected)),
        }
    }
    let refused = tried.iter().any(|(_, unconnected)| unconnected.refused);
    let why = match tried.as_slice() {
        [] => "the name has no address".to_owned(),
        [(_, Unconnected { why, .. })] => why.clone(),
        several => {
            let each = several.iter().map(|(address, Unconnected { why, .. })| format!("{address} {why}"));
            each.collect::<Vec<_>>().join(", ")
        }
    };
    Err(failed(why, refused))
}

/// One more connection to the relay, ready for HTTP.
pub(super) async fn dial(
    clock: &Clock,
    target: &Target,
    address: SocketAddr,
    client: Option<&TlsClient<'_>>,
) -> Result<Transport, Trouble> {
    let connected = connect(clock, address, clock.deadlines.connect).await;
    let stream = connected.map_err(|Unconnected { why, refused }| Trouble::Connect {
        authority: address.to_string(),
        why,
        refused,
    })?;
    tls::secured(clock, target, client, stream).await
}

async fn connect(clock: &Clock, address: SocketAddr, limit: Duration) -> Result<TcpStream, Unconnected> {
    let connecting = async {
        // Without this, Nagle's algorithm and delayed acknowledgements are what is measured.
        let connected = match TcpStream::connect(address).await {
            Ok(stream) => stream.set_nodelay(true).map(|()| stream),
            Err(error) => Err(error),
        };
        Ok(connected.map_err(|error| Unconnected {
            why: io_text(&error),
            refused: error.kind() == io::ErrorKind::ConnectionRefused,
        }))
    };
    let none =
        |_| Err(Unconnected { why: format!("no answer within {}", explain::seconds(limit)), refused: false });
    clock.within(limit, "a connection", connecting).await.unwrap_or_else(none)
}

/// What the operating system said, in the words that people search for.
pub(super) fn io_text(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        io::ErrorKind::ConnectionReset => "connection reset".to_owned(),
        io::ErrorKind::BrokenPipe | io::ErrorKind::UnexpectedEof => "connection closed".to_owned(),
        io::ErrorKind::HostUnreachable => "host unreachable".to_owned(),
        io::ErrorKind::NetworkUnreachable => "network unreachable".to_owned(),
        io::ErrorKind::TimedOut => "timed out".to_owned(),
        _ => error.to_string(),
    }
}
