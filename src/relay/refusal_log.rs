//! Lines about those who were upgraded and then refused: throttled over all of them together, because whoever is
//! refused may come back as often as it likes.

use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::close::CloseCause;
use crate::event::{self, Throttle};

/// At most one line of each kind in this time.
const INTERVAL: Duration = Duration::from_secs(1);

/// What was logged of refusals, and how long ago.
#[derive(Debug)]
pub(super) struct RefusalLog {
    conflicts: Mutex<Throttle>,
    phones: Mutex<Throttle>,
}

impl RefusalLog {
    pub(super) fn new() -> Self {
        Self { conflicts: Mutex::new(Throttle::new(INTERVAL)), phones: Mutex::new(Throttle::new(INTERVAL)) }
    }

    /// A binary found its server-id held.
    pub(super) fn conflict(&self, server_id: &str, remote: IpAddr, now: Instant) {
        if let Some(suppressed) = admit(&self.conflicts, now) {
            event::server_id_conflict(server_id, remote, suppressed);
        }
    }

    /// A phone was not registered.
    pub(super) fn phone(&self, server_id: &str, remote: IpAddr, cause: CloseCause, now: Instant) {
        if let Some(suppressed) = admit(&self.phones, now) {
            event::phone_refused(server_id, remote, cause, suppressed);
        }
    }
}

fn admit(throttle: &Mutex<Throttle>, now: Instant) -> Option<u64> {
    throttle.lock().unwrap_or_else(PoisonError::into_inner).admit(now)
}
