//! Lines about those who were refused before their upgrade: each kind throttled over all clients together, because a flood
//! of requests must not become a flood of lines.

use std::net::IpAddr;
use std::time::Instant;

use crate::event::{self, SharedThrottle};

/// What was logged of refusals, and how long ago: at most one line of each kind in a second.
#[derive(Debug)]
pub struct RefusalLines {
    rate: SharedThrottle,
    capacity: SharedThrottle,
    unusable: SharedThrottle,
    forbidden: SharedThrottle,
}

impl Default for RefusalLines {
    fn default() -> Self {
        Self {
            rate: SharedThrottle::each_second(),
            capacity: SharedThrottle::each_second(),
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

    /// The limit of this name was reached.
    pub fn capacity(&self, limit: &'static str, remote: IpAddr, now: Instant) {
        if let Some(suppressed) = self.capacity.admit(now) {
            event::capacity_reached(limit, remote, suppressed);
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
