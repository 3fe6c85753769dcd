//! Keeps a flood of one kind of occurrence from becoming a flood of lines.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Lets the first occurrence through at once and then at most one (or a few) per interval, and counts the others
/// (PROTOCOL § 7). It knows no clock: the caller says what time it is. One per connection and kind of event.
///
/// ```
/// use std::time::{Duration, Instant};
/// use pyrycode_relay::event::Throttle;
///
/// let start = Instant::now();
/// let mut throttle = Throttle::default();
/// assert_eq!(throttle.admit(start), Some(0));
/// assert_eq!(throttle.admit(start + Duration::from_secs(1)), None);
/// assert_eq!(throttle.admit(start + Duration::from_secs(10)), Some(1));
/// ```
#[derive(Clone, Debug)]
pub struct Throttle {
    most: u32,
    interval: Duration,
    /// When the running interval began, and how many it has let through.
    began: Option<Instant>,
    admitted: u32,
    suppressed: u64,
}

impl Throttle {
    /// The interval of [`Throttle::default`].
    pub const INTERVAL: Duration = Duration::from_secs(10);

    /// A throttle that lets one occurrence through per `interval`.
    #[must_use]
    pub const fn new(interval: Duration) -> Self {
        Self::several(1, interval)
    }

    /// A throttle that lets `most` occurrences through per `interval`.
    #[must_use]
    pub const fn several(most: u32, interval: Duration) -> Self {
        Self { most, interval, began: None, admitted: 0, suppressed: 0 }
    }

    /// Something occurred at `now`. `Some` lets it through and carries how many were held back since the last
    /// one that was let through; `None` holds it back.
    pub fn admit(&mut self, now: Instant) -> Option<u64> {
        self.admit_with(now, 0)
    }

    /// The same for an occurrence that stands for `carried` more, which were held back elsewhere.
    pub fn admit_with(&mut self, now: Instant, carried: u64) -> Option<u64> {
        // A `now` before the last one (callers on different threads) counts as no time passed.
        if self.began.is_none_or(|began| now.saturating_duration_since(began) >= self.interval) {
            self.began = Some(now);
            self.admitted = 0;
        }
        if self.admitted < self.most {
            self.admitted += 1;
            Some(std::mem::take(&mut self.suppressed).saturating_add(carried))
        } else {
            self.suppressed = self.suppressed.saturating_add(carried).saturating_add(1);
            None
        }
    }
}

impl Default for Throttle {
    fn default() -> Self {
        Self::new(Self::INTERVAL)
    }
}

/// A throttle for occurrences of many connections, on several threads.
#[derive(Debug)]
pub struct SharedThrottle(Mutex<Throttle>);

impl SharedThrottle {
    /// Shares a throttle.
    #[must_use]
    pub const fn new(throttle: Throttle) -> Self {
        Self(Mutex::new(throttle))
    }

    /// A throttle that lets one occurrence through per second, however many connections it concerns.
    #[must_use]
    pub const fn each_second() -> Self {
        Self::new(Throttle::new(Duration::from_secs(1)))
    }

    /// As [`Throttle::admit`].
    pub fn admit(&self, now: Instant) -> Option<u64> {
        self.admit_with(now, 0)
    }

    /// As [`Throttle::admit_with`].
    pub fn admit_with(&self, now: Instant, carried: u64) -> Option<u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).admit_with(now, carried)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_passes_and_the_rest_are_counted() {
        let start = Instant::now();
        let mut throttle = Throttle::default();
        assert_eq!(throttle.admit(start), Some(0));
        for millis in [0, 1, 5_000, 9_999] {
            assert_eq!(throttle.admit(start + Duration::from_millis(millis)), None);
        }
        assert_eq!(throttle.admit(start + Duration::from_secs(10)), Some(4));
        assert_eq!(throttle.admit(start + Duration::from_secs(11)), None);
        assert_eq!(throttle.admit(start + Duration::from_secs(60)), Some(1));
        assert_eq!(throttle.admit(start + Duration::from_secs(70)), Some(0), "the count starts over");
    }

    #[test]
    fn several_pass_in_each_interval_and_what_they_stand_for_is_not_lost() {
        let start = Instant::now();
        let mut throttle = Throttle::several(2, Duration::from_secs(1));
        assert_eq!(throttle.admit_with(start, 5), Some(5));
        assert_eq!(throttle.admit(start), Some(0));
        assert_eq!(throttle.admit_with(start, 3), None);
        assert_eq!(throttle.admit(start + Duration::from_millis(999)), None);
        assert_eq!(throttle.admit_with(start + Duration::from_secs(1), 10), Some(15));
        assert_eq!(throttle.admit(start + Duration::from_secs(1)), Some(0));
        assert_eq!(throttle.admit(start + Duration::from_secs(1)), None);
    }

    #[test]
    fn time_that_runs_backwards_holds_back() {
        let start = Instant::now() + Duration::from_secs(100);
        let mut throttle = Throttle::default();
        assert_eq!(throttle.admit(start), Some(0));
        assert_eq!(throttle.admit(start.checked_sub(Duration::from_secs(50)).unwrap()), None);
        assert_eq!(throttle.admit(start + Duration::from_secs(10)), Some(1));
    }
}
