//! When somebody must be told that a certificate ends.
//!
//! A certificate is renewed long before its end: by an authority's client when a third of its lifetime is left. If a sixth is
//! left, or two weeks, whichever is less, renewal has failed often enough for a human to look at it. That is said once, and
//! again every day; in the end, that it has ended.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_io::Timer;
use event_listener::listener;
use futures_lite::future;

use super::{Tls, Validity};
use crate::event;

/// What is left of a long-lived certificate when somebody is told.
const AT_MOST: Duration = Duration::from_secs(14 * 86_400);

/// How often it is said again.
const AGAIN: Duration = Duration::from_secs(86_400);

/// The least that is waited, so that no lifetime makes this a busy loop.
const AT_LEAST: Duration = Duration::from_secs(1);

/// What is to be said now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// It ends in this time.
    Expiring(Duration),
    /// It has ended.
    Expired,
}

/// Says what is to be said about whatever certificate is shown, for as long as it is polled.
pub async fn keep(tls: Arc<Tls>) {
    loop {
        listener!(tls.changed => changed);
        let Some(validity) = tls.identity().validity else {
            changed.await;
            continue;
        };
        let (word, wait) = look(validity, SystemTime::now());
        match word {
            Some(Word::Expiring(left)) => event::certificate_expiring(validity.not_after, left),
            Some(Word::Expired) => event::certificate_expired(validity.not_after),
            None => {}
        }
        future::or(changed, async {
            Timer::after(wait).await;
        })
        .await;
    }
}

/// What is to be said at `now` about a certificate, and how long to wait until the next look.
#[must_use]
pub fn look(Validity { lifetime, not_after }: Validity, now: SystemTime) -> (Option<Word>, Duration) {
    let Ok(left) = not_after.duration_since(now) else {
        return (Some(Word::Expired), AGAIN);
    };
    let notice = (lifetime / 6).min(AT_MOST);
    // The end itself still counts as within.
    let until_end = left + Duration::from_millis(1);
    if left <= notice {
        return (Some(Word::Expiring(left)), until_end.clamp(AT_LEAST, AGAIN));
    }
    // A clock that is set meanwhile is noticed within a day.
    (None, left.saturating_sub(notice).clamp(AT_LEAST, AGAIN))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 86_400;

    fn days(days: u64) -> Duration {
        Duration::from_secs(days * DAY)
    }

    fn at(lifetime: Duration, not_after: SystemTime, now: SystemTime) -> (Option<Word>, Duration) {
        look(Validity { lifetime, not_after }, now)
    }

    #[test]
    fn somebody_is_told_two_weeks_before_the_end_or_when_a_sixth_is_left() {
        let end = SystemTime::UNIX_EPOCH + days(20_000);
        assert_eq!(at(days(90), end, end - days(60)), (None, days(1)));
        assert_eq!(
            at(days(90), end, end - days(14) - Duration::from_secs(5)),
            (None, Duration::from_secs(5))
        );
        assert_eq!(at(days(90), end, end - days(14)), (Some(Word::Expiring(days(14))), days(1)));
        assert_eq!(at(days(365), end, end - days(15)).0, None);
        assert_eq!(at(days(6), end, end - days(2)), (None, days(1)));
        assert_eq!(at(days(6), end, end - days(1)).0, Some(Word::Expiring(days(1))));
        let hour = Duration::from_secs(3600);
        assert_eq!(at(days(90), end, end - hour).1, hour + Duration::from_millis(1));
        assert_eq!(at(days(90), end, end), (Some(Word::Expiring(Duration::ZERO)), AT_LEAST));
        assert_eq!(at(days(90), end, end + Duration::from_millis(1)), (Some(Word::Expired), days(1)));
        assert_eq!(at(Duration::ZERO, end, end - days(1)), (None, days(1)));
    }

    #[test]
    fn every_step_comes_nearer_and_none_is_busy() {
        let start = SystemTime::UNIX_EPOCH + days(20_000);
        for lifetime in [Duration::from_secs(6), Duration::from_secs(100), days(6), days(90), days(3650)] {
            let end = start + lifetime;
            let (mut now, mut steps, mut said) = (start, 0, 0);
            while now <= end {
                let (word, wait) = at(lifetime, end, now);
                assert!(wait >= AT_LEAST && wait <= AGAIN, "{wait:?}");
                said += usize::from(word.is_some());
                now += wait;
                steps += 1;
            }
            assert!(said >= 1 && steps <= 3660, "{lifetime:?}: said {said} times in {steps} steps");
            assert_eq!(at(lifetime, end, now).0, Some(Word::Expired));
        }
    }
}
