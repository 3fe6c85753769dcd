//! The client library's figures about the process, with its start also where the library cannot know it.
//!
//! The library reads the start in clock ticks since the boot, and the boot's time in `/proc/stat`. The shipped unit keeps
//! everything of `/proc` from the service that is not a process (`ProcSubset=pid`), and the library says 0 then. The
//! collector is made when the process has just begun, so that the time then is as good.

use std::time::SystemTime;

use prometheus::core::{Collector, Desc};
use prometheus::process_collector::ProcessCollector;
use prometheus::proto::{Gauge, Metric, MetricFamily};

use super::service::since_1970;

const START: &str = "process_start_time_seconds";

/// Collects what the library does.
pub(super) struct Process {
    library: ProcessCollector,
    /// Whole seconds, as the library has them.
    made: i64,
}

impl Process {
    /// Of the process that calls, which should not have run for long.
    pub(super) fn of_this() -> Self {
        Self { library: ProcessCollector::for_self(), made: since_1970(SystemTime::now()) }
    }
}

impl Collector for Process {
    fn desc(&self) -> Vec<&Desc> {
        self.library.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut families = self.library.collect();
        for family in &mut families {
            complete(family, self.made);
        }
        families
    }
}

/// Puts `started` where the start is unknown.
fn complete(family: &mut MetricFamily, started: i64) {
    let is_unknown = |metric: &Metric| metric.get_gauge().get_value() <= 0.0;
    if family.name() == START && family.get_metric().iter().all(is_unknown) {
        let mut gauge = Gauge::default();
        gauge.set_value(started as f64);
        family.set_metric(vec![Metric::from_gauge(gauge)]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In whole seconds, as everything here.
    fn start_of(families: &[MetricFamily]) -> i64 {
        let family = families.iter().find(|family| family.name() == START).unwrap();
        let value = family.get_metric()[0].get_gauge().get_value();
        format!("{value}").parse().unwrap()
    }

    #[test]
    fn an_unknown_start_is_when_the_collector_was_made() {
        let process = Process::of_this();
        let mut families = process.library.collect();
        let known = start_of(&families);
        for family in &mut families {
            complete(family, 7);
        }
        assert!(known > 0);
        assert_eq!(start_of(&families), known);

        for family in families.iter_mut().filter(|family| family.name() == START) {
            family.set_metric(vec![Metric::from_gauge(Gauge::default())]);
        }
        let others = families.len();
        for family in &mut families {
            complete(family, process.made);
        }
        assert_eq!(start_of(&families), process.made);
        assert_eq!(families.len(), others);
        // Whole seconds of two clocks; tests of one program may have run before this one.
        assert!((known - 2..known + 600).contains(&process.made), "{} {known}", process.made);
    }
}
