//! Lines about those who were upgraded and then refused: throttled over all of them together, because whoever is
//! refused may come back as often as it likes.

use std::net::IpAddr;
use std::time::Instant;

use super::close::CloseCause;
use crate::event::{self, SharedThrottle};

/// What was logged of refusals, and how long ago: at most one line of each kind in a second.
#[derive(Debug)]
pub(super) struct RefusalLog {
    conflicts: SharedThrottle,
    phones: SharedThrottle,
}

impl RefusalLog {
    pub(super) fn new() -> Self {
        Self { conflicts: SharedThrottle::each_second(), phones: SharedThrottle::each_second() }
    }

    /// A binary found its server-id held.
    pub(super) fn conflict(&self, server_id: &str, remote: IpAddr, now: Instant) {
        if let Some(suppressed) = self.conflicts.admit(now) {
            event::server_id_conflict(server_id, remote, suppressed);
        }
    }

    /// A phone was not registered.
    pub(super) fn phone(&self, server_id: &str, remote: IpAddr, cause: CloseCause, now: Instant) {
        if let Some(suppressed) = self.phones.admit(now) {
            event::phone_refused(server_id, remote, cause, suppressed);
        }
    }
}
