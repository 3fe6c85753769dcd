//! An observer that adds up what it is told.

#![allow(dead_code, reason = "each test program uses its own part of it")]

use std::fmt;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use pyrycode_relay::relay::close::CloseCause;
use pyrycode_relay::relay::observer::{Direction, DropReason, Endpoint, Observer, UpgradeOutcome};

type Hook = Box<dyn Fn() + Send + Sync>;

/// Sums of everything that was observed.
#[derive(Default)]
pub(crate) struct Recording {
    read: [AtomicU64; 2],
    forwarded: [AtomicU64; 2],
    forwarded_bytes: [AtomicU64; 2],
    dropped: [[AtomicU64; 6]; 2],
    grace_expiries: AtomicU64,
    reclaims: AtomicU64,
    takeovers: AtomicU64,
    evicted: AtomicU64,
    push_wakes: AtomicU64,
    queued: [AtomicI64; 2],
    ever_queued: [AtomicU64; 2],
    upgrades: Mutex<Vec<(Endpoint, UpgradeOutcome)>>,
    closed: Mutex<Vec<(Endpoint, CloseCause)>>,
    before_expiry: OnceLock<Hook>,
}

impl Recording {
    /// Runs `hook` whenever a grace expiry is reported, before it is added up.
    pub(crate) fn before_expiry(&self, hook: impl Fn() + Send + Sync + 'static) {
        assert!(self.before_expiry.set(Box::new(hook)).is_ok(), "there is a hook already");
    }

    /// Frames read.
    pub(crate) fn read(&self, direction: Direction) -> u64 {
        self.read[of_direction(direction)].load(Ordering::SeqCst)
    }

    /// Frames forwarded.
    pub(crate) fn forwarded(&self, direction: Direction) -> u64 {
        self.forwarded[of_direction(direction)].load(Ordering::SeqCst)
    }

    /// Bytes of the frames forwarded.
    pub(crate) fn forwarded_bytes(&self, direction: Direction) -> u64 {
        self.forwarded_bytes[of_direction(direction)].load(Ordering::SeqCst)
    }

    /// Frames dropped for a reason.
    pub(crate) fn dropped(&self, direction: Direction, reason: DropReason) -> u64 {
        self.dropped[of_direction(direction)][of_reason(reason)].load(Ordering::SeqCst)
    }

    /// Every reason for which frames were dropped, and how many.
    pub(crate) fn drops(&self, direction: Direction) -> Vec<(DropReason, u64)> {
        let counts = DropReason::ALL.map(|reason| (reason, self.dropped(direction, reason)));
        counts.into_iter().filter(|(_, count)| *count > 0).collect()
    }

    /// Frames that were read: every one was forwarded or dropped, once nothing is queued.
    pub(crate) fn accounted(&self, direction: Direction) -> u64 {
        self.forwarded(direction) + self.drops(direction).iter().map(|(_, count)| count).sum::<u64>()
    }

    /// Grace expiries.
    pub(crate) fn grace_expiries(&self) -> u64 {
        self.grace_expiries.load(Ordering::SeqCst)
    }

    /// Reclaims.
    pub(crate) fn reclaims(&self) -> u64 {
        self.reclaims.load(Ordering::SeqCst)
    }

    /// Takeovers.
    pub(crate) fn takeovers(&self) -> u64 {
        self.takeovers.load(Ordering::SeqCst)
    }

    /// Phones that were closed by reclaims and takeovers.
    pub(crate) fn evicted(&self) -> u64 {
        self.evicted.load(Ordering::SeqCst)
    }

    /// Requests to wake a phone.
    pub(crate) fn push_wakes(&self) -> u64 {
        self.push_wakes.load(Ordering::SeqCst)
    }

    /// Bytes queued at this moment towards connections of `endpoint`.
    pub(crate) fn queued_bytes(&self, endpoint: Endpoint) -> i64 {
        self.queued[of_endpoint(endpoint)].load(Ordering::SeqCst)
    }

    /// Bytes ever queued towards connections of `endpoint`.
    pub(crate) fn ever_queued(&self, endpoint: Endpoint) -> u64 {
        self.ever_queued[of_endpoint(endpoint)].load(Ordering::SeqCst)
    }

    /// The outcomes of all upgrades, in order.
    pub(crate) fn upgrades(&self) -> Vec<(Endpoint, UpgradeOutcome)> {
        self.upgrades.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The causes of all ends of connections, in order.
    pub(crate) fn closed(&self) -> Vec<(Endpoint, CloseCause)> {
        self.closed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl fmt::Debug for Recording {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recording")
            .field("forwarded", &self.forwarded)
            .field("dropped", &self.dropped)
            .field("grace_expiries", &self.grace_expiries)
            .field("queued", &self.queued)
            .field("closed", &self.closed)
            .finish_non_exhaustive()
    }
}

impl Observer for Recording {
    fn frame_read(&self, direction: Direction) {
        self.read[of_direction(direction)].fetch_add(1, Ordering::SeqCst);
    }

    fn frame_forwarded(&self, direction: Direction, bytes: usize, _: Duration) {
        self.forwarded[of_direction(direction)].fetch_add(1, Ordering::SeqCst);
        self.forwarded_bytes[of_direction(direction)].fetch_add(bytes as u64, Ordering::SeqCst);
    }

    fn frame_dropped(&self, direction: Direction, reason: DropReason) {
        self.dropped[of_direction(direction)][of_reason(reason)].fetch_add(1, Ordering::SeqCst);
    }

    fn grace_expired(&self) {
        if let Some(hook) = self.before_expiry.get() {
            hook();
        }
        self.grace_expiries.fetch_add(1, Ordering::SeqCst);
    }

    fn reclaimed(&self) {
        self.reclaims.fetch_add(1, Ordering::SeqCst);
    }

    fn taken_over(&self) {
        self.takeovers.fetch_add(1, Ordering::SeqCst);
    }

    fn phones_evicted(&self, phones: usize) {
        self.evicted.fetch_add(phones as u64, Ordering::SeqCst);
    }

    fn push_wake_off(&self) {
        self.push_wakes.fetch_add(1, Ordering::SeqCst);
    }

    fn upgrade(&self, endpoint: Endpoint, outcome: UpgradeOutcome) {
        self.upgrades.lock().unwrap_or_else(PoisonError::into_inner).push((endpoint, outcome));
    }

    fn connection_closed(&self, endpoint: Endpoint, cause: CloseCause) {
        self.closed.lock().unwrap_or_else(PoisonError::into_inner).push((endpoint, cause));
    }

    fn queued(&self, endpoint: Endpoint, bytes: usize) {
        self.queued[of_endpoint(endpoint)].fetch_add(signed(bytes), Ordering::SeqCst);
        self.ever_queued[of_endpoint(endpoint)].fetch_add(bytes as u64, Ordering::SeqCst);
    }

    fn unqueued(&self, endpoint: Endpoint, bytes: usize) {
        self.queued[of_endpoint(endpoint)].fetch_sub(signed(bytes), Ordering::SeqCst);
    }
}

fn signed(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

fn of_direction(direction: Direction) -> usize {
    usize::from(direction == Direction::BinaryToPhone)
}

fn of_endpoint(endpoint: Endpoint) -> usize {
    usize::from(endpoint == Endpoint::Client)
}

fn of_reason(reason: DropReason) -> usize {
    DropReason::ALL.iter().position(|one| *one == reason).unwrap_or_default()
}
