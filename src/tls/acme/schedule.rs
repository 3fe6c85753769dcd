//! When the authority is asked.
//!
//! A certificate is renewed when a third of its lifetime is left. After a failure the pauses grow, from two minutes to twelve
//! hours: authorities count failures (five an hour, for example), and who goes on asking is locked out for longer. A process
//! that is started again and again goes on where the one before it was. Somebody who asks for another attempt gets it, but
//! not any number of times.
//!
//! When a certificate ends is a matter of the calendar, and the calendar may be wrong and then be set. Pauses are not: they are
//! measured on a clock that only runs forward.

use std::collections::VecDeque;
use std::time::{Duration, Instant, SystemTime};

use crate::tls::Validity;

const FIRST_PAUSE: Duration = Duration::from_secs(120);
const LONGEST_PAUSE: Duration = Duration::from_secs(12 * 3600);

/// The least between an attempt of one process and the first of the next.
pub(super) const BETWEEN_STARTS: Duration = Duration::from_secs(60);

/// The least between the end of an attempt and one that somebody asks for, and how many of those there are in an hour.
const ON_REQUEST: Duration = Duration::from_secs(5);
const REQUESTS: usize = 3;
const HOUR: Duration = Duration::from_secs(3600);

/// How much of the pause behind a certificate is kept if it is to be renewed at once: it cannot be that one that was just
/// issued is due, unless a clock is wrong or the authority odd.
const BETWEEN_ISSUES: Duration = HOUR;

/// What one process leaves to the next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Memory {
    /// Failures in a row.
    pub(super) failures: u32,
    /// The pause that was to follow.
    pub(super) pause: Duration,
}

/// What came of earlier attempts.
#[derive(Clone, Debug, Default)]
pub(super) struct Schedule {
    failures: u32,
    /// Before this, the authority is left alone.
    not_before: Option<Instant>,
    /// The end of the last attempt.
    ended: Option<Instant>,
    /// When attempts were asked for and made.
    requests: VecDeque<Instant>,
}

impl Schedule {
    /// Of a process that begins at `now`, if the one before it asked so long ago and left this behind.
    pub(super) fn new(before: Option<(Memory, Duration)>, now: Instant) -> Self {
        let Some((memory, age)) = before else { return Self::default() };
        let left = memory.pause.min(LONGEST_PAUSE).saturating_sub(age);
        Self { failures: memory.failures, not_before: Some(now + left), ..Self::default() }
    }

    /// How long to wait before a renewal that is due in `due`; with nothing to show, `due` is nothing.
    pub(super) fn wait(&self, due: Duration, now: Instant) -> Duration {
        let pause = self.not_before.map(|at| at.saturating_duration_since(now)).unwrap_or_default();
        due.max(pause)
    }

    /// An attempt begins. Returns what the next process has to know if this one does not live to its end.
    pub(super) fn begins(&self) -> Memory {
        Memory { failures: self.failures, pause: BETWEEN_STARTS }
    }

    /// The attempt failed, and the authority asked for so much patience. Returns how many have, and the pause.
    pub(super) fn failed(&mut self, now: Instant, wanted: Option<Duration>) -> Memory {
        let doublings = self.failures.min(16);
        let pause = (FIRST_PAUSE * (1 << doublings)).max(wanted.unwrap_or_default()).min(LONGEST_PAUSE);
        self.failures = self.failures.saturating_add(1);
        self.pauses(now, pause)
    }

    /// The attempt brought this certificate, of which so much is left.
    pub(super) fn succeeded(&mut self, now: Instant, got: Validity, left: Duration) -> Memory {
        self.failures = 0;
        self.pauses(now, (left / 2).max(BETWEEN_ISSUES.min(got.lifetime / 3)))
    }

    fn pauses(&mut self, now: Instant, pause: Duration) -> Memory {
        (self.ended, self.not_before) = (Some(now), Some(now + pause));
        Memory { failures: self.failures, pause }
    }

    /// Somebody who may know more asks to try again. Returns whether the pause is cut short.
    pub(super) fn asked(&mut self, now: Instant) -> bool {
        while self.requests.front().is_some_and(|at| now.saturating_duration_since(*at) >= HOUR) {
            self.requests.pop_front();
        }
        if self.requests.len() >= REQUESTS {
            return false;
        }
        self.requests.push_back(now);
        self.not_before = self.ended.map(|at| at + ON_REQUEST);
        true
    }
}

/// How long until a certificate is due for renewal.
pub(super) fn due_in(validity: Validity, now: SystemTime) -> Duration {
    let due = validity.not_after.checked_sub(validity.lifetime / 3);
    due.and_then(|due| due.duration_since(now).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    const DAY: u64 = 86_400;

    fn of(lifetime: Duration) -> Validity {
        Validity { lifetime, not_after: SystemTime::UNIX_EPOCH + lifetime }
    }

    #[test]
    fn without_a_certificate_the_authority_is_asked_at_once_and_then_less_and_less() {
        let start = Instant::now();
        let mut schedule = Schedule::new(None, start);
        assert_eq!(schedule.wait(Duration::ZERO, start), Duration::ZERO);
        let mut now = start;
        let mut attempts = Vec::new();
        for _ in 0..14 {
            attempts.push((now - start).as_secs());
            schedule.failed(now, None);
            now += schedule.wait(Duration::ZERO, now);
        }
        assert!(attempts.iter().filter(|&&second| second < 3600).count() <= 5, "{attempts:?}");
        assert!(attempts.windows(3).all(|w| w[2] - w[1] >= w[1] - w[0]), "{attempts:?}");
        assert_eq!(attempts[13] - attempts[12], LONGEST_PAUSE.as_secs());
        for _ in 0..100 {
            assert_eq!(schedule.failed(now, None).pause, LONGEST_PAUSE);
        }
        assert_eq!(schedule.failures, 114);
    }

    #[test]
    fn the_authority_may_ask_for_more_patience_but_not_for_ever() {
        let now = Instant::now();
        let mut schedule = Schedule::default();
        assert_eq!(schedule.failed(now, Some(secs(3600))), Memory { failures: 1, pause: secs(3600) });
        assert_eq!(schedule.failed(now, Some(secs(1))).pause, secs(240));
        assert_eq!(schedule.failed(now, Some(secs(365 * DAY))).pause, LONGEST_PAUSE);
    }

    #[test]
    fn a_certificate_is_renewed_when_a_third_is_left() {
        let validity = of(secs(90 * DAY));
        let at = |days: u64| SystemTime::UNIX_EPOCH + secs(days * DAY);
        assert_eq!(due_in(validity, at(0)), secs(60 * DAY));
        assert_eq!(due_in(validity, at(60)), Duration::ZERO);
        assert_eq!(due_in(validity, at(91)), Duration::ZERO);
        let schedule = Schedule::default();
        assert_eq!(schedule.wait(secs(60 * DAY), Instant::now()), secs(60 * DAY));
    }

    #[test]
    fn a_certificate_that_is_due_when_it_comes_does_not_make_it_busy() {
        let now = Instant::now();
        let mut schedule = Schedule::default();
        schedule.succeeded(now, of(secs(90 * DAY)), secs(20 * DAY));
        assert_eq!(schedule.wait(Duration::ZERO, now), secs(10 * DAY));
        schedule.succeeded(now, of(secs(90 * DAY)), secs(60));
        assert_eq!(schedule.wait(Duration::ZERO, now), secs(3600));
        // One that lives short is renewed in its time.
        schedule.succeeded(now, of(secs(12)), secs(12));
        assert_eq!(schedule.wait(secs(8), now), secs(8));
    }

    #[test]
    fn a_process_goes_on_where_the_one_before_it_was() {
        let now = Instant::now();
        let mut schedule = Schedule::default();
        let left = schedule.begins();
        assert_eq!(left.pause, BETWEEN_STARTS);
        assert_eq!(Schedule::new(Some((left, secs(10))), now).wait(Duration::ZERO, now), secs(50));
        assert_eq!(Schedule::new(Some((left, secs(61))), now).wait(Duration::ZERO, now), Duration::ZERO);
        schedule.failed(now, None);
        let left = schedule.failed(now, None);
        let mut next = Schedule::new(Some((left, secs(100))), now);
        assert_eq!(next.wait(Duration::ZERO, now), secs(140));
        assert_eq!(next.failed(now, None), Memory { failures: 3, pause: secs(480) });
        let mad = Memory { failures: 1, pause: secs(999 * DAY) };
        assert_eq!(Schedule::new(Some((mad, Duration::ZERO)), now).wait(Duration::ZERO, now), LONGEST_PAUSE);
    }

    #[test]
    fn somebody_who_asks_need_not_wait_for_the_pause_and_cannot_ask_without_end() {
        let start = Instant::now();
        let mut schedule = Schedule::default();
        schedule.failed(start, None);
        assert!(schedule.asked(start));
        assert_eq!(schedule.wait(Duration::ZERO, start), ON_REQUEST);
        assert_eq!(schedule.wait(Duration::ZERO, start + secs(9)), Duration::ZERO);
        // The count of failures goes on.
        assert_eq!(schedule.failed(start + secs(9), None).failures, 2);
        assert!(schedule.asked(start + secs(20)) && schedule.asked(start + secs(21)));
        schedule.failed(start + secs(30), None);
        assert!(!schedule.asked(start + secs(31)));
        assert_eq!(schedule.wait(Duration::ZERO, start + secs(30)), secs(480));
        assert!(schedule.asked(start + HOUR));
        // A good certificate is not renewed because somebody asks.
        assert_eq!(schedule.wait(secs(60 * DAY), start + HOUR), secs(60 * DAY));
    }

    #[test]
    fn somebody_who_asks_storms_in_vain() {
        let start = Instant::now();
        let mut schedule = Schedule::default();
        let (mut now, mut attempts) = (start, 0);
        while now < start + HOUR {
            if schedule.wait(Duration::ZERO, now).is_zero() {
                attempts += 1;
                schedule.failed(now + secs(3), None);
            }
            now += secs(1);
            schedule.asked(now);
        }
        assert!(attempts <= 6, "{attempts}");
    }
}
