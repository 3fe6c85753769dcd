//! The grace periods that are running, and the one task that ends them.
//!
//! Every grace period of a process has the same length, so they end in the order in which they began: a queue and
//! one timer serve them all. A period that is cancelled or replaced is not looked for here; its entry comes up at
//! its time with a token that the registry no longer knows, and is answered `Stale`.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use super::clock::Clock;
use super::registry::{GraceToken, ServerId};
use super::sparse::shrunk;

/// One grace period to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GraceEntry {
    /// Whose.
    pub server_id: ServerId,
    /// Which arming.
    pub token: GraceToken,
    /// When.
    pub deadline: Instant,
}

#[derive(Debug, Default)]
struct State {
    entries: VecDeque<GraceEntry>,
    keeper: Option<Waker>,
}

/// The grace periods that are running, in the order in which they end.
#[derive(Debug, Default)]
pub struct GraceQueue {
    state: Mutex<State>,
}

impl GraceQueue {
    /// Adds a period that ends no earlier than those that are in the queue (two that are armed at the same moment
    /// may come in either order).
    pub fn arm(&self, entry: GraceEntry) {
        let mut state = self.lock();
        state.entries.push_back(entry);
        let keeper = state.keeper.take();
        drop(state);
        if let Some(keeper) = keeper {
            keeper.wake();
        }
    }

    /// Removes and returns the first period, if it has ended.
    pub fn pop_due(&self, now: Instant) -> Option<GraceEntry> {
        let mut state = self.lock();
        if state.entries.front().is_none_or(|entry| entry.deadline > now) {
            return None;
        }
        let entry = state.entries.pop_front();
        // What many that came at once left behind is given back.
        if let Some(room) = shrunk(state.entries.len(), state.entries.capacity()) {
            state.entries.shrink_to(room);
        }
        entry
    }

    /// When the first period ends. Without one, wakes `cx` when there is.
    fn poll_next(&self, cx: &mut Context<'_>) -> Poll<Instant> {
        let mut state = self.lock();
        if let Some(first) = state.entries.front() {
            return Poll::Ready(first.deadline);
        }
        state.keeper = Some(cx.waker().clone());
        Poll::Pending
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits for each period to end, and has `end` end those whose time has come. Never returns.
pub async fn keep(queue: &GraceQueue, clock: &dyn Clock, end: impl Fn(Instant)) {
    loop {
        let deadline = poll_fn(|cx| queue.poll_next(cx)).await;
        clock.sleep_until(deadline).await;
        end(clock.now());
    }
}

#[cfg(test)]
mod tests {
    use super::super::registry::{Registry, Release};
    use super::*;

    #[test]
    fn what_many_grace_periods_took_is_given_back() {
        let now = Instant::now();
        let mut registry = Registry::<(), ()>::new(1);
        let server_id = ServerId::from("a");
        registry.claim(&server_id, ());
        let release = registry.release(&server_id, &(), now, std::time::Duration::ZERO);
        let Release::Gracing { token, deadline } = release else { panic!("{release:?}") };
        let queue = GraceQueue::default();
        for _ in 0..10_000 {
            queue.arm(GraceEntry { server_id: ServerId::clone(&server_id), token, deadline });
        }
        assert!(queue.lock().entries.capacity() >= 10_000);
        while queue.pop_due(now).is_some() {}
        assert!(queue.lock().entries.capacity() <= 64);
    }
}
