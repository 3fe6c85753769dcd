//! What a probe found: for a person, line by line, and for a program, as one JSON object.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::certificate::{day, listed, rfc3339, span};

/// The outcome of a probe.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Frames that the probe sent, from either side. A relay that works leads to two per round trip and two more.
    pub frames_sent: u64,
    /// Frames that arrived on the other side, byte for byte as they must.
    pub frames_received: u64,
    /// The time of each round trip, phone to binary to phone, in the order made.
    pub round_trips: Vec<Duration>,
    /// What the first connection agreed on, if it is TLS and came so far.
    pub tls: Option<TlsSession>,
    /// The step that failed, if one did.
    pub failure: Option<Failure>,
}

/// Why a relay does not pass.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// The step: `connect`, `tls`, `claim`, `phone`, `round trips`, `close directive`, `close notice` or `goodbye`.
    pub step: &'static str,
    /// What was due, what came instead, and what that usually means.
    pub message: String,
}

/// What a TLS handshake agreed on, with a certificate that was found good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsSession {
    /// `TLSv1.3` or `TLSv1.2`.
    pub version: &'static str,
    /// The host names and addresses that the relay's certificate is for.
    pub names: Vec<String>,
    /// The last moment of that certificate, in seconds since 1970; nothing if it can be verified, but not shown.
    pub not_after: Option<i64>,
    /// When it was seen, in seconds since 1970.
    pub seen_at: i64,
}

impl TlsSession {
    /// How long the certificate is still valid, in seconds.
    fn left(&self) -> Option<i64> {
        Some(self.not_after?.saturating_sub(self.seen_at))
    }
}

impl fmt::Display for TlsSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { version, names, not_after, .. } = self;
        match (not_after, self.left()) {
            (Some(not_after), Some(left)) => write!(
                f,
                "{version}, certificate for {}, valid until {} ({})",
                listed(names),
                day(*not_after),
                span(left)
            ),
            _ => write!(f, "{version}, with a certificate that is good but cannot be shown"),
        }
    }
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
    tls: Option<JsonTls<'a>>,
    round_trip_us: Option<Micros>,
    frames_sent: u64,
    frames_received: u64,
}

#[derive(Serialize)]
struct JsonTls<'a> {
    version: &'static str,
    certificate_names: &'a [String],
    certificate_valid_until: Option<String>,
    certificate_days_left: Option<i64>,
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

    /// The report as one line of JSON. `round_trip_us` is null if no round trip was completed, `tls` if no TLS
    /// handshake was.
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
            tls: self.tls.as_ref().map(|session| JsonTls {
                version: session.version,
                certificate_names: &session.names,
                certificate_valid_until: session.not_after.and_then(rfc3339),
                certificate_days_left: session.left().map(|left| left / 86_400),
            }),
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
                r#""failure":{"step":"connect","message":"no"},"tls":null,"round_trip_us":null,"#,
                r#""frames_sent":0,"frames_received":0}"#
            )
        );
        let report =
            Report { round_trips: millis([2]), frames_sent: 4, frames_received: 4, ..Report::default() };
        let json = report.to_json("ws://h", 1, 256).unwrap();
        assert!(json.contains(
            r#""verdict":"ok","failure":null,"tls":null,"round_trip_us":{"p50":2000,"p99":2000,"max":2000}"#
        ));
        assert!(json.ends_with(r#""frames_sent":4,"frames_received":4}"#), "{json}");
    }

    #[test]
    fn a_tls_session_is_a_line_and_an_object() {
        let session = TlsSession {
            version: "TLSv1.3",
            names: vec!["relay.example.com".to_owned()],
            not_after: Some(1_803_600_000),
            seen_at: 1_803_600_000 - 90 * 86_400 - 5,
        };
        assert_eq!(
            session.to_string(),
            "TLSv1.3, certificate for relay.example.com, valid until 2027-02-26 (90 days)"
        );
        let unreadable = TlsSession { names: Vec::new(), not_after: None, ..session.clone() };
        assert!(unreadable.to_string().ends_with("good but cannot be shown"));
        let report = Report { tls: Some(session), ..Report::default() };
        let json = report.to_json("wss://h", 1, 256).unwrap();
        assert!(
            json.contains(concat!(
                r#""tls":{"version":"TLSv1.3","certificate_names":["relay.example.com"],"#,
                r#""certificate_valid_until":"2027-02-26T00:00:00Z","certificate_days_left":90},"#
            )),
            "{json}"
        );
    }

    #[test]
    fn times_have_the_digits_that_mean_something() {
        assert_eq!(milliseconds(Duration::from_micros(212)), "0.212 ms");
        assert_eq!(milliseconds(Duration::from_micros(1234)), "1.23 ms");
        assert_eq!(milliseconds(Duration::from_secs(2)), "2000 ms");
    }
}
