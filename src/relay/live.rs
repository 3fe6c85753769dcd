//! How many sessions are running, and the wait for the last of them.

use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

#[derive(Debug, Default)]
struct State {
    count: usize,
    /// The most since somebody last asked.
    peak: usize,
    waiting: Option<Waker>,
}

/// A count of running sessions.
#[derive(Debug, Default)]
pub struct Live {
    state: Mutex<State>,
}

impl Live {
    /// Counts one more, until the guard is dropped.
    #[must_use]
    pub fn enter(live: &Arc<Self>) -> LiveGuard {
        let mut state = live.lock();
        state.count += 1;
        state.peak = state.peak.max(state.count);
        drop(state);
        LiveGuard(Arc::clone(live))
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.lock().count
    }

    /// The most there were since this was last asked, and how many there are.
    #[must_use]
    pub fn peak(&self) -> (usize, usize) {
        let mut state = self.lock();
        let now = state.count;
        (std::mem::replace(&mut state.peak, now), now)
    }

    /// Waits until there are none. For one waiter at a time.
    pub async fn emptied(&self) {
        poll_fn(|cx| {
            let mut state = self.lock();
            if state.count == 0 {
                return Poll::Ready(());
            }
            state.waiting = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One running session.
#[derive(Debug)]
pub struct LiveGuard(Arc<Live>);

impl Drop for LiveGuard {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.count -= 1;
        let waiting = if state.count == 0 { state.waiting.take() } else { None };
        drop(state);
        if let Some(waiting) = waiting {
            waiting.wake();
        }
    }
}
