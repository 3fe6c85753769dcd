//! Accepting connections, whatever happens.
//!
//! A failed `accept()` never ends the process (PROTOCOL § 8). What concerns one connection (it was aborted before
//! it was accepted) is passed over at once. Anything else, above all a lack of descriptors, is waited out with
//! growing pauses, so that the listener neither spins nor stays away for long.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_io::{Async, Timer};
use smol::Executor;

use super::http::Ingress;
use super::socket::Socket;
use crate::event::{self, Throttle};

/// The first pause after a failed accept; each further one is twice as long, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Opens the public listener.
///
/// # Errors
/// The address cannot be bound.
pub fn bind(address: SocketAddr) -> io::Result<Async<TcpListener>> {
    Async::<TcpListener>::bind(address)
}

/// Accepts connections and serves each in a task of its own, for as long as it is polled.
pub async fn accept(listener: Async<TcpListener>, ingress: Arc<Ingress>, executor: Arc<Executor<'static>>) {
    let address = listener.get_ref().local_addr().unwrap_or_else(|_| SocketAddr::from(([0; 4], 0)));
    let mut pause = FIRST_PAUSE;
    let mut failures = Throttle::default();
    loop {
        match listener.accept().await {
            Ok((socket, remote)) => {
                pause = FIRST_PAUSE;
                start(socket, remote, &ingress, &executor);
            }
            Err(error) if concerns_one_connection(&error) => {}
            Err(error) => {
                if let Some(suppressed) = failures.admit(Instant::now()) {
                    event::accept_failed(address, &error, suppressed);
                }
                Timer::after(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}

fn start(
    socket: Async<TcpStream>,
    remote: SocketAddr,
    ingress: &Arc<Ingress>,
    executor: &Arc<Executor<'static>>,
) {
    executor.spawn(Arc::clone(ingress).serve(Socket::new(socket), remote)).detach();
}

fn concerns_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    )
}
