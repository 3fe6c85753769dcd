//! Accepting connections, whatever happens.
//!
//! A failed `accept()` never ends the process (PROTOCOL § 8). What concerns one connection (it was aborted before
//! it was accepted) is passed over at once. Anything else, above all a lack of descriptors, is waited out with
//! growing pauses, so that the listener neither spins nor stays away for long.
//!
//! When it is stopped, it still takes the connections that the kernel has completed already: closing the listener
//! would reset them, and their clients would get no answer.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_io::{Async, Timer};
use futures_lite::future;
use smol::Executor;
use smol::channel::Receiver;

use super::http::Ingress;
use super::socket::Socket;
use crate::event::{self, Throttle};
use crate::relay::live::Live;

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

/// Connections that are still taken after the stop: more than the kernel keeps for a listener.
const LAST_ACCEPTS: usize = 8192;

/// Accepts connections and serves each in a task of its own, until `stop` is closed.
pub async fn accept(
    listener: Async<TcpListener>,
    ingress: Arc<Ingress>,
    executor: Arc<Executor<'static>>,
    stop: Receiver<()>,
) {
    let stopped = async {
        let _ = stop.recv().await;
    };
    future::or(stopped, accept_for_ever(&listener, &ingress, &executor)).await;
    for _ in 0..LAST_ACCEPTS {
        match listener.get_ref().accept() {
            Ok((socket, remote)) => {
                if let Ok(socket) = Async::new(socket) {
                    start(socket, remote, &ingress, &executor);
                }
            }
            Err(error) if concerns_one_connection(&error) => {}
            Err(_) => return,
        }
    }
}

async fn accept_for_ever(
    listener: &Async<TcpListener>,
    ingress: &Arc<Ingress>,
    executor: &Arc<Executor<'static>>,
) {
    let address = listener.get_ref().local_addr().unwrap_or_else(|_| SocketAddr::from(([0; 4], 0)));
    let mut pause = FIRST_PAUSE;
    let mut failures = Throttle::default();
    loop {
        match listener.accept().await {
            Ok((socket, remote)) => {
                pause = FIRST_PAUSE;
                start(socket, remote, ingress, executor);
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
    let socket = Socket::new(socket, ingress.dead_after());
    // It counts from this moment, so that a drain cannot overlook it.
    let live = Live::enter(ingress.live());
    executor.spawn(Arc::clone(ingress).serve(socket, remote, live)).detach();
}

fn concerns_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    )
}
