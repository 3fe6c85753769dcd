//! What every session of a relay has in common.

use std::sync::Arc;
use std::time::Instant;

use super::budget::Budget;
use super::clock::Clock;
use super::observer::{Endpoint, Observer};
use super::outbox::Outbox;
use super::settings::Settings;

/// Settings, clock, budget, and whom to tell.
pub struct Shared {
    /// What is configured.
    pub settings: Settings,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// Who is told what happens.
    pub observer: Arc<dyn Observer>,
    /// What all outboxes may hold together.
    pub budget: Arc<Budget>,
}

impl Shared {
    /// For sessions under `settings`, with a budget of their own.
    #[must_use]
    pub fn new(settings: Settings, observer: Arc<dyn Observer>, clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self { settings, clock, observer, budget: Arc::new(Budget::new(settings.all_queues)) })
    }

    /// What time it is.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.clock.now()
    }

    /// An outbox towards a connection of `endpoint`.
    pub(super) fn outbox(&self, endpoint: Endpoint) -> Arc<Outbox> {
        let limit = match endpoint {
            Endpoint::Server => self.settings.binary_queue,
            Endpoint::Client => self.settings.phone_queue,
        };
        Arc::new(Outbox::new(endpoint, limit, Arc::clone(&self.budget), Arc::clone(&self.observer)))
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("settings", &self.settings)
            .field("budget", &self.budget)
            .finish_non_exhaustive()
    }
}
