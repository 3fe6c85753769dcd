//! What time it is, and waiting for a time.
//!
//! Everything in the core that waits does so through a [`Clock`], so that a test can put its own in the place of the
//! system's and decide itself when an hour has passed.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::alarms::Alarms;

/// Where the core gets its time from.
pub trait Clock: Send + Sync + 'static {
    /// What time it is.
    fn now(&self) -> Instant;

    /// An alarm that is not set.
    fn alarm(&self) -> Box<dyn Alarm>;
}

/// Wakes one task at one time.
pub trait Alarm: Send {
    /// From now on rings at `at` and not when it was set for before.
    fn set(&mut self, at: Instant);

    /// Ready when the time has come, once for each setting. Until then the task of `cx` is woken at that time. `now` is what the
    /// clock said since that task was last woken.
    fn poll(&mut self, now: Instant, cx: &mut Context<'_>) -> Poll<()>;
}

impl dyn Clock {
    /// Waits until `at`.
    pub async fn sleep_until(&self, at: Instant) {
        let mut alarm = self.alarm();
        alarm.set(at);
        std::future::poll_fn(|cx| alarm.poll(self.now(), cx)).await;
    }

    /// Waits for `duration`.
    pub async fn sleep(&self, duration: Duration) {
        self.sleep_until(self.now() + duration).await;
    }
}

/// The monotonic clock of the system. Clones share their alarms.
#[derive(Clone, Debug, Default)]
pub struct SystemClock {
    alarms: Arc<Alarms>,
}

impl SystemClock {
    /// Rings the alarms, for ever. Without it none rings.
    pub async fn keep(self) {
        self.alarms.keep().await;
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn alarm(&self) -> Box<dyn Alarm> {
        Box::new(self.alarms.alarm())
    }
}

#[cfg(test)]
mod tests {
    use futures_lite::future;

    use super::*;

    #[test]
    fn an_alarm_rings_once_for_each_setting() {
        let system = SystemClock::default();
        let clock: &dyn Clock = &system;
        let mut alarm = clock.alarm();
        let mut cx = Context::from_waker(std::task::Waker::noop());
        assert!(alarm.poll(clock.now(), &mut cx).is_pending(), "not set");
        for _ in 0..2 {
            alarm.set(clock.now());
            assert!(alarm.poll(clock.now(), &mut cx).is_ready());
            assert!(alarm.poll(clock.now(), &mut cx).is_pending(), "it rang");
        }
        let before = clock.now();
        let keeping = async {
            system.clone().keep().await;
        };
        async_io::block_on(future::or(keeping, clock.sleep(Duration::from_millis(3))));
        assert!(clock.now() >= before + Duration::from_millis(3));
    }
}
