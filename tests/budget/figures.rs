//! The figures of one direction, for one frame.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Deserialize;

use crate::tools::{allocations, instructions, system_calls};
use crate::traffic::Way;

/// Frames whose system calls are counted.
const UNDER_STRACE: usize = 101;

/// Frames of the shorter run under valgrind. The longer one has twice as many.
const UNDER_VALGRIND: usize = 1000;

/// How much more than was recorded is let pass. System calls are whole numbers. The rest is counted with what the program does
/// as time goes by, of which more falls to one frame when the machine is busy.
const MORE_CALLS: f64 = 0.5;
const MORE_ALLOCATIONS: f64 = 0.25;
const MORE_INSTRUCTIONS: f64 = 1.1;
const MORE_BYTES: f64 = 1.1;

/// What one frame takes.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Figures {
    pub(crate) instructions: f64,
    pub(crate) allocations: f64,
    pub(crate) allocated_bytes: f64,
    pub(crate) system_calls: BTreeMap<String, u64>,
}

/// One figure, and how much of it is allowed if so much was recorded.
pub(crate) struct Figure {
    pub(crate) name: String,
    pub(crate) value: f64,
    allowed: fn(f64) -> f64,
}

impl Figure {
    /// How much is allowed.
    pub(crate) fn allowed(&self, recorded: f64) -> f64 {
        (self.allowed)(recorded)
    }
}

impl Figures {
    /// Counts them.
    pub(crate) fn of(program: &Path, way: Way) -> Self {
        let per_frame = |one: u64, two: u64| (two as f64 - one as f64) / UNDER_VALGRIND as f64;
        let runs = [UNDER_VALGRIND, 2 * UNDER_VALGRIND];

        let system_calls = system_calls(program, way, UNDER_STRACE);
        let [one, two] = runs.map(|frames| instructions(program, way, frames));
        let instructions = per_frame(one, two);
        let [one, two] = runs.map(|frames| allocations(program, way, frames));
        Self {
            instructions,
            allocations: per_frame(one.times, two.times),
            allocated_bytes: per_frame(one.bytes, two.bytes),
            system_calls,
        }
    }

    /// All of them, and those of the record that are none any more.
    pub(crate) fn each(&self, recorded: &Self) -> Vec<Figure> {
        let calls = self.system_calls.keys().chain(recorded.system_calls.keys());
        let names: BTreeSet<_> = calls.collect();
        let mut figures: Vec<Figure> = names
            .into_iter()
            .map(|name| Figure {
                name: format!("system call {name}"),
                value: self.calls(name),
                allowed: |recorded| recorded + MORE_CALLS,
            })
            .collect();
        figures.push(Figure {
            name: "instructions".to_owned(),
            value: self.instructions,
            allowed: |recorded| recorded * MORE_INSTRUCTIONS,
        });
        figures.push(Figure {
            name: "allocations".to_owned(),
            value: self.allocations,
            allowed: |recorded| recorded + MORE_ALLOCATIONS,
        });
        figures.push(Figure {
            name: "allocated bytes".to_owned(),
            value: self.allocated_bytes,
            allowed: |recorded| recorded * MORE_BYTES,
        });
        figures
    }

    fn calls(&self, name: &str) -> f64 {
        self.system_calls.get(name).map_or(0.0, |calls| *calls as f64)
    }

    /// The figure of that name.
    pub(crate) fn named(&self, name: &str) -> f64 {
        match name {
            "instructions" => self.instructions,
            "allocations" => self.allocations,
            "allocated bytes" => self.allocated_bytes,
            call => self.calls(call.strip_prefix("system call ").unwrap_or(call)),
        }
    }
}
