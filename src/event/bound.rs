//! The most lines per second of one event, whoever causes them.
//!
//! Everything that strangers can bring about, they can bring about as often as the machine allows: by many connections, from
//! many addresses. So each event about connections has a bound over the whole process, beside the throttles that callers
//! have for what a single connection or refusal can repeat. What is held back is counted, and told by the next line of the
//! same event under the key `suppressed`.

use std::time::{Duration, Instant};

use super::throttle::{SharedThrottle, Throttle};

/// Lines of one event in each second. The events that one kind of attack can cause together stay below what a journal takes
/// of one service by default (10,000 lines in 30 s, `RateLimitBurst=` in journald.conf(5)).
const LINES: u32 = 50;

/// The bound of one event.
pub(super) struct Bound(SharedThrottle);

impl Bound {
    pub(super) const fn new() -> Self {
        Self(SharedThrottle::new(Throttle::several(LINES, Duration::from_secs(1))))
    }

    /// Whether a line may be written now, and how many it stands for: those held back here, and the `carried` ones that its
    /// caller held back.
    pub(super) fn admit(&self, carried: u64) -> Option<u64> {
        self.0.admit_with(Instant::now(), carried)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_one_event_is_a_few_lines_and_a_count() {
        let bound = Bound::new();
        let began = Instant::now();
        let admitted: Vec<_> = (0..10_000).filter_map(|_| bound.admit(0)).collect();
        let seconds = began.elapsed().as_secs() + 1;
        assert!(admitted.len() >= 50 && admitted.len() as u64 <= 50 * seconds, "{}", admitted.len());
        let held_back = 10_000 - admitted.len() as u64 - admitted.iter().sum::<u64>();
        let told = std::iter::repeat_with(|| bound.admit(0)).flatten().next();
        assert_eq!(told.map(|told| told >= held_back), Some(true));
    }
}
