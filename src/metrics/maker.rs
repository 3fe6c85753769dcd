//! Makes families in a registry and hands out one handle per series.

use prometheus::core::Collector;
use prometheus::{
    Error, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry,
};

/// What every name of the relay's own begins with, before an underscore.
pub(super) const NAMESPACE: &str = "pyrycode_relay";

/// The commit that the program was built from, given at build time.
const REVISION: Option<&str> = option_env!("PYRYCODE_RELAY_REVISION");

/// Makes, registers and binds.
pub(super) struct Maker(Registry);

impl Maker {
    pub(super) fn new() -> Self {
        Self(Registry::new())
    }

    /// The registry with everything that was made.
    pub(super) fn into_registry(self) -> Registry {
        self.0
    }

    fn opts(name: &str, help: &str) -> Opts {
        Opts::new(name, help).namespace(NAMESPACE)
    }

    /// Adds a collector of another kind.
    pub(super) fn register(&self, collector: impl Collector + 'static) -> Result<(), Error> {
        self.0.register(Box::new(collector))
    }

    /// The family that says what runs.
    pub(super) fn build_info(&self) -> Result<(), Error> {
        let opts = Self::opts(
            "build_info",
            "Always 1; the labels say which version runs and which commit it was built from.",
        )
        .const_label("version", env!("CARGO_PKG_VERSION"))
        .const_label("revision", REVISION.unwrap_or("unknown"));
        let gauge = IntGauge::with_opts(opts)?;
        gauge.set(1);
        self.register(gauge)
    }

    /// One counter without labels.
    pub(super) fn counter(&self, name: &str, help: &str) -> Result<IntCounter, Error> {
        let counter = IntCounter::with_opts(Self::opts(name, help))?;
        self.register(counter.clone())?;
        Ok(counter)
    }

    /// One counter per value of a label.
    pub(super) fn counters<const N: usize>(
        &self,
        name: &str,
        help: &str,
        label: &str,
        values: [&str; N],
    ) -> Result<[IntCounter; N], Error> {
        let family = IntCounterVec::new(Self::opts(name, help), &[label])?;
        self.register(family.clone())?;
        Ok(values.map(|value| family.with_label_values(&[value])))
    }

    /// One counter per pair of values of two labels: a row per value of the first.
    pub(super) fn counter_grid<const A: usize, const B: usize>(
        &self,
        name: &str,
        help: &str,
        labels: [&str; 2],
        rows: [&str; A],
        columns: [&str; B],
    ) -> Result<[[IntCounter; B]; A], Error> {
        let family = IntCounterVec::new(Self::opts(name, help), &labels)?;
        self.register(family.clone())?;
        Ok(rows.map(|row| columns.map(|column| family.with_label_values(&[row, column]))))
    }

    /// One gauge, at 0.
    pub(super) fn gauge(&self, name: &str, help: &str) -> Result<IntGauge, Error> {
        let gauge = IntGauge::with_opts(Self::opts(name, help))?;
        self.register(gauge.clone())?;
        Ok(gauge)
    }

    /// One gauge per value of a label.
    pub(super) fn gauges<const N: usize>(
        &self,
        name: &str,
        help: &str,
        label: &str,
        values: [&str; N],
    ) -> Result<[IntGauge; N], Error> {
        let family = IntGaugeVec::new(Self::opts(name, help), &[label])?;
        self.register(family.clone())?;
        Ok(values.map(|value| family.with_label_values(&[value])))
    }

    /// One histogram per value of a label, with these upper bounds.
    pub(super) fn histograms<const N: usize>(
        &self,
        name: &str,
        help: &str,
        label: &str,
        values: [&str; N],
        buckets: &[f64],
    ) -> Result<[Histogram; N], Error> {
        let opts = HistogramOpts::from(Self::opts(name, help)).buckets(buckets.to_vec());
        let family = HistogramVec::new(opts, &[label])?;
        self.register(family.clone())?;
        Ok(values.map(|value| family.with_label_values(&[value])))
    }
}
