//! What the relay is configured to do, as far as it concerns the core.

use std::time::Duration;

/// The core's settings, fixed at start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How long a disconnected binary's slot waits for it.
    pub grace: Duration,
    /// How long a connection may be silent before it is pinged.
    pub ping_interval: Duration,
    /// How long a ping may stay unanswered.
    pub pong_timeout: Duration,
    /// How long the holder of a server-id may take to answer when another binary claims it.
    pub conflict_probe: Duration,
    /// How long a message may take from its first byte to its last.
    pub message_timeout: Duration,
    /// How long a write may make no progress.
    pub write_timeout: Duration,
    /// Phones for each server-id.
    pub phones_per_server: usize,
    /// Bytes in the largest inner frame, both directions.
    pub max_frame: usize,
    /// Bytes that may wait for one phone.
    pub phone_queue: usize,
    /// Bytes that may wait for one binary.
    pub binary_queue: usize,
    /// Bytes that may wait for everybody together.
    pub all_queues: usize,
}

impl Settings {
    /// The built-in defaults.
    pub const DEFAULT: Self = Self {
        grace: Duration::from_secs(30),
        ping_interval: Duration::from_secs(30),
        pong_timeout: Duration::from_secs(30),
        conflict_probe: Duration::from_secs(10),
        message_timeout: Duration::from_secs(30),
        write_timeout: Duration::from_secs(10),
        phones_per_server: 16,
        max_frame: 256 * 1024,
        phone_queue: 4 * 1024 * 1024,
        binary_queue: 4 * 1024 * 1024,
        all_queues: 256 * 1024 * 1024,
    };

    /// How long a peer may acknowledge nothing before the kernel may give its connection up: no less than a peer that is
    /// alive and says nothing, or takes nothing, is given.
    #[must_use]
    pub fn dead_after(&self) -> Duration {
        self.silence().max(self.write_timeout)
    }

    /// How long a connection can go on without its peer.
    #[must_use]
    pub fn silence(&self) -> Duration {
        self.ping_interval + self.pong_timeout
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self::DEFAULT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_is_no_less_patient_than_the_relay() {
        assert_eq!(Settings::DEFAULT.dead_after(), Duration::from_secs(60));
        let write_timeout = Duration::from_secs(61);
        assert_eq!(Settings { write_timeout, ..Settings::DEFAULT }.dead_after(), write_timeout);
    }
}
