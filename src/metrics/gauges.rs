//! The gauges that are counted at scrape instead of kept up to date.

use std::collections::HashMap;
use std::sync::Arc;

use prometheus::Error;
use prometheus::core::{Collector, Desc};
use prometheus::proto::{Gauge, Metric, MetricFamily, MetricType};

use super::maker::NAMESPACE;
use crate::relay::observer::{Census, Counts};

/// Reads one figure out of a count.
type Figure = fn(&Counts) -> usize;

/// Name, help text, and where the value comes from.
const GAUGES: [(&str, &str, Figure); 3] = [
    (
        "connected_binaries",
        "Server-ids whose binary is connected at this moment. One in its grace period is not.",
        |counts| counts.connected_binaries,
    ),
    (
        "connected_phones",
        "Phones registered at this moment, including those whose binary is in its grace period.",
        |counts| counts.connected_phones,
    ),
    (
        "gracing_binaries",
        "Server-ids whose binary is gone and may still reclaim them, at this moment.",
        |counts| counts.gracing_binaries,
    ),
];

/// The gauges of registry state. A scrape asks the census once, so that the three are of one moment.
pub(super) struct CensusGauges {
    census: Arc<dyn Census>,
    descriptions: Vec<Desc>,
}

impl CensusGauges {
    pub(super) fn new(census: Arc<dyn Census>) -> Result<Self, Error> {
        let descriptions = GAUGES
            .iter()
            .map(|(name, help, _)| {
                Desc::new(format!("{NAMESPACE}_{name}"), (*help).to_owned(), Vec::new(), HashMap::new())
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { census, descriptions })
    }
}

impl Collector for CensusGauges {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let counts = self.census.count();
        GAUGES
            .iter()
            .map(|(name, help, figure)| {
                let mut gauge = Gauge::default();
                gauge.set_value(figure(&counts) as f64);
                let mut family = MetricFamily::default();
                family.set_name(format!("{NAMESPACE}_{name}"));
                family.set_help((*help).to_owned());
                family.set_field_type(MetricType::GAUGE);
                family.set_metric(vec![Metric::from_gauge(gauge)]);
                family
            })
            .collect()
    }
}
