//! Every family of figures, and the observer that moves them.
//!
//! [`Families`] owns a registry of its own and holds one handle per series, bound at construction in arrays that
//! are indexed by the labels' enums. An observed fact is therefore an atomic add or a few: no lock, no map, no
//! allocation; and every series is there, at 0, from the first scrape. Labels come from closed sets only
//! (PROTOCOL § 6). No thread is started; [`super::server`] scrapes from its own.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use prometheus::{Error, Registry, TextEncoder};

use super::connections::{Connections, RegisterFailure};
use super::frames::Frames;
use super::gauges::CensusGauges;
use super::maker::Maker;
use super::service::{Service, since_1970};
use crate::relay::close::CloseCause;
use crate::relay::observer::{
    AddressTable, Census, Direction, DropReason, Endpoint, HandshakeStage, Observer, UpgradeOutcome,
};

/// Every family of PROTOCOL § 6 that has a source; implements [`Observer`].
#[derive(Debug)]
pub struct Families {
    registry: Registry,
    frames: Frames,
    connections: Connections,
    service: Service,
}

impl Families {
    /// Makes every family, with every series at 0. `census` is asked once per scrape.
    ///
    /// # Errors
    ///
    /// A name or a label is not valid or is used twice: a mistake in this module.
    pub fn new(census: Arc<dyn Census>) -> Result<Self, Error> {
        let make = Maker::new();
        make.register(CensusGauges::new(census)?)?;
        let frames = Frames::new(&make)?;
        let connections = Connections::new(&make)?;
        let service = Service::new(&make)?;
        Ok(Self { registry: make.into_registry(), frames, connections, service })
    }

    /// The relay serves from now on, or no more.
    pub fn ready(&self, ready: bool) {
        self.service.ready.set(i64::from(ready));
    }

    /// Sets the limits that are in effect.
    pub fn limits(&self, connections: usize, handshakes: usize) {
        self.service.connections_limit.set(signed(connections));
        self.service.handshakes_limit.set(signed(handshakes));
    }

    /// Sets the limit on what all queues hold together.
    pub fn queues_limit(&self, bytes: usize) {
        self.service.queued_bytes_limit.set(signed(bytes));
    }

    /// Whether the relay speaks TLS itself.
    pub fn speaks_tls(&self, speaks: bool) {
        self.service.certificate_wanted.set(i64::from(speaks));
    }

    /// The certificate that is shown from now on ends then.
    pub fn certificate_ends(&self, at: SystemTime) {
        self.service.certificate_expiry.set(since_1970(at));
    }

    /// The authority was asked for a certificate.
    pub fn certificate_ordered(&self, issued: bool) {
        self.service.certificate_orders[usize::from(!issued)].inc();
    }

    /// The configuration was read again, and is in effect or was refused.
    pub fn reloaded(&self, ok: bool) {
        self.service.reloads[usize::from(!ok)].inc();
    }

    /// Every family as it is now, in the text format 0.0.4.
    ///
    /// Each series, the three gauges of the [`Census`] together, and each histogram are consistent in themselves.
    /// Families are read one after the other while traffic flows, so sums across families hold exactly only at
    /// a quiet moment.
    ///
    /// # Errors
    ///
    /// A family cannot be written in this format: a mistake in this module.
    pub fn encode(&self) -> Result<String, Error> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }
}

// Indexing by `as usize` below: the arrays are as long as the enums' `ALL`, which is in order of declaration
// (a test holds that), so no value can be out of bounds.
impl Observer for Families {
    fn frame_forwarded(&self, direction: Direction, bytes: usize, latency: Duration) {
        let direction = direction as usize;
        self.frames.forwarded[direction].inc();
        self.frames.forwarded_bytes[direction].inc_by(unsigned(bytes));
        self.frames.latency[direction].observe(latency.as_secs_f64());
    }

    fn frames_forwarded(&self, direction: Direction, frames: &mut dyn Iterator<Item = (usize, Duration)>) {
        let Some((bytes, latency)) = frames.next() else { return };
        match frames.next() {
            None => self.frame_forwarded(direction, bytes, latency),
            Some(second) => {
                let mut all = [(bytes, latency), second].into_iter().chain(frames);
                self.frames.forward(direction as usize, &mut all);
            }
        }
    }

    fn frame_dropped(&self, direction: Direction, reason: DropReason) {
        self.frames.dropped[direction as usize][reason as usize].inc();
    }

    fn grace_expired(&self) {
        self.connections.grace_expiries.inc();
    }

    fn reclaimed(&self) {
        self.connections.reclaims.inc();
    }

    fn taken_over(&self) {
        self.connections.takeovers.inc();
    }

    fn phones_evicted(&self, phones: usize) {
        self.connections.evicted_phones.inc_by(unsigned(phones));
    }

    fn push_wake_off(&self) {
        self.frames.push_off.inc();
    }

    fn handshake_began(&self) {
        self.connections.handshakes.inc();
    }

    fn handshake_ended(&self, failed: Option<HandshakeStage>) {
        self.connections.handshakes.dec();
        if let Some(stage) = failed {
            self.connections.handshake_failures[stage as usize].inc();
        }
    }

    fn tls_handshake(&self, resumed: bool) {
        self.connections.tls_handshakes[usize::from(resumed)].inc();
    }

    fn place_taken(&self, endpoint: Endpoint) {
        self.connections.places[endpoint as usize].inc();
    }

    fn place_given_back(&self, endpoint: Endpoint) {
        self.connections.places[endpoint as usize].dec();
    }

    fn address_tracked(&self, table: AddressTable) {
        self.connections.tracked[table as usize].inc();
    }

    fn addresses_forgotten(&self, table: AddressTable, addresses: usize) {
        self.connections.tracked[table as usize].sub(signed(addresses));
    }

    fn upgrade(&self, endpoint: Endpoint, outcome: UpgradeOutcome) {
        self.connections.upgrades[endpoint as usize][outcome as usize].inc();
        if let Some(kind) = RegisterFailure::of(outcome) {
            self.connections.register_failures[kind as usize].inc();
        }
    }

    fn connection_closed(&self, endpoint: Endpoint, cause: CloseCause) {
        self.connections.closed[endpoint as usize][cause as usize].inc();
    }

    fn queued(&self, endpoint: Endpoint, bytes: usize) {
        self.frames.queued_bytes[endpoint as usize].add(signed(bytes));
    }

    fn unqueued(&self, endpoint: Endpoint, bytes: usize) {
        self.frames.queued_bytes[endpoint as usize].sub(signed(bytes));
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
}
