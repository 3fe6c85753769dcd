//! The families of connections: how they come in, how they end, and what becomes of server-ids.

use prometheus::{Error, IntCounter, IntGauge};

use super::maker::Maker;
use crate::relay::close::CloseCause;
use crate::relay::observer::{AddressTable, Endpoint, HandshakeStage, UpgradeOutcome};

/// The kinds of `register_failures_total`.
#[derive(Clone, Copy)]
pub(super) enum RegisterFailure {
    NoServer,
    ServerInUse,
    PhonesAtCap,
    RateLimit,
}

impl RegisterFailure {
    pub(super) const NAMES: [&'static str; 4] = ["no_server", "server_in_use", "phones_at_cap", "ratelimit"];

    /// The kind that an outcome also counts as.
    pub(super) const fn of(outcome: UpgradeOutcome) -> Option<Self> {
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

const ENDPOINTS: usize = Endpoint::ALL.len();
const OUTCOMES: usize = UpgradeOutcome::ALL.len();
const CAUSES: usize = CloseCause::ALL.len();
const STAGES: usize = HandshakeStage::ALL.len();
const TABLES: usize = AddressTable::ALL.len();

/// One handle per series.
#[derive(Debug)]
pub(super) struct Connections {
    pub(super) upgrades: [[IntCounter; OUTCOMES]; ENDPOINTS],
    pub(super) register_failures: [IntCounter; RegisterFailure::NAMES.len()],
    pub(super) closed: [[IntCounter; CAUSES]; ENDPOINTS],
    pub(super) places: [IntGauge; ENDPOINTS],
    pub(super) tracked: [IntGauge; TABLES],
    pub(super) handshakes: IntGauge,
    pub(super) handshake_failures: [IntCounter; STAGES],
    pub(super) tls_handshakes: [IntCounter; 2],
    pub(super) grace_expiries: IntCounter,
    pub(super) reclaims: IntCounter,
    pub(super) takeovers: IntCounter,
    pub(super) evicted_phones: IntCounter,
}

impl Connections {
    pub(super) fn new(make: &Maker) -> Result<Self, Error> {
        let endpoints = Endpoint::ALL.map(Endpoint::as_str);
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
            closed: make.counter_grid(
                "connections_closed_total",
                "WebSocket connections that ended, each once, by endpoint and the cause that came first. A \
                 connection that the registry refused after the upgrade counts here too.",
                ["endpoint", "cause"],
                endpoints,
                CloseCause::ALL.map(CloseCause::as_str),
            )?,
            places: make.gauges(
                "admitted_connections",
                "Connections that hold one of the places of connections_limit, by endpoint: WebSocket connections, from the \
                 decision to upgrade until the socket is closed.",
                "endpoint",
                endpoints,
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
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
