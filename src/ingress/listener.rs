//! Accepting connections, whatever happens.
//!
//! A failed `accept()` never ends the process (PROTOCOL § 8). What concerns one connection (it was aborted before
//! it was accepted) is passed over at once. When descriptors have run out, the connection is taken with one of the
//! [`Reserve`], so that it can be told to come later. Anything else is waited out with growing pauses, so that the listener
//! neither spins nor stays away for long.
//!
//! When it is stopped, it still takes the connections that the kernel has completed already: closing the listener
//! would reset them, and their clients would get no answer. Not so if systemd keeps the socket open: then they wait in the
//! kernel for the relay that is started next, and come late instead of being sent away.

use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_io::Timer;
use futures_lite::future;
use rustix::io::Errno;
use rustix::net::{SocketFlags, acceptfrom_with};
use smol::channel::Receiver;
use socket2::{Domain, Socket as Socket2, Type};

use super::client_address::ClientKey;
use super::connections::Limit;
use super::http::{Door, Ingress};
use super::reserve::{Lent, Reserve};
use super::socket::{self, Socket};
use crate::event::{self, Throttle};
use crate::runtime::source::Registration;
use crate::runtime::worker::Worker;

/// The first pause after a failed accept; each further one is twice as long, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Connections that the kernel completes and keeps until they are accepted; it may keep fewer
/// (`net.core.somaxconn`). Whoever finds no room there tries again a second later, and so would everybody if a flood of
/// connections could fill it at once.
const BACKLOG: i32 = 4096;

/// The socket that binaries and phones connect to.
#[derive(Debug)]
pub struct PublicListener {
    listener: TcpListener,
    /// Whether it stays open when this process has closed it.
    outlives: bool,
}

impl PublicListener {
    /// Opens it. Connections count as dead after `dead_after` ([`socket::prepare`]).
    ///
    /// # Errors
    /// The address cannot be bound.
    pub fn bind(address: SocketAddr, dead_after: Duration) -> io::Result<Self> {
        let socket = Socket2::new(Domain::for_address(address), Type::STREAM, None)?;
        // A relay that is started again need not wait for the connections of the one before it.
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        socket::prepare(&socket, dead_after);
        socket.listen(BACKLOG)?;
        Self::new(socket.into(), false)
    }

    /// Takes one that listens already and that another process, such as systemd, keeps open.
    ///
    /// # Errors
    /// It cannot be made non-blocking.
    pub fn passed(socket: TcpListener) -> io::Result<Self> {
        Self::new(socket, true)
    }

    fn new(listener: TcpListener, outlives: bool) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self { listener, outlives })
    }

    /// The address that clients connect to.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// The next connection, if there is one, without waiting.
    fn next(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let (socket, remote) = acceptfrom_with(&self.listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC)?;
        let remote = remote.and_then(|remote| SocketAddr::try_from(remote).ok());
        Ok((socket.into(), remote.ok_or(io::ErrorKind::ConnectionAborted)?))
    }
}

/// Connections that are still taken after the stop: more than the kernel keeps for a listener.
const LAST_ACCEPTS: usize = 8192;

/// Accepts connections on `worker` and serves each there in a task of its own, until `stop` is closed.
///
/// # Errors
/// The listener cannot be registered with the worker's reactor. What is returned otherwise does the work.
pub fn accept(
    listener: PublicListener,
    ingress: Arc<Ingress>,
    worker: Worker,
    stop: Receiver<()>,
) -> io::Result<impl Future<Output = ()> + Send + 'static> {
    let registration = worker.register(&listener.listener)?;
    Ok(async move {
        let stopped = async {
            let _ = stop.recv().await;
        };
        let accepting = Accepting { listener, ingress, worker, reserve: Reserve::new() };
        future::or(stopped, accepting.for_ever(&registration)).await;
        registration.forget(&accepting.listener.listener);
        if accepting.listener.outlives {
            return;
        }
        for _ in 0..LAST_ACCEPTS {
            match accepting.listener.next() {
                Ok((socket, remote)) => drop(accepting.start(socket, remote).await),
                Err(error) if concerns_one_connection(&error) => {}
                Err(_) => return,
            }
        }
    })
}

struct Accepting {
    listener: PublicListener,
    ingress: Arc<Ingress>,
    worker: Worker,
    reserve: Arc<Reserve>,
}

impl Accepting {
    async fn for_ever(&self, registration: &Registration) {
        let address = self.listener.local_addr().unwrap_or_else(|_| SocketAddr::from(([0; 4], 0)));
        let mut pause = FIRST_PAUSE;
        let mut failures = Throttle::default();
        let mut failed = |error: &io::Error| {
            if let Some(suppressed) = failures.admit(Instant::now()) {
                event::accept_failed(address, error, suppressed);
            }
        };
        loop {
            match registration.get(|| self.listener.next()).await {
                Ok((socket, remote)) => {
                    pause = FIRST_PAUSE;
                    self.reserve.fill_up();
                    if let Err(error) = self.start(socket, remote).await {
                        failed(&error);
                    }
                    // While the kernel has more of them, accepting would never end.
                    future::yield_now().await;
                }
                Err(error) if concerns_one_connection(&error) => {}
                Err(error) => {
                    failed(&error);
                    if is_out_of_descriptors(&error) && self.refuse_one().await {
                        pause = FIRST_PAUSE;
                        future::yield_now().await;
                        continue;
                    }
                    Timer::after(pause).await;
                    self.reserve.fill_up();
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    async fn start(&self, socket: TcpStream, remote: SocketAddr) -> io::Result<()> {
        let serving = self.begin(socket, remote, Door::Open).await?;
        self.worker.spawn(serving).detach();
        Ok(())
    }

    /// What serves a connection, as soon as there is a place for it. It fails if the kernel has no place for the socket among those that it
    /// tells about.
    async fn begin(
        &self,
        socket: TcpStream,
        remote: SocketAddr,
        door: Door,
    ) -> io::Result<impl Future<Output = ()> + Send + 'static> {
        if self.listener.outlives {
            // It may have been made before this process was there to say what it wants.
            socket::prepare(&socket, self.ingress.dead_after());
        }
        let socket = Socket::new(socket, &self.worker)?;
        let peer = remote.ip();
        let lines = self.ingress.admission().lines();
        let full = |cut: ClientKey| lines.capacity(Limit::Handshakes, cut.address(), Instant::now());
        let handshake = self.ingress.handshakes().begin(ClientKey::from(peer), full).await;
        Ok(Arc::clone(&self.ingress).serve(socket, peer, handshake, door))
    }

    /// Takes a connection with a descriptor of the reserve, to refuse it. Whether there was one.
    async fn refuse_one(&self) -> bool {
        let Some(lent) = self.reserve.lend() else { return false };
        let Ok((socket, remote)) = self.listener.next() else { return false };
        let Ok(refusing) = self.begin(socket, remote, Door::Reserve).await else { return false };
        self.worker.spawn(refuse(refusing, lent)).detach();
        true
    }
}

async fn refuse(refusing: impl Future<Output = ()>, lent: Lent) {
    refusing.await;
    drop(lent);
}

fn concerns_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    )
}

fn is_out_of_descriptors(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE))
}
