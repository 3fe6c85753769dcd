//! How a bench measures: each case runs in samples of a few milliseconds, and the middle one of them is printed with the best,
//! as nanoseconds for one run of the case; then how much that is of the bytes it works on, and what it allocates.
//!
//! Allocations are counted by the allocator of the whole bench, which costs each of them a few nanoseconds and has
//! growing in place done as a copy. Times are for comparing one build with another on the same quiet machine.

#![allow(dead_code, reason = "each bench uses its own part of it")]

pub(crate) mod frames;

use std::cell::{Cell, RefCell};
use std::hint::black_box;
use std::process::exit;
use std::time::{Duration, Instant};

use allocation_counter::measure;

const SAMPLE: Duration = Duration::from_millis(4);
const SAMPLES: usize = 25;

/// Runs for which allocations are counted.
const COUNTED: u32 = 64;

/// The cases of one bench that the command line asks for: those whose names contain one of its words, or all.
pub(crate) struct Bench {
    wanted: Vec<Wanted>,
    /// The names of the cases that there were so far.
    names: RefCell<Vec<String>>,
}

struct Wanted {
    word: String,
    is_found: Cell<bool>,
}

impl Bench {
    /// From the command line. Prints the head of the table.
    pub(crate) fn begin() -> Self {
        // Cargo tells a bench that it is one.
        let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
        if let Some(option) = words.iter().find(|word| word.starts_with('-')) {
            eprintln!("bench: there is no option {option}; what is asked for is words of the names of cases");
            exit(2);
        }
        println!(
            "{:<52} {:>11} {:>11} {:>8} {:>9} {:>11}",
            "case", "ns (median)", "ns (best)", "GB/s", "allocs/op", "bytes/op"
        );
        let wanted = words.into_iter().map(|word| Wanted { word, is_found: Cell::new(false) }).collect();
        Self { wanted, names: RefCell::default() }
    }

    /// Whether that case is asked for.
    fn wants(&self, name: &str) -> bool {
        self.names.borrow_mut().push(name.to_owned());
        let asking = self.wanted.iter().filter(|wanted| name.contains(&wanted.word));
        let asked = asking.map(|wanted| wanted.is_found.set(true)).count();
        self.wanted.is_empty() || asked > 0
    }

    /// Measures `run`, which works on `bytes` bytes each time.
    pub(crate) fn case<T>(&self, name: &str, bytes: usize, mut run: impl FnMut() -> T) {
        if !self.wants(name) {
            return;
        }
        let runs = runs_for_a_sample(&mut run);
        let mut samples: Vec<f64> =
            (0..SAMPLES).map(|_| nanoseconds(time(runs, &mut run)) / f64::from(runs)).collect();
        samples.sort_by(f64::total_cmp);
        let taken = measure(|| {
            for _ in 0..COUNTED {
                black_box(run());
            }
        });
        let per_run = |count: u64| count as f64 / f64::from(COUNTED);
        let (best, median) = (samples[0], samples[SAMPLES / 2]);
        line(
            name,
            median,
            best,
            bytes as f64,
            Some((per_run(taken.count_total), per_run(taken.bytes_total))),
        );
    }

    /// The same for what uses several threads and measures its own time: `run` returns what one run took. Allocations are
    /// counted for one thread, so they are not shown.
    pub(crate) fn case_with_a_clock(&self, name: &str, bytes: usize, mut run: impl FnMut() -> Duration) {
        if !self.wants(name) {
            return;
        }
        let mut samples: Vec<f64> = (0..SAMPLES).map(|_| nanoseconds(run())).collect();
        samples.sort_by(f64::total_cmp);
        line(name, samples[SAMPLES / 2], samples[0], bytes as f64, None);
    }
}

/// When all cases have been there, it is known what names none.
impl Drop for Bench {
    fn drop(&mut self) {
        if let Some(unknown) = self.wanted.iter().find(|wanted| !wanted.is_found.get()) {
            if !std::thread::panicking() {
                let names = self.names.borrow().join("\n    ");
                eprintln!("bench: no case has {:?} in its name; there are:\n    {names}", unknown.word);
                exit(1);
            }
        }
    }
}

fn line(name: &str, median: f64, best: f64, bytes: f64, taken: Option<(f64, f64)>) {
    let rate = bytes / median;
    print!("{name:<52} {median:>11.1} {best:>11.1} {rate:>8.2}");
    match taken {
        Some((allocations, allocated)) => println!(" {allocations:>9.2} {allocated:>11.0}"),
        None => println!(" {:>9} {:>11}", "-", "-"),
    }
}

fn runs_for_a_sample<T>(run: &mut impl FnMut() -> T) -> u32 {
    let mut runs = 1;
    while time(runs, run) < SAMPLE && runs < u32::MAX / 2 {
        runs *= 2;
    }
    runs
}

fn time<T>(runs: u32, run: &mut impl FnMut() -> T) -> Duration {
    let began = Instant::now();
    for _ in 0..runs {
        black_box(run());
    }
    began.elapsed()
}

fn nanoseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e9
}
