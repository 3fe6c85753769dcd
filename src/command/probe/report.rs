//! What a probe found: for a person, line by line, and for a program, as one JSON object.

use std::time::Duration;

use serde::Serialize;

/// The outcome of a probe.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Frames that the probe sent, from either side. A relay that works leads to two per round trip and two more.
    pub frames_sent: u64,
    /// Frames that arrived on the other side, byte for byte as they must.
    pub frames_received: u64,
    /// The time of each round trip, phone to binary to phone, in the order made.
    pub round_trips: Vec<Duration>,
    /// The step that failed, if one did.
    pub failure: Option<Failure>,
}

/// Why a relay does not pass.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// The step: `connect`, `claim`, `phone`, `round trips`, `close directive`, `close notice` or `goodbye`.
    pub step: &'static str,
    /// What was due, what came instead, and what that usually means.
    pub message: String,
}

/// Three numbers that say how long the round trips took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoundTrip {
    /// Half of them took no longer.
    pub p50: Duration,
    /// 99 of 100 took no longer.
    pub p99: Duration,
    /// None took longer.
    pub max: Duration,
}

#[derive(Serialize)]
struct Json<'a> {
    url: &'a str,
    count: u32,
    size: usize,
    verdict: &'static str,
    failure: Option<&'a Failure>,
    round_trip_us: Option<Micros>,
    frames_sent: u64,
    frames_received: u64,
}

#[derive(Serialize)]
struct Micros {
    p50: u64,
    p99: u64,
    max: u64,
}

impl Report {
    /// How long the round trips took; nothing if there were none.
    #[must_use]
    pub fn round_trip(&self) -> Option<RoundTrip> {
        let mut sorted = self.round_trips.clone();
        sorted.sort_unstable();
        Some(RoundTrip { p50: percentile(&sorted, 50)?, p99: percentile(&sorted, 99)?, max: *sorted.last()? })
    }

    /// The report as one line of JSON. `round_trip_us` is null if no round trip was completed.
    ///
    /// # Errors
    ///
    /// None that this data can cause.
    pub fn to_json(&self, url: &str, count: u32, size: usize) -> Result<String, serde_json::Error> {
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        serde_json::to_string(&Json {
            url,
            count,
            size,
            verdict: if self.failure.is_none() { "ok" } else { "failed" },
            failure: self.failure.as_ref(),
            round_trip_us: self.round_trip().map(|times| Micros {
                p50: micros(times.p50),
                p99: micros(times.p99),
                max: micros(times.max),
            }),
            frames_sent: self.frames_sent,
            frames_received: self.frames_received,
        })
    }
}

/// The nearest-rank percentile of sorted values: the smallest that at least `percent` of 100 do not exceed.
fn percentile(sorted: &[Duration], percent: usize) -> Option<Duration> {
    let rank = sorted.len().checked_mul(percent)?.div_ceil(100).max(1);
    sorted.get(rank - 1).copied()
}

/// A time in milliseconds, with as many digits as mean something.
pub(super) fn milliseconds(time: Duration) -> String {
    let value = time.as_secs_f64() * 1000.0;
    match value {
        0.0..1.0 => format!("{value:.3} ms"),
        1.0..100.0 => format!("{value:.2} ms"),
        _ => format!("{value:.0} ms"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(values: impl IntoIterator<Item = u64>) -> Vec<Duration> {
        values.into_iter().map(Duration::from_millis).collect()
    }

    #[test]
    fn percentiles_are_nearest_rank() {
        let hundred = millis(1..=100);
        assert_eq!(percentile(&hundred, 50), Some(Duration::from_millis(50)));
        assert_eq!(percentile(&hundred, 99), Some(Duration::from_millis(99)));
        let three = millis([10, 20, 30]);
        assert_eq!(percentile(&three, 50), Some(Duration::from_millis(20)));
        assert_eq!(percentile(&three, 99), Some(Duration::from_millis(30)));
        assert_eq!(percentile(&three, 0), Some(Duration::from_millis(10)));
        assert_eq!(percentile(&[], 50), None);
    }

    #[test]
    fn the_order_of_the_samples_does_not_matter() {
        let report = Report { round_trips: millis([9, 1, 5, 3, 7]), ..Report::default() };
        let times = report.round_trip().unwrap();
        assert_eq!(
            (times.p50, times.p99, times.max),
            (Duration::from_millis(5), Duration::from_millis(9), Duration::from_millis(9))
        );
        assert_eq!(Report::default().round_trip(), None);
    }

    #[test]
    fn the_json_has_every_key_also_when_nothing_worked() {
        let failure = Failure { step: "connect", message: "no".to_owned() };
        let report = Report { failure: Some(failure), ..Report::default() };
        assert_eq!(
            report.to_json("ws://h", 1, 256).unwrap(),
            concat!(
                r#"{"url":"ws://h","count":1,"size":256,"verdict":"failed","#,
                r#""failure":{"step":"connect","message":"no"},"round_trip_us":null,"#,
                r#""frames_sent":0,"frames_received":0}"#
            )
        );
        let report = Report { round_trips: millis([2]), frames_sent: 4, frames_received: 4, failure: None };
        let json = report.to_json("ws://h", 1, 256).unwrap();
        assert!(
            json.contains(
                r#""verdict":"ok","failure":null,"round_trip_us":{"p50":2000,"p99":2000,"max":2000}"#
            )
        );
        assert!(json.ends_with(r#""frames_sent":4,"frames_received":4}"#), "{json}");
    }

    #[test]
    fn times_have_the_digits_that_mean_something() {
        assert_eq!(milliseconds(Duration::from_micros(212)), "0.212 ms");
        assert_eq!(milliseconds(Duration::from_micros(1234)), "1.23 ms");
        assert_eq!(milliseconds(Duration::from_secs(2)), "2000 ms");
    }
}
