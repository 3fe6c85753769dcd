//! A window of time, and what the program under test and this one used in it.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::Figures;
use crate::Result;
use crate::case::Order;
use crate::process::Scheduled;

/// Tells when to measure.
pub(crate) struct Meter<'a> {
    order: &'a Order,
    begins: Instant,
    ends: Instant,
    begun: Option<Begun>,
}

struct Begun {
    at: Instant,
    program: Scheduled,
    own: Scheduled,
    count: u64,
}

impl<'a> Meter<'a> {
    /// The warm-up begins now.
    pub(crate) fn start(order: &'a Order) -> Self {
        let begins = Instant::now() + Duration::from_secs_f64(order.warm_up);
        Self { order, begins, ends: begins + Duration::from_secs_f64(order.seconds), begun: None }
    }

    /// Whether the window is open.
    pub(crate) fn is_open(&self) -> bool {
        self.begun.is_some()
    }

    fn scheduled(&self) -> Result<(Scheduled, Scheduled)> {
        Ok((Scheduled::of(self.order.pid)?, Scheduled::of(std::process::id())?))
    }

    /// To be called often, with how much has been done so far: opens the window when it is time, and gives the figures when it
    /// is over: `cpu_us` for each of what was done, and `per_s`.
    pub(crate) fn look(&mut self, now: Instant, count: u64) -> Result<Option<Figures>> {
        if now < self.begins {
            return Ok(None);
        }
        let Some(begun) = &self.begun else {
            let (program, own) = self.scheduled()?;
            self.begun = Some(Begun { at: Instant::now(), program, own, count });
            return Ok(None);
        };
        if now < self.ends {
            return Ok(None);
        }
        let (program, own) = self.scheduled()?;
        let nanos = begun.at.elapsed().as_nanos() as f64;
        let (busy, waited) = program.since(begun.program, nanos);
        let (generator_busy, generator_waited) = own.since(begun.own, nanos);
        let done = (count - begun.count) as f64;
        if done < 1.0 {
            return Err("nothing was done in the whole window".into());
        }
        Ok(Some(Figures::from([
            ("cpu_us".to_owned(), busy * nanos / done / 1e3),
            ("per_s".to_owned(), done / nanos * 1e9),
            ("busy".to_owned(), busy),
            ("waited".to_owned(), waited),
            ("generator_busy".to_owned(), generator_busy),
            ("generator_waited".to_owned(), generator_waited),
        ])))
    }
}

/// Durations in a histogram, up to a minute, exact to three digits.
pub(crate) struct Durations(Histogram<u64>);

impl Durations {
    pub(crate) fn new() -> Result<Self> {
        Ok(Self(Histogram::new_with_bounds(1, 60_000_000_000, 3)?))
    }

    #[inline]
    pub(crate) fn record(&mut self, duration: Duration) -> Result<()> {
        Ok(self.0.record(u64::try_from(duration.as_nanos())?)?)
    }

    /// Adds their quantiles, in microseconds.
    pub(crate) fn add_quantiles(&self, figures: &mut Figures) {
        for (name, quantile) in [("p50_us", 0.5), ("p99_us", 0.99), ("p999_us", 0.999)] {
            if !self.0.is_empty() {
                figures.insert(name.to_owned(), self.0.value_at_quantile(quantile) as f64 / 1e3);
            }
        }
    }
}
