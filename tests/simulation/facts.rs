//! What the relay tells its observer, in order, so that it can be held against the task that ran.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use pyrycode_relay::relay::close::CloseCause;
use pyrycode_relay::relay::observer::{Direction, DropReason, Endpoint, Observer, UpgradeOutcome};

use crate::recording::Recording;

/// One thing that the relay told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Fact {
    Read(Direction),
    Forwarded(Direction, usize),
    Dropped(Direction, DropReason),
    Expired,
    Reclaimed,
    TakenOver,
    Evicted(usize),
    PushOff,
    Upgrade(Endpoint, UpgradeOutcome),
    Closed(Endpoint, CloseCause),
    Queued(Endpoint, usize),
    Unqueued(Endpoint, usize),
}

/// Everything that was told, added up, and the last of it in order.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    pub(crate) sums: Recording,
    told: Mutex<Vec<Fact>>,
}

impl Facts {
    fn tell(&self, fact: Fact) {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).push(fact);
    }

    /// What was told since this was asked last.
    pub(crate) fn take(&self) -> Vec<Fact> {
        std::mem::take(&mut *self.told.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Observer for Facts {
    fn frame_read(&self, direction: Direction) {
        self.sums.frame_read(direction);
        self.tell(Fact::Read(direction));
    }

    fn frame_forwarded(&self, direction: Direction, bytes: usize, latency: Duration) {
        self.sums.frame_forwarded(direction, bytes, latency);
        self.tell(Fact::Forwarded(direction, bytes));
    }

    fn frame_dropped(&self, direction: Direction, reason: DropReason) {
        self.sums.frame_dropped(direction, reason);
        self.tell(Fact::Dropped(direction, reason));
    }

    fn grace_expired(&self) {
        self.sums.grace_expired();
        self.tell(Fact::Expired);
    }

    fn reclaimed(&self) {
        self.sums.reclaimed();
        self.tell(Fact::Reclaimed);
    }

    fn taken_over(&self) {
        self.sums.taken_over();
        self.tell(Fact::TakenOver);
    }

    fn phones_evicted(&self, phones: usize) {
        self.sums.phones_evicted(phones);
        self.tell(Fact::Evicted(phones));
    }

    fn push_wake_off(&self) {
        self.sums.push_wake_off();
        self.tell(Fact::PushOff);
    }

    fn upgrade(&self, endpoint: Endpoint, outcome: UpgradeOutcome) {
        self.sums.upgrade(endpoint, outcome);
        self.tell(Fact::Upgrade(endpoint, outcome));
    }

    fn connection_closed(&self, endpoint: Endpoint, cause: CloseCause) {
        self.sums.connection_closed(endpoint, cause);
        self.tell(Fact::Closed(endpoint, cause));
    }

    fn queued(&self, endpoint: Endpoint, bytes: usize) {
        self.sums.queued(endpoint, bytes);
        self.tell(Fact::Queued(endpoint, bytes));
    }

    fn unqueued(&self, endpoint: Endpoint, bytes: usize) {
        self.sums.unqueued(endpoint, bytes);
        self.tell(Fact::Unqueued(endpoint, bytes));
    }
}
