//! Lines about those who were refused before their upgrade: each kind throttled over all clients together, because a flood
//! of requests must not become a flood of lines.

use std::net::IpAddr;
use std::time::Instant;

use super::connections::Limit;
use crate::event::{self, SharedThrottle};

/// What was logged of refusals, and how long ago: at most one line of each kind in a second.
#[derive(Debug)]
pub struct RefusalLines {
    rate: SharedThrottle,
    capacity: [SharedThrottle; 3],
    unusable: SharedThrottle,
    forbidden: SharedThrottle,
}

impl Default for RefusalLines {
    fn default() -> Self {
        Self {
            rate: SharedThrottle::each_second(),
            capacity: [const { SharedThrottle::each_second() }; 3],
            unusable: SharedThrottle::each_second(),
            forbidden: SharedThrottle::each_second(),
        }
    }
}

impl RefusalLines {
    /// A client asked too often.
    pub fn rate_limited(&self, remote: IpAddr, now: Instant) {
        if let Some(suppressed) = self.rate.admit(now) {
            event::rate_limited(remote, suppressed);
        }
    }

    /// A limit was reached. Each has a throttle of its own: one that is reached all the time must not hide another.
    pub fn capacity(&self, limit: Limit, remote: IpAddr, now: Instant) {
        let [total, per_address, handshakes] = &self.capacity;
        let throttle = match limit {
            Limit::Total => total,
            Limit::PerAddress => per_address,
            Limit::Handshakes => handshakes,
        };
        if let Some(suppressed) = throttle.admit(now) {
            event::capacity_reached(limit.key(), remote, suppressed);
        }
    }

    /// A proxy did not say whose request it passed on.
    pub fn unusable(&self, remote: IpAddr, cause: &'static str, now: Instant) {
        if let Some(suppressed) = self.unusable.admit(now) {
            event::client_address_unusable(remote, cause, suppressed);
        }
    }

    /// A server-id is not on the access list.
    pub fn forbidden(&self, server_id: &str, remote: IpAddr, now: Instant) {
        if let Some(suppressed) = self.forbidden.admit(now) {
            event::server_id_forbidden(server_id, remote, suppressed);
        }
    }
}
