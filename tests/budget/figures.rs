//! The figures of one direction, for one frame.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Deserialize;

use crate::tools::{allocations, executed, system_calls};
use crate::traffic::Way;

/// Frames whose system calls are counted.
const UNDER_STRACE: usize = 100;

/// Frames of the shorter run under valgrind. The longer one has twice as many.
const UNDER_VALGRIND: usize = 1000;

/// How much more than was recorded is let pass. Everything is counted with what the program does as time goes by, of which more falls to
/// one frame when the machine is slow. All of these are several times what runs differ by, beside two busy loops too. What every tenth
/// frame does is beyond them, and so is one lock more, which takes two atomic instructions.
const MORE_CALLS: f64 = 0.07;
const MORE_CLOCK_READS: f64 = 0.09;
const MORE_ALLOCATIONS: f64 = 0.09;
const MORE_ATOMICS: f64 = 0.5;

/// Here by which factor. How memory is copied depends on the processor: that makes nearly one per cent of the instructions.
const MORE_BYTES: f64 = 1.1;
const MORE_INSTRUCTIONS: f64 = 1.02;

/// What one frame takes.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Figures {
    pub(crate) instructions: f64,
    pub(crate) atomic_instructions: f64,
    pub(crate) clock_reads: f64,
    pub(crate) allocations: f64,
    pub(crate) allocated_bytes: f64,
    pub(crate) system_calls: BTreeMap<String, f64>,
}

/// A figure that is no system call.
struct Kind {
    name: &'static str,
    of: fn(&Figures) -> f64,
    /// How much is allowed if so much was recorded.
    allowed: fn(f64) -> f64,
    /// Whether another architecture has another figure.
    of_the_architecture: bool,
}

const KINDS: [Kind; 5] = [
    Kind {
        name: "clock reads",
        of: |figures| figures.clock_reads,
        allowed: |recorded| recorded + MORE_CLOCK_READS,
        of_the_architecture: false,
    },
    Kind {
        name: "allocations",
        of: |figures| figures.allocations,
        allowed: |recorded| recorded + MORE_ALLOCATIONS,
        of_the_architecture: false,
    },
    Kind {
        name: "allocated bytes",
        of: |figures| figures.allocated_bytes,
        allowed: |recorded| recorded * MORE_BYTES,
        of_the_architecture: false,
    },
    Kind {
        name: "atomic instructions",
        of: |figures| figures.atomic_instructions,
        allowed: |recorded| recorded + MORE_ATOMICS,
        of_the_architecture: true,
    },
    Kind {
        name: "instructions",
        of: |figures| figures.instructions,
        allowed: |recorded| recorded * MORE_INSTRUCTIONS,
        of_the_architecture: true,
    },
];

/// One figure beside the recorded one.
pub(crate) struct Figure {
    pub(crate) name: String,
    pub(crate) recorded: f64,
    pub(crate) now: f64,
    allowed: fn(f64) -> f64,
}

impl Figure {
    /// How much is allowed.
    pub(crate) fn allowed(&self) -> f64 {
        (self.allowed)(self.recorded)
    }

    /// Whether it is so much less that the record would let the old figure come back unseen.
    pub(crate) fn is_less(&self) -> bool {
        (self.allowed)(self.now) < self.recorded
    }
}

impl Figures {
    /// Counts them.
    pub(crate) fn of(program: &Path, way: Way) -> Self {
        let per_frame = |one: u64, two: u64| (two as f64 - one as f64) / UNDER_VALGRIND as f64;
        let runs = [UNDER_VALGRIND, 2 * UNDER_VALGRIND];

        let system_calls = system_calls(program, way, UNDER_STRACE);
        let [less, more] = runs.map(|frames| executed(program, way, frames));
        let [few, many] = runs.map(|frames| allocations(program, way, frames));
        Self {
            instructions: per_frame(less.instructions, more.instructions),
            atomic_instructions: per_frame(less.atomics, more.atomics),
            clock_reads: per_frame(less.clock_reads, more.clock_reads),
            allocations: per_frame(few.times, many.times),
            allocated_bytes: per_frame(few.bytes, many.bytes),
            system_calls,
        }
    }

    /// All of them beside the record's, and those of the record that are none any more. If that is `of_another_architecture`, without
    /// those that this decides.
    pub(crate) fn beside(&self, recorded: &Self, of_another_architecture: bool) -> Vec<Figure> {
        let calls = self.system_calls.keys().chain(recorded.system_calls.keys());
        let names: BTreeSet<_> = calls.collect();
        let calls = names.into_iter().map(|name| Figure {
            name: format!("system call {name}"),
            recorded: recorded.calls(name),
            now: self.calls(name),
            allowed: |recorded| recorded + MORE_CALLS,
        });
        let kinds = KINDS.into_iter().filter(|kind| !(kind.of_the_architecture && of_another_architecture));
        let others = kinds.map(|kind| Figure {
            name: kind.name.to_owned(),
            recorded: (kind.of)(recorded),
            now: (kind.of)(self),
            allowed: kind.allowed,
        });
        calls.chain(others).collect()
    }

    fn calls(&self, name: &str) -> f64 {
        self.system_calls.get(name).copied().unwrap_or_default()
    }
}
