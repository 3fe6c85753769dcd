//! The relay as a service: start, ready, reload, drain.
//!
//! [`run`] takes the steps in order, so that *ready* is never a guess: the signal handlers, the public listener, the
//! metrics thread (which must answer a scrape), then `READY=1`. From then on the calling thread, and as many more as
//! `runtime.workers` asks for, run the sessions: everything that touches a WebSocket connection. The
//! thread `ingress` is for connections that have not become one. A signal ends
//! that: SIGTERM and SIGINT drain, SIGHUP reads log level and certificate again.
//!
//! Threads: the workers (the main thread, and `worker-N`), `ingress` (all of these are a [`Worker`]), `metrics`, and
//! async-io's, which keeps the timers.

mod descriptors;
mod drain;
mod notes;
mod reload;
pub mod signals;
pub mod sockets;
mod start;
pub mod systemd;
mod tls;
mod watch;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use futures_lite::future;

use crate::config::{Drain, Loaded, Problems};
use crate::event;
use crate::runtime::memory;
use crate::runtime::worker::Worker;
use crate::tls::material::Material;
pub use reload::Load;
use reload::Reloads;
use signals::{Signal, Signals};
use sockets::Passed;
use start::Running;
use watch::Manager;

/// Why the service did not start, or did not go on.
#[derive(Debug)]
#[non_exhaustive]
pub enum ServiceError {
    /// An address is not to be had.
    Bind {
        /// The configuration key.
        key: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the operating system says.
        error: io::Error,
    },
    /// What is configured cannot be on this host: it takes more descriptors than the process may open, names files that
    /// cannot be used, or disagrees with the sockets that systemd passed.
    Refused(Problems),
    /// The metrics thread was started and does not answer.
    MetricsSilent {
        /// The address that it serves.
        address: SocketAddr,
    },
    /// A metric family could not be made.
    Metrics(prometheus::Error),
    /// The TLS library cannot begin.
    Tls(rustls::Error),
    /// Something of the operating system that the service cannot do without.
    System {
        /// What was tried.
        what: &'static str,
        /// What the operating system says.
        error: io::Error,
    },
}

impl std::fmt::Display for ServiceError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bind { key, address, error } => {
                write!(f, "{key}: cannot listen on {address}: {error}")?;
                match error.kind() {
                    io::ErrorKind::AddrInUse => {
                        write!(f, "; another program (or another relay) has it: see `ss -ltnp`, or set {key}")
                    }
                    io::ErrorKind::AddrNotAvailable => {
                        write!(
                            f,
                            "; no interface of this machine has that address: see `ip address`, or set {key}"
                        )
                    }
                    io::ErrorKind::PermissionDenied => write!(
                        f,
                        "; a port below 1024 needs CAP_NET_BIND_SERVICE (privileged-port.conf among the package's \
                         examples; AmbientCapabilities= in systemd.exec(5)), or a socket that systemd opens"
                    ),
                    _ => Ok(()),
                }
            }
            Self::Refused(problems) => problems.fmt(f),
            Self::MetricsSilent { address } => {
                write!(f, "listen.metrics: the thread that serves {address} does not answer")
            }
            Self::Metrics(error) => write!(f, "cannot make the metrics: {error}"),
            Self::Tls(error) => write!(f, "tls.mode: cannot begin: {error}"),
            Self::System { what, error } => write!(f, "cannot {what}: {error}"),
        }
    }
}

impl std::error::Error for ServiceError {}

/// Runs the relay until a signal ends it. `passed` is what systemd has bound for it.
///
/// # Errors
/// Says what could not be started, or which part of the operating system failed.
pub fn run(loaded: &Loaded, passed: Passed, log: event::Handle, load: Load) -> Result<(), ServiceError> {
    start::announce(&loaded.source);
    let places = passed.share_out(loaded).map_err(ServiceError::Refused)?;
    let capacity = descriptors::fit(loaded, descriptors::raise_limit()).map_err(ServiceError::Refused)?;
    start::announce_reduced(capacity);
    let material = Material::load(loaded).map_err(ServiceError::Refused)?;
    let main =
        Worker::new().map_err(|error| ServiceError::System { what: "open an epoll instance", error })?;
    main.block_on(async {
        let mut signals =
            Signals::new().map_err(|error| ServiceError::System { what: "handle signals", error })?;
        let mut running = Running::start(loaded, places, capacity, material, &main)?;
        main.spawn(Arc::clone(&running.hub).keep_grace()).detach();
        let hub = Arc::clone(&running.hub);
        main.spawn(memory::keep(running.workers(), move || hub.peak())).detach();
        let notes = Arc::clone(&running.notes);
        let manager = Manager::start(&main, &running.hub, notes, running.workers());
        let manager = Arc::new(manager);
        running.families.ready(true);
        manager.tell(systemd::ready);
        event::ready();
        let drain = loaded.config.drain.clone();
        let mut reloads = Reloads::new(running.reloading(loaded.config.clone(), log, &manager), load);
        while next(&mut signals, &mut running).await? == Signal::Hangup {
            reloads.begin(&main);
        }
        // One that is under way would say that it is done when systemd has been told of the stop.
        drop(reloads);
        shut_down(running, &drain, &manager, &main, &mut signals).await
    })
}

async fn next(signals: &mut Signals, running: &mut Running) -> Result<Signal, ServiceError> {
    let signal = async {
        signals.next().await.map_err(|error| ServiceError::System { what: "receive signals", error })
    };
    let deaf = async {
        running.accepting.ended().await;
        let error = io::ErrorKind::UnexpectedEof.into();
        Err(ServiceError::System { what: "accept connections", error })
    };
    future::or(signal, deaf).await
}

/// Closes every connection, then ends; a second signal, or the end of `drain.timeout`, cuts what is left.
async fn shut_down(
    running: Running,
    drain: &Drain,
    manager: &Manager,
    main: &Worker,
    signals: &mut Signals,
) -> Result<(), ServiceError> {
    running.families.ready(false);
    manager.tell(systemd::stopping);
    let extending = manager.extend_timeout(main);
    let began = Instant::now();
    let left = drain::drain(running, drain, async {
        loop {
            match signals.next().await {
                Ok(Signal::Terminate) => return,
                Ok(Signal::Hangup) => {}
                // Without signals there is no second one; what is queued still has its time.
                Err(_) => future::pending().await,
            }
        }
    })
    .await;
    drop(extending);
    match left {
        0 => event::drained(began.elapsed()),
        left => event::drain_incomplete(left, began.elapsed()),
    }
    manager.told().await;
    Ok(())
}
