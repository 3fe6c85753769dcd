//! The figures of a relay, as one scrape has them.

use std::collections::BTreeMap;

/// One scrape.
#[derive(Debug, PartialEq)]
pub struct Metrics(BTreeMap<String, f64>);

impl Metrics {
    /// Reads a page.
    pub fn parse(text: &str) -> Self {
        let series = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).map(|line| {
            let (name, value) = line.rsplit_once(' ').expect("a value");
            (name.to_owned(), value.parse().expect("a number"))
        });
        Self(series.collect())
    }

    /// A series of ours, such as `frames_forwarded_total{direction="phone_to_binary"}`.
    ///
    /// # Panics
    /// When it is not there.
    pub fn get(&self, series: &str) -> f64 {
        let name = format!("pyrycode_relay_{series}");
        *self.0.get(&name).unwrap_or_else(|| panic!("{name} is not in the scrape"))
    }

    /// Frames forwarded in a direction.
    pub fn forwarded(&self, direction: &str) -> f64 {
        self.get(&format!("frames_forwarded_total{{direction=\"{direction}\"}}"))
    }

    /// Frames dropped in a direction for a reason.
    pub fn dropped(&self, direction: &str, reason: &str) -> f64 {
        self.get(&format!("frames_dropped_total{{direction=\"{direction}\",reason=\"{reason}\"}}"))
    }

    /// Frames dropped in a direction, for whatever reason.
    pub fn dropped_in_all(&self, direction: &str) -> f64 {
        let prefix = format!("pyrycode_relay_frames_dropped_total{{direction=\"{direction}\"");
        self.0.iter().filter(|(name, _)| name.starts_with(&prefix)).map(|(_, value)| value).sum()
    }

    /// Bytes in the outboxes towards an endpoint.
    pub fn queued(&self, endpoint: &str) -> f64 {
        self.get(&format!("queued_bytes{{endpoint=\"{endpoint}\"}}"))
    }

    /// Frames of a direction that were forwarded or dropped.
    pub fn settled(&self, direction: &str) -> f64 {
        self.forwarded(direction) + self.dropped_in_all(direction)
    }

    /// Connections closed for a cause.
    pub fn closed(&self, endpoint: &str, cause: &str) -> f64 {
        self.get(&format!("connections_closed_total{{cause=\"{cause}\",endpoint=\"{endpoint}\"}}"))
    }

    /// Upgrade requests with an outcome.
    pub fn upgrades(&self, endpoint: &str, outcome: &str) -> f64 {
        self.get(&format!("ws_upgrade_attempts_total{{endpoint=\"{endpoint}\",outcome=\"{outcome}\"}}"))
    }

    /// How often each outcome of an upgrade request was counted since `before`: `endpoint outcome count`.
    pub fn outcomes_since(&self, before: &Self) -> Vec<String> {
        let upgrades = self.since(before).into_iter().filter_map(|(name, count)| {
            let labels = name.strip_prefix("pyrycode_relay_ws_upgrade_attempts_total{endpoint=\"")?;
            let (endpoint, outcome) = labels.strip_suffix("\"}")?.split_once("\",outcome=\"")?;
            Some(format!("{endpoint} {outcome} {count}"))
        });
        upgrades.collect()
    }

    /// The series that changed since `before`, with by how much, except those that change by themselves.
    pub fn since(&self, before: &Self) -> BTreeMap<String, f64> {
        let moves = |name: &str| !name.starts_with("process_") && !name.contains("latency");
        self.0
            .iter()
            .filter(|(name, _)| moves(name))
            .map(|(name, value)| (name.clone(), value - before.0.get(name).copied().unwrap_or(0.0)))
            .filter(|(_, change)| change.abs() > f64::EPSILON)
            .collect()
    }
}
