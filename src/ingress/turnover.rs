//! When a place can be expected, for the `Retry-After` of those who find none.
//!
//! It is measured: how long it took lately from one place that came back to the next. Each who is refused is told the moment
//! at which, going on like that, a place comes back for it behind those who were refused before, so that they do not all come
//! again at once. Nobody is sent away for longer than a dead connection can keep its place.

use std::time::{Duration, Instant};

/// The weight of the newest interval in the mean.
const NEWEST: u32 = 8;

/// How fast places come back.
#[derive(Debug)]
pub(super) struct Turnover {
    longest: Duration,
    last: Option<Instant>,
    mean: Duration,
    /// The moment that the last one was told.
    promised: Option<Instant>,
}

impl Turnover {
    /// Before the first place came back. Nobody is told to wait for more than `longest`.
    pub(super) fn new(longest: Duration) -> Self {
        Self { longest, last: None, mean: longest, promised: None }
    }

    /// A place came back.
    pub(super) fn given_back(&mut self, now: Instant) {
        if let Some(last) = self.last {
            let newest = now.saturating_duration_since(last).min(self.longest);
            self.mean = (self.mean * (NEWEST - 1) + newest) / NEWEST;
        }
        self.last = Some(now);
    }

    /// Somebody found no place: how long it should wait.
    pub(super) fn wait(&mut self, now: Instant) -> Duration {
        let since_last = self.last.map_or(self.longest, |last| now.saturating_duration_since(last));
        let interval = self.mean.max(since_last).min(self.longest);
        let before = self.promised.map_or(now, |promised| promised.max(now));
        let promised = (before + interval).min(now + self.longest);
        self.promised = Some(promised);
        promised - now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONGEST: Duration = Duration::from_secs(60);

    #[test]
    fn without_experience_it_is_the_longest_wait() {
        let now = Instant::now();
        let mut turnover = Turnover::new(LONGEST);
        assert_eq!(turnover.wait(now), LONGEST);
        turnover.given_back(now);
        assert_eq!(turnover.wait(now), LONGEST);
    }

    #[test]
    fn one_after_the_other_at_the_pace_at_which_places_come_back() {
        let start = Instant::now();
        let mut turnover = Turnover::new(LONGEST);
        for second in 0..100 {
            turnover.given_back(start + Duration::from_secs(second));
        }
        let now = start + Duration::from_secs(99);
        let close_to = |wait: Duration, seconds: f64| (wait.as_secs_f64() - seconds).abs() < 0.2;
        for place in [1.0, 2.0, 3.0] {
            let wait = turnover.wait(now);
            assert!(close_to(wait, place), "{wait:?}, not {place}");
        }
        // What was promised is kept in mind until its time has come.
        let wait = turnover.wait(now + Duration::from_secs(2));
        assert!(wait > Duration::from_secs(2), "{wait:?}");
        // Places that no longer come back are expected later.
        let wait = turnover.wait(now + Duration::from_secs(30));
        assert!(wait >= Duration::from_secs(30), "{wait:?}");
    }

    #[test]
    fn a_crowd_is_not_sent_away_for_ever() {
        let now = Instant::now();
        let mut turnover = Turnover::new(LONGEST);
        let longest = (0..10_000).map(|_| turnover.wait(now)).max();
        assert_eq!(longest, Some(LONGEST));
    }
}
