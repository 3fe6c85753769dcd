//! When somebody must be told that a certificate ends.
//!
//! A certificate is renewed long before its end: by an authority's client when a third of its lifetime is left. If a sixth is
//! left, or two weeks, whichever is less, renewal has failed often enough for a human to look at it. That is said once, and
//! again every day; in the end, that it has ended.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use async_io::Timer;
use event_listener::listener;
use futures_lite::future;

use super::certificate::date;
use super::{Tls, Validity};
use crate::event;

/// What is left of a long-lived certificate when somebody is told.
const AT_MOST: Duration = Duration::from_secs(14 * 86_400);

/// How often it is said again.
const AGAIN: Duration = Duration::from_secs(86_400);

/// How often the clock is looked at, which may be set, or have run on while the machine slept.
const LOOK: Duration = Duration::from_secs(3600);

/// The least that is waited, so that no lifetime makes this a busy loop.
const AT_LEAST: Duration = Duration::from_secs(1);

/// What is to be said now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// It ends soon.
    Expiring,
    /// It has ended.
    Expired,
}

/// Says what is to be said about whatever certificate is shown, for as long as it is polled.
pub async fn keep(tls: Arc<Tls>) {
    let mut said: Option<(Word, SystemTime, Instant)> = None;
    loop {
        listener!(tls.changed => changed);
        let Some(validity) = tls.identity().validity else {
            changed.await;
            continue;
        };
        let not_after = validity.not_after;
        let (word, wait) = look(validity, SystemTime::now());
        let fresh = said.is_none_or(|(before, end, at)| {
            Some(before) != word || end != not_after || at.elapsed() >= AGAIN
        });
        if fresh {
            said = word.map(|word| (word, not_after, Instant::now()));
            match word {
                Some(Word::Expiring) => {
                    let left = not_after.duration_since(SystemTime::now()).unwrap_or_default();
                    event::certificate_expiring(not_after, left);
                    tls.listener.expires(Some(&format!("ends at {}, and is not renewed", date(not_after))));
                }
                Some(Word::Expired) => {
                    event::certificate_expired(not_after);
                    tls.listener.expires(Some(&format!("EXPIRED at {}, clients refuse it", date(not_after))));
                }
                None => tls.listener.expires(None),
            }
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
        return (Some(Word::Expired), LOOK);
    };
    let notice = (lifetime / 6).min(AT_MOST);
    // The end itself still counts as within.
    let until_end = left + Duration::from_millis(1);
    if left <= notice {
        return (Some(Word::Expiring), until_end.clamp(AT_LEAST, LOOK));
    }
    (None, left.saturating_sub(notice).clamp(AT_LEAST, LOOK))
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
        assert_eq!(at(days(90), end, end - days(60)), (None, LOOK));
        assert_eq!(
            at(days(90), end, end - days(14) - Duration::from_secs(5)),
            (None, Duration::from_secs(5))
        );
        assert_eq!(at(days(90), end, end - days(14)), (Some(Word::Expiring), LOOK));
        assert_eq!(at(days(365), end, end - days(15)).0, None);
        assert_eq!(at(days(6), end, end - days(2)), (None, LOOK));
        assert_eq!(at(days(6), end, end - days(1)).0, Some(Word::Expiring));
        let hour = Duration::from_secs(3600);
        assert_eq!(at(days(90), end, end - hour / 2).1, hour / 2 + Duration::from_millis(1));
        assert_eq!(at(days(90), end, end), (Some(Word::Expiring), AT_LEAST));
        assert_eq!(at(days(90), end, end + Duration::from_millis(1)), (Some(Word::Expired), LOOK));
        assert_eq!(at(Duration::ZERO, end, end - days(1)), (None, LOOK));
    }

    #[test]
    fn every_step_comes_nearer_and_none_is_busy() {
        let start = SystemTime::UNIX_EPOCH + days(20_000);
        for lifetime in [Duration::from_secs(6), Duration::from_secs(100), days(6), days(90), days(3650)] {
            let end = start + lifetime;
            let (mut now, mut steps, mut said) = (start, 0, 0);
            while now <= end {
                let (word, wait) = at(lifetime, end, now);
                assert!(wait >= AT_LEAST && wait <= LOOK, "{wait:?}");
                said += usize::from(word.is_some());
                now += wait;
                steps += 1;
            }
            assert!(said >= 1 && steps <= 24 * 3660, "{lifetime:?}: said {said} times in {steps} steps");
            assert_eq!(at(lifetime, end, now).0, Some(Word::Expired));
        }
    }
}
