//! The connections that have not come to their upgrade (`limits.handshakes`, `limits.handshake_timeout`).
//!
//! Each holds a [`Handshake`] from its accept to its upgrade. One deadline covers everything before the upgrade, and one task
//! ([`Handshakes::keep`]) watches over all deadlines: they are equally long, so the connection that came first is due first.
//!
//! When the table is full, a newcomer gets in and another one is cut: the oldest of the client that has the most. Of many
//! clients with one connection each that is the oldest of all; but one that opens connections without end cuts its own. A
//! newcomer waits until the cut one is gone, so there are never more than the table has places, nor more descriptors in use.

mod table;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_io::Timer;
use event_listener::{Event, listener};
use smol::channel::{Receiver, Sender, bounded};

use super::client_address::ClientKey;
use crate::relay::live::{Live, LiveGuard};
use crate::relay::observer::{HandshakeStage, Observer};
use table::Table;

/// All of them.
pub struct Handshakes {
    timeout: Duration,
    /// Each entry has one end of a channel, and its [`Handshake`] the other: when the table drops an entry, the connection is
    /// cut.
    table: Mutex<Table<Sender<()>>>,
    /// One began when there was none.
    began: Event,
    /// One left.
    left: Event,
    live: Arc<Live>,
    observer: Arc<dyn Observer>,
}

impl Handshakes {
    /// With places for `most` connections, each of which has `timeout` to come to a request.
    #[must_use]
    pub fn new(most: usize, timeout: Duration, observer: Arc<dyn Observer>) -> Arc<Self> {
        Arc::new(Self {
            timeout,
            table: Mutex::new(Table::new(most)),
            began: Event::new(),
            left: Event::new(),
            live: Arc::default(),
            observer,
        })
    }

    /// Gives a connection of `client` a place, as soon as there is one. `full` is told whose connection is cut for it.
    pub async fn begin(self: &Arc<Self>, client: ClientKey, full: impl Fn(ClientKey)) -> Handshake {
        loop {
            listener!(self.left => left);
            match self.try_begin(client) {
                Ok(handshake) => return handshake,
                Err(cut) => cut.into_iter().for_each(&full),
            }
            left.await;
        }
    }

    /// If there is no place: whose connection is cut, unless one is leaving already.
    fn try_begin(self: &Arc<Self>, client: ClientKey) -> Result<Handshake, Option<ClientKey>> {
        let (kept, was_cut) = bounded(1);
        let mut table = self.lock();
        if table.is_full() {
            let cut = table.crowd_out();
            drop(table);
            return Err(cut.map(|entry| entry.client));
        }
        let first = table.is_empty();
        let number = table.insert(client, Instant::now() + self.timeout, kept);
        drop(table);
        if first {
            self.began.notify(1);
        }
        self.observer.handshake_began();
        let live = Live::enter(&self.live);
        Ok(Handshake {
            handshakes: Arc::clone(self),
            number: AtomicU64::new(number),
            was_cut,
            failed: None,
            _live: live,
        })
    }

    /// Cuts those whose time runs out, for as long as it is polled.
    pub async fn keep(self: Arc<Self>) {
        loop {
            listener!(self.began => began);
            let Some(deadline) = self.next_deadline() else {
                began.await;
                continue;
            };
            Timer::at(deadline).await;
            let cut = self.lock().expire(Instant::now());
            drop(cut);
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        self.lock().next_deadline()
    }

    /// Waits until there are none. For one waiter at a time.
    pub async fn emptied(&self) {
        self.live.emptied().await;
    }

    fn lock(&self) -> MutexGuard<'_, Table<Sender<()>>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Handshakes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handshakes").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

/// A connection on its way to the upgrade: a place in the table, until it is dropped.
#[derive(Debug)]
pub struct Handshake {
    handshakes: Arc<Handshakes>,
    number: AtomicU64,
    was_cut: Receiver<()>,
    failed: Option<HandshakeStage>,
    _live: LiveGuard,
}

impl Handshake {
    /// Waits until the connection is cut.
    pub async fn cut(&self) {
        // Nothing is ever sent: this ends when the table has let the other end go.
        let _ = self.was_cut.recv().await;
    }

    /// A request was answered: the time for the next one begins.
    pub fn answered(&self) {
        let mut table = self.handshakes.lock();
        if let Some(entry) = table.remove(self.number()) {
            let number = table.insert(entry.client, Instant::now() + self.handshakes.timeout, entry.kept);
            self.number.store(number, Ordering::Relaxed);
        }
    }

    /// It has become known whose connection it is.
    pub fn is_of(&self, client: ClientKey) {
        self.handshakes.lock().assign(self.number(), client);
    }

    /// The connection ended in this stage, without an answer to any request.
    pub fn fail(&mut self, stage: HandshakeStage) {
        self.failed = Some(stage);
    }

    fn number(&self) -> u64 {
        self.number.load(Ordering::Relaxed)
    }
}

impl Drop for Handshake {
    fn drop(&mut self) {
        self.handshakes.lock().leave(self.number());
        self.handshakes.left.notify(usize::MAX);
        self.handshakes.observer.handshake_ended(self.failed);
    }
}
