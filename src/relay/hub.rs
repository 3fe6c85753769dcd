//! The owner of the registry: everything that happens when somebody connects, leaves or expires.
//!
//! The registry lies behind one lock, which is held for map operations only. What the registry says must happen
//! is done after the lock was let go: closing connections, telling the observer, writing the log. Forwarding a frame
//! never comes here: a phone holds its binary's [`BinaryLink`] for its whole life, and a binary finds its phones in
//! its own link.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use event_listener::Event;

use super::clock::Clock;
use super::close::Close;
use super::conn_id::ConnId;
use super::end::End;
use super::grace::{self, GraceEntry, GraceQueue};
use super::link::{BinaryLink, Handle, PhoneLink};
use super::live::{Live, LiveGuard};
use super::observer::{Census, Counts, DropReason, Endpoint, Observer};
use super::refusal_log::RefusalLog;
use super::registry::{Claim, Expiry, Registration, Registry, Release, ServerId, Takeover};
use super::settings::Settings;
use super::shared::Shared;
use crate::event;

#[derive(Debug)]
struct Locked {
    registry: Registry<Handle<BinaryLink>, Handle<PhoneLink>>,
    draining: Option<Close>,
}

/// Why a binary did not get its server-id.
#[derive(Debug)]
pub enum ClaimRefused {
    /// Another binary holds it: this one.
    Conflict(Arc<BinaryLink>),
    /// It closed or hung up before it was known whether it may have it.
    Left(End),
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
#[derive(Debug)]
pub struct Hub {
    shared: Arc<Shared>,
    locked: Mutex<Locked>,
    grace: GraceQueue,
    live: Arc<Live>,
    drain_began: Event,
    pub(super) refusals: RefusalLog,
}

impl Hub {
    /// A relay with nobody connected.
    #[must_use]
    pub fn new(settings: Settings, observer: Arc<dyn Observer>, clock: Arc<dyn Clock>) -> Arc<Self> {
        let registry = Registry::new(settings.phones_per_server);
        Arc::new(Self {
            shared: Shared::new(settings, observer, clock),
            locked: Mutex::new(Locked { registry, draining: None }),
            grace: GraceQueue::default(),
            live: Arc::default(),
            drain_began: Event::new(),
            refusals: RefusalLog::new(),
        })
    }

    /// What its sessions have in common.
    #[must_use]
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Whom it tells.
    #[must_use]
    pub fn observer(&self) -> &Arc<dyn Observer> {
        &self.shared.observer
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

    /// The most sessions that were running at once since this was last asked, and how many are.
    #[must_use]
    pub fn peak(&self) -> (usize, usize) {
        self.live.peak()
    }

    /// A binary claims a server-id. On success the claim holds until the returned value is dropped, which begins
    /// the grace period.
    ///
    /// # Errors
    /// Says why the binary did not get it.
    pub fn claim(self: &Arc<Self>, server_id: &ServerId) -> Result<(BinaryClaim, Claimed), ClaimRefused> {
        let link = self.binary_link(server_id);
        let mut locked = self.lock();
        if let Some(close) = locked.draining {
            return Err(ClaimRefused::Draining(close));
        }
        let claim = locked.registry.claim(server_id, Handle(Arc::clone(&link)));
        drop(locked);
        let claimed = match claim {
            Claim::Granted => Claimed::Fresh,
            Claim::Conflict { incumbent: Handle(incumbent) } => {
                return Err(ClaimRefused::Conflict(incumbent));
            }
            Claim::Reclaimed { evicted } => {
                let phones = self.evict(&evicted, || self.observer().reclaimed());
                Claimed::Reclaimed { phones }
            }
        };
        Ok((BinaryClaim { hub: Arc::clone(self), link }, claimed))
    }

    /// A binary takes a server-id from `probed`, which did not answer.
    ///
    /// # Errors
    /// Says why the binary did not get it: that very connection no longer holds it, or the relay is shutting down.
    pub(super) fn take_over(
        self: &Arc<Self>,
        server_id: &ServerId,
        probed: &Arc<BinaryLink>,
    ) -> Result<(BinaryClaim, Claimed), ClaimRefused> {
        let link = self.binary_link(server_id);
        let mut locked = self.lock();
        if let Some(close) = locked.draining {
            return Err(ClaimRefused::Draining(close));
        }
        let probed = Handle(Arc::clone(probed));
        let takeover = locked.registry.takeover(server_id, Handle(Arc::clone(&link)), &probed);
        drop(locked);
        match takeover {
            Takeover::Won { displaced, evicted } => {
                displaced.0.outbox.cut(Close::HeartbeatTimeout, DropReason::ReceiverClosed);
                let phones = self.evict(&evicted, || self.observer().taken_over());
                Ok((BinaryClaim { hub: Arc::clone(self), link }, Claimed::TakenOver { phones }))
            }
            Takeover::Lost => Err(ClaimRefused::Conflict(probed.0)),
        }
    }

    fn binary_link(&self, server_id: &ServerId) -> Arc<BinaryLink> {
        Arc::new(BinaryLink::new(Arc::clone(server_id), self.shared.outbox(Endpoint::Server)))
    }

    /// Closes the phones of a binary that was replaced. Returns how many they are.
    fn evict(&self, phones: &[Handle<PhoneLink>], report: impl FnOnce()) -> usize {
        cut_all(phones, Close::BinaryReclaimed);
        report();
        self.observer().phones_evicted(phones.len());
        phones.len()
    }

    /// A phone asks for a server-id. On success it is registered until the returned value is dropped.
    ///
    /// # Errors
    /// Says why the phone was not registered.
    pub fn register_phone(self: &Arc<Self>, server_id: &ServerId) -> Result<PhoneRegistration, PhoneRefused> {
        let outbox = self.shared.outbox(Endpoint::Client);
        loop {
            let conn_id = ConnId::random().map_err(|_| PhoneRefused::NoRandomness)?;
            let link = Arc::new(PhoneLink::new(conn_id, Arc::clone(&outbox)));
            let mut locked = self.lock();
            if let Some(close) = locked.draining {
                return Err(PhoneRefused::Draining(close));
            }
            match locked.registry.register_phone(server_id, conn_id, Handle(Arc::clone(&link))) {
                Registration::Registered { binary: Handle(binary) } => {
                    // Before the lock is let go: a drain that finds the phone must find it with its binary too.
                    binary.add_phone(Arc::clone(&link));
                    drop(locked);
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
        grace::keep(&self.grace, &*self.shared.clock, |now| self.expire_due(now)).await;
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
                self.observer().grace_expired();
            }
            Expiry::Stale => {}
            Expiry::Early { deadline } => self.grace.arm(GraceEntry { deadline, ..entry.clone() }),
        }
    }

    /// Shuts down: from now on nobody is registered, and who asks gets `close`. Returns the server-ids whose
    /// connections are now to be closed, each with [`Hub::close_server`].
    pub fn begin_drain(&self, close: Close) -> Vec<ServerId> {
        let mut locked = self.lock();
        locked.draining = Some(close);
        let servers = locked.registry.slots().map(|(server_id, _, _)| Arc::clone(server_id)).collect();
        drop(locked);
        self.drain_began.notify(usize::MAX);
        servers
    }

    /// Waits until the relay shuts down.
    pub(super) async fn drain_began(&self) {
        loop {
            let began = self.drain_began.listen();
            if self.lock().draining.is_some() {
                return;
            }
            began.await;
        }
    }

    /// Closes a server-id's phones behind what is queued for them, and its binary behind what they leave for it.
    pub fn close_server(&self, server_id: &ServerId, close: Close) {
        let locked = self.lock();
        let Some((binary, phones)) = locked.registry.slot(server_id) else { return };
        let (binary, phones) = (binary.cloned(), phones.cloned().collect::<Vec<_>>());
        drop(locked);
        for Handle(phone) in phones {
            phone.outbox.close_behind(close);
        }
        if let Some(Handle(binary)) = binary {
            binary.close_after_phones(close);
        }
    }

    /// Closes everybody at once; what is queued dies.
    pub fn cut_everybody(&self, close: Close) {
        let locked = self.lock();
        let mut outboxes = Vec::new();
        for (_, binary, phones) in locked.registry.slots() {
            outboxes.extend(phones.map(|phone| Arc::clone(&phone.0.outbox)));
            outboxes.extend(binary.map(|binary| Arc::clone(&binary.0.outbox)));
        }
        drop(locked);
        for outbox in outboxes {
            outbox.cut(close, DropReason::ReceiverClosed);
        }
    }

    fn release(&self, link: &Arc<BinaryLink>, now: Instant) {
        let server_id = &link.server_id;
        let release = self.lock().registry.release(
            server_id,
            &Handle(Arc::clone(link)),
            now,
            self.shared.settings.grace,
        );
        link.probe.is_gone();
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
    /// The server-id was taken from a connection that did not answer; this many phones were closed.
    TakenOver {
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
        self.hub.release(&self.link, self.hub.shared.now());
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
        self.binary.remove_phone(conn_id);
        self.hub.lock().registry.unregister_phone(
            &self.binary.server_id,
            conn_id,
            &Handle(Arc::clone(&self.link)),
        );
    }
}
