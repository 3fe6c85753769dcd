//! A clock that stands still until it is told what time it is.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use pyrycode_relay::relay::clock::{Alarm, Clock};

#[derive(Debug, Default)]
struct State {
    now: Duration,
    /// Who is woken when; the number tells alarms of the same moment apart.
    alarms: BTreeMap<(Duration, u64), Waker>,
    made: u64,
}

#[derive(Debug)]
struct Inner {
    base: Instant,
    state: Mutex<State>,
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The time since the beginning of a simulation, and its alarms.
#[derive(Clone, Debug)]
pub(crate) struct VirtualClock(Arc<Inner>);

impl VirtualClock {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Inner { base: Instant::now(), state: Mutex::default() }))
    }

    /// What time it is, since the beginning.
    pub(crate) fn elapsed(&self) -> Duration {
        self.0.lock().now
    }

    /// The moment of the next alarm.
    pub(crate) fn next_alarm(&self) -> Option<Duration> {
        self.0.lock().alarms.first_key_value().map(|((at, _), _)| *at)
    }

    /// How many alarms somebody waits for.
    pub(crate) fn alarms(&self) -> usize {
        self.0.lock().alarms.len()
    }

    /// From now on it is `now`; whoever waited for that is woken.
    pub(crate) fn advance_to(&self, now: Duration) {
        let mut state = self.0.lock();
        state.now = state.now.max(now);
        let until = (state.now, u64::MAX);
        let later = state.alarms.split_off(&until);
        let due = std::mem::replace(&mut state.alarms, later);
        drop(state);
        due.into_values().for_each(Waker::wake);
    }
}

impl Clock for VirtualClock {
    fn now(&self) -> Instant {
        self.0.base + self.elapsed()
    }

    fn alarm(&self) -> Box<dyn Alarm> {
        let mut state = self.0.lock();
        state.made += 1;
        Box::new(VirtualAlarm { clock: Arc::clone(&self.0), number: state.made, at: None })
    }
}

struct VirtualAlarm {
    clock: Arc<Inner>,
    number: u64,
    at: Option<Duration>,
}

impl VirtualAlarm {
    fn forget(&mut self) {
        if let Some(at) = self.at.take() {
            self.clock.lock().alarms.remove(&(at, self.number));
        }
    }
}

impl Alarm for VirtualAlarm {
    fn set(&mut self, at: Instant) {
        self.forget();
        self.at = Some(at.saturating_duration_since(self.clock.base));
    }

    fn poll(&mut self, _: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let Some(at) = self.at else { return Poll::Pending };
        let mut state = self.clock.lock();
        if state.now >= at {
            drop(state);
            self.forget();
            return Poll::Ready(());
        }
        state.alarms.insert((at, self.number), cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for VirtualAlarm {
    fn drop(&mut self) {
        self.forget();
    }
}
