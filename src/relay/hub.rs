//! The owner of the registry: everything that happens when somebody connects, leaves or expires.
//!
//! The registry lies behind one lock, which is held for map operations only. What the registry says must happen
//! is done after the lock was let go: closing connections, telling the observer, writing the log. Forwarding a frame
//! never comes here: a phone holds its binary's [`BinaryLink`] for its whole life, and a binary finds its phones in
//! its own link.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::close::Close;
use super::conn_id::ConnId;
use super::grace::{self, GraceEntry, GraceQueue};
use super::link::{BinaryLink, Handle, PhoneLink};
use super::live::{Live, LiveGuard};
use super::observer::{Census, Counts, DropReason, Endpoint, Observer};
use super::outbox::Outbox;
use super::refusal_log::RefusalLog;
use super::registry::{Claim, Expiry, Registration, Registry, Release, ServerId};
use crate::event;

/// What the relay is configured to do, as far as it concerns the core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How long a disconnected binary's slot waits for it.
    pub grace: Duration,
    /// Phones for each server-id.
    pub phones_per_server: usize,
    /// Bytes in the largest inner frame, both directions.
    pub max_frame: usize,
    /// Bytes that may wait for one phone.
    pub phone_queue: usize,
    /// Bytes that may wait for one binary.
    pub binary_queue: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            grace: Duration::from_secs(30),
            phones_per_server: 16,
            max_frame: 256 * 1024,
            phone_queue: 4 * 1024 * 1024,
            binary_queue: 4 * 1024 * 1024,
        }
    }
}

#[derive(Debug)]
struct Locked {
    registry: Registry<Handle<BinaryLink>, Handle<PhoneLink>>,
    draining: Option<Close>,
}

/// Why a binary did not get its server-id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimRefused {
    /// Another binary holds it.
    Conflict,
    /// The relay is shutting down.
    Draining(Close),
}

/// Why a phone was not registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PhoneRefused {
    /// No binary holds the server-id.
    NoServer,
    /// The server-id has all the phones it may have.
    Full,
    /// The operating system gave no random numbers for a `conn_id`.
    NoRandomness,
    /// The relay is shutting down.
    Draining(Close),
}

/// The relay's state.
pub struct Hub {
    settings: Settings,
    observer: Arc<dyn Observer>,
    locked: Mutex<Locked>,
    grace: GraceQueue,
    live: Arc<Live>,
    pub(super) refusals: RefusalLog,
}

impl std::fmt::Debug for Hub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hub")
            .field("settings", &self.settings)
            .field("counts", &self.count())
            .finish_non_exhaustive()
    }
}

impl Hub {
    /// A relay with nobody connected.
    #[must_use]
    pub fn new(settings: Settings, observer: Arc<dyn Observer>) -> Arc<Self> {
        let registry = Registry::new(settings.phones_per_server);
        Arc::new(Self {
            settings,
            observer,
            locked: Mutex::new(Locked { registry, draining: None }),
            grace: GraceQueue::default(),
            live: Arc::default(),
            refusals: RefusalLog::new(),
        })
    }

    /// What it was configured with.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Whom it tells.
    #[must_use]
    pub fn observer(&self) -> &Arc<dyn Observer> {
        &self.observer
    }

    /// Counts a session as running until the guard is dropped.
    #[must_use]
    pub fn enter(&self) -> LiveGuard {
        Live::enter(&self.live)
    }

    /// Waits until no session is running.
    pub async fn emptied(&self) {
        self.live.emptied().await;
    }

    /// Sessions that are running at this moment.
    #[must_use]
    pub fn live(&self) -> usize {
        self.live.count()
    }

    /// A binary claims a server-id. On success the claim holds until the returned value is dropped, which begins
    /// the grace period.
    ///
    /// # Errors
    /// Says why the binary did not get it.
    pub fn claim(self: &Arc<Self>, server_id: &ServerId) -> Result<(BinaryClaim, Claimed), ClaimRefused> {
        let outbox = Outbox::new(Endpoint::Server, self.settings.binary_queue, Arc::clone(&self.observer));
        let link = Arc::new(BinaryLink::new(Arc::clone(server_id), Arc::new(outbox)));
        let mut locked = self.lock();
        if let Some(close) = locked.draining {
            return Err(ClaimRefused::Draining(close));
        }
        let claim = locked.registry.claim(server_id, Handle(Arc::clone(&link)));
        drop(locked);
        let claimed = match claim {
            Claim::Granted => Claimed::Fresh,
            Claim::Conflict { .. } => return Err(ClaimRefused::Conflict),
            Claim::Reclaimed { evicted } => {
                let phones = evicted.len();
                cut_all(&evicted, Close::BinaryReclaimed);
                self.observer.reclaimed();
                self.observer.phones_evicted(phones);
                Claimed::Reclaimed { phones }
            }
        };
        Ok((BinaryClaim { hub: Arc::clone(self), link }, claimed))
    }

    /// A phone asks for a server-id. On success it is registered until the returned value is dropped.
    ///
    /// # Errors
    /// Says why the phone was not registered.
    pub fn register_phone(self: &Arc<Self>, server_id: &ServerId) -> Result<PhoneRegistration, PhoneRefused> {
        let outbox = Outbox::new(Endpoint::Client, self.settings.phone_queue, Arc::clone(&self.observer));
        let outbox = Arc::new(outbox);
        loop {
            let conn_id = ConnId::random().map_err(|_| PhoneRefused::NoRandomness)?;
            let link = Arc::new(PhoneLink::new(conn_id, Arc::clone(&outbox)));
            let mut locked = self.lock();
            if let Some(close) = locked.draining {
                return Err(PhoneRefused::Draining(close));
            }
            let registration = locked.registry.register_phone(server_id, conn_id, Handle(Arc::clone(&link)));
            drop(locked);
            match registration {
                Registration::Registered { binary: Handle(binary) } => {
                    binary.phones().insert(conn_id, Arc::clone(&link));
                    return Ok(PhoneRegistration { hub: Arc::clone(self), link, binary });
                }
                Registration::NoServer => return Err(PhoneRefused::NoServer),
                Registration::Full => return Err(PhoneRefused::Full),
                Registration::ConnIdTaken => {}
            }
        }
    }

    /// Ends grace periods as their time comes, for as long as it is polled.
    pub async fn keep_grace(self: Arc<Self>) {
        grace::keep(&self.grace, |now| self.expire_due(now)).await;
    }

    /// Ends every grace period whose time has come.
    pub fn expire_due(&self, now: Instant) {
        while let Some(entry) = self.grace.pop_due(now) {
            self.expire(&entry, now);
        }
    }

    fn expire(&self, entry: &GraceEntry, now: Instant) {
        let expiry = self.lock().registry.expire(&entry.server_id, entry.token, now);
        match expiry {
            Expiry::Expired { phones } => {
                cut_all(&phones, Close::BinaryDidNotReconnect);
                event::server_expired(&entry.server_id, phones.len());
                self.observer.grace_expired();
            }
            Expiry::Stale => {}
            Expiry::Early { deadline } => self.grace.arm(GraceEntry { deadline, ..entry.clone() }),
        }
    }

    /// Shuts down: from now on nobody is registered, and everybody who is gets `close` behind what is queued for
    /// them. Returns how many connections that is.
    pub fn drain(&self, close: Close) -> usize {
        let mut locked = self.lock();
        locked.draining = Some(close);
        let mut outboxes = Vec::new();
        for (_, binary, phones) in locked.registry.slots() {
            outboxes.extend(phones.map(|phone| Arc::clone(&phone.0.outbox)));
            outboxes.extend(binary.map(|binary| Arc::clone(&binary.0.outbox)));
        }
        drop(locked);
        for outbox in &outboxes {
            outbox.push_close(close);
        }
        outboxes.len()
    }

    fn release(&self, link: &Arc<BinaryLink>, now: Instant) {
        let server_id = &link.server_id;
        let release =
            self.lock().registry.release(server_id, &Handle(Arc::clone(link)), now, self.settings.grace);
        match release {
            Release::Gracing { token, deadline } => {
                self.grace.arm(GraceEntry { server_id: Arc::clone(server_id), token, deadline });
                event::server_released(server_id);
            }
            Release::NotHolder => {}
        }
    }

    /// Checks the registry's invariants.
    ///
    /// # Errors
    /// Says which one does not hold. Meant for tests.
    pub fn check_invariants(&self) -> Result<(), String> {
        self.lock().registry.check_invariants()
    }

    fn lock(&self) -> MutexGuard<'_, Locked> {
        self.locked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Census for Hub {
    fn count(&self) -> Counts {
        self.lock().registry.counts()
    }
}

fn cut_all(phones: &[Handle<PhoneLink>], close: Close) {
    for phone in phones {
        phone.0.outbox.cut(close, DropReason::ReceiverClosed);
    }
}

/// How a claim succeeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claimed {
    /// The server-id was free.
    Fresh,
    /// The server-id was in its grace period; this many phones were closed.
    Reclaimed {
        /// How many.
        phones: usize,
    },
}

/// A server-id, held. Dropping it begins the grace period, unless another connection holds the slot by then.
#[derive(Debug)]
pub struct BinaryClaim {
    hub: Arc<Hub>,
    link: Arc<BinaryLink>,
}

impl BinaryClaim {
    /// How others reach this binary.
    #[must_use]
    pub fn link(&self) -> &Arc<BinaryLink> {
        &self.link
    }
}

impl Drop for BinaryClaim {
    fn drop(&mut self) {
        self.hub.release(&self.link, Instant::now());
    }
}

/// A phone's place under a server-id. Dropping it gives the place back.
#[derive(Debug)]
pub struct PhoneRegistration {
    hub: Arc<Hub>,
    link: Arc<PhoneLink>,
    binary: Arc<BinaryLink>,
}

impl PhoneRegistration {
    /// How others reach this phone.
    #[must_use]
    pub fn link(&self) -> &Arc<PhoneLink> {
        &self.link
    }

    /// The binary that this phone is bound to.
    #[must_use]
    pub fn binary(&self) -> &Arc<BinaryLink> {
        &self.binary
    }
}

impl Drop for PhoneRegistration {
    fn drop(&mut self) {
        let conn_id = self.link.conn_id;
        self.binary.phones().remove(&conn_id);
        self.hub.lock().registry.unregister_phone(
            &self.binary.server_id,
            conn_id,
            &Handle(Arc::clone(&self.link)),
        );
    }
}
