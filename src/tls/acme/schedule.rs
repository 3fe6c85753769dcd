//! When the authority is asked.
//!
//! A certificate is renewed when a third of its lifetime is left. After a failure the pauses grow, from two minutes to twelve
//! hours: authorities count failures (five an hour, for example), and who goes on asking is locked out for longer. A process
//! that is started again and again does not ask again and again.

use std::time::{Duration, SystemTime};

use crate::tls::Validity;

const FIRST_PAUSE: Duration = Duration::from_secs(120);
const LONGEST_PAUSE: Duration = Duration::from_secs(12 * 3600);

/// The least between the last attempt of one process and the first of the next.
const BETWEEN_STARTS: Duration = Duration::from_secs(60);

/// The least between an attempt and one that a human asks for.
const ON_REQUEST: Duration = Duration::from_secs(5);

/// The least between two certificates, unless they live so short that it cannot be.
const BETWEEN_ISSUES: Duration = Duration::from_secs(3600);

/// What came of earlier attempts.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Schedule {
    failures: u32,
    /// Before this, the authority is left alone.
    not_before: Option<SystemTime>,
    last_attempt: Option<SystemTime>,
}

impl Schedule {
    /// Of a process that begins at `now`; the last attempt of one before it was at `last_attempt`.
    pub(super) fn new(last_attempt: Option<SystemTime>, now: SystemTime) -> Self {
        // A time to come is that of a clock that was wrong.
        let last_attempt = last_attempt.filter(|at| *at <= now);
        Self { failures: 0, not_before: last_attempt.map(|at| at + BETWEEN_STARTS), last_attempt }
    }

    /// How long to wait from `now` on. With nothing to show there is nothing to wait for but the pause.
    pub(super) fn wait(&self, shown: Option<Validity>, now: SystemTime) -> Duration {
        let due = shown.map(|validity| validity.not_after - validity.lifetime / 3);
        let until =
            |at: Option<SystemTime>| at.and_then(|at| at.duration_since(now).ok()).unwrap_or_default();
        until(due).max(until(self.not_before))
    }

    /// An attempt begins.
    pub(super) fn begins(&mut self, now: SystemTime) {
        self.last_attempt = Some(now);
    }

    /// The attempt failed. Returns how many have, and the pause.
    pub(super) fn failed(&mut self, now: SystemTime) -> (u32, Duration) {
        let doublings = self.failures.min(16);
        let pause = (FIRST_PAUSE * (1 << doublings)).min(LONGEST_PAUSE);
        self.failures = self.failures.saturating_add(1);
        self.not_before = Some(now + pause);
        (self.failures, pause)
    }

    /// The attempt brought this certificate.
    pub(super) fn succeeded(&mut self, now: SystemTime, got: Validity) {
        self.failures = 0;
        // One that is due for renewal when it comes, because a clock is wrong or the authority odd, is no reason to ask at once.
        let left = got.not_after.duration_since(now).unwrap_or_default();
        self.not_before = Some(now + (left / 2).max(BETWEEN_ISSUES.min(got.lifetime / 3)));
    }

    /// Somebody who may know more asks to try again: the pause is over, unless the last attempt was just now.
    pub(super) fn asked(&mut self) {
        if self.failures > 0 || self.not_before == self.last_attempt.map(|at| at + BETWEEN_STARTS) {
            self.not_before = self.last_attempt.map(|at| at + ON_REQUEST);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000 + seconds)
    }

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    const DAY: u64 = 86_400;

    fn days(lifetime: u64, end: SystemTime) -> Validity {
        Validity { lifetime: secs(lifetime * DAY), not_after: end }
    }

    #[test]
    fn without_a_certificate_the_authority_is_asked_at_once_and_then_less_and_less() {
        let mut schedule = Schedule::new(None, at(0));
        assert_eq!(schedule.wait(None, at(0)), Duration::ZERO);
        let mut now = at(0);
        let mut attempts = Vec::new();
        for _ in 0..14 {
            schedule.begins(now);
            attempts.push(now.duration_since(at(0)).unwrap().as_secs());
            schedule.failed(now);
            now += schedule.wait(None, now);
        }
        assert!(attempts.iter().filter(|&&second| second < 3600).count() <= 5, "{attempts:?}");
        assert!(attempts.windows(3).all(|w| w[2] - w[1] >= w[1] - w[0]), "{attempts:?}");
        assert_eq!(attempts[13] - attempts[12], LONGEST_PAUSE.as_secs());
        assert_eq!(schedule.failed(now), (15, LONGEST_PAUSE));
        for _ in 0..100 {
            assert_eq!(schedule.failed(now).1, LONGEST_PAUSE);
        }
    }

    #[test]
    fn a_certificate_is_renewed_when_a_third_is_left() {
        let schedule = Schedule::new(None, at(0));
        let shown = Some(days(90, at(90 * DAY)));
        assert_eq!(schedule.wait(shown, at(0)), secs(60 * DAY));
        assert_eq!(schedule.wait(shown, at(60 * DAY)), Duration::ZERO);
        assert_eq!(schedule.wait(shown, at(91 * DAY)), Duration::ZERO);
    }

    #[test]
    fn a_certificate_that_is_due_when_it_comes_does_not_make_it_busy() {
        let mut schedule = Schedule::new(None, at(0));
        schedule.begins(at(0));
        let due = days(90, at(20 * DAY));
        schedule.succeeded(at(0), due);
        assert_eq!(schedule.wait(Some(due), at(0)), secs(10 * DAY));
        let nearly_over = days(90, at(60));
        schedule.succeeded(at(0), nearly_over);
        assert_eq!(schedule.wait(Some(nearly_over), at(0)), secs(3600));
        // One that lives short is renewed in its time.
        let short = Validity { lifetime: secs(12), not_after: at(12) };
        schedule.succeeded(at(0), short);
        assert_eq!(schedule.wait(Some(short), at(0)), secs(8));
        let usual = days(90, at(90 * DAY));
        schedule.succeeded(at(0), usual);
        assert_eq!(schedule.wait(Some(usual), at(0)), secs(60 * DAY));
    }

    #[test]
    fn a_process_that_starts_again_and_again_does_not_ask_again_and_again() {
        let schedule = Schedule::new(Some(at(0)), at(10));
        assert_eq!(schedule.wait(None, at(10)), secs(50));
        assert_eq!(Schedule::new(Some(at(0)), at(60)).wait(None, at(60)), Duration::ZERO);
        assert_eq!(Schedule::new(Some(at(999)), at(10)).wait(None, at(10)), Duration::ZERO);
    }

    #[test]
    fn somebody_who_asks_need_not_wait_for_the_pause() {
        let mut schedule = Schedule::new(None, at(0));
        schedule.begins(at(0));
        schedule.failed(at(2));
        schedule.failed(at(2));
        assert_eq!(schedule.wait(None, at(2)), secs(240));
        schedule.asked();
        assert_eq!(schedule.wait(None, at(2)), secs(3));
        assert_eq!(schedule.wait(None, at(9)), Duration::ZERO);
        // The count of failures goes on.
        assert_eq!(schedule.failed(at(9)).0, 3);

        let mut started = Schedule::new(Some(at(0)), at(10));
        started.asked();
        assert_eq!(started.wait(None, at(10)), Duration::ZERO);
        // A good certificate is not renewed because somebody asks.
        let mut good = Schedule::new(None, at(0));
        good.begins(at(0));
        good.succeeded(at(0), days(90, at(20 * DAY)));
        good.asked();
        assert_eq!(good.wait(Some(days(90, at(20 * DAY))), at(1)), secs(10 * DAY - 1));
    }
}
