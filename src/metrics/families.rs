//! Every family of figures, and the observer that moves them.
//!
//! [`Families`] owns a registry of its own and holds one handle per series, bound at construction in arrays that
//! are indexed by the labels' enums. An observed fact is therefore an atomic add or a few: no lock, no map, no
//! allocation; and every series is there, at 0, from the first scrape. Labels come from closed sets only
//! (PROTOCOL § 6). No thread is started; [`super::server`] scrapes from its own.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus::{Error, Histogram, IntCounter, IntGauge, Registry, TextEncoder};

use super::gauges::CensusGauges;
use super::maker::Maker;
use super::process::Process;
use crate::relay::close::CloseCause;
use crate::relay::observer::{
    AddressTable, Census, Direction, DropReason, Endpoint, HandshakeStage, Observer, UpgradeOutcome,
};

/// Seconds. A relayed frame takes tens of microseconds when nothing is in its way; a receiver is given 10 s to
/// make progress (PROTOCOL § 4).
const LATENCY_BUCKETS: [f64; 16] = [
    0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.1, 0.25,
    1.0, 2.5, 10.0,
];

/// The kinds of `register_failures_total`.
#[derive(Clone, Copy)]
enum RegisterFailure {
    NoServer,
    ServerInUse,
    PhonesAtCap,
    RateLimit,
}

impl RegisterFailure {
    const NAMES: [&'static str; 4] = ["no_server", "server_in_use", "phones_at_cap", "ratelimit"];

    /// The kind that an outcome also counts as.
    const fn of(outcome: UpgradeOutcome) -> Option<Self> {
        match outcome {
            UpgradeOutcome::Reject404 => Some(Self::NoServer),
            UpgradeOutcome::Reject409 => Some(Self::ServerInUse),
            UpgradeOutcome::Reject429 => Some(Self::PhonesAtCap),
            UpgradeOutcome::RejectRateLimit => Some(Self::RateLimit),
            UpgradeOutcome::Accept
            | UpgradeOutcome::RejectHeaders
            | UpgradeOutcome::RejectCapacity
            | UpgradeOutcome::RejectDraining
            | UpgradeOutcome::RejectForbidden
            | UpgradeOutcome::RejectBadRequest => None,
        }
    }
}

/// The outcomes of `push_wakes_total`, all of them there from the start; only the last one moves as long as the
/// relay cannot push.
const PUSH_OUTCOMES: [&str; 6] =
    ["sent", "unregistered", "send_failed", "token_fetch_failed", "dropped", "off"];

const DIRECTIONS: usize = Direction::ALL.len();
const ENDPOINTS: usize = Endpoint::ALL.len();
const REASONS: usize = DropReason::ALL.len();
const OUTCOMES: usize = UpgradeOutcome::ALL.len();
const CAUSES: usize = CloseCause::ALL.len();
const STAGES: usize = HandshakeStage::ALL.len();
const TABLES: usize = AddressTable::ALL.len();

/// Every family of PROTOCOL § 6 that has a source; implements [`Observer`].
#[derive(Debug)]
pub struct Families {
    registry: Registry,
    upgrades: [[IntCounter; OUTCOMES]; ENDPOINTS],
    register_failures: [IntCounter; RegisterFailure::NAMES.len()],
    forwarded: [IntCounter; DIRECTIONS],
    forwarded_bytes: [IntCounter; DIRECTIONS],
    latency: [Histogram; DIRECTIONS],
    dropped: [[IntCounter; REASONS]; DIRECTIONS],
    grace_expiries: IntCounter,
    reclaims: IntCounter,
    takeovers: IntCounter,
    evicted_phones: IntCounter,
    push_off: IntCounter,
    closed: [[IntCounter; CAUSES]; ENDPOINTS],
    queued_bytes: [IntGauge; ENDPOINTS],
    places: [IntGauge; ENDPOINTS],
    connections_limit: IntGauge,
    handshakes: IntGauge,
    handshakes_limit: IntGauge,
    handshake_failures: [IntCounter; STAGES],
    tls_handshakes: [IntCounter; 2],
    certificate_expiry: IntGauge,
    certificate_orders: [IntCounter; 2],
    reloads: [IntCounter; 2],
    tracked: [IntGauge; TABLES],
}

impl Families {
    /// Makes every family, with every series at 0. `census` is asked once per scrape.
    ///
    /// # Errors
    ///
    /// A name or a label is not valid or is used twice: a mistake in this file.
    #[expect(clippy::too_many_lines, reason = "a table, one entry for each family")]
    pub fn new(census: Arc<dyn Census>) -> Result<Self, Error> {
        let make = Maker::new();
        make.build_info()?;
        make.register(CensusGauges::new(census)?)?;
        #[cfg(target_os = "linux")]
        make.register(Process::of_this())?;

        let directions = Direction::ALL.map(Direction::as_str);
        let endpoints = Endpoint::ALL.map(Endpoint::as_str);
        let [.., push_off] = make.counters(
            "push_wakes_total",
            "Requests of binaries to wake a phone, by outcome. They are not frames and count in no other family. \
             Without push every one is \"off\".",
            "outcome",
            PUSH_OUTCOMES,
        )?;
        Ok(Self {
            upgrades: make.counter_grid(
                "ws_upgrade_attempts_total",
                "Requests to /v1/server, /v2/server, /v1/client and /v2/client, each once, by its final outcome. \
                 reject_404, reject_409 and reject_429 were upgraded first and then closed 4404, 4409 or 4429. \
                 Requests to other paths do not count.",
                ["endpoint", "outcome"],
                endpoints,
                UpgradeOutcome::ALL.map(UpgradeOutcome::as_str),
            )?,
            register_failures: make.counters(
                "register_failures_total",
                "Upgrade attempts that the registry or the rate limit refused, by kind; the same requests as \
                 outcome reject_404, reject_409, reject_429 and reject_rate_limit of ws_upgrade_attempts_total.",
                "kind",
                RegisterFailure::NAMES,
            )?,
            forwarded: make.counters(
                "frames_forwarded_total",
                "Frames written to the other side's socket, to the last byte, by direction. Not at enqueue, and \
                 never for a failed write or a close notice.",
                "direction",
                directions,
            )?,
            forwarded_bytes: make.counters(
                "forwarded_bytes_total",
                "Bytes of the frames in frames_forwarded_total, by direction: the frame itself, without envelope, \
                 WebSocket, TLS and TCP overhead.",
                "direction",
                directions,
            )?,
            latency: make.histograms(
                "forward_latency_seconds",
                "Seconds from the read of a frame's last byte to the hand-over of its last byte to the kernel, by \
                 direction; forwarded frames only. Time in the outbox counts, time on the network does not.",
                "direction",
                directions,
                &LATENCY_BUCKETS,
            )?,
            dropped: make.counter_grid(
                "frames_dropped_total",
                "Frames that were read and will never be delivered, each once, by direction and reason. Frames \
                 read = frames_forwarded_total + frames_dropped_total whenever nothing is queued.",
                ["direction", "reason"],
                directions,
                DropReason::ALL.map(DropReason::as_str),
            )?,
            grace_expiries: make.counter(
                "grace_expiries_total",
                "Server-ids given up because their binary did not come back within the grace period. A reclaim \
                 or a timer that was replaced does not count.",
            )?,
            reclaims: make.counter(
                "reclaims_total",
                "Binaries that came back to their server-id within the grace period.",
            )?,
            takeovers: make.counter(
                "takeovers_total",
                "Binaries that took their server-id from a connection that did not answer in time.",
            )?,
            evicted_phones: make.counter(
                "evicted_phones_total",
                "Phones closed 4404 because their binary's connection was replaced by a new one; they are \
                 expected to dial again.",
            )?,
            push_off,
            closed: make.counter_grid(
                "connections_closed_total",
                "WebSocket connections that ended, each once, by endpoint and the cause that came first. A \
                 connection that the registry refused after the upgrade counts here too.",
                ["endpoint", "cause"],
                endpoints,
                CloseCause::ALL.map(CloseCause::as_str),
            )?,
            queued_bytes: make.gauges(
                "queued_bytes",
                "Bytes charged to the outboxes towards the endpoint at this moment: frames that wait and frames \
                 that are being written.",
                "endpoint",
                endpoints,
            )?,
            places: make.gauges(
                "admitted_connections",
                "Connections that hold one of the places of connections_limit, by endpoint: WebSocket connections, from the \
                 decision to upgrade until the socket is closed.",
                "endpoint",
                endpoints,
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
            tracked: make.gauges(
                "tracked_addresses",
                "Client addresses (IPv6: their /64) that the relay keeps in mind, by table: those that asked for an upgrade \
                 a short while ago (upgrades, 65536 at most) and those that hold a connection (connections).",
                "table",
                AddressTable::ALL.map(AddressTable::as_str),
            )?,
            handshakes: make.gauge(
                "handshakes_in_progress",
                "Connections that were accepted and are not upgraded: those that ask for /healthz, too.",
            )?,
            handshake_failures: make.counters(
                "handshake_failures_total",
                "Connections that ended before the upgrade without an answer to any request, by stage: what came \
                 was no PROXY protocol header (proxy), no TLS handshake that could be made (tls) or no request (http), or \
                 nothing complete came before the time ran out or the place was needed (timeout).",
                "stage",
                HandshakeStage::ALL.map(HandshakeStage::as_str),
            )?,
            tls_handshakes: make.counters(
                "tls_handshakes_total",
                "TLS handshakes that were made, by kind: full, or resumed with a ticket that the client had kept. Those \
                 of a certificate authority do not count.",
                "kind",
                ["full", "resumed"],
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
            registry: make.into_registry(),
        })
    }

    /// Sets the limits that are in effect.
    pub fn limits(&self, connections: usize, handshakes: usize) {
        self.connections_limit.set(signed(connections));
        self.handshakes_limit.set(signed(handshakes));
    }

    /// The certificate that is shown from now on ends then.
    pub fn certificate_ends(&self, at: SystemTime) {
        let seconds = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        self.certificate_expiry.set(i64::try_from(seconds).unwrap_or(i64::MAX));
    }

    /// The authority was asked for a certificate.
    pub fn certificate_ordered(&self, issued: bool) {
        self.certificate_orders[usize::from(!issued)].inc();
    }

    /// The configuration was read again, and is in effect or was refused.
    pub fn reloaded(&self, ok: bool) {
        self.reloads[usize::from(!ok)].inc();
    }

    /// Every family as it is now, in the text format 0.0.4.
    ///
    /// Each series, the three gauges of the [`Census`] together, and each histogram are consistent in themselves.
    /// Families are read one after the other while traffic flows, so sums across families hold exactly only at
    /// a quiet moment.
    ///
    /// # Errors
    ///
    /// A family cannot be written in this format: a mistake in this file.
    pub fn encode(&self) -> Result<String, Error> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }
}

// Indexing by `as usize` below: the arrays are as long as the enums' `ALL`, which is in order of declaration
// (a test holds that), so no value can be out of bounds.
impl Observer for Families {
    fn frame_forwarded(&self, direction: Direction, bytes: usize, latency: Duration) {
        let direction = direction as usize;
        self.forwarded[direction].inc();
        self.forwarded_bytes[direction].inc_by(unsigned(bytes));
        self.latency[direction].observe(latency.as_secs_f64());
    }

    fn frame_dropped(&self, direction: Direction, reason: DropReason) {
        self.dropped[direction as usize][reason as usize].inc();
    }

    fn grace_expired(&self) {
        self.grace_expiries.inc();
    }

    fn reclaimed(&self) {
        self.reclaims.inc();
    }

    fn taken_over(&self) {
        self.takeovers.inc();
    }

    fn phones_evicted(&self, phones: usize) {
        self.evicted_phones.inc_by(unsigned(phones));
    }

    fn push_wake_off(&self) {
        self.push_off.inc();
    }

    fn handshake_began(&self) {
        self.handshakes.inc();
    }

    fn handshake_ended(&self, failed: Option<HandshakeStage>) {
        self.handshakes.dec();
        if let Some(stage) = failed {
            self.handshake_failures[stage as usize].inc();
        }
    }

    fn tls_handshake(&self, resumed: bool) {
        self.tls_handshakes[usize::from(resumed)].inc();
    }

    fn place_taken(&self, endpoint: Endpoint) {
        self.places[endpoint as usize].inc();
    }

    fn place_given_back(&self, endpoint: Endpoint) {
        self.places[endpoint as usize].dec();
    }

    fn address_tracked(&self, table: AddressTable) {
        self.tracked[table as usize].inc();
    }

    fn addresses_forgotten(&self, table: AddressTable, addresses: usize) {
        self.tracked[table as usize].sub(signed(addresses));
    }

    fn upgrade(&self, endpoint: Endpoint, outcome: UpgradeOutcome) {
        self.upgrades[endpoint as usize][outcome as usize].inc();
        if let Some(kind) = RegisterFailure::of(outcome) {
            self.register_failures[kind as usize].inc();
        }
    }

    fn connection_closed(&self, endpoint: Endpoint, cause: CloseCause) {
        self.closed[endpoint as usize][cause as usize].inc();
    }

    fn queued(&self, endpoint: Endpoint, bytes: usize) {
        self.queued_bytes[endpoint as usize].add(signed(bytes));
    }

    fn unqueued(&self, endpoint: Endpoint, bytes: usize) {
        self.queued_bytes[endpoint as usize].sub(signed(bytes));
    }
}

fn unsigned(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

fn signed(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_all_is_in_order_of_declaration() {
        assert!(Direction::ALL.iter().enumerate().all(|(at, value)| *value as usize == at));
        assert!(Endpoint::ALL.iter().enumerate().all(|(at, value)| *value as usize == at));
        assert!(DropReason::ALL.iter().enumerate().all(|(at, value)| *value as usize == at));
        assert!(UpgradeOutcome::ALL.iter().enumerate().all(|(at, value)| *value as usize == at));
        assert!(HandshakeStage::ALL.iter().enumerate().all(|(at, value)| *value as usize == at));
        assert!(AddressTable::ALL.iter().enumerate().all(|(at, value)| *value as usize == at));
        assert!(CloseCause::ALL.iter().enumerate().all(|(at, value)| *value as usize == at));
    }

    #[test]
    fn a_refusal_of_the_registry_or_the_rate_limit_has_its_kind() {
        let kind = |outcome| RegisterFailure::of(outcome).map(|kind| RegisterFailure::NAMES[kind as usize]);
        assert_eq!(kind(UpgradeOutcome::Reject404), Some("no_server"));
        assert_eq!(kind(UpgradeOutcome::Reject409), Some("server_in_use"));
        assert_eq!(kind(UpgradeOutcome::Reject429), Some("phones_at_cap"));
        assert_eq!(kind(UpgradeOutcome::RejectRateLimit), Some("ratelimit"));
        assert_eq!(UpgradeOutcome::ALL.into_iter().filter_map(kind).count(), RegisterFailure::NAMES.len());
    }
}
