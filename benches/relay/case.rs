//! What is played: plain data, which the driver hands to the generator as JSON.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// How the frames of a case are sent.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) enum Play {
    /// A phone sends, its binary sends the frame back, and the phone sends the next: so many at a time.
    Echo { in_flight: usize },
    /// The same, but so many in all, and the next is sent by the next phone.
    EchoInTurn { in_flight: usize },
    /// Phones send to their binaries as fast as it goes.
    FloodUp,
    /// Binaries send to their phones as fast as it goes.
    FloodDown,
    /// A phone of another server-id has one frame under way while phones send to their binaries as fast as it goes.
    Beside,
    /// So many frames a second, at fixed times, half of them up and half down.
    Open { rate: u32 },
    /// Every phone has one frame under way, and perhaps there is one that never reads, and gets as much as this.
    Slow { flood: Flood },
    /// So many connections come, say something, and go, twice.
    Idle { connections: usize },
    /// Phones connect and go again, so many at a time.
    Churn { under_way: usize },
}

/// What a phone that does not read gets.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Flood {
    /// There is no such phone.
    None,
    /// So many bytes of frames a second.
    Paced(u32),
    /// As much as its binary gets rid of.
    Full,
}

/// A case: what is connected, and what is played.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) play: Play,
    pub(crate) binaries: usize,
    /// Of each binary.
    pub(crate) phones: usize,
    /// Connections beside them that say nothing: binaries with sixteen phones each.
    pub(crate) neighbours: usize,
    /// Length of an inner frame in bytes.
    pub(crate) frame: usize,
    /// Whether the relay makes TLS itself. The yardstick never does.
    pub(crate) is_tls: bool,
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
    /// Its certificate in PEM, if it speaks TLS.
    pub(crate) certificate: Option<String>,
    pub(crate) pid: u32,
    pub(crate) warm_up: f64,
    pub(crate) seconds: f64,
}

/// Descriptors that the relay keeps for handshakes and for itself, and a few more.
const OTHER_DESCRIPTORS: usize = 512 + 64 + 64;

/// Phones of each binary among connections that say nothing.
pub(crate) const IDLE_PHONES: usize = 16;

/// What the names of the cases begin with that show how something grows. They are played when they are asked for.
pub(crate) const GROWTH: &str = "growth";

impl Case {
    fn new(name: impl Into<String>, play: Play) -> Self {
        let config = String::new();
        Self {
            name: name.into(),
            play,
            binaries: 4,
            phones: 4,
            neighbours: 0,
            frame: 256,
            is_tls: false,
            config,
        }
    }

    /// All of them, in the order of the table.
    pub(crate) fn all() -> Vec<Self> {
        let one = Play::Echo { in_flight: 1 };
        let eight = Play::Echo { in_flight: 8 };
        let mut all = vec![
            Self::new("one", one),
            Self::new("eight", eight),
            Self::new("flood-up", Play::FloodUp),
            Self::new("flood-down", Play::FloodDown),
            Self { frame: 64 * 1024, ..Self::new("large", one) },
            Self::new("open-2000", Play::Open { rate: 2_000 }),
            Self::new("open-10000", Play::Open { rate: 10_000 }),
            Self::new("open-30000", Play::Open { rate: 30_000 }),
            Self { phones: 0, ..Self::new("churn", Play::Churn { under_way: 1 }) },
            Self { binaries: 16, phones: 0, ..Self::new("churn-many", Play::Churn { under_way: 64 }) },
            Self::idle(4000),
            Self::idle(16000),
            Self { is_tls: true, ..Self::new("tls-one", one) },
            Self { is_tls: true, ..Self::new("tls-eight", eight) },
            Self { is_tls: true, frame: 64 * 1024, ..Self::new("tls-large", one) },
            Self { is_tls: true, phones: 0, ..Self::new("tls-churn", Play::Churn { under_way: 1 }) },
            Self { is_tls: true, name: "tls-idle-4000".to_owned(), ..Self::idle(4000) },
        ];
        let floods = [("none", Flood::None), ("paced", Flood::Paced(16 << 20)), ("full", Flood::Full)];
        for (name, flood) in floods {
            let name = format!("slow-{name}");
            all.push(Self { binaries: 9, phones: 11, ..Self::new(name, Play::Slow { flood }) });
        }
        all.push(Self { phones: 15, ..Self::new("beside-flood", Play::Beside) });
        for phones in [1, 2, 4, 8, 16] {
            let name = format!("{GROWTH}-phones-{phones}");
            all.push(Self { binaries: 1, phones, ..Self::new(name, one) });
        }
        for binaries in [1, 4, 16, 64, 256, 1024, 4000] {
            let name = format!("{GROWTH}-servers-{binaries}");
            let play = Play::EchoInTurn { in_flight: 16 };
            all.push(Self { binaries, phones: 1, ..Self::new(name, play) });
        }
        for neighbours in [0, 1000, 4000, 16000] {
            let case = Self { neighbours, ..Self::new(format!("{GROWTH}-idle-{neighbours}"), one) };
            all.push(Self { config: case.limit(), ..case });
        }
        for workers in [1, 2] {
            for (name, play) in [("one", one), ("eight", eight)] {
                let name = format!("{GROWTH}-workers-{workers}-{name}");
                let config = format!("[runtime]\nworkers = {workers}\n");
                all.push(Self { config, ..Self::new(name, play) });
            }
        }
        all
    }

    fn idle(connections: usize) -> Self {
        let case = Self::new(format!("idle-{connections}"), Play::Idle { connections });
        // So that it does not take half a minute until the relay has forgotten a binary.
        let config = format!("{}[session]\ngrace = \"1s\"\n", case.limit());
        Self { frame: 4096, config, ..case }
    }

    /// Connections at the same time.
    fn connections(&self) -> usize {
        let others = match self.play {
            Play::Idle { connections } => return connections,
            Play::Churn { under_way } => under_way,
            // The phone that does not read; the bystander and its binary.
            Play::Slow { .. } => 1,
            Play::Beside => 2,
            _ => 0,
        };
        let neighbours = self.neighbours.div_ceil(IDLE_PHONES + 1) * (IDLE_PHONES + 1);
        self.binaries * (1 + self.phones) + neighbours + others
    }

    /// What the relay's limit on connections must be. A tenth of it is kept for binaries, and they may be fewer than that.
    fn places(&self) -> usize {
        (self.connections() * 10).div_ceil(9)
    }

    fn limit(&self) -> String {
        format!("[limits]\nconnections = {}\n", self.places())
    }

    /// How many descriptors a process must be allowed to open for this case.
    pub(crate) fn descriptors(&self) -> u64 {
        (self.places() + OTHER_DESCRIPTORS) as u64
    }

    /// Why it cannot be played with so few.
    pub(crate) fn needs(&self, descriptors: u64) -> String {
        format!("needs {} descriptors, and there are {descriptors} (ulimit -Hn)", self.descriptors())
    }

    /// Whether somebody who asks for `wanted` means this case: by its name, or by the beginning that it shares with others.
    pub(crate) fn is_meant_by(&self, wanted: &str) -> bool {
        self.name.strip_prefix(wanted).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    }
}
