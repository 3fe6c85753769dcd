//! The alarms that are set, and the one timer that rings them all.
//!
//! Every connection has an alarm, and most are moved or given up long before they would ring. A timer of async-io's for each would
//! wake the thread that keeps those timers every time one is made. Here an alarm is an entry in a map that is sorted by time; that
//! thread hears only of the earliest, and only when there is an earlier one than before.
//!
//! The map has one lock for all connections. It is taken when an alarm is set, rings or is given up, and not when somebody asks whether
//! it has rung: that is a matter of what time it is.

use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use async_io::Timer;

use super::clock::Alarm;

/// When, and which of those that are set for the same moment.
type Key = (Instant, u64);

#[derive(Debug, Default)]
struct State {
    set: BTreeMap<Key, Waker>,
    next: u64,
    /// When the keeper looks again by itself.
    looks_at: Option<Instant>,
    keeper: Option<Waker>,
}

/// Alarms that are set.
#[derive(Debug, Default)]
pub(super) struct Alarms {
    state: Mutex<State>,
}

impl Alarms {
    /// An alarm that is not set.
    pub(super) fn alarm(self: &Arc<Self>) -> impl Alarm + 'static {
        Queued { alarms: Arc::clone(self), at: None, waits: None }
    }

    /// Rings the alarms at their times, for ever.
    pub(super) async fn keep(self: Arc<Self>) {
        let mut timer = Timer::never();
        let mut timer_at = None;
        poll_fn(|cx| {
            loop {
                let Some(next) = self.ring_due(Instant::now(), cx) else { return Poll::<()>::Pending };
                if timer_at != Some(next) {
                    timer.set_at(next);
                    timer_at = Some(next);
                }
                if Pin::new(&mut timer).poll(cx).is_pending() {
                    return Poll::Pending;
                }
                timer_at = None;
            }
        })
        .await;
    }

    /// Rings what is due. Returns when to look again; the task of `cx` is woken when that is too late.
    fn ring_due(&self, now: Instant, cx: &Context<'_>) -> Option<Instant> {
        let mut state = self.lock();
        let later = state.set.split_off(&(now, u64::MAX));
        let due = std::mem::replace(&mut state.set, later);
        let next = state.set.first_key_value().map(|(&(at, _), _)| at);
        state.looks_at = next;
        state.keeper = Some(cx.waker().clone());
        drop(state);
        due.into_values().for_each(Waker::wake);
        next
    }

    fn insert(&self, at: Instant, waker: Waker) -> Key {
        let mut state = self.lock();
        let key = (at, state.next);
        state.next += 1;
        state.set.insert(key, waker);
        let is_first = state.looks_at.is_none_or(|looks_at| at < looks_at);
        let keeper = if is_first { state.keeper.take() } else { None };
        drop(state);
        if let Some(keeper) = keeper {
            keeper.wake();
        }
        key
    }

    fn remove(&self, key: Key) {
        self.lock().set.remove(&key);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One alarm.
struct Queued {
    alarms: Arc<Alarms>,
    /// What it is set for, unless it rang.
    at: Option<Instant>,
    /// Its place in the map, once somebody waits for it, and whom it wakes. When it has rung, that place is empty.
    waits: Option<(Key, Waker)>,
}

impl Queued {
    fn leave(&mut self) {
        if let Some((key, _)) = self.waits.take() {
            self.alarms.remove(key);
        }
    }
}

impl Alarm for Queued {
    fn set(&mut self, at: Instant) {
        self.leave();
        self.at = Some(at);
    }

    fn poll(&mut self, now: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let Some(at) = self.at else { return Poll::Pending };
        if at <= now {
            self.leave();
            self.at = None;
            return Poll::Ready(());
        }
        // Whoever it wakes later asks again, with a later `now`.
        if !self.waits.as_ref().is_some_and(|(_, waker)| waker.will_wake(cx.waker())) {
            self.leave();
            let waker = cx.waker().clone();
            self.waits = Some((self.alarms.insert(at, waker.clone()), waker));
        }
        Poll::Pending
    }
}

impl Drop for Queued {
    fn drop(&mut self) {
        self.leave();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;
    use std::time::Duration;

    use super::*;

    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn those_that_are_due_ring_and_the_keeper_hears_of_earlier_ones_only() {
        let alarms = Arc::<Alarms>::default();
        let [keeper, task] = [(); 2].map(|()| Arc::<Wakes>::default());
        let wakes = |who: &Arc<Wakes>| who.0.load(Ordering::SeqCst);
        let keepers = Waker::from(Arc::clone(&keeper));
        let cx = &mut Context::from_waker(&keepers);
        let tasks = Waker::from(Arc::clone(&task));
        let task_cx = &mut Context::from_waker(&tasks);

        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(alarms.ring_due(start, cx), None);
        let mut set: Vec<_> = [30, 40, 20]
            .into_iter()
            .map(|seconds| {
                let mut alarm = alarms.alarm();
                assert!(alarm.poll(start, task_cx).is_pending(), "it is not set");
                alarm.set(at(seconds));
                assert!(alarm.poll(start, task_cx).is_pending());
                alarm
            })
            .collect();
        assert_eq!(wakes(&keeper), 1, "it is told once, and looks");
        assert_eq!(alarms.ring_due(start, cx), Some(at(20)));
        let mut late = alarms.alarm();
        late.set(at(50));
        assert!(late.poll(start, task_cx).is_pending() && wakes(&keeper) == 1);
        late.set(at(10));
        assert!(late.poll(start, task_cx).is_pending() && wakes(&keeper) == 2);
        assert_eq!(alarms.ring_due(at(9), cx), Some(at(10)));
        drop(late);

        assert_eq!((alarms.ring_due(at(30), cx), wakes(&task)), (Some(at(40)), 2));
        assert!(
            set[0].poll(at(30), task_cx).is_ready() && set[0].poll(at(30), task_cx).is_pending(),
            "once for each setting"
        );
        assert!(set[1].poll(at(30), task_cx).is_pending() && set[2].poll(at(30), task_cx).is_ready());
        set.clear();
        assert_eq!(alarms.ring_due(at(99), cx), None, "who is gone is forgotten");
        assert_eq!(wakes(&task), 2);
    }

    #[test]
    fn whether_an_alarm_has_rung_is_asked_without_the_lock_of_all() {
        let alarms = Arc::<Alarms>::default();
        let start = Instant::now();
        let task = Waker::from(Arc::<Wakes>::default());
        let mut alarm = alarms.alarm();
        alarm.set(start + Duration::from_secs(60));
        assert!(alarm.poll(start, &mut Context::from_waker(&task)).is_pending());
        let held = alarms.lock();
        let asked = std::thread::spawn(move || {
            let pending = alarm.poll(start, &mut Context::from_waker(&task)).is_pending();
            (pending, alarm)
        });
        let deadline = Instant::now() + Duration::from_secs(10);
        while !asked.is_finished() {
            assert!(Instant::now() < deadline, "it waits for the lock");
            std::thread::yield_now();
        }
        drop(held);
        assert!(asked.join().unwrap().0);
    }
}
