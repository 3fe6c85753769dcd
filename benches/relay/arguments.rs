//! The command line.

use std::path::PathBuf;

use clap::Parser;

use crate::Result;
use crate::case::{Case, GROWTH};

/// Compares the relay with a bare event loop, case by case.
#[derive(Parser)]
#[command(
    name = "bench",
    override_usage = "cargo bench --bench relay -- [CASE]... [--list] [--runs N] [--seconds S] [--warm-up S] \
                      [--program PATH] [--against PATH] [--batching] [--json FILE]"
)]
pub(crate) struct Arguments {
    /// The cases to play, or what the names of several begin with, such as `tls` or `growth`; without any, all but those of
    /// `growth`. `--list` names them.
    #[arg(value_name = "CASE")]
    pub(crate) cases: Vec<String>,
    /// Names the cases and ends.
    #[arg(long)]
    pub(crate) list: bool,
    /// How often each case is played.
    #[arg(long, value_name = "N", default_value_t = 5, allow_negative_numbers = true,
          value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) runs: u32,
    /// How long a run is measured, in seconds.
    #[arg(long, value_name = "S", default_value_t = 1.5, allow_negative_numbers = true, value_parser = seconds)]
    pub(crate) seconds: f64,
    /// How long a run goes before it is measured, in seconds.
    #[arg(long, value_name = "S", default_value_t = 0.3, allow_negative_numbers = true, value_parser = seconds)]
    pub(crate) warm_up: f64,
    /// The relay to measure, in place of the one that was just built.
    #[arg(long, value_name = "PATH", default_value = env!("CARGO_BIN_EXE_pyrycode-relay"))]
    pub(crate) program: PathBuf,
    /// Another relay to measure beside it.
    #[arg(long, value_name = "PATH")]
    pub(crate) against: Option<PathBuf>,
    /// The yardstick writes once to each receiver for all that a wait brought, as the relay does; without this, after each read.
    #[arg(long)]
    pub(crate) batching: bool,
    /// Writes the figures of every run to this file, as JSON.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// What cargo passes.
    #[arg(long, hide = true)]
    pub(crate) bench: bool,
}

impl Arguments {
    /// The cases that were asked for, in the order of the table. One that needs more descriptors than there are is refused if it
    /// was asked for by its whole name.
    pub(crate) fn chosen(&self, all: Vec<Case>, descriptors: u64) -> Result<Vec<Case>> {
        let names: Vec<_> = all.iter().map(|case| case.name.clone()).collect();
        let is_unknown = |wanted: &&String| !all.iter().any(|case| case.is_meant_by(wanted));
        if let Some(unknown) = self.cases.iter().find(is_unknown) {
            return Err(format!("there is no case {unknown:?}; there are: {}", names.join(", ")).into());
        }
        let is_chosen = |case: &Case| match self.cases.as_slice() {
            [] => !case.is_meant_by(GROWTH),
            cases => cases.iter().any(|wanted| case.is_meant_by(wanted)),
        };
        let chosen: Vec<_> = all.into_iter().filter(is_chosen).collect();
        let is_too_large = |case: &&Case| case.descriptors() > descriptors;
        let is_named = |case: &&Case| self.cases.contains(&case.name);
        if let Some(case) = chosen.iter().find(|case| is_named(case) && is_too_large(case)) {
            return Err(format!("{} {}", case.name, case.needs(descriptors)).into());
        }
        match chosen.first() {
            Some(case) if chosen.iter().all(|case| is_too_large(&case)) => {
                Err(format!("there is nothing to play: {} {}", case.name, case.needs(descriptors)).into())
            }
            _ => Ok(chosen),
        }
    }
}

fn seconds(text: &str) -> std::result::Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.05..=600.0).contains(&seconds) => Ok(seconds),
        _ => Err("a number of seconds from 0.05 to 600".to_owned()),
    }
}
