//! Keeps a flood of one kind of occurrence from becoming a flood of lines.

use std::time::{Duration, Instant};

/// Lets the first occurrence through at once and then at most one per interval, and counts the others
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
    interval: Duration,
    last: Option<Instant>,
    suppressed: u64,
}

impl Throttle {
    /// The interval of [`Throttle::default`].
    pub const INTERVAL: Duration = Duration::from_secs(10);

    /// A throttle that lets one occurrence through per `interval`.
    #[must_use]
    pub const fn new(interval: Duration) -> Self {
        Self { interval, last: None, suppressed: 0 }
    }

    /// Something occurred at `now`. `Some` lets it through and carries how many were held back since the last
    /// one that was let through; `None` holds it back.
    pub fn admit(&mut self, now: Instant) -> Option<u64> {
        // A `now` before the last one (callers on different threads) counts as no time passed.
        let due = self.last.is_none_or(|last| now.saturating_duration_since(last) >= self.interval);
        if due {
            self.last = Some(now);
            Some(std::mem::take(&mut self.suppressed))
        } else {
            self.suppressed = self.suppressed.saturating_add(1);
            None
        }
    }
}

impl Default for Throttle {
    fn default() -> Self {
        Self::new(Self::INTERVAL)
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
    fn time_that_runs_backwards_holds_back() {
        let start = Instant::now() + Duration::from_secs(100);
        let mut throttle = Throttle::default();
        assert_eq!(throttle.admit(start), Some(0));
        assert_eq!(throttle.admit(start.checked_sub(Duration::from_secs(50)).unwrap()), None);
        assert_eq!(throttle.admit(start + Duration::from_secs(10)), Some(1));
    }
}
