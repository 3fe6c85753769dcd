//! The families of the service itself: whether it is ready, what runs, its limits, its certificate, its process.

use std::time::{SystemTime, UNIX_EPOCH};

use prometheus::{Error, IntCounter, IntGauge};

use super::maker::Maker;
use super::process::Process;

/// One handle per series.
#[derive(Debug)]
pub(super) struct Service {
    pub(super) ready: IntGauge,
    pub(super) connections_limit: IntGauge,
    pub(super) handshakes_limit: IntGauge,
    pub(super) queued_bytes_limit: IntGauge,
    pub(super) certificate_wanted: IntGauge,
    pub(super) certificate_expiry: IntGauge,
    pub(super) certificate_orders: [IntCounter; 2],
    pub(super) reloads: [IntCounter; 2],
}

impl Service {
    pub(super) fn new(make: &Maker) -> Result<Self, Error> {
        make.build_info()?;
        make.register(Process::of_this())?;
        Ok(Self {
            ready: make.gauge(
                "ready",
                "1 from the moment at which the relay says that it is ready until it begins to drain; 0 before and after.",
            )?,
            connections_limit: make.gauge(
                "connections_limit",
                "The limit on connections that is in effect: limits.connections, or less if it is a default and descriptors \
                 are short. Phones may use nine tenths of it.",
            )?,
            handshakes_limit: make.gauge(
                "handshakes_limit",
                "The most connections that may be in handshakes_in_progress: limits.handshakes, or less if it is a default \
                 and descriptors are short.",
            )?,
            queued_bytes_limit: make.gauge(
                "queued_bytes_limit",
                "The most that queued_bytes may come to, both endpoints together: limits.all_queues.",
            )?,
            certificate_wanted: make.gauge(
                "certificate_wanted",
                "1 if the relay speaks TLS itself, 0 if not. With 1, and 0 in certificate_expiry_timestamp_seconds, every \
                 client is refused.",
            )?,
            certificate_expiry: make.gauge(
                "certificate_expiry_timestamp_seconds",
                "When the certificate that is shown to new connections ends, in seconds since 1970; 0 while there is none.",
            )?,
            certificate_orders: make.counters(
                "certificate_orders_total",
                "Times that the certificate authority was asked for a certificate, by outcome.",
                "outcome",
                ["issued", "failed"],
            )?,
            reloads: make.counters(
                "reloads_total",
                "Reloads of configuration and certificate (SIGHUP), by outcome; a failed one changes nothing.",
                "outcome",
                ["ok", "failed"],
            )?,
        })
    }
}

/// A moment as gauges have it.
pub(super) fn since_1970(at: SystemTime) -> i64 {
    let seconds = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    i64::try_from(seconds).unwrap_or(i64::MAX)
}
