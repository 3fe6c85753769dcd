//! What is played: plain data, which the driver hands to the generator as JSON.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// How the frames of a case are sent.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) enum Play {
    /// A phone sends, its binary sends the frame back, and the phone sends the next: so many at a time.
    Echo { in_flight: usize },
    /// Phones send to their binaries as fast as it goes.
    FloodUp,
    /// Binaries send to their phones as fast as it goes.
    FloodDown,
    /// So many connections come, say something, and go, twice.
    Idle { connections: usize },
    /// Phones connect and go again, so many at a time.
    Churn { under_way: usize },
}

/// A case: what is connected, and what is played.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) play: Play,
    pub(crate) binaries: usize,
    /// Of each binary.
    pub(crate) phones: usize,
    /// Length of an inner frame in bytes.
    pub(crate) frame: usize,
    /// What the relay's configuration needs beyond its listeners.
    pub(crate) config: String,
}

/// Where and how long.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) case: Case,
    pub(crate) address: SocketAddr,
    /// Where the program under test has metrics, if it has.
    pub(crate) metrics: Option<SocketAddr>,
    pub(crate) pid: u32,
    pub(crate) warm_up: f64,
    pub(crate) seconds: f64,
}

/// Descriptors that the relay keeps for handshakes and for itself, and a few more.
const OTHER_DESCRIPTORS: u64 = 512 + 64 + 64;

impl Case {
    fn new(name: &str, play: Play) -> Self {
        Self { name: name.to_owned(), play, binaries: 4, phones: 4, frame: 256, config: String::new() }
    }

    /// All of them, in the order of the table.
    pub(crate) fn all(descriptors: u64) -> Vec<Self> {
        vec![
            Self::new("one", Play::Echo { in_flight: 1 }),
            Self::new("eight", Play::Echo { in_flight: 8 }),
            Self::new("flood-up", Play::FloodUp),
            Self::new("flood-down", Play::FloodDown),
            Self { frame: 64 * 1024, ..Self::new("large", Play::Echo { in_flight: 1 }) },
            Self { phones: 0, ..Self::new("churn", Play::Churn { under_way: 1 }) },
            Self { binaries: 16, phones: 0, ..Self::new("churn-many", Play::Churn { under_way: 64 }) },
            Self::idle(4000, descriptors),
            Self::idle(16000, descriptors),
        ]
    }

    /// As many connections as wanted, or as descriptors allow. The default limits would refuse them.
    fn idle(wanted: u64, descriptors: u64) -> Self {
        let limit = descriptors.saturating_sub(OTHER_DESCRIPTORS);
        // A tenth of the limit is kept for binaries, who are fewer than that here.
        let connections = wanted.min(limit * 9 / 10);
        let limit = limit.min(connections * 5 / 4);
        Self {
            frame: 4096,
            config: format!("[limits]\nconnections = {limit}\n[session]\ngrace = \"1s\"\n"),
            ..Self::new(
                &format!("idle-{wanted}"),
                Play::Idle { connections: usize::try_from(connections).unwrap_or(usize::MAX) },
            )
        }
    }
}
